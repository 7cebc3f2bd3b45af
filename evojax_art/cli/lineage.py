"""`evojax-art lineage`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from evojax_art.artwork.sheets import contact_sheet, spread
from evojax_art.cli.flags import parse_flags
from evojax_art.render.look import Raster
from evojax_art.runs.exhibits import drawn_as
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.lineage import bred_as, hosts, read_lineage
from evojax_art.runs.repertoire import Elite, parse_told, read_elites
from evojax_art.runs.toml import read_config
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.runtime.files import check_writable, written_whole
from evojax_art.runtime.tables import POSITIONAL

_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class LineageCommand:
    """Draw what the elite of a class descends from: the chain of hosts, the eldest first.

    Attributes:
        inputs: RUN CLASS: the folder of an illumination; a class by name, part of it, or index.
        out: the picture, a PNG; by default lineage-CLASS.png in the folder.
        cell: side of each ancestor's picture, pixels, 32 to 1024.
        most: pictures at most; of a longer chain some, evenly spread.
    """

    inputs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    out: Path | None = None
    cell: int = 192
    most: int = 24

    def __post_init__(self):
        if not 32 <= self.cell <= 1024:
            raise InputError(f"--cell must be 32 to 1024, got {self.cell}")
        if self.most < 2:
            raise InputError(f"--most must be 2 or more, got {self.most}")


def lineage(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(LineageCommand, flags, "evojax-art lineage")
    if len(command.inputs) != 2:
        raise InputError("lineage takes the folder of an illumination and a class: RUN CLASS")
    folder, query = Path(command.inputs[0]), command.inputs[1]
    elites = read_elites(folder)
    elite = _elite_of(elites, query)
    chain = hosts(read_lineage(folder), elite.id)
    config = read_config(folder / "config.toml", IlluminateConfig)
    out = command.out or folder / f"lineage-{_slug(elite, elites)}.png"
    check_writable(out)
    names: dict[int | None, str] = {one.class_: one.caption for one in elites}
    place = folder / "lineage.jsonl"
    formulas = [parse_told(one.formula, f"{place}: id {one.id}") for one in chain]
    raster = Raster(height=command.cell, width=command.cell, samples=3)
    look, shown = config.raster.look, spread(len(chain), command.most)
    pictures = [drawn_as(formulas[index], look, raster) for index in shown]
    classes = bred_as(chain, elite.class_)
    captions = [names.get(classes[index], "?") for index in shown]
    sheet = contact_sheet(pictures, captions, cell=command.cell, columns=_COLUMNS)
    with written_whole(out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    print(f"{len(chain)} ancestors, {len(shown)} shown: {out}")


def _slug(elite: Elite, elites: list[Elite]) -> str:
    """The class's name as a part of a file's; and its number, where others are called so too."""
    alike = {one.class_ for one in elites if one.caption.lower() == elite.caption.lower()}
    name = elite.caption[:40].lower() + (f"-{elite.class_}" if len(alike) > 1 else "")
    return re.sub(r"[^0-9a-z]+", "-", name)


def _elite_of(elites: list[Elite], query: str) -> Elite:
    """The most confident elite of the class that is meant.

    Raises:
        InputError: none, or several classes.
    """
    wanted = query.strip().lower()
    readings = (
        lambda elite: wanted == str(elite.class_),
        lambda elite: wanted in [part.strip().lower() for part in elite.name.split(",")],
        lambda elite: re.search(rf"\b{re.escape(wanted)}\b", elite.name.lower()),
    )
    for fits in readings:
        found = [elite for elite in elites if wanted and fits(elite)]
        classes = {elite.class_: elite.caption for elite in found}
        if len(classes) > 1:
            among = ", ".join(f"{index} {name}" for index, name in sorted(classes.items()))
            raise InputError(f"class {query!r} may be one of: {among}; give its number")
        if found:
            return max(found, key=lambda elite: elite.confidence)
    near = suggest(wanted, [part.strip() for elite in elites for part in elite.name.split(",")])
    raise InputError(f"class {query!r} has no elite here{near}")
