"""When a movie shows what: settings, and where z and formulas are in each frame."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from evojax_art.language.formula import Expression
from evojax_art.language.ops import FRAMING, Op
from evojax_art.language.quaternions import Coordinates
from evojax_art.render.look import Raster
from evojax_art.runtime.errors import InputError

_MOST_FRAMES = 200_000  # of a clip: two hours and more; programs of all frames are in memory


@dataclass(frozen=True, kw_only=True)
class MovieConfig:
    """How a movie goes.

    Attributes:
        raster: of a frame.
        seconds: of every formula's clip, or of every step of a morph.
        fps: frames per second.
        reach: T; z runs from -T to +T around an actor's middle.
        swing: z goes to +T and back again, like a pendulum.
        fade: how long a formula is faded out, as a share of half a clip, 0 to 2.
        loop: the end leads into the beginning: the last formula is faded out over the first, or
            morphed back into it.

    Raises:
        InputError: a value out of its range.
    """

    raster: Raster
    seconds: float = 8.0
    fps: float = 25.0
    reach: float = 0.5
    swing: bool = False
    fade: float = 0.1
    loop: bool = False

    def __post_init__(self):
        check_fps(self.fps)
        if not 0 < self.seconds <= _MOST_FRAMES / self.fps:
            raise InputError(
                f"seconds must be above 0 and at most {_MOST_FRAMES / self.fps:g} at {self.fps:g} "
                f"fps, got {self.seconds:g}"
            )
        if not 0 <= self.fade <= 2:
            raise InputError(f"fade must be 0 to 2, got {self.fade:g}")
        if not math.isfinite(self.reach):
            raise InputError(f"z must be a finite number, got {self.reach}")

    @property
    def clip_frames(self) -> int:
        """N, frames of a clip, at least one."""
        return max(1, round(self.seconds * self.fps))


def check_fps(fps: float) -> None:
    """Refuses a rate that is no use.

    Raises:
        InputError: below 0.01 or above 1000 frames per second, or no number.
    """
    if not 0.01 <= fps <= 1000:
        raise InputError(f"fps must be 0.01 to 1000, got {fps:g}")


class Schedule(NamedTuple):
    """What is to be seen in each of F frames.

    Attributes:
        formula: which one is shown; the one that is faded out is the one before.
        z: relative to its middle.
        z_before: of the one before, past its end.
        weight_before: its share in the colours, 0 to 1.
    """

    formula: Int[np.ndarray, "F"]
    z: Float[np.ndarray, "F"]
    z_before: Float[np.ndarray, "F"]
    weight_before: Float[np.ndarray, "F"]


def schedule(config: MovieConfig, num_formulas: int) -> Schedule:
    """A clip for every formula, in order."""
    length = config.clip_frames
    number = np.arange(num_formulas * length)
    formula, frame = number // length, number % length
    fade_frames = config.fade * length / 2
    weight = np.maximum(0, 1 - frame / fade_frames) if fade_frames else np.zeros(len(frame))
    if not config.loop:
        weight[:length] = 0  # nothing is before the first
    z, z_before = (_run(at, length, config.reach, config.swing) for at in (frame, frame + length))
    return Schedule(formula, z, z_before, weight)


def morph_schedule(
    config: MovieConfig, num_formulas: int
) -> tuple[Float[np.ndarray, "F"], Float[np.ndarray, "F"]]:
    """Where a morph is in each frame, and z relative to the formulas' middles.

    At n it is formula n, at n + 1/2 halfway to the next; the part t of a step moves as
    t^2 (3 - 2 t). z runs once over the whole movie. With `loop` the formula after the last is the
    first again, and z swings, so that it comes back as well.
    """
    steps = num_formulas if config.loop else num_formulas - 1
    length = steps * config.clip_frames
    number = np.arange(length)
    time = number * steps / (length if config.loop else max(1, length - 1))
    step = np.minimum(np.floor(time), steps - 1)
    part = time - step
    z = _run(number, length, config.reach, config.swing or config.loop)
    return step + part**2 * (3 - 2 * part), z


def depends_on_z(expression: Expression) -> bool:
    """Whether a formula reads the outer z anywhere, as frames let it through."""
    stack: list[tuple[bool, bool]] = []  # for each value, whether it reads any coordinate, and z
    for op, _ in expression.postfix:
        operands = [stack.pop() for _ in range(op.arity)][::-1]
        if op.opcode in FRAMING:  # the right side reads what the left side has made
            (left_any, left_z), (right_any, _) = operands
            stack.append((left_any and right_any, left_z and right_any))
        elif operands:
            stack.append((any(a for a, _ in operands), any(z for _, z in operands)))
        else:
            stack.append((op.reads_coordinates, _reads_z(op)))
    return stack[0][1]


def _reads_z(op: Op) -> bool:
    if not op.reads_coordinates or op.structural:
        return False
    x, y = np.array([0.1, 0.2]), np.array([0.3, 0.1])
    here, there = (op.fn(np, Coordinates(x, y, np.full(2, z))) for z in (0.1, 0.2))
    return not np.array_equal(np.stack(here), np.stack(there))


def _run(
    frame: Int[np.ndarray, "F"], length: int, reach: float, swing: bool
) -> Float[np.ndarray, "F"]:
    """Where z is in each frame of a clip of that length, and past its end."""
    if swing:
        return -reach * np.cos(2 * np.pi * frame / length)
    return reach * (2 * frame / max(1, length - 1) - 1)
