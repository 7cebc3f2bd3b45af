"""The registry of networks, and where their weights come from.

`load_net` never touches the network: it takes a given file, or the one in the cache. Only
`download` fetches, by explicit request.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
from flax import nnx
from safetensors.numpy import load_file

from evojax_art.errors import InputError, suggest
from evojax_art.nets import squeezenet, torch_files
from evojax_art.nets.base import Classifier

CACHE_VARIABLE = "EVOJAX_ART_CACHE"


@dataclass(frozen=True, kw_only=True)
class NetEntry:
    """One network of the registry.

    Attributes:
        build: makes the module, weights still random.
        class_names: its classes, without building it.
        convert: published tensors to this module's parameter paths.
        url: where the weights are published; the file's name carries the first digits of its
            SHA-256 behind the last `-`, as all of torchvision's do.
        summary: one line for people.
    """

    build: Callable[..., Classifier]
    class_names: Callable[[], tuple[str, ...]]
    convert: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    url: str
    summary: str

    @property
    def file_name(self) -> str:
        """Of the published file, and of its copy in the cache."""
        return self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """First digits of the published file's SHA-256."""
        return self.file_name.rpartition("-")[2].partition(".")[0]


REGISTRY: dict[str, NetEntry] = {
    "squeezenet1_1": NetEntry(
        build=squeezenet.SqueezeNet,
        class_names=squeezenet.class_names,
        convert=squeezenet.from_torchvision,
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        summary="SqueezeNet 1.1, 1000 ImageNet classes, 224x224, 1.2 M parameters (torchvision)",
    ),
}


def load_net(
    name: str = "squeezenet1_1", weights: str | Path | None = None, *, dtype=jnp.float32
) -> Classifier:
    """A classifier with its weights.

    Args:
        name: a name of the registry, see `evojax-art nets`.
        weights: a `.safetensors` or `.pth` file; None takes the one in the cache.
        dtype: of the arithmetic, float32 or bfloat16.

    Raises:
        InputError: an unknown name; a missing, damaged or wrong file, saying what to place where.
    """
    entry = lookup(name)
    path = Path(weights) if weights is not None else cached_path(name)
    if not path.exists():
        hint = (
            "check the path"
            if weights is not None
            else f"run `evojax-art nets {name} --download`, or place {entry.file_name} there "
            f"(from {entry.url}), or give a file with --weights"
        )
        raise InputError(f"no weights at {path}; {hint}")
    net = entry.build(dtype=dtype, rngs=nnx.Rngs(0))
    _assign(net, entry.convert(read_tensors(path)), path, name)
    return net


def lookup(name: str) -> NetEntry:
    """The registry's row of that name.

    Raises:
        InputError: no such network; names the nearest.
    """
    if name not in REGISTRY:
        near = suggest(name, REGISTRY) or f"; there are {', '.join(REGISTRY)}"
        raise InputError(f"unknown network {name!r}{near}")
    return REGISTRY[name]


def cache_folder() -> Path:
    """Where downloaded weights live: $EVOJAX_ART_CACHE, or the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("evojax_art"))


def cached_path(name: str) -> Path:
    """Where the weights of a network are expected."""
    return cache_folder() / lookup(name).file_name


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file, its format recognised by its content.

    Raises:
        InputError: unreadable or damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":  # eight bytes of length, then a JSON object
            return load_file(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # safetensors has an exception class of its own
        raise InputError(f"{path}: a damaged safetensors file ({error}); get it again") from error
    return torch_files.read_tensors(path)


def download(name: str, *, progress=True, url: str | None = None) -> Path:
    """Fetches a network's published weights into the cache, unless they are there.

    The file is checked against the hash in its name and appears in one step.

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
    entry = lookup(name)
    path = cached_path(name)
    if path.exists():
        return path
    source = url or entry.url
    by_hand = f"place {entry.file_name} at {path} by hand, or give a file with --weights"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / entry.file_name
            pooch.HTTPDownloader(progressbar=progress, timeout=30)(source, part, None)
            digest = hashlib.sha256(part.read_bytes()).hexdigest()
            if not digest.startswith(entry.hash_prefix):
                raise InputError(
                    f"what came from {source} is not {entry.file_name}: its SHA-256 begins with "
                    f"{digest[:8]}; {by_hand}"
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


def _assign(net: nnx.Module, tensors: dict[str, np.ndarray], path: Path, name: str) -> None:
    parameters = nnx.to_flat_state(nnx.state(net, nnx.Param))
    wanted = {"/".join(map(str, keys)): variable for keys, variable in parameters}
    missing = sorted(set(wanted) - set(tensors))
    unknown = sorted(set(tensors) - set(wanted))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}, which is unknown"
        raise InputError(f"{path}: not the weights of {name}, it {what}")
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are found below
        tensors = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
    for key, variable in wanted.items():
        if tensors[key].shape != variable.shape:
            raise InputError(
                f"{path}: not the weights of {name}, {key} has shape {tensors[key].shape} in place "
                f"of {variable.shape}"
            )
        if not np.isfinite(tensors[key]).all():
            raise InputError(f"{path}: damaged, {key} holds numbers that are not finite")
    loaded = [
        (keys, variable.replace(jnp.asarray(tensors["/".join(map(str, keys))])))
        for keys, variable in parameters
    ]
    nnx.update(net, nnx.from_flat_state(loaded))
