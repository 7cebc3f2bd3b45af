"""A genetic algorithm with overlapping generations.

Every generation, tournaments choose hosts and donors, variation makes children, and the best of
parents and children survive. A few things keep it from settling early or bloating: some children
are fresh random formulas; of equal pictures only the shortest formula stays; of pictures that look
alike only some; and every node costs a little fitness in every comparison.

Pictures count as equal where fitness and appearance (`objective.evaluation`) differ by no more than
rounding does, which depends on the batch that a formula was evaluated in.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.program import Program, select, take
from evojax_art.objective.evaluation import APPEARANCE, Evaluation
from evojax_art.runtime.errors import InputError
from evojax_art.search.breeding import breed
from evojax_art.search.protocol import (
    Offspring,
    Survivors,
    concatenate,
    evaluated,
    fingerprint,
    from_queue,
    in_groups,
    nobody_yet,
    repeats,
    starters,
    tournament,
)
from evojax_art.search.splicing import draw
from evojax_art.search.variation import GrowthConfig, VariationConfig, regrown

_ROUNDING = 1e-4  # differences of that size, relative for a large fitness, mean nothing
_NEIGHBOURS = 4  # with which an individual is compared
_ALIKE = 0.05  # of a range of colour
_ROWS = 512  # compared with all at a time


@dataclass(frozen=True, kw_only=True)
class Genetic:
    """The genetic algorithm and its settings.

    Attributes:
        population: survivors, P.
        offspring: children evaluated per generation, O.
        surplus: share of them that is made besides, so that those which promise nothing can be left
            out (`sieve`). Where pictures are smaller than 96 pixels it is not used.
        tournament: entrants per parent; larger is greedier.
        alike: share of the survivors that look alike at most, as far as there are others for their
            places; with 1 one picture and its variations soon hold them all.
        parsimony: fitness that every node costs in comparisons.
        variation: ways to make a child.
        growth: how random formulas grow.
    """

    compares_probabilities: ClassVar[bool] = False

    population: int = 1024
    offspring: int = 128
    surplus: float = 0.0
    tournament: int = 2
    alike: float = 0.125
    parsimony: float = 0.003
    variation: VariationConfig = field(default_factory=VariationConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)

    def __post_init__(self):
        for name in ("population", "offspring", "tournament"):
            if getattr(self, name) < 1:
                raise InputError(f"genetic.{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.surplus <= 10:
            raise InputError(f"genetic.surplus must be 0 to 10, got {self.surplus}")
        if not 0 < self.alike <= 1:  # nor NaN
            raise InputError(f"genetic.alike must be above 0, 1 at most, got {self.alike}")
        if not 0 <= self.parsimony < math.inf:  # nor NaN
            raise InputError(
                f"genetic.parsimony must be 0 or more, and finite, got {self.parsimony}"
            )

    @property
    def num_offspring(self) -> int:
        """Programs of each generation that are evaluated; with a surplus `ask` returns more."""
        return self.offspring

    def init(self, key: Key[Array, ""], capacity: int, seeds: Program | None) -> "State":
        """Nobody evaluated yet; the queue holds the starters."""
        queue = starters(key, capacity, self.growth, self.population, seeds)
        held = nobody_yet(take(queue, jnp.arange(self.population)))
        nothing = jnp.zeros((self.population, APPEARANCE), jnp.float32)
        return State(held=held, appearance=nothing, queue=queue, asked=jnp.int32(0))

    def ask(self, key: Key[Array, ""], state: "State") -> Offspring:
        """Starters while there are any, then children of tournament winners.

        A child equal to a survivor or to another child gets a random subtree.
        """
        host_key, donor_key, breed_key, again_key = jax.random.split(key, 4)
        standing, population = self._standing(state.held), state.held.programs
        count = self.offspring + round(self.surplus * self.offspring)
        hosts, donors = (
            tournament(key, standing, self.tournament, count) for key in (host_key, donor_key)
        )
        children, parents = breed(breed_key, population, hosts, donors, self.variation, self.growth)
        known = jax.vmap(fingerprint)(concatenate(population, children))
        repeated = repeats(known, jnp.arange(known.shape[0]))[self.population :]
        others = in_groups(
            lambda draws, child: regrown(draws, child, self.growth, self.variation.regrow_depth),
            draw(again_key, count, children.capacity),
            children,
        )
        children = select(repeated, others, children)
        return from_queue(state.queue, state.asked, children, parents)

    def threshold(self, state: "State") -> Float[Array, ""]:
        """That of a formula of one node which stands no better than the last survivor.

        And a little less: such a one may still be equal to who stands better.
        """
        bar = jnp.min(self._standing(state.held)) + self.parsimony
        return bar - 2 * _ROUNDING * (1 + jnp.abs(bar))

    def tell(
        self,
        key: Key[Array, ""],
        state: "State",
        offspring: Offspring,
        evaluation: Evaluation,
    ) -> "State":
        """The best of parents and children, but of those that look alike only so many.

        Of equal pictures, only the shortest formula. Who stands behind all that hold places gets
        none, so that nobody need know more of such a one (`threshold`).
        """
        del key  # chance has no say in survival
        everyone = concatenate(state.held, evaluated(offspring, evaluation))
        appearance = jnp.concatenate([state.appearance, evaluation.appearance])
        repeated = equal_pictures(everyone, appearance)
        nobody = nobody_yet(everyone.programs)
        everyone = select(repeated, nobody, everyone)
        best = jnp.argmax(everyone.fitness)  # stays, however long
        standing = self._standing(everyone).at[best].set(jnp.inf)
        most = max(1, round(self.alike * self.population))
        is_spare = better_alike(standing, appearance) >= most
        is_behind = (standing < jnp.min(self._standing(state.held))) | jnp.isneginf(standing)
        order = jnp.lexsort((~everyone.taken, -standing, is_spare, is_behind))
        survivors = order[: self.population]
        return State(
            held=take(everyone, survivors),
            appearance=appearance[survivors],
            queue=state.queue,
            asked=state.asked + self.offspring,
        )

    def survivors(self, state: "State") -> Survivors:
        """P of them, the best first, but for those that only fill their places."""
        return state.held

    def put(self, state: "State", survivors: Survivors) -> "State":
        """They keep the appearance of those whose places they take, of whom they are variations."""
        return state._replace(held=survivors)

    def _standing(self, held: Survivors) -> Float[Array, "N"]:
        return held.fitness - self.parsimony * held.programs.length


def equal_pictures(everyone: Survivors, appearance: Float[Array, "N A"]) -> Bool[Array, "N"]:
    """Marks, among those of equal pictures, all but one, a shortest but for rounding.

    In the order of fitness, rounded, and then of length, each is compared with a few before it.
    """
    fitness, length = everyone.fitness, everyone.programs.length
    allowed = _ROUNDING * (1 + jnp.abs(fitness))
    steps = jnp.round(fitness / _ROUNDING)
    order = jnp.lexsort((length, -steps))
    fitness, allowed, appearance = fitness[order], allowed[order], appearance[order]
    marked = jnp.zeros(len(order), bool)
    for back in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
        # Of those that are not valid the difference is no number, so they are equal to nobody.
        near = jnp.abs(fitness[back:] - fitness[:-back]) <= allowed[back:]
        apart = jnp.max(jnp.abs(appearance[back:] - appearance[:-back]), axis=1)
        marked = marked.at[back:].set(marked[back:] | (near & (apart <= _ROUNDING)))
    return jnp.zeros_like(marked).at[order].set(marked)


def better_alike(standing: Float[Array, "N"], appearance: Float[Array, "N A"]) -> Int[Array, "N"]:
    """How many stand better than each and look like it: their fields' colours are within 5 %.

    Root mean square of the differences, of a range of colour. Some rows at a time, which bounds
    memory.
    """
    centred = appearance - 0.5
    squares = jnp.sum(centred**2, axis=1)

    def count(row: tuple[Array, Array, Array]) -> Array:
        place, mine, square = row
        product = jnp.einsum("na,a->n", centred, mine, precision=jax.lax.Precision.HIGHEST)
        is_near = squares + square - 2 * product < appearance.shape[1] * _ALIKE**2
        return jnp.sum(is_near & (standing > standing[place]))

    rows = (jnp.arange(len(standing)), centred, squares)
    return jax.lax.map(count, rows, batch_size=min(_ROWS, len(standing)))


class State(NamedTuple):
    """Survivors, and the starters of which `asked` have been handed out.

    Attributes:
        held: the survivors.
        appearance: of each one's picture.
        queue: the starters.
        asked: programs handed out so far.
    """

    held: Survivors
    appearance: Float[Array, "P A"]
    queue: Program
    asked: Int[Array, ""]
