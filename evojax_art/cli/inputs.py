"""What several commands take: formulas as text or in files, and sizes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from evojax_art.artwork.beside import bound_with
from evojax_art.artwork.formula_files import read_formulas
from evojax_art.artwork.provenance import Provenance, read_provenance
from evojax_art.language.bindings import Bound
from evojax_art.language.formula import Expression, FormulaError, check_images, parse
from evojax_art.language.ops import Crunch
from evojax_art.render.look import Look
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import check_writable


@dataclass(frozen=True)
class Given:
    """A formula that a user gave.

    Attributes:
        expression: the formula.
        provenance: all that its picture says of itself; empty where there was none.
        folder: of the picture.
    """

    expression: Expression
    provenance: Provenance = field(default_factory=Provenance)
    folder: Path = Path()

    @property
    def look(self) -> Look:
        """How its picture was drawn, where it came in one."""
        return self.provenance.look or Look()

    def bound(self, bound: Bound) -> Bound:
        """The pictures that the formula may read, where those given with flags are `bound`.

        Raises:
            InputError: one that the formula came with is not beside it, or not as it was.
        """
        return bound_with(bound, self.provenance.photographs, self.folder)


def read_given(given: str, *, lenient: bool = False, images: Sequence[str] = ()) -> list[Given]:
    """The formulas that one argument means, at least one.

    Args:
        given: a formula as text, or a file: a PNG of ours, text (one a line) or JSON.
        lenient: read formulas as the 1995 program does.
        images: names of pictures given with flags; see `Given.bound`.

    Raises:
        InputError: neither a file nor a formula, or one with a mistake in it.
    """
    path = Path(given)
    is_file = path.suffix.lower() in (".png", ".txt", ".json") or (
        len(given) < 256 and path.is_file()
    )
    if is_file:
        expressions = read_formulas(path, lenient=lenient, images=images)
        is_png = path.suffix.lower() == ".png"
        provenance = read_provenance(path) if is_png else Provenance()
        return [Given(expression, provenance, path.parent) for expression in expressions]
    try:
        return [Given(parse(given, lenient=lenient, images=images))]
    except FormulaError as error:
        if not re.search(r"[()\s]", given):
            raise InputError(f"{given!r} is no file, and no formula either: {error}") from None
        raise


def read_all(
    inputs: Sequence[str], flagged: Bound, command: str, *, lenient: bool = False
) -> list[tuple[Given, Bound]]:
    """The formulas that all arguments mean, at least one, each with the pictures it may read.

    Args:
        inputs: see `read_given`.
        flagged: pictures given with flags.
        command: for the error where there are none.
        lenient: read formulas as the 1995 program does.

    Raises:
        InputError: as `read_given` and `Given.bound`; a picture that is not bound.
    """
    given = [
        one for text in inputs for one in read_given(text, lenient=lenient, images=flagged.names)
    ]
    if not given:
        raise InputError(f"{command}: give a formula or a file")
    pairs = [(one, one.bound(flagged)) for one in given]
    for one, bound in pairs:
        check_images(one.expression, len(bound.names))
    return pairs


def look_of(
    given: Given, *, z: float | None = None, crunch: Crunch | None = None, smooth: bool = False
) -> Look:
    """How a formula is drawn: as flags say, which can switch smoothing on only, else as it came.

    Args:
        given: the formula.
        z: of a flag, as the others.
        crunch: colours.
        smooth: the blur.

    Raises:
        InputError: a z that is not finite.
    """
    came = given.look
    return Look(
        z=came.z if z is None else z, crunch=crunch or came.crunch, smooth=smooth or came.smooth
    )


def output_paths(out: Path | None, count: int, command: str, file: str, folder: str) -> list[Path]:
    """Where so many PNGs go; their folder is there, and one file can be written.

    Args:
        out: as given; a file for one picture, a folder for several.
        count: of the pictures.
        command: for errors.
        file: where one goes if nothing was given.
        folder: where several go then.

    Raises:
        InputError: several into one file, a file that is another kind of picture by its name, or a
            place that cannot be written.
    """
    if count == 1:
        path = out or Path(file)
        if path.suffix.lower() in Image.registered_extensions().keys() - {".png"}:
            raise InputError(
                f"cannot write {path}: pictures are PNG files; give {path.with_suffix('.png')}"
            )
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
        check_writable(path)  # known before the work, not after it
        return [path]
    if out and out.suffix:
        raise InputError(
            f"{command}: {count} formulas cannot go into one file; give a folder with --out"
        )
    out = out or Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write folder {out}: {error.strerror}") from error
    return [out / f"{number:04d}.png" for number in range(1, count + 1)]


def picture_size(text: str) -> tuple[int, int]:
    """Width and height from `--size`.

    Raises:
        InputError: not one or two numbers from 1 to 65536.
    """
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text, re.ASCII)
    width, height = (int(part) for part in match.groups(match.group(1))) if match else (0, 0)
    if not (0 < width <= 1 << 16 and 0 < height <= 1 << 16):
        raise InputError(
            f"--size {text}: give WIDTHxHEIGHT or one number, each from 1 to 65536, as in 640x480"
        )
    return width, height


def picture_crop(text: str) -> tuple[int, int, int, int] | None:
    """Left, top, width and height from `--crop`; None for no text.

    Raises:
        InputError: not four whole numbers.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", text, re.ASCII)
    if not match:
        raise InputError(
            f"--crop {text}: give LEFT,TOP,WIDTH,HEIGHT in pixels of the picture, as in 100,0,64,48"
        )
    left, top, width, height = (int(part) for part in match.groups())
    return left, top, width, height
