"""The generation, as one compiled step: ask, render, judge, tell.

Nothing in it returns to the host but a handful of scalars; the best formula so far stays on the
device until somebody wants to see it.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program, take
from evojax_art.nets.base import Classifier
from evojax_art.objective.evaluation import Metrics, ObjectiveConfig
from evojax_art.objective.evaluator import Fixed, Judge
from evojax_art.objective.goals import Goal
from evojax_art.render.look import RasterConfig
from evojax_art.search.memetic import MemeticConfig, nobody_polished, polish_best
from evojax_art.search.protocol import EMPTY, Algorithm


class EvolutionState(NamedTuple):
    """Everything that a run is, as a pytree.

    Attributes:
        algorithm: the algorithm's own state.
        key: for all generations to come.
        generation: completed ones.
        best: the best individual so far.
        best_fitness: its fitness.
        best_metrics: and metrics, scalars.
    """

    algorithm: Any
    key: Key[Array, ""]
    generation: Int[Array, ""]
    best: Program
    best_fitness: Float[Array, ""]
    best_metrics: Metrics


class Summary(NamedTuple):
    """What the host learns of a generation; scalars.

    Attributes:
        best_fitness: highest so far.
        best_score: the goal's score of that individual.
        best_value: the same on the goal's own scale, for classes log-odds.
        mean_score: over this generation's offspring.
        survivors_fitness: median fitness of the population.
        mean_length: nodes, over the offspring.
        is_record: whether this generation improved on all before.
    """

    best_fitness: Float[Array, ""]
    best_score: Float[Array, ""]
    best_value: Float[Array, ""]
    mean_score: Float[Array, ""]
    survivors_fitness: Float[Array, ""]
    mean_length: Float[Array, ""]
    is_record: Array


def fitting_batch(size: int) -> int:
    """Pictures of size x size to judge at a time on this process's device.

    On a CPU 400,000 pixels (8 pictures of 224x224) but at most 128 pictures, so that their
    activations stay in cache. Elsewhere a power of two that leaves three quarters of the memory
    free, taking 384 bytes a pixel for what a network and the renderer hold at once.
    """
    if jax.default_backend() == "cpu":
        return min(128, max(1, 402_000 // size**2))
    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 16 << 30)
    fitting = memory // 4 // (384 * size**2)
    return min(1 << 14, 1 << max(0, fitting.bit_length() - 1))


class Evolution:
    """A compiled evolution towards what a network sees.

    Args:
        algorithm: how the population changes.
        net: the judge.
        goal: what is wanted of it; indices of classes stand for a `ClassGoal`.
        objective: how fitness is composed.
        scene: the pictures that are judged.
        max_length: capacity L of the genomes.
        batch: formulas rendered and judged at a time; memory grows with it. None: as
            `fitting_batch` says.
        images: pictures that formulas read, see `images`.
        reference: the picture that `objective.near` keeps to, of any size.

    Raises:
        InputError: pictures of a size that the goal's layer cannot take.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        net: Classifier,
        goal: Goal | Sequence[int],
        objective: ObjectiveConfig,
        scene: RasterConfig,
        *,
        max_length: int = 128,
        batch: int | None = None,
        images: Sequence[Pyramid] = (),
        reference: Float[Array, "h w 3"] | None = None,
        polish: MemeticConfig | None = None,
    ):
        self.algorithm = algorithm
        self._judge = Judge(net, goal, objective, scene, images=images, reference=reference)
        self.goal, self.look, self.raster = self._judge.goal, self._judge.look, self._judge.raster
        self._fixed = self._judge.fixed
        self._polish = polish or MemeticConfig()
        self._capacity = max_length
        self._batch = batch or fitting_batch(self.raster.height)
        self._init = jax.jit(algorithm.init, static_argnums=1)
        self._step = jax.jit(self._generation, donate_argnums=0)
        self._assess = jax.jit(self._assess_population)

    def init(self, key: Key[Array, ""], seeds: Program | None = None) -> EvolutionState:
        """The state before the first generation; seeds must have this evolution's capacity."""
        init_key, key = jax.random.split(key)
        state = self._init(init_key, self._capacity, seeds)
        nothing = Metrics(*(jnp.float32(0) for _ in Metrics._fields))
        return EvolutionState(
            algorithm=state,
            key=key,
            generation=jnp.int32(0),
            best=jax.tree.map(jnp.copy, take(state.population, jnp.int32(0))),
            best_fitness=jnp.float32(EMPTY),
            best_metrics=nothing,
        )

    def among(
        self, images: Sequence[Pyramid], reference: Float[Array, "h w 3"] | None
    ) -> "Evolution":
        """The same where formulas read other pictures; those of the same sizes share its code."""
        other = copy.copy(self)
        other._fixed = self._fixed._replace(images=tuple(images), reference=reference)
        return other

    def step(self, state: EvolutionState) -> tuple[EvolutionState, Summary]:
        """One generation; consumes the given state."""
        return self._step(state, self._fixed)

    def assess(self, population: Program) -> tuple[Float[Array, "P"], Metrics]:
        """Fitness and metrics of any programs."""
        return self._assess(population, self._fixed)

    def _generation(self, state: EvolutionState, fixed: Fixed) -> tuple[EvolutionState, Summary]:
        ask_key, tell_key, key = jax.random.split(state.key, 3)
        offspring = self.algorithm.ask(ask_key, state.algorithm)
        threshold = self.algorithm.threshold(state.algorithm)
        fitness, metrics = self._assess_population(offspring, fixed, threshold)
        algorithm_state = self.algorithm.tell(tell_key, state.algorithm, offspring, fitness)

        best = (state.best, state.best_fitness, state.best_metrics)
        best = _better(best, (offspring, fitness, metrics))
        if self._polish.every:
            due = (state.generation + 1) % self._polish.every == 0
            polish_key = jax.random.fold_in(tell_key, 0)
            algorithm_state, polished = self._polish_if(due, algorithm_state, fixed, polish_key)
            best = _better(best, polished)
        best, best_fitness, best_metrics = best
        held = algorithm_state.fitness > EMPTY
        summary = Summary(
            best_fitness=best_fitness,
            best_score=best_metrics.score,
            best_value=best_metrics.value,
            mean_score=jnp.mean(metrics.score),
            survivors_fitness=jnp.nanmedian(jnp.where(held, algorithm_state.fitness, jnp.nan)),
            mean_length=jnp.mean(offspring.length.astype(jnp.float32)),
            is_record=best_fitness > state.best_fitness,
        )
        return EvolutionState(
            algorithm_state, key, state.generation + 1, best, best_fitness, best_metrics
        ), summary

    def _polish_if(self, due: Array, state: Any, fixed: Fixed, key: Key[Array, ""]):
        """`polish_best` where it is due, else the same state and nobody polished."""

        def polish(state: Any):
            return polish_best(state, self._judge, fixed, self._polish, key)

        def leave(state: Any):
            return state, nobody_polished(state, self._polish)

        return jax.lax.cond(due, polish, leave, state)

    def _assess_population(
        self, population: Program, fixed: Fixed, threshold: Array | float = -jnp.inf
    ) -> tuple[Array, Metrics]:
        """In batches, one after the other, so that memory does not grow with the population."""
        count = population.length.shape[0]
        num_batches = -(-count // self._batch)
        size = -(-count // num_batches)  # so that the last batch is no smaller than the others
        index = jnp.minimum(jnp.arange(num_batches * size), count - 1)

        def one_batch(batch: Program):
            return self._judge.judge(batch, fixed, threshold)

        batches = take(population, index.reshape(num_batches, size))
        results = jax.lax.map(one_batch, batches)
        return jax.tree.map(lambda field: field.reshape(-1)[:count], results)


Best = tuple[Program, Array, Metrics]


def _better(best: Best, others: Best) -> Best:
    """One individual, or the first of a population that is fitter than it and all others."""
    winner = jnp.argmax(others[1])
    is_better = others[1][winner] > best[1]
    return jax.tree.map(lambda old, new: jnp.where(is_better, new[winner], old), best, others)
