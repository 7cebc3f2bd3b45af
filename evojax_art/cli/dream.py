"""`evojax-art dream`."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from rich.console import Console

from evojax_art.cli.flags import parse_flags
from evojax_art.cli.start import read_start
from evojax_art.cli.video import usual_kind
from evojax_art.objective.target import load_target
from evojax_art.objective.terms import Target
from evojax_art.runs.dream import DreamConfig, Dreamer
from evojax_art.runs.dream_folder import DreamFolder
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.progress import StatusLine, stop_on_interrupt
from evojax_art.runtime.tables import INLINE, POSITIONAL

_BAR = 24  # characters


@dataclass(frozen=True, kw_only=True)
class DreamSettings:
    """A dream's settings, those of its clip with them.

    Attributes:
        frames: how many, with the start.
        video: kind of the video, dream.mp4 or dream.gif; auto is mp4 where there is an ffmpeg.
        fps: frames per second of the video.
        dream: of the frames.
    """

    frames: int = 60
    video: Literal["auto", "mp4", "gif", "none"] = "auto"
    fps: float = 12.0
    dream: DreamConfig = field(default_factory=DreamConfig, metadata=INLINE)

    def __post_init__(self):
        if not 1 <= self.frames <= 100_000:
            raise InputError(f"frames must be 1 to 100000, got {self.frames}")


@dataclass(frozen=True, kw_only=True)
class DreamCommand:
    """Let a network see things in a picture, and zoom into what it sees, without end.

    The same command again goes on after the last frame, and makes what an uninterrupted one would
    have made; with more frames it makes the dream longer. Ctrl-C ends it cleanly.

    Attributes:
        start: a photograph, a PNG of ours, or a formula.
        out: the folder for frames and video; by default dreams/ and the start's name.
        config: a TOML file with any of the settings below; flags override it.
        settings: the settings.
    """

    start: str = field(metadata=POSITIONAL)
    out: Path | None = None
    config: Path | None = None
    settings: DreamSettings = field(default_factory=DreamSettings, metadata=INLINE)


def dream(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(DreamCommand, flags, "evojax-art dream")
    settings = command.settings
    config = settings.dream
    keep_compiled()
    nets, target = load_target(config.target, config.views)
    dreamer = Dreamer(config, nets, target)
    folder_path = command.out or Path("dreams") / (_name(command.start) or "formula")
    folder = DreamFolder(folder_path, command.start, config)
    video = usual_kind("dream") if settings.video == "auto" else settings.video
    if video != "none":
        folder.check_video(video, settings.fps)
    start = None if len(folder) else read_start(command.start, config.size)
    console = Console(stderr=True, highlight=False)
    if len(folder) < settings.frames:
        _make(settings.frames, folder, dreamer, target, start, console)
    written = folder.finish(video, settings.fps)
    noises = folder.noises()
    missing = "" if len(noises) >= settings.frames else "; the same command goes on from here"
    print(f"{len(noises)} frames, noise {min(noises):.3f} to {max(noises):.3f}{missing}")
    print(*written, sep="\n")


def _make(
    count: int,
    folder: DreamFolder,
    dreamer: Dreamer,
    target: Target,
    start: UInt8[np.ndarray, "H W 3"] | None,
    console: Console,
) -> None:
    """The frames that are missing; fewer when somebody wants to stop."""
    made, began = 0, time.monotonic()
    with (
        stop_on_interrupt(console, "this frame") as interrupted,
        StatusLine(console, "compiling, once ...") as status,
    ):
        first = len(folder)
        picture, formula = folder.last() if start is None else (start, "")
        for number in range(first, count):
            frame = dreamer.next(picture, number, formula) if number else dreamer.first(picture)
            folder.write(number, frame)
            picture, formula = frame.picture, frame.formula
            if number == max(first, 1):  # compilation is over, the clock starts
                made, began = 0, time.monotonic()
            else:
                made += 1
            done = _BAR * (number + 1) // count
            parts = [f"{'━' * done}{'─' * (_BAR - done)} frame {number + 1} of {count}"]
            parts += [f"{target.name:.30} {target.text(frame.score)}", f"noise {frame.noise:.3f}"]
            if made and number:
                each = (time.monotonic() - began) / made
                left = round(each * (count - number - 1))
                parts += [f"{each:.1f} s a frame", f"{left // 60}:{left % 60:02d} left"]
            status.show(" · ".join(parts))
            if interrupted.is_set():
                break


def _name(start: str) -> str:
    """A file's name without its suffix; empty for a formula."""
    return Path(start).stem if len(start) < 256 and Path(start).suffix else ""
