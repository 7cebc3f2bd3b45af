"""The early part of a run: on small pictures, where networks are quick and a search gets far.

At 96x96 an ImageNet network looks at ten times as many pictures as at 224x224. What it is sure of
there is mostly not what it is sure of at its own size, but a good start: all survivors are the
seeds of the run proper.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Key
from rich.console import Console

from evojax_art.language.program import Program
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.progress import StatusLine, stop_on_interrupt
from evojax_art.search.generation import Evolution, EvolutionState
from evojax_art.search.illumination import Illumination, IlluminationState
from evojax_art.search.protocol import best_first


@dataclass(frozen=True, kw_only=True)
class EarlyConfig:
    """A part of a run before its records begin, on small pictures.

    Attributes:
        formulas: scored in it at most; 0 for no such part. They are not among the run's formulas,
            nor their time in its minutes.
        score: that ends it sooner; of illumination, the median confidence.
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

    def step(state: EvolutionState, number: int) -> tuple[EvolutionState, float, str]:
        del number
        state, summary = evolution.step(state)
        best = float(summary.best_score)
        return state, best, f"best {evolution.target.text(best)}"

    state = _advanced(evolution.init(key, seeds), step, evolution.scored, config, console)
    survivors = best_first(evolution.algorithm.survivors(state.algorithm))
    return survivors if len(survivors.length) else seeds


def elites_of(
    illumination: Illumination,
    config: EarlyConfig,
    key: Key[Array, ""],
    seeds: Program | None,
    console: Console,
) -> Program | None:
    """Illuminates as long as configured, or until Ctrl-C.

    Args:
        illumination: on pictures of that size.
        config: how long.
        key: consumed.
        seeds: formulas to start from.
        console: for progress.

    Returns:
        The elites, each once; the seeds where none is valid.
    """

    def step(state: IlluminationState, number: int) -> tuple[IlluminationState, float, str]:
        state, passed = illumination.step(state, number)
        found = jax.device_get(passed.measures)
        median = float(found.median)
        return state, median, f"{int(found.niches)} niches, median {100 * median:.3g} %"

    state = _advanced(illumination.init(key, seeds), step, illumination.scored, config, console)
    elites = best_first(state.repertoire.held)
    return elites if len(elites.length) else seeds


def _advanced(
    state: Any,
    step_fn: Callable[[Any, int], tuple[Any, float, str]],
    scored_fn: Callable[[int], int],
    config: EarlyConfig,
    console: Console,
) -> Any:
    """The state after generations until a limit is reached, or Ctrl-C.

    Args:
        state: before the first.
        step_fn: from the state and the number of a generation to the state after it, a score, and
            how the run stands, in words.
        scored_fn: formulas by the end of a generation.
        config: how long.
        console: for progress.
    """
    shown, number = f"early, at {config.size}x{config.size}", 0
    with (
        stop_on_interrupt(console, "the early part") as interrupted,
        StatusLine(console, f"{shown}: compiling, once ...") as status,
    ):
        started, score = time.monotonic(), -math.inf
        while scored_fn(number) < config.formulas and score < config.score:
            state, score, told = step_fn(state, number + 1)
            number += 1
            if number == 1:  # compilation is over
                started = time.monotonic()
            formulas, seconds = scored_fn(number), time.monotonic() - started
            rate = f" · {(formulas - scored_fn(1)) / seconds:.0f}/s" if number > 1 else ""
            status.show(
                f"{shown}: generation {number} · {told} · "
                f"{formulas}/{config.formulas} formulas{rate}"
            )
            if interrupted.is_set():
                break
    return state
