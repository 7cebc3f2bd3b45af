"""`evojax-art movie`."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from evojax_art.artwork.provenance import Provenance
from evojax_art.artwork.video import check_video, write_video
from evojax_art.cli.flags import parse_flags
from evojax_art.cli.inputs import Given, look_of, picture_size, read_all
from evojax_art.cli.video import usual_kind
from evojax_art.language.bindings import Bound, bind_images
from evojax_art.language.ops import Crunch
from evojax_art.render.look import Raster
from evojax_art.render.movie import Actor, film, morph
from evojax_art.render.schedule import MovieConfig, depends_on_z
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.tables import POSITIONAL, REPEATABLE


@dataclass(frozen=True, kw_only=True)
class MovieCommand:
    """Show formulas in motion, with z as time.

    Each formula has a clip, in which z runs from -Z to +Z around what it was drawn at. A formula is
    faded out over the beginning of the next one's clip, where its own z runs on.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON.
        out: what to write: .mp4, .gif, or a new folder for numbered PNGs, each of which carries its
            formula and z; by default movie.mp4, or movie.gif where there is no ffmpeg. An existing
            file is replaced.
        size: WIDTHxHEIGHT, or one number for a square; an MP4's odd sides grow by a pixel.
        seconds: of every formula's clip, or of every step of a morph.
        fps: frames per second; a GIF has 50 at most.
        z: how far z runs to both sides; by default 0.5, as x and y do (beyond, most formulas have
            little left to show), and 0 in a morph.
        swing: z runs to +Z and back, so that each clip ends where it began.
        fade: how long a formula is faded out, as a share of half a clip, 0 to 2.
        loop: the end leads into the beginning: the last formula is faded out over the first, and
            morphs back into it in a morph.
        morph: turn each formula into the next by its constants; they must differ in nothing else.
        crunch: colours; 1995 is black beyond +-30.
        smooth: the original's plus-shaped blur.
        samples: n by n samples per pixel.
        image: NAME=FILE: a photograph that formulas read as the leaf NAME, NAME:whole=FILE for all
            of it; see `evojax-art render --help`.
        lenient: read formulas as the 1995 program does, never complaining.
    """

    inputs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    out: Path | None = None
    size: str = "640x480"
    seconds: float = 8.0
    fps: float = 25.0
    z: float | None = None
    swing: bool = False
    fade: float = 0.1
    loop: bool = False
    morph: bool = False
    crunch: Crunch | None = None
    smooth: bool = False
    samples: int = 2
    image: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    lenient: bool = False


def movie(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(MovieCommand, flags, "evojax-art movie")
    keep_compiled()
    width, height = picture_size(command.size)
    config = MovieConfig(
        raster=Raster(height=height, width=width, samples=command.samples),
        seconds=command.seconds,
        fps=command.fps,
        reach=command.z if command.z is not None else 0.0 if command.morph else MovieConfig.reach,
        swing=command.swing,
        fade=command.fade,
        loop=command.loop,
    )
    flagged = bind_images(command.image)
    given = read_all(command.inputs, flagged, "movie", lenient=command.lenient)
    actors = [_actor(one, command, bound) for one, bound in given]
    pictures = (morph if command.morph else film)(config, actors)
    out = command.out or Path(f"movie.{usual_kind('movie')}")
    check_video(out, command.fps)
    if not command.morph:
        _tell_stills(config, actors)
    formulas = [str(actor.expression) for actor in actors]
    sources = (source for actor in actors for source in actor.bound.read_by(actor.expression))
    read = Provenance(photographs=tuple({source.name: source for source in sources}.values()))
    formula = formulas[0] if len(formulas) == 1 else formulas
    said = {**read.to_text(), "formula": formula, "command": "evojax-art movie"}

    def frame_text(number: int) -> dict[str, str]:
        actor = pictures.shown_fn(number)
        return Provenance(
            formula=str(actor.expression),
            photographs=actor.bound.read_by(actor.expression),
            look=actor.look,
            raster=config.raster,
            fps=command.fps,
        ).to_text()

    console = Console(stderr=True)
    with _progress(console) as progress:
        frames = _counted(pictures.frames, progress, pictures.num_frames)
        write_video(
            out,
            frames,
            fps=command.fps,
            text=said,
            frame_text_fn=frame_text,
        )
    print(out)


def _actor(given: Given, command: MovieCommand, bound: Bound) -> Actor:
    look = look_of(given, crunch=command.crunch, smooth=command.smooth)
    return Actor(given.expression, look, bound)


def _tell_stills(config: MovieConfig, actors: list[Actor]) -> None:
    """Says on standard error which formulas will not move."""
    for number, actor in enumerate(actors, 1):
        which = "the formula" if len(actors) == 1 else f"formula {number} of {len(actors)}"
        if config.reach == 0:
            print("movie: z stays where it is (--z 0): every clip is a still", file=sys.stderr)
            return
        if not depends_on_z(actor.expression):
            print(f"movie: {which} does not depend on z: a still", file=sys.stderr)


class _Speed(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} frames/s")


def _progress(console: Console) -> Progress:
    bar = BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn()
    columns = TextColumn("{task.description}"), *bar
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _counted(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]], progress: Progress, total: int
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    task = progress.add_task("compiling", total=total)
    for frame in frames:
        progress.update(task, description="frames")
        yield frame
        progress.advance(task)
