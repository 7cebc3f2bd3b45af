"""`evojax-art render`."""

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress

from evojax_art.commands.inputs import Look, picture_size, read_given
from evojax_art.compilation import keep_compiled
from evojax_art.config import parse_flags
from evojax_art.errors import InputError
from evojax_art.large import render_large
from evojax_art.ops import Crunch
from evojax_art.picture import write_png


@dataclass(frozen=True, kw_only=True)
class RenderCommand:
    """Draw formulas.

    A PNG of ours says what z, crunch and smoothing it was made with; flags override that.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON.
        out: the PNG, or a folder where there are several formulas; existing files are replaced.
        size: WIDTHxHEIGHT, or one number for a square.
        z: the third coordinate.
        crunch: colours; 1995 is black beyond +-30.
        smooth: the original's plus-shaped blur.
        samples: n by n samples per pixel.
        lenient: read formulas as the 1995 program does, never complaining.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Path = Path("picture.png")
    size: str = "512"
    z: float | None = None
    crunch: Crunch | None = None
    smooth: bool = False
    samples: int = 2
    lenient: bool = False


def render(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(RenderCommand, flags, "evojax-art render")
    keep_compiled()
    width, height = picture_size(command.size)
    jobs = [job for text in command.inputs for job in read_given(text, lenient=command.lenient)]
    if not jobs:
        raise InputError("render: give a formula or a file")
    several = len(jobs) > 1
    if several and command.out.suffix and command.out != RenderCommand.out:
        raise InputError(
            f"render: {len(jobs)} formulas cannot go into one file; give a folder with --out"
        )
    folder = Path("pictures") if several and command.out.suffix else command.out
    if several:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write folder {folder}: {error.strerror}") from error
    elif not command.out.parent.is_dir():  # known before the work, not after it
        raise InputError(f"cannot write {command.out}: there is no folder {command.out.parent}")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for number, given in enumerate(jobs, 1):
            look = asdict(_chosen_look(given.look, command))
            path = folder / f"{number:04d}.png" if several else command.out
            task = progress.add_task(path.name, total=1.0)
            picture = render_large(
                given.expression,
                height,
                width,
                samples=command.samples,
                progress_fn=lambda share, task=task: progress.update(task, completed=share),
                **look,
            )
            text = {"formula": given.expression, "samples": command.samples, **look}
            write_png(path, picture, text)
            progress.remove_task(task)
    print(folder if several else command.out)


def _chosen_look(look: Look, command: RenderCommand) -> Look:
    """What the formula came with, and what flags say in its place."""
    z = look.z if command.z is None else command.z
    return Look(z=z, crunch=command.crunch or look.crunch, smooth=look.smooth or command.smooth)
