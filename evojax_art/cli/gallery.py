"""`evojax-art gallery`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console

from evojax_art.artwork.gallery import Exhibit, gallery_page, unpacked
from evojax_art.artwork.sheets import contact_sheet
from evojax_art.cli.flags import parse_flags
from evojax_art.runs.exhibits import exhibition
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import check_writable, write_text, written_whole
from evojax_art.runtime.progress import StatusLine
from evojax_art.runtime.tables import POSITIONAL

_CELL = 160


@dataclass(frozen=True, kw_only=True)
class GalleryCommand:
    """Make a page of all that runs bred: one HTML file, to be opened in a browser.

    Attributes:
        inputs: folders of `evojax-art illuminate` and `evojax-art evolve`.
        out: the page; by default gallery.html in the first folder.
        title: of the page; by default the folders' names.
        most: pictures of each run, those that its networks agree on most, or the latest records;
            0: all.
        sheet: a PNG of the first pictures side by side, besides.
        sheet_pictures: how many, at most.
    """

    inputs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    out: Path | None = None
    title: str = ""
    most: int = 0
    sheet: Path | None = None
    sheet_pictures: int = 60

    def __post_init__(self):
        if self.most < 0:
            raise InputError(f"--most must be 0 or more, got {self.most}")
        if not 1 <= self.sheet_pictures <= 1000:
            raise InputError(f"--sheet-pictures must be 1 to 1000, got {self.sheet_pictures}")


def gallery(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(GalleryCommand, flags, "evojax-art gallery")
    folders = [Path(given) for given in command.inputs]
    if not folders:
        raise InputError("gallery: give the folder of a run, or of several")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder of a run")
    out = command.out or folders[0] / "gallery.html"
    for path in (out, command.sheet):
        if path:
            check_writable(path)
    keep_compiled()
    title = command.title or ", ".join(folder.resolve().name for folder in folders)
    exhibits = write_gallery(folders, out, title, command.most)
    if command.sheet:
        chosen = exhibits[: command.sheet_pictures]
        captions = [exhibit.name.split(",")[0] for exhibit in chosen]
        sheet = contact_sheet([unpacked(exhibit.large) for exhibit in chosen], captions, cell=_CELL)
        with written_whole(command.sheet) as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
    print(f"{len(exhibits)} pictures: {out}")


def write_gallery(
    folders: Sequence[Path], out: Path, title: str, most: int = 0
) -> Sequence[Exhibit]:
    """Draws what runs bred into a page, and says how far it is.

    Args:
        folders: of the runs.
        out: the page.
        title: of it.
        most: pictures of each run; 0 for all.

    Raises:
        InputError: a folder that is no run.
    """
    console = Console(stderr=True, highlight=False)
    with StatusLine(console, "drawing ...") as status:
        shown = exhibition(folders, status.show, most or None)
    write_text(out, gallery_page(title, shown.exhibits, shown.ancestors))
    return shown.exhibits
