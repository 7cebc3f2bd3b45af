"""Pictures bound to names, that formulas read."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from evojax_art.language.formula import Expression, image_ops
from evojax_art.language.photographs import Pyramid, pyramid, read_image
from evojax_art.runtime.errors import InputError

_FLAG = re.compile(r"([^=:]*)(?::([^=]*))?=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """Where a picture comes from.

    Attributes:
        name: of its leaf.
        file: as it was given.
        whole: which convention, see `images`.
        sha256: of the file's bytes, hexadecimal.
        found: where the file is, if not where it was said to be.
    """

    name: str
    file: Path
    whole: bool
    sha256: str
    found: Path | None = None

    @property
    def place(self) -> Path:
        """Where the file is."""
        return self.found or self.file


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

    def read_by(self, expression: Expression) -> tuple[Source, ...]:
        """Those that a formula reads."""
        slots = {op.image for op, _ in expression.postfix}
        return tuple(source for slot, source in enumerate(self.sources) if slot in slots)


def bind_images(flags: Sequence[str]) -> Bound:
    """The pictures that `--image` flags name.

    Args:
        flags: `NAME=FILE` for the original's convention, or `NAME:whole=FILE`, see `images`.

    Raises:
        InputError: a flag of another form, a name that no picture can have, an unreadable file.
    """
    wanted = [_wanted(flag) for flag in flags]
    image_ops([name for name, _, _ in wanted])
    return bound_to(Source(name, file, whole, checksum(file)) for name, file, whole in wanted)


def _wanted(flag: str) -> tuple[str, Path, bool]:
    match = _FLAG.fullmatch(flag)
    if not match or match[2] not in (None, "whole"):
        raise InputError(
            f"--image {flag}: give NAME=FILE or NAME:whole=FILE, as in --image cat=photo.jpg"
        )
    return match[1], Path(match[3]), match[2] == "whole"


def bound_to(sources: Iterable[Source]) -> Bound:
    """Pictures that are read from files, whose checksums are right.

    Raises:
        InputError: no picture.
    """
    sources = tuple(sources)
    pyramids = (_pyramid_of(source.place, source.whole, source.sha256) for source in sources)
    return Bound(sources, tuple(pyramids))


@lru_cache(maxsize=4)
def _pyramid_of(file: Path, whole: bool, sha256: str) -> Pyramid:
    """Several formulas may come with the same picture."""
    del sha256
    return pyramid(read_image(file) / np.float32(255), whole)


def checksum(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read picture {file}: {error.strerror}") from error
