"""The early part of a run: on small pictures, where networks are quick and a search gets far.

At 96x96 an ImageNet network looks at ten times as many pictures as at 224x224. What it is sure of
there is mostly not what it is sure of at its own size, but a good start: all survivors are the
seeds of the run proper.
"""

import math
import time
from dataclasses import dataclass

from jaxtyping import Array, Key
from rich.console import Console

from evojax_art.language.program import Program
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.progress import StatusLine, stop_on_interrupt
from evojax_art.search.generation import Evolution
from evojax_art.search.protocol import best_first


@dataclass(frozen=True, kw_only=True)
class EarlyConfig:
    """A part of a run before its records begin, on small pictures.

    Attributes:
        formulas: scored in it at most; 0 for no such part. They are not among the run's formulas,
            nor their time in its minutes.
        score: that ends it sooner.
        size: height and width at which pictures are drawn and judged, pixels.
    """

    formulas: int = 0
    score: float = math.inf
    size: int = 96

    def __post_init__(self):
        if self.formulas < 0:
            raise InputError(f"early.formulas must be 0 or more, got {self.formulas}")
        if math.isnan(self.score):
            raise InputError("early.score must be a number")
        if not 16 <= self.size <= 1024:
            raise InputError(f"early.size must be 16 to 1024, got {self.size}")


def survivors_of(
    evolution: Evolution,
    config: EarlyConfig,
    key: Key[Array, ""],
    seeds: Program | None,
    console: Console,
) -> Program | None:
    """Evolves as long as configured, or until Ctrl-C.

    Args:
        evolution: on pictures of that size.
        config: how long.
        key: consumed.
        seeds: formulas to start from.
        console: for progress.

    Returns:
        The survivors, the best first, each once; the seeds where none is valid.
    """
    state, number, text = evolution.init(key, seeds), 0, evolution.target.text
    shown = f"early, at {config.size}x{config.size}"
    with (
        stop_on_interrupt(console, "the early part") as interrupted,
        StatusLine(console, f"{shown}: compiling, once ...") as status,
    ):
        started, best = time.monotonic(), -math.inf
        while evolution.scored(number) < config.formulas and best < config.score:
            state, summary = evolution.step(state)
            number, best = number + 1, float(summary.best_score)
            if number == 1:  # compilation is over
                started = time.monotonic()
            formulas, seconds = evolution.scored(number), time.monotonic() - started
            rate = f" · {(formulas - evolution.scored(1)) / seconds:.0f}/s" if number > 1 else ""
            status.show(
                f"{shown}: generation {number} · best {text(best)} · "
                f"{formulas}/{config.formulas} formulas{rate}"
            )
            if interrupted.is_set():
                break
    survivors = best_first(evolution.algorithm.survivors(state.algorithm))
    return survivors if len(survivors.length) else seeds
