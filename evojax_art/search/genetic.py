"""A genetic algorithm with overlapping generations.

Every generation, tournaments choose hosts and donors, variation makes children, and the best of
parents and children survive. A few things keep it from settling early or bloating: some children
are fresh random formulas; of equal pictures, which have equal fitness, only the shortest formula
stays; and every node costs a little fitness in every comparison.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from evojax_art.language.program import Program, select, take
from evojax_art.runtime.errors import InputError
from evojax_art.search.protocol import (
    EMPTY,
    concatenate,
    fingerprint,
    from_queue,
    in_groups,
    repeats,
    starters,
    tournament,
)
from evojax_art.search.variation import GrowthConfig, VariationConfig, regrow, vary


@dataclass(frozen=True, kw_only=True)
class Genetic:
    """The genetic algorithm and its settings.

    Attributes:
        population: survivors, P.
        offspring: children evaluated per generation, O.
        tournament: entrants per parent; larger is greedier.
        parsimony: fitness that every node costs in comparisons.
        variation: ways to make a child.
        growth: how random formulas grow.
    """

    population: int = 1024
    offspring: int = 128
    tournament: int = 2
    parsimony: float = 0.003
    variation: VariationConfig = field(default_factory=VariationConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)

    def __post_init__(self):
        for name in ("population", "offspring", "tournament"):
            if getattr(self, name) < 1:
                raise InputError(f"genetic.{name} must be 1 or more, got {getattr(self, name)}")
        if self.parsimony < 0:
            raise InputError(f"genetic.parsimony must be 0 or more, got {self.parsimony}")

    @property
    def num_offspring(self) -> int:
        """Programs that each `ask` returns."""
        return self.offspring

    def init(self, key: Key[Array, ""], capacity: int, seeds: Program | None) -> "State":
        """Nobody evaluated yet; the queue holds the starters."""
        queue = starters(key, capacity, self.growth, self.population, seeds)
        return State(
            population=take(queue, jnp.arange(self.population)),
            fitness=jnp.full(self.population, EMPTY, jnp.float32),
            queue=queue,
            asked=jnp.int32(0),
        )

    def ask(self, key: Key[Array, ""], state: "State") -> Program:
        """Starters while there are any, then children of tournament winners.

        A child equal to a survivor or to another child gets a random subtree.
        """
        host_key, donor_key, vary_key, again_key = jax.random.split(key, 4)
        standing = self._standing(state.fitness, state.population)
        hosts, donors = (
            take(state.population, tournament(key, standing, self.tournament, self.offspring))
            for key in (host_key, donor_key)
        )
        children = in_groups(
            lambda key, host, donor: vary(key, host, donor, self.variation, self.growth),
            jax.random.split(vary_key, self.offspring),
            hosts,
            donors,
        )
        known = jax.vmap(fingerprint)(concatenate(state.population, children))
        repeated = repeats(known, jnp.arange(known.shape[0]))[self.population :]
        others = in_groups(
            lambda key, child: regrow(key, child, self.growth, self.variation.regrow_depth),
            jax.random.split(again_key, self.offspring),
            children,
        )
        return from_queue(state.queue, state.asked, select(repeated, others, children))

    def threshold(self, state: "State") -> Float[Array, ""]:
        """That of a formula of one node which stands no better than the last survivor."""
        return jnp.min(self._standing(state.fitness, state.population)) + self.parsimony

    def tell(
        self,
        key: Key[Array, ""],
        state: "State",
        offspring: Program,
        fitness: Float[Array, "O"],
    ) -> "State":
        """The best of parents and children; of equal fitness, the shortest formula."""
        del key  # chance has no say in survival
        everyone = concatenate(state.population, offspring)
        fitness = jnp.concatenate([state.fitness, fitness])
        fitness = jnp.where(repeats(fitness, everyone.length), EMPTY, fitness)
        standing = jnp.where(fitness == EMPTY, -jnp.inf, self._standing(fitness, everyone))
        standing = standing.at[jnp.argmax(fitness)].set(jnp.inf)  # the best stays, however long
        survivors = jnp.argsort(-standing)[: self.population]
        return State(
            population=take(everyone, survivors),
            fitness=fitness[survivors],
            queue=state.queue,
            asked=state.asked + self.offspring,
        )

    def _standing(self, fitness: Float[Array, "N"], population: Program) -> Float[Array, "N"]:
        return fitness - self.parsimony * population.length


class State(NamedTuple):
    """Survivors, and the starters of which `asked` have been handed out.

    Attributes:
        population: P programs; a place of fitness `EMPTY` counts as free.
        fitness: of each survivor.
        queue: the starters.
        asked: programs handed out so far.
    """

    population: Program
    fitness: Float[Array, "P"]
    queue: Program
    asked: Int[Array, ""]
