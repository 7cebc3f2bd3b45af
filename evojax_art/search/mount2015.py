"""The crab experiment of 2015, by its own rules.

What ran in June 2015 and the code published later differ, so there are two rules. Both breed
children the same way, from slots chosen uniformly:

    30 %  fresh: a random tree, or (half of them) a formula of the archive, where one is given
    35 %  `subst` of both parents, in random order
    35 %  crossover at uniform nodes
    then half of the bred ones mutate one node

`log` (as run): batches of 20 for 400 slots, half of which start with formulas of the archive; a
child overwrites the first of up to 5 random slots that scores lower.
`code` (as published): 100 children for 200 slots, which start with 8 formulas of the archive; a
child passes if it scores above the 89th of the 100 sorted scores or reaches the record, and then
takes each of 5 random slots with probability s / (s + slot's s).

Scores are probabilities, so the objective's scale must be "probability"; one that is not valid,
beyond the noise gate, counts as 0, as in 2015.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from evojax_art.language.program import Program, select, take
from evojax_art.objective.evaluation import Evaluation
from evojax_art.runtime.errors import InputError
from evojax_art.search.protocol import (
    NOBODY,
    Offspring,
    Survivors,
    evaluated,
    from_queue,
    nobody_yet,
    starters,
)
from evojax_art.search.splicing import Draws, draw, either, parent, splice
from evojax_art.search.variation import GrowthConfig, breed_subst, crossover, grow, mutate_point

_TRIES = 5  # slots that a child may try
_CODE_STARTERS = 8  # archive formulas that fill the slots under the rule `code`


@dataclass(frozen=True, kw_only=True)
class Mount2015:
    """The 2015 experiment and its settings; the defaults are those of the logged run.

    Attributes:
        rule: "log", as the run of June 2015 went, or "code", as published later.
        slots: size of the population.
        batch: children per generation.
        fresh: share of children that are fresh.
        archive_share: share of the fresh ones, and of the starters of `log`, that are seeds, where
            seeds are given.
        subst: share of children bred by `subst`; the rest are crossovers.
        mutation: share of the bred ones that mutate.
        starter_depth: levels of a random starter.
        growth: how random trees grow.
    """

    compares_probabilities: ClassVar[bool] = True

    rule: Literal["log", "code"] = "log"
    slots: int = 400
    batch: int = 20
    fresh: float = 0.3
    archive_share: float = 0.5
    subst: float = 0.35
    mutation: float = 0.5
    starter_depth: int = 7
    growth: GrowthConfig = field(default_factory=GrowthConfig)

    def __post_init__(self):
        for name in ("slots", "batch", "starter_depth"):
            if getattr(self, name) < 1:
                raise InputError(f"mount2015.{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("fresh", "archive_share", "subst", "mutation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"mount2015.{name} must be 0 to 1, got {getattr(self, name)}")
        if self.fresh + self.subst > 1:
            raise InputError("mount2015.fresh and mount2015.subst must sum to at most 1")

    @property
    def num_offspring(self) -> int:
        """Programs that each `ask` returns."""
        return self.batch

    def init(self, key: Key[Array, ""], capacity: int, seeds: Program | None) -> "State":
        """Empty slots; the queue holds the starters, as many as slots."""
        archive_key, key = jax.random.split(key)
        growth = replace(self.growth, max_depth=self.starter_depth)
        chosen = None
        if seeds is not None:
            shuffled = jax.random.permutation(archive_key, seeds.length.shape[0])
            if self.rule == "log":
                chosen = take(seeds, shuffled[: int(self.slots * self.archive_share)])
            else:
                few = shuffled[:_CODE_STARTERS]
                chosen = take(seeds, few[jnp.arange(self.slots) % few.shape[0]])
        queue = starters(key, capacity, growth, self.slots, chosen)
        held = nobody_yet(take(queue, jnp.arange(self.slots)))
        return State(held=held, queue=queue, archive=seeds, asked=jnp.int32(0))

    def ask(self, key: Key[Array, ""], state: "State") -> Offspring:
        """Starters while there are any, then children."""
        chance_key, draws_key = jax.random.split(key)
        keys = jax.random.split(chance_key, self.batch)
        draws = draw(draws_key, 2 * self.batch, state.queue.capacity)
        pairs = jax.tree.map(lambda leaf: leaf.reshape(self.batch, 2, *leaf.shape[1:]), draws)
        children, parents = jax.vmap(lambda key, pair: self._child(key, pair, state))(keys, pairs)
        return from_queue(state.queue, state.asked, children, parents)

    def threshold(self, state: "State") -> Float[Array, ""]:
        """The lowest slot's; in the code's rule every score counts, as its rank or as a chance."""
        return jnp.min(state.held.fitness) if self.rule == "log" else jnp.float32(-jnp.inf)

    def tell(
        self,
        key: Key[Array, ""],
        state: "State",
        offspring: Offspring,
        evaluation: Evaluation,
    ) -> "State":
        """Starters take the empty slots; children try theirs one after the other."""
        fitness = jnp.where(evaluation.valid, evaluation.fitness, 0)
        sorted_fitness = jnp.sort(fitness)
        passing = sorted_fitness[(len(fitness) * 89) // 100 - 1]
        record = jnp.max(state.held.fitness)
        num_starters = state.queue.length.shape[0]

        def place(slots, child):
            key, index, fitness_of_child = child
            owner, slot_fitness = slots
            slot_key, luck_key = jax.random.split(key)
            tried = jax.random.randint(slot_key, (_TRIES,), 0, self.slots)
            if self.rule == "log":
                lower = slot_fitness[tried] < fitness_of_child
                taken = lower & (jnp.cumsum(lower) == 1)
            else:
                rival = jnp.maximum(slot_fitness[tried], 0)
                chance = fitness_of_child / jnp.maximum(fitness_of_child + rival, 1e-30)
                passes = (fitness_of_child > passing) | (fitness_of_child >= record)
                taken = passes & (jax.random.uniform(luck_key, (_TRIES,)) < chance)
            # A starter has a slot of its own; those beyond the slots compete like children.
            number = state.asked + index
            own = (number < num_starters) & (number < self.slots)
            tried = jnp.where(own, number, tried)
            taken = jnp.where(own, jnp.arange(_TRIES) == 0, taken)
            target = jnp.where(taken, tried, self.slots)
            owner = owner.at[target].set(index, mode="drop")
            slot_fitness = slot_fitness.at[target].set(fitness_of_child, mode="drop")
            return (owner, slot_fitness), None

        keys = jax.random.split(key, self.batch)
        nobody = jnp.full(self.slots, -1)
        children = (keys, jnp.arange(self.batch), fitness)
        (owner, _), _ = jax.lax.scan(place, (nobody, state.held.fitness), children)
        newcomers = evaluated(offspring, evaluation)._replace(fitness=fitness)
        held = select(owner >= 0, take(newcomers, owner), state.held)
        return state._replace(held=held, asked=state.asked + self.batch)

    def survivors(self, state: "State") -> Survivors:
        """One a slot."""
        return state.held

    def put(self, state: "State", survivors: Survivors) -> "State":
        """The slots change hands."""
        return state._replace(held=survivors)

    def _child(
        self, key: Key[Array, ""], pair: Draws, state: "State"
    ) -> tuple[Program, Int[Array, "2"]]:
        """A child, and its parents' slots; the first of the draws breed, the second mutate."""
        parents_key, kind_key, grow_key, archive_key = jax.random.split(key, 4)
        breeds, mutating = (take(pair, number) for number in range(2))
        parents = jax.random.randint(parents_key, (2,), 0, self.slots)
        host, donor = (take(state.held.programs, parent) for parent in parents)
        kind, mutates = jax.random.uniform(kind_key, (2,))
        this, other = parent(host), parent(donor)
        joined, fits = breed_subst(breeds, this, other)
        joins = (kind < self.fresh + self.subst) & fits
        bred = splice(either(joins, joined, crossover(breeds, this, other)), host, donor)
        mutated = splice(mutate_point(mutating, parent(bred), self.growth, 0.5), bred, bred)
        bred = either(mutates < self.mutation, mutated, bred)
        fresh = grow(grow_key, host.capacity, self.growth)
        if state.archive is not None:
            number = state.archive.length.shape[0]
            from_archive = take(state.archive, jax.random.randint(archive_key, (), 0, number))
            share = self.fresh * self.archive_share
            fresh = either(kind < share, from_archive, fresh)
        is_fresh = kind < self.fresh
        return either(is_fresh, fresh, bred), jnp.where(is_fresh, NOBODY, parents)


class State(NamedTuple):
    """The slots, the starters of which `asked` have been handed out, and the archive.

    Attributes:
        held: who is in each slot.
        queue: the starters.
        archive: formulas that fresh children may be; None without seeds.
        asked: programs handed out so far.
    """

    held: Survivors
    queue: Program
    archive: Program | None
    asked: Int[Array, ""]
