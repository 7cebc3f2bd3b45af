"""Fetching published weights into the cache, the only place where this package uses the network."""

import tempfile
from pathlib import Path

import pooch

from evojax_art.nets.entry import Published
from evojax_art.nets.registry import lookup, missing_weights, weights_path
from evojax_art.runtime.errors import InputError


def download(name: str, *, progress=True, url: str | None = None) -> Path:
    """Fetches a network's published weights into the cache, unless they are there.

    The file is checked against the digest that the registry knows, and appears in one step.

    Args:
        name: a name of the registry.
        progress: True for a bar on standard error, or an object with pooch's progress methods.
        url: another address of the same file.

    Returns:
        Where it lies.

    Raises:
        InputError: no network, a wrong file, or a folder that cannot be written; says which file
            to place where by hand.
    """
    published, path = lookup(name).weights, weights_path(name)
    if path.exists():
        return path
    if not isinstance(published, Published):
        raise missing_weights(name)
    source = url or published.url
    by_hand = f"place {published.file_name} at {path} by hand, or give a file with --weights"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / published.file_name
            pooch.HTTPDownloader(progressbar=progress, timeout=30)(source, part, None)
            digest = published.digest_of(part.read_bytes())
            if digest != published.digest:
                raise InputError(
                    f"what came from {source} is not {published.file_name}: its "
                    f"{published.checksum} is {digest} in place of {published.digest}; {by_hand}"
                )
            part.replace(path)
    except InputError:
        raise
    except OSError as error:  # requests' errors are OSErrors too
        raise InputError(f"cannot fetch {source} ({_reason(error)}); {by_hand}") from error
    return path


def _reason(error: OSError) -> str:
    """What happened in few words; the text of requests' errors holds addresses of objects."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else error.strerror or type(error).__name__
