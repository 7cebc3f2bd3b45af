"""`evojax-art render`."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress, TaskID

from evojax_art.artwork.picture import png_writer
from evojax_art.artwork.provenance import Provenance
from evojax_art.cli.flags import parse_flags
from evojax_art.cli.inputs import Given, look_of, output_paths, picture_crop, picture_size, read_all
from evojax_art.language.bindings import Bound, bind_images
from evojax_art.language.ops import Crunch
from evojax_art.render.large import render_bands, to_bytes
from evojax_art.render.look import Look, Raster
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.tables import POSITIONAL, REPEATABLE


@dataclass(frozen=True, kw_only=True)
class RenderCommand:
    """Draw formulas.

    A PNG of ours says what z, crunch and smoothing it was made with, and which photographs its
    formula reads; flags override that.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON.
        out: the PNG, picture.png by default, or a folder, pictures, where there are several
            formulas; existing files are replaced.
        size: WIDTHxHEIGHT, or one number for a square.
        z: the third coordinate.
        crunch: colours; 1995 is black beyond +-30.
        smooth: the original's plus-shaped blur.
        crop: LEFT,TOP,WIDTH,HEIGHT: draw this part of the picture alone, in its pixels.
        samples: n by n samples per pixel, up to 64.
        jitter: samples at random places of their cells: fine detail becomes grain instead of moire.
        adaptive: all samples only where the first 2 by 2, or neighbours, differ by more than this,
            of 1; 0 is everywhere, 0.05 hard to tell from it and much quicker.
        bits: of a channel: 8 or 16.
        image: NAME=FILE: a photograph that formulas read as the leaf NAME; up to four such flags.
            NAME:whole=FILE for all of it, not its middle as in 1995: drawn at its own size, with
            one sample, the bare leaf then is the photograph.
        lenient: read formulas as the 1995 program does, never complaining.
    """

    inputs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    out: Path | None = None
    size: str = "512"
    z: float | None = None
    crunch: Crunch | None = None
    smooth: bool = False
    crop: str = ""
    samples: int = 2
    jitter: bool = False
    adaptive: float = 0.0
    bits: Literal[8, 16] = 8
    image: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    lenient: bool = False


def render(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(RenderCommand, flags, "evojax-art render")
    keep_compiled()
    flagged = bind_images(command.image)
    jobs = read_all(command.inputs, flagged, "render", lenient=command.lenient)
    looks = [
        look_of(given, z=command.z, crunch=command.crunch, smooth=command.smooth)
        for given, _ in jobs
    ]
    width, height = picture_size(command.size)
    raster = Raster(
        height=height,
        width=width,
        samples=command.samples,
        jitter=command.jitter,
        crop=picture_crop(command.crop),
    )
    paths = output_paths(command.out, len(jobs), "render", "picture.png", "pictures")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for (given, bound), look, path in zip(jobs, looks, paths, strict=True):
            task = progress.add_task(path.name, total=1.0)
            bands = render_bands(
                given.expression,
                look,
                raster,
                adaptive=command.adaptive,
                progress_fn=partial(_update, progress, task),
                images=bound.pyramids,
            )
            said = _provenance(given, bound, look, raster, command.adaptive).to_text()
            with png_writer(path, *raster.part[2:], said) as write_fn:
                for band in bands:
                    write_fn(to_bytes(band, command.bits))
            progress.remove_task(task)
    print(paths[0].parent if len(jobs) > 1 else paths[0])


def _update(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def _provenance(
    given: Given, bound: Bound, look: Look, raster: Raster, adaptive: float
) -> Provenance:
    came = given.provenance
    if came.look != look:  # what it scored it did not score so
        came = replace(came, score=None, value=None, unseen_score=None, noise=None)
    return replace(
        came,
        formula=str(given.expression),
        photographs=bound.read_by(given.expression),
        look=look,
        raster=raster,
        adaptive=adaptive,
        fps=None,
    )
