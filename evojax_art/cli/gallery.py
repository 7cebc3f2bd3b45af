"""`evojax-art gallery`."""

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console

from evojax_art.artwork.gallery import gallery_page
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
        sheet: a PNG of the first pictures side by side, besides.
        sheet_pictures: how many, at most.
    """

    inputs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    out: Path | None = None
    title: str = ""
    sheet: Path | None = None
    sheet_pictures: int = 60

    def __post_init__(self):
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
    console = Console(stderr=True, highlight=False)
    with StatusLine(console, "drawing ...") as status:
        shown = exhibition(folders, status.show)
    title = command.title or ", ".join(folder.resolve().name for folder in folders)
    write_text(out, gallery_page(title, shown.exhibits, shown.ancestors))
    if command.sheet:
        chosen = shown.exhibits[: command.sheet_pictures]
        captions = [exhibit.name.split(",")[0] for exhibit in chosen]
        sheet = contact_sheet([exhibit.large for exhibit in chosen], captions, cell=_CELL)
        with written_whole(command.sheet) as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
    print(f"{len(shown.exhibits)} pictures: {out}")
