"""Illumination as one compiled step: ask, draw, evaluate, tell; and what came of it.

Other than in an evolution (`generation`), nobody is the best: there is an elite for every niche,
and measures of them all. Who took over which niche is handed to the host, which writes the lineage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program, free_constants, take
from evojax_art.nets.base import Network
from evojax_art.objective.evaluation import Objective
from evojax_art.objective.evaluator import Evaluator, Params
from evojax_art.objective.terms import Target
from evojax_art.objective.views import ViewsConfig
from evojax_art.refine.ascent import Ascent, AscentConfig
from evojax_art.refine.waves import laid_over, reach_of_waves
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan
from evojax_art.search.generation import births, births_of
from evojax_art.search.map_elites import MapElites, Repertoire
from evojax_art.search.protocol import NOBODY, Offspring, concatenate
from evojax_art.search.sieve import sieve, with_fitting_surplus


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """Children that are made by gradient: elites whose constants climb towards their own niche.

    As in PGA-MAP-Elites (Nilsson and Cully 2021), but through the whole chain of picture and
    judges. They count as what they are when they are drawn and judged again.

    Attributes:
        every: generations from one time to the next; 0 for never. The early part of a run has none.
        elites: how many, chosen as parents are.
        steps: of gradient ascent.
        learning_rate: of Adam; 1 moves a constant by a third of its size.
        waves: lay so many faint waves over each first, of nine nodes each, as far as `max_length`
            leaves room; they, and those that it had, climb in place of its other constants.
    """

    every: int = 0
    elites: int = 16
    steps: int = 8
    learning_rate: float = 0.1
    waves: int = 0

    def __post_init__(self):
        for name, least in (("every", 0), ("elites", 1), ("steps", 1), ("waves", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"gradient.{name} must be {least} or more, got {getattr(self, name)}"
                )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(
                f"gradient.learning_rate must be above 0, and finite, got {self.learning_rate}"
            )

    @property
    def evaluations(self) -> int:
        """Formulas scored by one time: each step is one, and the exact evaluation."""
        return self.elites * (self.steps + 1)


class IlluminationState(NamedTuple):
    """All that decides how an illumination goes on, as a pytree.

    Attributes:
        repertoire: the elites.
        key: for all generations to come.
        generation: completed ones.
    """

    repertoire: Repertoire
    key: Key[Array, ""]
    generation: Int[Array, ""]


class Measures(NamedTuple):
    """How a repertoire stands, as the field reports it; confidences are joint probabilities.

    Attributes:
        niches: that are filled.
        median: confidence of the niches, those that are empty at 0.
        mean: of the same.
        above_half: niches at 50 % or more.
        above_99: at 99 % or more.
        qd_score: sum of the confidences.
        takeovers: niches that changed hands in this generation.
        winners: children that took one or more.
        mean_length: nodes of the elites.
    """

    niches: Int[Array, ""]
    median: Float[Array, ""]
    mean: Float[Array, ""]
    above_half: Int[Array, ""]
    above_99: Int[Array, ""]
    qd_score: Float[Array, ""]
    takeovers: Int[Array, ""]
    winners: Int[Array, ""]
    mean_length: Float[Array, ""]


class Passed(NamedTuple):
    """What the host learns of a generation.

    Attributes:
        measures: after it.
        taken: which of N places changed hands.
        child: who took them, a number among the offspring.
        programs: of the offspring.
        parents: their parents' births, `NOBODY` where there was none.
        places: of the parents in the repertoire, likewise.
    """

    measures: Measures
    taken: Bool[Array, "N"]
    child: Int[Array, "N"]
    programs: Program
    parents: Int[Array, "O 2 2"]
    places: Int[Array, "O 2"]


class Illumination:
    """A compiled illumination.

    Args:
        algorithm: the repertoire and how it is bred from.
        nets: the networks that judge, by name.
        target: what is wanted in each niche (`EveryClass`, or an `Ensemble` of such).
        objective: with the target as its niches; the scale of these is "log_odds".
        raster: the pictures that are judged.
        max_length: capacity L of the genomes.
        batch: formulas drawn and judged at a time; None: as many as the plan says.
        photographs: that formulas read.
        views: in which pictures are judged besides, others in each generation.
        gradient: whether some children climb.
        plan: where and how; None: `current_plan`.
    """

    def __init__(
        self,
        algorithm: MapElites,
        nets: Network | Mapping[str, Network],
        target: Target,
        objective: Objective,
        raster: RasterConfig,
        *,
        max_length: int = 64,
        batch: int | None = None,
        photographs: Sequence[Pyramid] = (),
        views: ViewsConfig | None = None,
        gradient: GradientConfig | None = None,
        plan: Plan | None = None,
    ):
        self.evaluator = Evaluator(
            nets, target, objective, raster, photographs=photographs, views=views, plan=plan
        )
        self.algorithm = with_fitting_surplus(algorithm, self.evaluator.raster.height)
        self.params = self.evaluator.params
        self.gradient = gradient or GradientConfig()
        self._capacity = max_length
        self.batch = batch or self.evaluator.plan.batch(self.evaluator.raster.height)
        self._init = jax.jit(self._first_state)
        self._step = jax.jit(self._generation, static_argnums=2, donate_argnums=0)

    def init(self, key: Key[Array, ""], seeds: Program | None = None) -> IlluminationState:
        """The state before the first generation; seeds must have this capacity."""
        return self._init(key, seeds)

    def step(self, state: IlluminationState, generation: int) -> tuple[IlluminationState, Passed]:
        """One generation; consumes the given state.

        Args:
            state: before it.
            generation: its number, from 1.
        """
        return self._step(state, self.params, self.climbs(generation))

    def climbs(self, generation: int) -> bool:
        """Whether some children of that generation are made by gradient."""
        return bool(self.gradient.every) and generation % self.gradient.every == 0

    def scored(self, generation: int) -> int:
        """Formulas evaluated by the end of a generation, from 1; a step of gradient is one."""
        climbed = generation // self.gradient.every if self.gradient.every else 0
        return generation * self.algorithm.num_offspring + climbed * self.gradient.evaluations

    def _first_state(self, key: Key[Array, ""], seeds: Program | None) -> IlluminationState:
        init_key, key = jax.random.split(key)
        repertoire = self.algorithm.init(init_key, self._capacity, seeds)
        return IlluminationState(repertoire, key, jnp.int32(0))

    def _generation(
        self, state: IlluminationState, params: Params, climbs: bool
    ) -> tuple[IlluminationState, Passed]:
        ask_key, tell_key, view_key, climb_key, key = jax.random.split(state.key, 5)
        params = self.evaluator.seen_anew(params, view_key)
        number = state.generation + 1
        before = state.repertoire
        offspring = sieve(
            self.algorithm.ask(ask_key, before),
            before.held.programs,
            self.evaluator,
            params,
            self.algorithm.num_offspring,
        )
        if climbs:
            offspring = concatenate(offspring, self._climbers(climb_key, before, params))
        count = len(offspring.parents)
        offspring = offspring._replace(birth=births(number, 0, count))
        evaluation = self.evaluator.evaluate_all(
            offspring.programs, params, self.algorithm.threshold(before), batch=self.batch
        )
        after = self.algorithm.tell(tell_key, before, offspring, evaluation)
        taken = after.takeovers > before.takeovers
        winners = jnp.zeros(count, bool).at[after.held.birth[:, 1]].max(taken)
        passed = Passed(
            measures=measures(after, taken, winners),
            taken=taken,
            child=after.held.birth[:, 1],
            programs=offspring.programs,
            parents=births_of(before.held.birth, offspring.parents),
            places=offspring.parents,
        )
        return IlluminationState(after, key, number), passed

    def _climbers(self, key: Key[Array, ""], repertoire: Repertoire, params: Params) -> Offspring:
        """Elites whose constants have climbed towards their own niches."""
        choose_key, wave_key, climb_key = jax.random.split(key, 3)
        config, held = self.gradient, repertoire.held
        place = self.algorithm.choose(choose_key, repertoire, config.elites)
        ascent = Ascent(
            self.evaluator,
            AscentConfig(steps=config.steps, learning_rate=config.learning_rate, coarse=0.0),
        )
        start, reach = take(held.programs, place), None
        if config.waves:
            keys = jax.random.split(wave_key, config.elites)
            start = jax.vmap(partial(laid_over, count=config.waves))(keys, start)
            reach = jax.vmap(reach_of_waves)(start)
        else:
            start = free_constants(start)
        params = params._replace(niche=place % self.algorithm.niches)
        state = ascent.init(start, self.evaluator.unknown(start, params), reach)
        state = ascent.advance(state, params, climb_key, config.steps, coarse=False)
        parents = jnp.stack([place, jnp.full_like(place, NOBODY)], axis=1)
        return Offspring(state.here, parents, jnp.full_like(parents, NOBODY))


def measures(
    repertoire: Repertoire, taken: Bool[Array, "N"], winners: Bool[Array, "O"]
) -> Measures:
    """How a repertoire stands."""
    held = repertoire.held
    valid = jnp.isfinite(held.fitness)
    confidence = jnp.where(valid, jax.nn.sigmoid(repertoire.value), 0.0)
    return Measures(
        niches=jnp.sum(valid),
        median=jnp.median(confidence),
        mean=jnp.mean(confidence),
        above_half=jnp.sum(confidence >= 0.5),
        above_99=jnp.sum(confidence >= 0.99),
        qd_score=jnp.sum(confidence),
        takeovers=jnp.sum(taken),
        winners=jnp.sum(winners),
        mean_length=jnp.sum(jnp.where(valid, held.programs.length, 0))
        / jnp.maximum(jnp.sum(valid), 1),
    )
