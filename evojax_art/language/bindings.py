"""Pictures bound to names: by flags, and by the PNGs that were drawn with them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from evojax_art.language.formula import Expression, image_ops
from evojax_art.language.photographs import Pyramid, pyramid, read_image
from evojax_art.runtime.errors import InputError

CHUNK = "images"  # of a PNG's text: JSON, {name: {"file":, "whole":, "sha256":}}
_FLAG = re.compile(r"([^=:]*)(?::([^=]*))?=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """Where a picture comes from.

    Attributes:
        name: of its leaf.
        file: as it was given.
        whole: which convention, see `images`.
        sha256: of the file's bytes, hexadecimal.
    """

    name: str
    file: Path
    whole: bool
    sha256: str


@dataclass(frozen=True)
class Bound:
    """Pictures under names, slot by slot.

    Attributes:
        sources: where they come from.
        pyramids: as interpreters take them.
    """

    sources: tuple[Source, ...] = ()
    pyramids: tuple[Pyramid, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """As `formula.parse` takes them."""
        return tuple(source.name for source in self.sources)

    def chunk(self, expression: Expression) -> dict[str, str]:
        """What a PNG's text says of the pictures that a formula reads; empty if there are none."""
        slots = {op.image for op, _ in expression.postfix}
        read = [source for slot, source in enumerate(self.sources) if slot in slots]
        entries = {
            source.name: {
                "file": str(source.file),
                "whole": source.whole,
                "sha256": source.sha256,
            }
            for source in read
        }
        return {CHUNK: json.dumps(entries)} if entries else {}


def bind_images(flags: Sequence[str]) -> Bound:
    """The pictures that `--image` flags name.

    Args:
        flags: `NAME=FILE` for the original's convention, or `NAME:whole=FILE`, see `images`.

    Raises:
        InputError: a flag of another form, a name that no picture can have, an unreadable file.
    """
    wanted = [_wanted(flag) for flag in flags]
    image_ops([name for name, _, _ in wanted])
    return _bound(_opened(*item) for item in wanted)


def names_with(names: Sequence[str], text: Mapping[str, str]) -> tuple[str, ...]:
    """Names of pictures and behind them those that a PNG's text adds; these have the later slots.

    Raises:
        InputError: the text is damaged.
    """
    known = {name.lower() for name in names}
    return (*names, *(name for name in _entries(text) if name.lower() not in known))


def bound_with(bound: Bound, text: Mapping[str, str], folder: Path) -> Bound:
    """Bound pictures, and behind them those that a PNG's text adds: for `names_with`.

    Args:
        bound: they go before what the text says of the same names.
        text: of the PNG.
        folder: of the PNG, where files are looked for that are not found as they were given.

    Raises:
        InputError: the text is damaged, a file is gone, or is not what it was.
    """
    entries = _entries(text)
    added = [
        _found(name, entries[name], folder)
        for name in names_with(bound.names, text)[len(bound.names) :]
    ]
    more = _bound(added)
    return Bound(bound.sources + more.sources, bound.pyramids + more.pyramids)


def _wanted(flag: str) -> tuple[str, Path, bool]:
    match = _FLAG.fullmatch(flag)
    if not match or match[2] not in (None, "whole"):
        raise InputError(
            f"--image {flag}: give NAME=FILE or NAME:whole=FILE, as in --image cat=photo.jpg"
        )
    return match[1], Path(match[3]), match[2] == "whole"


def _opened(name: str, file: Path, whole: bool) -> tuple[Source, Path]:
    return Source(name, file, whole, _checksum(file)), file


def _found(name: str, entry: Mapping[str, object], folder: Path) -> tuple[Source, Path]:
    """A picture of a PNG's text, if it is still what it was."""
    given = Path(str(entry["file"]))
    place = next((path for path in (given, folder / given) if path.is_file()), None)
    override = f"give it with --image {name}{':whole' if entry['whole'] else ''}=FILE"
    if place is None:
        raise InputError(f"the picture {name!r} of this formula, {given}, is not there; {override}")
    source = Source(name, given, bool(entry["whole"]), str(entry["sha256"]))
    if _checksum(place) != source.sha256:
        raise InputError(
            f"the picture {name!r} of this formula, {place}, is not the file that it was; "
            f"to take it as it is now, {override}"
        )
    return source, place


def _bound(sources: Iterator[tuple[Source, Path]] | Sequence[tuple[Source, Path]]) -> Bound:
    pairs = list(sources)
    pyramids = (_pyramid_of(place, source.whole, source.sha256) for source, place in pairs)
    return Bound(tuple(source for source, _ in pairs), tuple(pyramids))


@lru_cache(maxsize=4)
def _pyramid_of(file: Path, whole: bool, sha256: str) -> Pyramid:
    """Several formulas may come with the same picture."""
    del sha256
    return pyramid(read_image(file) / np.float32(255), whole)


def _checksum(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read picture {file}: {error.strerror}") from error


def _entries(text: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """What a PNG's text says of pictures, by name."""
    if CHUNK not in text:
        return {}
    try:
        entries = json.loads(text[CHUNK])
        for name, entry in entries.items():
            image_ops([name])
            if not {"file", "whole", "sha256"} <= entry.keys():
                raise ValueError(name)
    except (ValueError, AttributeError) as error:
        raise InputError(f"what this PNG says of its pictures is damaged: {error}") from None
    return entries
