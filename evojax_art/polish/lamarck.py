"""Polish inside evolution: the best climb a little, and pass on what they have become."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from evojax_art.algorithms.base import EMPTY
from evojax_art.errors import InputError
from evojax_art.judge import Fixed, Judge
from evojax_art.objective import Metrics
from evojax_art.polish.climb import ClimbConfig, Climber, displaced
from evojax_art.program import Program, free_constants, take


@dataclass(frozen=True, kw_only=True)
class LamarckConfig:
    """Which individuals are polished, and how much (Lamarckian evolution).

    Attributes:
        every: generations from one time to the next; 0 for never, the default.
        top: how many of the best.
        steps: of gradient ascent.
        learning_rate: of Adam; 1 moves a constant by a third of its size.
    """

    every: int = 0
    top: int = 8
    steps: int = 10
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
    def evaluations(self) -> int:
        """Formulas scored by one time: each step is one, and the exact evaluations are two."""
        return self.top * (self.steps + 2)


def polish_best(
    state: Any, judge: Judge, fixed: Fixed, config: LamarckConfig, key: Key[Array, ""]
) -> tuple[Any, tuple[Program, Float[Array, "K"], Metrics]]:
    """Polishes the best of a population where they stand; traceable.

    Those that got no better stay what they were, named constants included.

    Args:
        state: of any algorithm; its population and fitness change.
        judge: of the formulas.
        fixed: of the judge.
        config: which and how much.
        key: of the cameras; the first of them stays still.

    Returns:
        The state, and the polished with fitness and metrics; fitness is `EMPTY` where a place of
        the population had not been filled.
    """
    count = min(config.top, state.fitness.shape[0])
    fitness, index = jax.lax.top_k(state.fitness, count)
    before = take(state.population, index)
    climber = Climber(
        judge, ClimbConfig(steps=config.steps, learning_rate=config.learning_rate, coarse=0.0)
    )
    free = free_constants(before)
    climb = climber.init(free, climber.judge(free, fixed))
    climb = climber.climb(climb, fixed, key, config.steps, coarse=False)
    climb = climber.keep_best(climb, climber.judge(displaced(climb.start, climb.offset), fixed))
    better = (fitness > EMPTY) & (climb.fitness > fitness)

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    after, gained = jax.tree.map(choose, (climb.best, climb.fitness), (before, fitness))
    population = jax.tree.map(lambda all_, some: all_.at[index].set(some), state.population, after)
    changed = state._replace(population=population, fitness=state.fitness.at[index].set(gained))
    told = jnp.where(better, gained, EMPTY)
    return changed, (after, told, climb.metrics)
