"""The generation, as one compiled step: ask, draw, evaluate, tell; and many of them in a row.

Nothing in it returns to the host but a handful of scalars; the best formula so far stays on the
device until somebody wants to see it.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program, take
from evojax_art.nets.base import Network
from evojax_art.objective.evaluation import Evaluation, Objective
from evojax_art.objective.evaluator import Evaluator, Params
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.terms import Target
from evojax_art.objective.views import ViewsConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.plan import Plan
from evojax_art.search.memetic import MemeticConfig, nobody_polished, polish_best
from evojax_art.search.protocol import NOBODY, Algorithm
from evojax_art.search.sieve import sieve, with_fitting_surplus

VISIT = 64  # generations that the host may let pass before it looks again, at most


class Individual(NamedTuple):
    """One formula of a run.

    Attributes:
        program: the formula.
        evaluation: of it, without scores and descriptors.
        birth: generation, from 1, and number among its offspring; `NOBODY` before the first.
        parents: the births of host and donor; `NOBODY` where there was none.
    """

    program: Program
    evaluation: Evaluation
    birth: Int[Array, "2"]
    parents: Int[Array, "2 2"]


class EvolutionState(NamedTuple):
    """All that decides how an evolution goes on, as a pytree.

    Attributes:
        algorithm: the algorithm's own state.
        key: for all generations to come.
        generation: completed ones.
        best: the best individual so far; not valid where there was none.
    """

    algorithm: Any
    key: Key[Array, ""]
    generation: Int[Array, ""]
    best: Individual


class Summary(NamedTuple):
    """What the host learns of a generation, scalars, or of N of them.

    Attributes:
        best_fitness: highest so far.
        best_score: the target's score of that individual.
        best_value: the same on the target's own scale, for classes log-odds.
        mean_score: over this generation's offspring.
        survivors_fitness: median fitness of the valid survivors; NaN where there are none.
        mean_length: nodes, over the offspring.
        is_record: whether this generation improved on all before.
    """

    best_fitness: Float[Array, "*N"]
    best_score: Float[Array, "*N"]
    best_value: Float[Array, "*N"]
    mean_score: Float[Array, "*N"]
    survivors_fitness: Float[Array, "*N"]
    mean_length: Float[Array, "*N"]
    is_record: Bool[Array, "*N"]


class Until(NamedTuple):
    """When the host wants to look.

    Attributes:
        generations: after so many at the latest, from 1 to `VISIT`.
        score: once the best score is this or more.
        drawn: value of the record that was drawn last; NaN for none.
        step: once a record's value is this far from it.
    """

    generations: Int[Array | np.ndarray, ""] | int
    score: Float[Array | np.ndarray, ""] | float
    drawn: Float[Array | np.ndarray, ""] | float
    step: Float[Array | np.ndarray, ""] | float


class Evolution:
    """A compiled evolution towards what networks see.

    Args:
        algorithm: how the population changes.
        nets: the network that judges, or several by name, the first of which is asked by default.
        target: what is wanted of it; indices of classes stand for a `ClassTarget`.
        objective: how fitness is composed.
        raster: the pictures that are judged.
        max_length: capacity L of the genomes.
        batch: formulas drawn and judged at a time; memory grows with it. None: as many as the plan
            says for pictures of this size.
        photographs: that formulas read, see `language.photographs`.
        reference: the picture that `objective.near` keeps to, of any size.
        views: in which pictures are judged besides, others in each generation.
        polish: whether the best are polished by gradient now and then.
        plan: where and how; None: `current_plan`.

    Raises:
        InputError: pictures of a size that the target's layer cannot take.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        nets: Network | Mapping[str, Network],
        target: Target | Sequence[int],
        objective: ObjectiveConfig | Objective,
        raster: RasterConfig,
        *,
        max_length: int = 128,
        batch: int | None = None,
        photographs: Sequence[Pyramid] = (),
        reference: Float[Array, "h w 3"] | None = None,
        views: ViewsConfig | None = None,
        polish: MemeticConfig | None = None,
        plan: Plan | None = None,
    ):
        self.evaluator = Evaluator(
            nets,
            target,
            objective,
            raster,
            photographs=photographs,
            reference=reference,
            views=views,
            plan=plan,
        )
        self.target = self.evaluator.target
        self.look, self.raster = self.evaluator.look, self.evaluator.raster
        self.algorithm = with_fitting_surplus(algorithm, self.raster.height)
        self.params = self.evaluator.params
        self._polish = polish or MemeticConfig()
        self._capacity = max_length
        self.batch = batch or self.evaluator.plan.batch(self.raster.height)
        self._init = jax.jit(self._first_state)
        self._step = jax.jit(self._generation, donate_argnums=0)
        self._advance = jax.jit(self._generations, donate_argnums=0)
        self._evaluate = jax.jit(partial(self.evaluator.evaluate_all, batch=self.batch))

    def init(self, key: Key[Array, ""], seeds: Program | None = None) -> EvolutionState:
        """The state before the first generation; seeds must have this evolution's capacity."""
        return self._init(key, seeds)

    def among(
        self, photographs: Sequence[Pyramid], reference: Float[Array, "h w 3"] | None
    ) -> "Evolution":
        """The same where formulas read others; those of the same sizes share its code."""
        other = copy.copy(self)
        photographs = tuple(photographs)
        other.params = self.params._replace(photographs=photographs, reference=reference)
        return other

    def step(self, state: EvolutionState) -> tuple[EvolutionState, Summary]:
        """One generation; consumes the given state."""
        return self._step(state, self.params)

    def advance(
        self, state: EvolutionState, until: Until
    ) -> tuple[EvolutionState, Summary, Int[Array, ""]]:
        """Generations until the host wants to look; consumes the given state.

        Returns:
            The state; what there is to know of `VISIT` generations; how many of those there were.
        """
        generations, *bounds = until
        limits = Until(  # by numpy: nothing is handed to the device before the step is
            np.asarray(generations, np.int32), *(np.asarray(bound, np.float32) for bound in bounds)
        )
        return self._advance(state, self.params, limits)

    def evaluate(self, population: Program) -> Evaluation:
        """Of any programs."""
        return self._evaluate(population, self.params)

    def scored(self, generation: int) -> int:
        """Formulas evaluated by the end of a generation, from 1; a step of polish is one."""
        polished = generation // self._polish.every if self._polish.every else 0
        return generation * self.algorithm.num_offspring + polished * self._polish.evaluations

    def _first_state(self, key: Key[Array, ""], seeds: Program | None) -> EvolutionState:
        init_key, key = jax.random.split(key)
        state = self.algorithm.init(init_key, self._capacity, seeds)
        programs = take(self.algorithm.survivors(state).programs, jnp.arange(1))
        unknown = self.evaluator.unknown(programs, self.params)
        nobody = jnp.full((2, 2), NOBODY, jnp.int32)
        best = Individual(
            program=take(programs, jnp.int32(0)),
            evaluation=_brief(take(unknown, jnp.int32(0))),
            birth=nobody[0],
            parents=nobody,
        )
        return EvolutionState(state, key, jnp.int32(0), best)

    def _generations(
        self, state: EvolutionState, params: Params, until: Until
    ) -> tuple[EvolutionState, Summary, Int[Array, ""]]:
        shapes = jax.eval_shape(self._generation, state, params)[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros((VISIT, *leaf.shape), leaf.dtype), shapes)

        def unseen(carried: tuple) -> Array:
            _, _, count, looked_for = carried
            return (count < until.generations) & ~looked_for

        def generation(carried: tuple) -> tuple:
            state, summaries, count, _ = carried
            state, summary = self._generation(state, params)
            summaries = jax.tree.map(lambda all_, one: all_.at[count].set(one), summaries, summary)
            near = jnp.abs(summary.best_value - until.drawn) < until.step  # to NaN nothing is
            looked_for = (summary.is_record & ~near) | (summary.best_score >= until.score)
            return state, summaries, count + 1, looked_for

        carried = (state, nothing, jnp.int32(0), jnp.bool_(False))
        return jax.lax.while_loop(unseen, generation, carried)[:3]

    def _generation(self, state: EvolutionState, params: Params) -> tuple[EvolutionState, Summary]:
        has_views = self.evaluator.has_views
        ask_key, tell_key, polish_key, key, *view_key = jax.random.split(state.key, 4 + has_views)
        if has_views:
            params = self.evaluator.seen_anew(params, view_key[0])
        number = state.generation + 1
        algorithm, before = self.algorithm, self.algorithm.survivors(state.algorithm)
        offspring = sieve(
            algorithm.ask(ask_key, state.algorithm),
            before.programs,
            self.evaluator,
            params,
            algorithm.num_offspring,
        )
        offspring = offspring._replace(birth=births(number, 0, algorithm.num_offspring))
        threshold = algorithm.threshold(state.algorithm)
        evaluation = self.evaluator.evaluate_all(
            offspring.programs, params, threshold, batch=self.batch
        )
        algorithm_state = algorithm.tell(tell_key, state.algorithm, offspring, evaluation)

        parents = births_of(before.birth, offspring.parents)
        born = Individual(offspring.programs, _brief(evaluation), offspring.birth, parents)
        best = _better(state.best, born)
        if self._polish.every:
            due = number % self._polish.every == 0
            algorithm_state, polished = self._polish_if(
                due, algorithm_state, params, polish_key, number
            )
            best = _better(best, polished)
        after = algorithm.survivors(algorithm_state)
        valid = jnp.isfinite(after.fitness)
        summary = Summary(
            best_fitness=best.evaluation.fitness,
            best_score=best.evaluation.metrics["score"],
            best_value=best.evaluation.metrics["value"],
            mean_score=jnp.mean(evaluation.metrics["score"]),
            survivors_fitness=jnp.nanmedian(jnp.where(valid, after.fitness, jnp.nan)),
            mean_length=jnp.mean(offspring.programs.length.astype(jnp.float32)),
            is_record=best.evaluation.fitness > state.best.evaluation.fitness,
        )
        return EvolutionState(algorithm_state, key, number, best), summary

    def _polish_if(
        self, due: Array, state: Any, params: Params, key: Key[Array, ""], number: Array
    ) -> tuple[Any, Individual]:
        """`polish_best` where it is due, else the same state and nobody polished."""
        before = self.algorithm.survivors(state)

        def polish(survivors):
            return polish_best(survivors, self.evaluator, params, self._polish, key)

        def leave(survivors):
            return nobody_polished(survivors, self.evaluator, params, self._polish)

        polished = jax.lax.cond(due, polish, leave, before)
        count = len(polished.place)
        birth = births(number, self.algorithm.num_offspring, count)
        parents = births_of(before.birth, jnp.stack([polished.place] * 2, axis=1))
        better = polished.evaluation.valid
        place = jnp.where(better, polished.place, len(before.fitness))  # beyond the last: dropped
        after = before._replace(
            programs=jax.tree.map(
                lambda all_, some: all_.at[place].set(some, mode="drop"),
                before.programs,
                polished.programs,
            ),
            fitness=before.fitness.at[place].set(polished.evaluation.fitness, mode="drop"),
            birth=before.birth.at[place].set(birth, mode="drop"),
        )
        born = Individual(polished.programs, _brief(polished.evaluation), birth, parents)
        return self.algorithm.put(state, after), born


def births(generation: Array, first: int, count: int) -> Int[Array, "O 2"]:
    """Of so many individuals of a generation, numbered from the first."""
    number = jnp.arange(first, first + count, dtype=jnp.int32)
    return jnp.stack([jnp.broadcast_to(generation.astype(jnp.int32), count), number], axis=1)


def births_of(birth: Int[Array, "P 2"], places: Int[Array, "O 2"]) -> Int[Array, "O 2 2"]:
    """Of the individuals at these places; `NOBODY` where there is no place."""
    return jnp.where((places == NOBODY)[..., None], NOBODY, birth[places])


def _brief(evaluation: Evaluation) -> Evaluation:
    return evaluation._replace(descriptors=None, scores=None)


def _better(best: Individual, others: Individual) -> Individual:
    """One individual, or the first of a population that is fitter than it and all others."""
    winner = jnp.argmax(others.evaluation.fitness)
    is_better = others.evaluation.fitness[winner] > best.evaluation.fitness
    return jax.tree.map(lambda old, new: jnp.where(is_better, new[winner], old), best, others)
