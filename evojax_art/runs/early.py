"""The early part of a run: on small pictures, where networks are quick and a search gets far.

At 96x96 an ImageNet network looks at ten times as many pictures as at 224x224, and a search gets
far. At twice the size little of that is left: the network sees other parts of the picture. From one
size to a slightly larger one most of it stays, and the rest is soon found again. So pictures may
grow in several steps: all survivors of one size are the seeds of the next, those of the last of the
run proper.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from rich.console import Console

from evojax_art.language.program import Program, take
from evojax_art.nets.base import Network
from evojax_art.objective.views import ViewsConfig
from evojax_art.render.look import Raster, RasterConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.progress import Flag, StatusLine, stop_on_interrupt
from evojax_art.search.generation import Evolution, EvolutionState, Until
from evojax_art.search.illumination import Illumination, IlluminationState
from evojax_art.search.protocol import Survivors, best_first, concatenate


@dataclass(frozen=True, kw_only=True)
class EarlyConfig:
    """A part of a run before its records begin, on small pictures.

    Attributes:
        formulas: scored in it at most, at each size; 0 for no such part. They are not among the
            run's formulas, nor their time in its minutes.
        score: that ends a size sooner; of illumination, the median confidence.
        size: height and width at which pictures are drawn and judged, pixels; or several, one
            after the other.
        samples: n by n samples per pixel there; 0: as many as of the run's own pictures. What is
            won by aliasing is lost at the next size.
        tries: searches at the first size, each from its own start, or fewer where one reaches the
            score: which family of formulas takes over is luck. The fittest of each go on together,
            as many as one would have left.
    """

    formulas: int = 0
    score: float = math.inf
    size: tuple[int, ...] = (96,)
    samples: int = 0
    tries: int = 1

    def __post_init__(self):
        if self.formulas < 0:
            raise InputError(f"early.formulas must be 0 or more, got {self.formulas}")
        if not self.score > -math.inf:  # nor NaN
            raise InputError(f"early.score must be a number, or inf, got {self.score}")
        if not 0 <= self.samples <= 64:
            raise InputError(f"early.samples must be 0 to 64, got {self.samples}")
        if self.tries < 1:
            raise InputError(f"early.tries must be 1 or more, got {self.tries}")
        if not self.size:
            raise InputError("early.size: give at least one")
        for size in self.size:
            if not 16 <= size <= 1024:
                raise InputError(f"early.size must be 16 to 1024, got {size}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes, one after the other; none where there is no such part."""
        return self.size if self.formulas else ()

    def rasters(self, proper: RasterConfig) -> list[RasterConfig]:
        """The pictures of each of the sizes, given those of the run proper."""
        samples = self.samples or proper.samples
        return [replace(proper, size=size, samples=samples) for size in self.sizes]


def is_of_the_run(
    raster: RasterConfig, proper: Raster, nets: Iterable[Network], views: ViewsConfig
) -> bool:
    """Whether an early size is how the run itself draws and judges, so that it need compile once.

    Args:
        raster: of the early part.
        proper: of the run.
        nets: that judge in the run.
        views: of the run; other sizes are not judged in the early part.
    """
    sizes = {raster.size, *(net.size for net in nets)}
    return raster.raster(raster.size) == proper and len(sizes) == 1 and not views.sizes


class Grown(NamedTuple):
    """What an early part comes to.

    Attributes:
        seeds: of the run proper: the survivors of the last size, the best first, each once (of
            several tries there, those of each); those that were given where none is valid.
        is_interrupted: by Ctrl-C, so that the run ends as soon as its seeds are scored.
    """

    seeds: Program | None
    is_interrupted: bool

    @property
    def enough(self) -> float:
        """Formulas after which the run proper ends, whatever its own limits."""
        if not self.is_interrupted:
            return math.inf
        return 1 if self.seeds is None else len(self.seeds.length)


_ONE = Until(generations=1, score=math.inf, drawn=math.nan, step=math.inf)  # generation


class _Stage(NamedTuple):
    """A search on pictures of one size.

    Attributes:
        init_fn: from a key and seeds to the state before the first generation.
        step_fn: from a state and the number of its generation to the state after it, a score, and
            how the search stands, in words.
        scored_fn: formulas by the end of a generation.
        survivors_fn: of a state.
    """

    init_fn: Callable[[Key[Array, ""], Program | None], Any]
    step_fn: Callable[[Any, int], tuple[Any, float, str]]
    scored_fn: Callable[[int], int]
    survivors_fn: Callable[[Any], Survivors]


