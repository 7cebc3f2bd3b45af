"""`evojax-art render`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import Progress, TaskID

from evojax_art.artwork.picture import png_writer
from evojax_art.cli.inputs import Given, output_paths, picture_crop, picture_size, read_all
from evojax_art.language.bindings import Bound, bind_images
from evojax_art.language.ops import Crunch
from evojax_art.render.large import View, render_bands, to_bytes
from evojax_art.render.look import Look
from evojax_art.runs.config import parse_flags
from evojax_art.runtime.cache import keep_compiled


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

    inputs: tyro.conf.Positional[tuple[str, ...]]
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
    image: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    lenient: bool = False


def render(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(RenderCommand, flags, "evojax-art render")
    keep_compiled()
    flagged = bind_images(command.image)
    jobs = read_all(command.inputs, flagged, "render", lenient=command.lenient)
    views = [_view(given.look, command) for given, _ in jobs]
    paths = output_paths(command.out, len(jobs), "render", "picture.png", "pictures")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for (given, bound), view, path in zip(jobs, views, paths, strict=True):
            task = progress.add_task(path.name, total=1.0)
            progress_fn = partial(_update, progress, task)
            _draw(given, bound, view, command.bits, path, progress_fn)
            progress.remove_task(task)
    print(paths[0].parent if len(jobs) > 1 else paths[0])


def _update(progress: Progress, task: TaskID, share: float) -> None:
    progress.update(task, completed=share)


def _draw(
    given: Given,
    bound: Bound,
    view: View,
    bits: Literal[8, 16],
    path: Path,
    progress_fn: Callable[[float], None],
) -> None:
    left, top, width, height = view.part
    text = {
        "formula": given.expression,
        "z": view.z,
        "crunch": view.crunch,
        "smooth": view.smooth,
        "samples": view.samples,
    }
    if view.jitter:
        text["jitter"] = True
    if view.adaptive:
        text["adaptive"] = view.adaptive
    if view.crop:
        text["crop"] = f"{left},{top},{width},{height} of {view.width}x{view.height}"
    text |= bound.chunk(given.expression)
    with png_writer(path, width, height, text) as write_fn:
        bands = render_bands(given.expression, view, progress_fn=progress_fn, images=bound.pyramids)
        for band in bands:
            write_fn(to_bytes(band, bits))


def _view(look: Look, command: RenderCommand) -> View:
    width, height = picture_size(command.size)
    chosen = look.overridden(z=command.z, crunch=command.crunch, smooth=command.smooth)
    return View(
        height=height,
        width=width,
        z=chosen.z,
        crunch=chosen.crunch,
        smooth=chosen.smooth,
        samples=command.samples,
        jitter=command.jitter,
        adaptive=command.adaptive,
        crop=picture_crop(command.crop),
    )
