"""Polish inside evolution: the best climb a little, and pass on what they have become."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from evojax_art.language.program import Program, free_constants, take
from evojax_art.objective.evaluation import Evaluation
from evojax_art.objective.evaluator import Evaluator, Params
from evojax_art.refine.ascent import Ascent, AscentConfig
from evojax_art.runtime.errors import InputError
from evojax_art.search.protocol import Survivors


@dataclass(frozen=True, kw_only=True)
class MemeticConfig:
    """Which individuals are polished, and how much (Lamarckian evolution).

    Attributes:
        every: generations from one time to the next; 0 for never, the default.
        top: how many of the best.
        steps: of gradient ascent.
        learning_rate: of Adam; 1 moves a constant by a third of its size.
    """

    every: int = 0
    top: int = 8
    steps: int = 20
    learning_rate: float = 0.1

    def __post_init__(self):
        for name, least in (("every", 0), ("top", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"memetic.{name} must be {least} or more, got {getattr(self, name)}"
                )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(
                f"memetic.learning_rate must be above 0, and finite, got {self.learning_rate}"
            )

    @property
    def ascent(self) -> AscentConfig:
        """The ascent."""
        return AscentConfig(steps=self.steps, learning_rate=self.learning_rate, coarse=0.0)

    @property
    def evaluations(self) -> int:
        """Formulas scored by one time: each step is one, and the exact evaluation."""
        return self.top * (self.steps + 1)


class Polished(NamedTuple):
    """The best of a population, polished.

    Attributes:
        place: of each among the survivors.
        programs: what they have become.
        evaluation: of that; not valid where it is no better than what was there.
    """

    place: Int[Array, "K"]
    programs: Program
    evaluation: Evaluation


def polish_best(
    survivors: Survivors,
    evaluator: Evaluator,
    params: Params,
    config: MemeticConfig,
    key: Key[Array, ""],
) -> Polished:
    """Polishes the best of a population; traceable. Whoever asks puts them where they belong.

    Args:
        survivors: the population.
        evaluator: by whom they are measured.
        params: of the evaluator.
        config: which and how much.
        key: of the cameras; the first of them stays still.
    """
    start = nobody_polished(survivors, evaluator, params, config)
    fitness = survivors.fitness[start.place]
    ascent = Ascent(evaluator, config.ascent)
    state = ascent.init(free_constants(start.programs), start.evaluation)
    state = ascent.advance(state, params, key, config.steps, coarse=False)
    programs = state.here
    evaluation = evaluator.evaluate(programs, params)
    better = jnp.isfinite(fitness) & (evaluation.fitness > fitness)
    return Polished(
        place=start.place,
        programs=programs,
        evaluation=evaluation._replace(
            valid=better, fitness=jnp.where(better, evaluation.fitness, -jnp.inf)
        ),
    )


def nobody_polished(
    survivors: Survivors, evaluator: Evaluator, params: Params, config: MemeticConfig
) -> Polished:
    """What `polish_best` gives where nobody got better."""
    _, place = jax.lax.top_k(survivors.fitness, min(config.top, len(survivors.fitness)))
    programs = take(survivors.programs, place)
    return Polished(place, programs, evaluator.unknown(programs, params))