def survivors_of(
    evolutions: Sequence[Evolution],
    config: EarlyConfig,
    key: Key[Array, ""],
    seeds: Program | None,
    console: Console,
) -> Grown:
    """Evolves as long as configured, or until Ctrl-C.

    Args:
        evolutions: on pictures of each of the sizes.
        config: how long.
        key: consumed.
        seeds: formulas to start from.
        console: for progress.
    """

    def stage(evolution: Evolution) -> _Stage:
        def step(state: EvolutionState, number: int) -> tuple[EvolutionState, float, str]:
            del number
            state, summaries, _ = evolution.advance(state, _ONE)  # as the run proper does
            best = float(summaries.best_score[0])
            return state, best, f"best {evolution.target.text(best)}"

        return _Stage(
            evolution.init,
            step,
            evolution.scored,
            lambda state: evolution.algorithm.survivors(state.algorithm),
        )

    return _grown([stage(one) for one in evolutions], config, key, seeds, console)


def elites_of(
    illuminations: Sequence[Illumination],
    config: EarlyConfig,
    key: Key[Array, ""],
    seeds: Program | None,
    console: Console,
) -> Grown:
    """Illuminates as long as configured, or until Ctrl-C.

    Args:
        illuminations: on pictures of each of the sizes.
        config: how long.
        key: consumed.
        seeds: formulas to start from.
        console: for progress.
    """

    def stage(illumination: Illumination) -> _Stage:
        def step(state: IlluminationState, number: int) -> tuple[IlluminationState, float, str]:
            state, passed = illumination.step(state, number)
            found = jax.device_get(passed.measures)
            median = float(found.median)
            return state, median, f"{int(found.niches)} niches, median {100 * median:.3g} %"

        return _Stage(
            illumination.init, step, illumination.scored, lambda state: state.repertoire.held
        )

    return _grown([stage(one) for one in illuminations], config, key, seeds, console)


def _grown(
    stages: Sequence[_Stage],
    config: EarlyConfig,
    key: Key[Array, ""],
    seeds: Program | None,
    console: Console,
) -> Grown:
    """What there is after all sizes, or Ctrl-C."""
    with stop_on_interrupt(console, "scoring what there is") as interrupted:
        for number, (size, stage) in enumerate(zip(config.sizes, stages, strict=True)):
            found: list[Program] = []
            size_key = jax.random.fold_in(key, number)
            tries = config.tries if number == 0 else 1
            for attempt in range(tries):
                shown = f"early, at {size}x{size}"
                shown += f", try {attempt + 1} of {tries}" if tries > 1 else ""
                state = stage.init_fn(jax.random.fold_in(size_key, attempt), seeds)
                first = "starting" if attempt else "compiling, once"
                with StatusLine(console, f"{shown}: {first} ...") as status:
                    state, score = _advanced(stage, state, config, shown, status, interrupted)
                found.append(best_first(stage.survivors_fn(state)))
                if interrupted.is_set() or score >= config.score:
                    break
            survivors = _fittest(found)
            seeds = survivors if len(survivors.length) else seeds
            if interrupted.is_set():
                break
    return Grown(seeds, interrupted.is_set())


def _fittest(found: Sequence[Program]) -> Program:
    """Of several searches' survivors, the fittest first, an equal share of each."""
    shares = [take(one, jnp.arange(-(-len(one.length) // len(found)))) for one in found]
    return concatenate(*shares)


def _advanced(
    stage: _Stage,
    state: Any,
    config: EarlyConfig,
    shown: str,
    status: StatusLine,
    interrupted: Flag,
) -> tuple[Any, float]:
    """The state after generations until a limit is reached, or Ctrl-C; and the last score."""
    started, score, number = time.monotonic(), -math.inf, 0
    while stage.scored_fn(number) < config.formulas and score < config.score:
        state, score, told = stage.step_fn(state, number + 1)
        number += 1
        if number == 1:  # compilation is over
            started = time.monotonic()
        formulas, seconds = stage.scored_fn(number), time.monotonic() - started
        timed = formulas - stage.scored_fn(1)
        rate = f" · {timed / seconds:.0f}/s" if timed else ""
        status.show(
            f"{shown}: generation {number} · {told} · {formulas}/{config.formulas} formulas{rate}"
        )
        if interrupted.is_set():
            break
    return state, score
