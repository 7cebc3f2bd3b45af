"""Polish inside evolution: the best climb a little, and pass on what they have become."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from evojax_art.language.program import Program, free_constants, select, take
from evojax_art.objective.evaluation import Metrics
from evojax_art.objective.evaluator import Fixed, Judge
from evojax_art.refine.ascent import AscentConfig, Climber, displaced
from evojax_art.runtime.errors import InputError
from evojax_art.search.protocol import EMPTY


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
                    f"polish.{name} must be {least} or more, got {getattr(self, name)}"
                )
        if not self.learning_rate > 0:
            raise InputError(f"polish.learning_rate must be above 0, got {self.learning_rate}")

    @property
    def climb(self) -> AscentConfig:
        """The ascent."""
        return AscentConfig(steps=self.steps, learning_rate=self.learning_rate, coarse=0.0)

    @property
    def evaluations(self) -> int:
        """Formulas scored by one time: each step is one, and the exact evaluation."""
        return self.top * (self.steps + 1)


Polished = tuple[Program, Float[Array, "K"], Metrics]  # with fitness and metrics


def polish_best(
    state: Any, judge: Judge, fixed: Fixed, config: MemeticConfig, key: Key[Array, ""]
) -> tuple[Any, Polished]:
    """Polishes the best of a population where they stand; traceable.

    Those that got no better stay what they were, named constants included.

    Args:
        state: of any algorithm; its population and fitness change.
        judge: of the formulas.
        fixed: of the judge.
        config: which and how much.
        key: of the cameras; the first of them stays still.

    Returns:
        The state, and the polished; the fitness of those that got no better is `EMPTY`, and their
        metrics mean nothing.
    """
    _, nobody, unknown = nobody_polished(state, config)
    fitness, index = jax.lax.top_k(state.fitness, len(nobody))
    before = take(state.population, index)
    climber = Climber(judge, config.climb)
    free = free_constants(before)
    climb = climber.init(free, (fitness, unknown))  # known since they were born
    climb = climber.climb(climb, fixed, key, config.steps, coarse=False)
    climb = climber.keep_best(climb, judge.judge(displaced(climb.start, climb.offset), fixed))
    better = (fitness > EMPTY) & (climb.fitness > fitness)

    after, gained = select(better, (climb.best, climb.fitness), (before, fitness))
    population = jax.tree.map(lambda all_, some: all_.at[index].set(some), state.population, after)
    changed = state._replace(population=population, fitness=state.fitness.at[index].set(gained))
    told = jnp.where(better, gained, nobody)
    return changed, (after, told, climb.metrics)


def nobody_polished(state: Any, config: MemeticConfig) -> Polished:
    """What `polish_best` returns beside the state where nobody got better."""
    count = min(config.top, state.fitness.shape[0])
    unknown = Metrics(*(jnp.zeros(count, state.fitness.dtype) for _ in Metrics._fields))
    some = take(state.population, jnp.arange(count))
    return some, jnp.full(count, EMPTY, state.fitness.dtype), unknown
