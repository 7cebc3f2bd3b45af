"""What all algorithms share: the ask/tell protocol and a few tools.

An algorithm is a frozen dataclass of settings with pure functions; its state is a pytree that is
its own affair, but for `survivors`.

    state = algorithm.init(key, capacity, seeds)         # `seeds` may be None
    offspring = algorithm.ask(key, state)                # programs to evaluate, and their parents
    bar = algorithm.threshold(state)                     # what a fitness must reach to matter
    state = algorithm.tell(key, state, offspring, evaluation)
    survivors = algorithm.survivors(state)               # who holds a place
    state = algorithm.put(state, survivors)              # the same places, changed

All run under jit, `capacity` being static. Who is not valid has fitness -inf (see
`objective.evaluation`), and so has a place that nobody holds yet. Every algorithm first evaluates a
queue of starters: the seeds, then random formulas.

An individual's *birth* is its name in a run: the generation, from 1, and its number among the
offspring of that one. Whoever calls `tell` fills it in.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from evojax_art.language.program import Program, select, take
from evojax_art.objective.evaluation import Evaluation
from evojax_art.search.variation import GrowthConfig, grow

_AT_ONCE = 4096
NOBODY = -1  # in place of a parent, and of a birth


class Offspring(NamedTuple):
    """Programs to evaluate.

    Attributes:
        programs: O of them.
        parents: their places among the survivors, host and donor; `NOBODY` where there is none.
        birth: generation and number of each.
    """

    programs: Program
    parents: Int[Array, "O 2"]
    birth: Int[Array, "O 2"]


class Survivors(NamedTuple):
    """Who holds the places of a population.

    Attributes:
        programs: P of them.
        fitness: -inf for who is not valid, and where nobody is.
        taken: which places are held.
        birth: generation and number of each.
    """

    programs: Program
    fitness: Float[Array, "P"]
    taken: Bool[Array, "P"]
    birth: Int[Array, "P 2"]


@runtime_checkable
class Algorithm(Protocol):
    """See the module's docstring.

    Attributes:
        compares_probabilities: whether fitness must be a plain probability.
    """

    compares_probabilities: ClassVar[bool]

    @property
    def num_offspring(self) -> int:
        """Programs of a generation that are evaluated; `ask` may return more, see `sieve`."""
        ...

    def init(self, key: Key[Array, ""], capacity: int, seeds: Program | None) -> Any:
        """The state before the first generation."""
        ...

    def ask(self, key: Key[Array, ""], state: Any) -> Offspring:
        """The next programs to evaluate."""
        ...

    def threshold(self, state: Any) -> Float[Array, ""]:
        """Telling any fitness below it in place of another such leaves the same state.

        So nobody needs to know more of such a program.
        """
        ...

    def tell(
        self, key: Key[Array, ""], state: Any, offspring: Offspring, evaluation: Evaluation
    ) -> Any:
        """The state after they are evaluated."""
        ...

    def survivors(self, state: Any) -> Survivors:
        """Who holds its places."""
        ...

    def put(self, state: Any, survivors: Survivors) -> Any:
        """The state where these hold the places of those that `survivors` gave."""
        ...


def nobody_yet(programs: Program) -> Survivors:
    """Places that nobody holds; their programs are not evaluated, but may be bred from."""
    count = programs.length.shape[0]
    return Survivors(
        programs=programs,
        fitness=jnp.full(count, -jnp.inf, jnp.float32),
        taken=jnp.zeros(count, bool),
        birth=jnp.full((count, 2), NOBODY, jnp.int32),
    )


def best_first(survivors: Survivors) -> Program:
    """The programs of the valid ones, the fittest first, each once; not traceable."""
    fitness = np.asarray(survivors.fitness)
    order = np.argsort(-fitness, kind="stable")
    order = order[np.isfinite(fitness[order])]
    known = np.asarray(jax.vmap(fingerprint)(survivors.programs))[order]
    _, first = np.unique(known, return_index=True)
    return take(survivors.programs, order[np.sort(first)])


def evaluated(offspring: Offspring, evaluation: Evaluation) -> Survivors:
    """Offspring as candidates for places."""
    taken = jnp.ones(evaluation.fitness.shape, bool)
    return Survivors(offspring.programs, evaluation.fitness, taken, offspring.birth)


def fingerprint(program: Program) -> UInt32[Array, ""]:
    """A hash of one program; equal programs have equal ones."""
    bits = jax.lax.bitcast_convert_type(program.constant, jnp.uint32)
    words = jnp.concatenate([program.opcode.astype(jnp.uint32)[:, None], bits], axis=1).ravel()
    position = jnp.arange(words.size, dtype=jnp.uint32)
    mixed = (words + position * jnp.uint32(0x9E3779B9)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 13), dtype=jnp.uint32)


def structures(programs: Program) -> UInt32[Array, "P"]:
    """A hash of the nodes of each; programs that differ in constants alone have equal ones."""
    nodes = programs._replace(constant=jnp.zeros_like(programs.constant))
    return jax.vmap(fingerprint)(nodes)


def repeats(key: Array, preference: Array) -> Bool[Array, "N"]:
    """Marks, among elements of equal key, all but the one of smallest preference."""
    order = jnp.lexsort((preference, key))
    same = key[order][1:] == key[order][:-1]
    return jnp.zeros(key.shape[0], bool).at[order[1:]].set(same)


def tournament(
    key: Key[Array, ""], fitness: Float[Array, "P"], size: int, num_winners: int
) -> Int[Array, "W"]:
    """Winners of tournaments among `size` uniform entrants each."""
    entrants = jax.random.randint(key, (num_winners, size), 0, fitness.shape[0])
    best = jnp.argmax(fitness[entrants], axis=1)
    return jnp.take_along_axis(entrants, best[:, None], axis=1)[:, 0]


def in_groups(fn: Callable[..., Program], *operands: Any) -> Program:
    """`fn` of every row of the operands, some thousands at a time, which bounds memory."""
    count = jax.tree.leaves(operands)[0].shape[0]
    return jax.lax.map(lambda row: fn(*row), operands, batch_size=min(_AT_ONCE, count))


def concatenate(*parts: Any) -> Any:
    """Several populations of equal capacity as one, or other trees of arrays with a first axis."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def starters(
    key: Key[Array, ""], capacity: int, growth: GrowthConfig, count: int, seeds: Program | None
) -> Program:
    """The seeds, then as many random programs as make up `count`."""
    num_random = count if seeds is None else max(0, count - seeds.length.shape[0])
    keys = jax.random.split(key, max(1, num_random))
    random = in_groups(lambda key: grow(key, capacity, growth), keys)
    random = take(random, jnp.arange(num_random))
    return random if seeds is None else concatenate(seeds, random)


def from_queue(
    queue: Program, asked: Int[Array, ""], children: Program, parents: Int[Array, "O 2"]
) -> Offspring:
    """The queue's next programs, and children in place of those behind its end."""
    index = asked + jnp.arange(children.length.shape[0])
    size = queue.length.shape[0]
    queued = take(queue, jnp.minimum(index, size - 1))
    nobody = jnp.full_like(parents, NOBODY)
    programs, parents = select(index < size, (queued, nobody), (children, parents))
    return Offspring(programs, parents, nobody)
