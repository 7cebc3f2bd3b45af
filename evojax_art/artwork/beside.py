"""Files that belong to a picture: photographs that its formula reads, its guide.

A picture may come from a stranger, and names files by paths. Where these lead nowhere is looked:
to open them, or to tell whether they are there, would be a way to ask what a computer holds. What
is opened is, with the checksum that the picture tells, and nothing else:

- what a user names with a flag;
- beside the picture: in its folder, or deeper if it was named by such a path, under its own name;
- in a folder `photographs` there. A run keeps copies in one, under names that are made of their
  checksums, for itself and the pictures in its folder `records`: its pictures can be drawn anew
  from wherever they are, while the folder stays whole.

Links that lead out of these folders are not followed.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from evojax_art.artwork.provenance import Provenance
from evojax_art.language.bindings import Bound, Source, bound_to, checksum
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import written_whole

_KEPT = "photographs"
_RECORDS = "records"
_CHECKSUM = re.compile("[0-9a-f]{64}")


def names_with(names: Sequence[str], photographs: Sequence[Source]) -> tuple[str, ...]:
    """Names of pictures and behind them those that a PNG adds; these have the later slots."""
    known = {name.lower() for name in names}
    return (*names, *(one.name for one in photographs if one.name.lower() not in known))


def bound_with(bound: Bound, photographs: Sequence[Source], folder: Path) -> Bound:
    """Bound pictures, and behind them those that a PNG adds: for `names_with`.

    Args:
        bound: they go before what the PNG says of the same names.
        photographs: as the PNG says.
        folder: of the PNG.

    Raises:
        InputError: one is not there, or not as it was.
    """
    added = names_with(bound.names, photographs)[len(bound.names) :]
    more = bound_to(_found(source, folder) for source in photographs if source.name in added)
    return Bound(bound.sources + more.sources, bound.pyramids + more.pyramids)


def guide_beside(provenance: Provenance, folder: Path) -> Path:
    """The guide that a picture was made with.

    Args:
        provenance: of the picture, which had one.
        folder: of the picture.

    Raises:
        InputError: it is not there, or not as it was, or its checksum is not known.
    """
    guide = Path(provenance.guide)
    place = found_beside(guide, provenance.guide_sha256, folder)
    if place is None:
        raise InputError(
            f"the guide of this picture, {guide.name!r}, is not beside it as it was; "
            "give it with --guide FILE"
        )
    return place


def found_beside(file: Path, sha256: str, folder: Path) -> Path | None:
    """A file that a picture names, if it belongs to it and is what it was.

    Args:
        file: as the picture names it.
        sha256: of its bytes, as the picture says; empty fits none.
        folder: of the picture.
    """
    if not _CHECKSUM.fullmatch(sha256):
        return None
    for place in _places(file, sha256, folder):
        try:
            if place.is_file() and checksum(place) == sha256:
                return place
        except (OSError, InputError):
            continue
    return None


def _found(source: Source, folder: Path) -> Source:
    place = found_beside(source.file, source.sha256, folder)
    if place is None:
        flag = f"--image {source.name}{':whole' if source.whole else ''}=FILE"
        raise InputError(
            f"the picture {source.name!r} that this formula reads, {source.file.name!r}, is not "
            f"beside it as it was; give it with {flag}"
        )
    return replace(source, found=place)


def keep(file: Path, sha256: str, folder: Path) -> None:
    """Puts a copy of a file where pictures in a folder, and in its `records`, find it.

    Args:
        file: what is copied.
        sha256: of its bytes.
        folder: of the pictures.

    Raises:
        InputError: it cannot be read, or the copy cannot be written.
    """
    kept = folder / _KEPT / _kept_name(file, sha256)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write folder {kept.parent}: {error.strerror}") from error
    with written_whole(kept) as temporary:
        shutil.copyfile(file, temporary)


def _kept_name(file: Path, sha256: str) -> str:
    return f"{sha256[:16]}{file.suffix.lower()}"


def _places(file: Path, sha256: str, folder: Path) -> Iterator[Path]:
    """Where a file may be looked for."""
    home, kept = folder.resolve(), _kept_name(file, sha256)
    within = not file.is_absolute() and ".." not in file.parts  # else nothing but its name counts
    wanted = [(home, file)] if within else []
    wanted += [(home, Path(file.name)), (home, Path(_KEPT, kept))]
    if home.name == _RECORDS:
        wanted.append((home.parent / _KEPT, Path(kept)))
    for base, name in wanted:
        try:
            place = (base / name).resolve()
        except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a zero byte
            continue
        if place.is_relative_to(base):
            yield place
