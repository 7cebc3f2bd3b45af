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
        finalists: of several tries, so many of the best go on before that, each alone, for as many
            formulas again, unless one reaches the score: how far a family comes shows in how it
            climbs. The others end there. 0: the tries are all there is.
    """

    formulas: int = 0
    score: float = math.inf
    size: tuple[int, ...] = (96,)
    samples: int = 0
    tries: int = 1
    finalists: int = 0

    def __post_init__(self):
        if self.formulas < 0:
            raise InputError(f"early.formulas must be 0 or more, got {self.formulas}")
        if not self.score > -math.inf:  # nor NaN
            raise InputError(f"early.score must be a number, or inf, got {self.score}")
        if not 0 <= self.samples <= 64:
            raise InputError(f"early.samples must be 0 to 64, got {self.samples}")
        if self.tries < 1:
            raise InputError(f"early.tries must be 1 or more, got {self.tries}")
        if self.finalists < 0:
            raise InputError(f"early.finalists must be 0 or more, got {self.finalists}")
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
            heat = _Heat(stage, config, f"early, at {size}x{size}", console, interrupted)
            tries = config.tries if number == 0 else 1
            found = heat.tries(jax.random.fold_in(key, number), seeds, tries)
            survivors = _fittest([best_first(stage.survivors_fn(one.state)) for one in found])
            seeds = survivors if len(survivors.length) else seeds
            if interrupted.is_set():
                break
    return Grown(seeds, interrupted.is_set())


def _fittest(found: Sequence[Program]) -> Program:
    """Of several searches' survivors, the fittest first, an equal share of each."""
    shares = [take(one, jnp.arange(-(-len(one.length) // len(found)))) for one in found]
    return concatenate(*shares)


class _Search(NamedTuple):
    """One try.

    Attributes:
        name: in progress lines; empty for the only one.
        state: of the search.
        generations: completed ones.
        score: after the last of them.
    """

    name: str
    state: Any
    generations: int = 0
    score: float = -math.inf


@dataclass(frozen=True)
class _Heat:
    """The searches at one size.

    Attributes:
        stage: what they do.
        config: how long.
        shown: what progress lines begin with.
        console: for them.
        interrupted: by Ctrl-C.
    """

    stage: _Stage
    config: EarlyConfig
    shown: str
    console: Console
    interrupted: Flag

    def tries(self, key: Key[Array, ""], seeds: Program | None, count: int) -> list[_Search]:
        """So many searches, or fewer; the finalists, if there are any."""
        found: list[_Search] = []
        while not found or (len(found) < count and not self._is_over(found)):
            name = f", try {len(found) + 1} of {count}" if count > 1 else ""
            state = self.stage.init_fn(jax.random.fold_in(key, len(found)), seeds)
            first = "starting" if found else "compiling, once"
            found.append(self._advanced(_Search(name, state), self.config.formulas, first))
        finalists = self.config.finalists if count > 1 else 0
        if finalists and not self._is_over(found):
            found = sorted(found, key=lambda one: one.score, reverse=True)[:finalists]
            for place, one in enumerate(found):
                if not self._is_over(found):
                    found[place] = self._advanced(one, 2 * self.config.formulas, "going on")
        return found

    def _is_over(self, found: Sequence[_Search]) -> bool:
        return self.interrupted.is_set() or any(one.score >= self.config.score for one in found)

    def _advanced(self, search: _Search, formulas: int, first: str) -> _Search:
        """After generations until so many formulas are scored, or the score, or Ctrl-C."""
        stage, shown = self.stage, self.shown + search.name
        name, state, number, score = search
        started, before = time.monotonic(), stage.scored_fn(number + 1)  # the first may compile
        with StatusLine(self.console, f"{shown}: {first} ...") as status:
            while stage.scored_fn(number) < formulas and score < self.config.score:
                state, score, told = stage.step_fn(state, number + 1)
                number += 1
                scored = stage.scored_fn(number)
                if scored == before:
                    started = time.monotonic()
                seconds = time.monotonic() - started
                rate = f" · {(scored - before) / seconds:.0f}/s" if scored > before else ""
                status.show(
                    f"{shown}: generation {number} · {told} · {scored}/{formulas} formulas{rate}"
                )
                if self.interrupted.is_set():
                    break
        return _Search(name, state, number, score)
