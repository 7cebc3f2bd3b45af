"""MAP-Elites with a niche for every class, and every child a candidate for all of them.

Mouret and Clune, "Illuminating search spaces by mapping elites" (2015); Nguyen, Yosinski and Clune,
"Innovation Engines" (2015), bred pictures for ImageNet's classes so. Here a picture's fitness in
each niche is known at once (`Evaluation.scores`), so that the child of an elite of one class may
become the elite of another: stepping stones lead from class to class.

A niche may hold several elites which differ in how they look (`MapElites.kinds`): each kind is a
range of the first descriptor, from 0 to 1, and has places of its own. With `build_objective` that
is the brightness.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.program import Program, take
from evojax_art.objective.evaluation import Evaluation
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import INTERNAL
from evojax_art.search.breeding import breed
from evojax_art.search.protocol import (
    Offspring,
    Survivors,
    from_queue,
    nobody_yet,
    starters,
    tournament,
)
from evojax_art.search.variation import GrowthConfig, VariationConfig

_LEAST_CURIOSITY = 0.02
_OPERATORS = GrowthConfig(add=("all",))


@dataclass(frozen=True, kw_only=True)
class MapElites:
    """MAP-Elites and its settings.

    Attributes:
        niches: K of them.
        offspring: children evaluated per generation, O.
        surplus: share of them that is made besides, so that those which promise nothing can be left
            out (`sieve`). Where pictures are smaller than 96 pixels it is not used.
        starters: random formulas, or seeds, before there are children.
        kinds: elites of each niche, which differ in brightness.
        parents: hosts are "uniform" among elites, or chosen by "curiosity": those oftener whose
            niche or children have lately won a place.
        main: the niche that is bred for, none by default; others are its stepping stones.
        focus: share of the hosts that win tournaments by their fitness in the main niche, whatever
            niche they are elites of: relatives of what is wanted, of many families.
        tournament: entrants of such a one.
        patience: factor of an elite's curiosity for every child of it that wins nothing.
        parsimony: fitness that every node costs in comparisons.
        variation: ways to make a child; `fresh` is the share of random formulas.
        growth: how random formulas grow.
    """

    compares_probabilities: ClassVar[bool] = False

    niches: int = field(default=1, metadata=INTERNAL)
    offspring: int = 256
    surplus: float = 0.0
    starters: int = 1024
    kinds: int = 1
    parents: Literal["uniform", "curiosity"] = "curiosity"
    main: int | None = field(default=None, metadata=INTERNAL)
    focus: float = 0.7
    tournament: int = 16
    patience: float = 0.97
    parsimony: float = 0.003
    variation: VariationConfig = field(default_factory=VariationConfig)
    growth: GrowthConfig = _OPERATORS

    def __post_init__(self):
        if not 0 <= self.focus <= 1:
            raise InputError(f"map_elites.focus must be 0 to 1, got {self.focus}")
        for name in ("offspring", "starters", "kinds", "tournament"):
            if getattr(self, name) < 1:
                raise InputError(f"map_elites.{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 < self.patience <= 1:
            raise InputError(f"map_elites.patience must be above 0, 1 at most, got {self.patience}")
        if not 0 <= self.surplus <= 10:
            raise InputError(f"map_elites.surplus must be 0 to 10, got {self.surplus}")
        if not 0 <= self.parsimony < math.inf:  # nor NaN
            raise InputError(
                f"map_elites.parsimony must be 0 or more, and finite, got {self.parsimony}"
            )

    @property
    def num_offspring(self) -> int:
        """Programs of each generation that are evaluated; with a surplus `ask` returns more."""
        return self.offspring

    @property
    def num_places(self) -> int:
        """All niches' elites, N: those of the first kind, niche by niche, then of the next."""
        return self.kinds * self.niches

    def init(self, key: Key[Array, ""], capacity: int, seeds: Program | None) -> "Repertoire":
        """Nobody evaluated yet; the queue holds the starters."""
        queue = starters(key, capacity, self.growth, self.starters, seeds)
        places = jnp.arange(self.num_places) % queue.length.shape[0]
        return Repertoire(
            held=nobody_yet(take(queue, places)),
            value=jnp.full(self.num_places, -jnp.inf, jnp.float32),
            main_fitness=jnp.full(self.num_places, -jnp.inf, jnp.float32),
            curiosity=jnp.ones(self.num_places, jnp.float32),
            takeovers=jnp.zeros(self.num_places, jnp.int32),
            queue=queue,
            asked=jnp.int32(0),
        )

    def ask(self, key: Key[Array, ""], state: "Repertoire") -> Offspring:
        """Starters while there are any, then children of elites."""
        host_key, donor_key, breed_key = jax.random.split(key, 3)
        count = self.offspring + round(self.surplus * self.offspring)
        hosts = self.choose(host_key, state, count)
        evenly = _share(jnp.ones_like(state.curiosity), state.held.taken)
        donors = jax.random.categorical(donor_key, jnp.log(evenly), shape=(count,))
        children, parents = breed(
            breed_key, state.held.programs, hosts, donors, self.variation, self.growth
        )
        return from_queue(state.queue, state.asked, children, parents)

    def choose(self, key: Key[Array, ""], state: "Repertoire", count: int) -> Int[Array, "C"]:
        """The places of so many hosts."""
        curious_key, entrants_key, focus_key = jax.random.split(key, 3)
        curious = state.curiosity if self.parents == "curiosity" else jnp.ones_like(state.curiosity)
        chance = _share(curious, state.held.taken)
        places = jax.random.categorical(curious_key, jnp.log(chance), shape=(count,))
        if self.main is None:
            return places
        winners = tournament(entrants_key, state.main_fitness, self.tournament, count)
        return jnp.where(jax.random.bernoulli(focus_key, self.focus, (count,)), winners, places)

    def threshold(self, state: "Repertoire") -> Float[Array, "K"]:
        """In each niche what beats the elite that stands lowest, for a formula of one node."""
        standing = self._standing(state.held.fitness, state.held.programs.length)
        return jnp.min(standing.reshape(self.kinds, self.niches), axis=0) + self.parsimony

    def tell(
        self,
        key: Key[Array, ""],
        state: "Repertoire",
        offspring: Offspring,
        evaluation: Evaluation,
    ) -> "Repertoire":
        """Every niche is taken over by the best child, if that stands better than its elite."""
        del key  # chance has no say
        winner, better = self._winners(state, offspring, evaluation)

        def taken_over(old: Array, new: Array) -> Array:
            return jnp.where(better.reshape(-1, *(1,) * (old.ndim - 1)), new[winner], old)

        niche = jnp.arange(self.num_places) % self.niches
        scores = _scores(evaluation)[winner, niche]
        values = scores - evaluation.metrics["besides"][winner]
        won = jnp.zeros(len(offspring.parents), bool).at[winner].max(better)
        held = Survivors(
            programs=jax.tree.map(taken_over, state.held.programs, offspring.programs),
            fitness=jnp.where(better, scores, state.held.fitness),
            taken=state.held.taken | better,
            birth=taken_over(state.held.birth, offspring.birth),
        )
        return state._replace(
            held=held,
            value=jnp.where(better, values, state.value),
            main_fitness=jnp.where(better, evaluation.fitness[winner], state.main_fitness),
            curiosity=self._curiosity(state.curiosity, offspring.parents[:, 0], won, better),
            takeovers=state.takeovers + better,
            asked=state.asked + self.offspring,
        )

    def survivors(self, state: "Repertoire") -> Survivors:
        """The elites, N of them; with a main niche, by how fit they are there."""
        return state.held if self.main is None else state.held._replace(fitness=state.main_fitness)

    def put(self, state: "Repertoire", survivors: Survivors) -> "Repertoire":
        """With the fittest in the main niche of those that have changed, if nobody there is fitter.

        How fit they are in niches of their own is not known, so these stay as they are.
        """
        if self.main is None:
            raise ValueError("nobody can be put where there is no main niche")
        changed = jnp.any(survivors.birth != state.held.birth, axis=1)
        fitness = jnp.where(changed, survivors.fitness, -jnp.inf)
        winner = jnp.argmax(fitness)
        place = winner // self.niches * self.niches + self.main  # among those of its kind
        is_better = fitness[winner] > state.held.fitness[place]
        place = jnp.where(is_better, place, self.num_places)  # beyond the last: dropped
        held = jax.tree.map(
            lambda all_, some: all_.at[place].set(some[winner], mode="drop"),
            state.held,
            survivors._replace(fitness=fitness, taken=jnp.ones_like(survivors.taken)),
        )
        return state._replace(
            held=held,
            value=state.value.at[place].set(fitness[winner], mode="drop"),
            main_fitness=state.main_fitness.at[place].set(fitness[winner], mode="drop"),
            curiosity=state.curiosity.at[place].set(1.0, mode="drop"),
            takeovers=state.takeovers.at[place].add(1, mode="drop"),
        )

    def _winners(
        self, state: "Repertoire", offspring: Offspring, evaluation: Evaluation
    ) -> tuple[Int[Array, "N"], Bool[Array, "N"]]:
        """The best child for every place, and whether it stands better than who holds it."""
        scores, lengths = _scores(evaluation), offspring.programs.length
        kind = jnp.zeros(len(lengths), jnp.int32)
        if self.kinds > 1:
            if evaluation.descriptors is None:
                raise ValueError("kinds of elites need an objective with descriptors")
            kind = jnp.clip(evaluation.descriptors[:, 0] * self.kinds, 0, self.kinds - 1)
            kind = kind.astype(jnp.int32)
        standing = self._standing(scores, lengths[:, None])
        of_kind = kind == jnp.arange(self.kinds)[:, None]
        standing = jnp.where(of_kind[:, :, None], standing, -jnp.inf)  # [kinds, O, K]
        winner = jnp.argmax(standing, axis=1).ravel()
        theirs = jnp.max(standing, axis=1).ravel()
        ours = self._standing(state.held.fitness, state.held.programs.length)
        return winner, theirs > ours

    def _curiosity(
        self,
        curiosity: Float[Array, "N"],
        hosts: Int[Array, "O"],
        won: Bool[Array, "O"],
        taken_over: Bool[Array, "N"],
    ) -> Float[Array, "N"]:
        """Full for a new elite and for one whose child won; less with every child in vain."""
        place = jnp.where(hosts >= 0, hosts, len(curiosity))  # beyond the last: dropped
        curiosity = curiosity.at[place].multiply(jnp.where(won, 1, self.patience), mode="drop")
        curiosity = curiosity.at[place].max(jnp.where(won, 1.0, 0.0), mode="drop")
        return jnp.where(taken_over, 1.0, jnp.maximum(curiosity, _LEAST_CURIOSITY))

    def _standing(self, fitness: Array, length: Array) -> Array:
        return fitness - self.parsimony * length


def _share(weight: Float[Array, "N"], who: Bool[Array, "N"]) -> Float[Array, "N"]:
    """Each one's share of the weight, of some; of all where these are none."""
    weight = jnp.where(who | ~jnp.any(who), weight, 0.0)
    return weight / jnp.sum(weight)


def _scores(evaluation: Evaluation) -> Float[Array, "O K"]:
    if evaluation.scores is None:
        raise ValueError("MAP-Elites needs an objective with niches")
    return evaluation.scores


class Repertoire(NamedTuple):
    """The elites, and how breeding from them has gone.

    Attributes:
        held: the elites of N places; a niche's fitness is its elite's.
        value: fitness without what is no niche's, as total variation.
        main_fitness: of the elites in the main niche; where there is none, each one's highest.
        curiosity: how often each is chosen as host, in (0, 1].
        takeovers: how often each place has changed hands.
        queue: the starters.
        asked: programs handed out so far.
    """

    held: Survivors
    value: Float[Array, "N"]
    main_fitness: Float[Array, "N"]
    curiosity: Float[Array, "N"]
    takeovers: Int[Array, "N"]
    queue: Program
    asked: Int[Array, ""]
