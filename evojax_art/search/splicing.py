"""Children as edits of their hosts: what all variation is made of.

Every way to make a child says which nodes of the host go and what comes in their place, an `Edit`
of a few numbers. The one that is taken is then carried out by `splice`, the only function that
moves nodes. And all ways draw from the same few uniform numbers, `Draws`. So whatever there is to
choose from, there is one cut and one draw to compile and to run.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.program import PADDING, Program, subtree_starts

T = TypeVar("T")

LARGEST_CONSTANT = 1e6  # mutations keep constants within this
HOST, DONOR, FRESH = range(3)  # where nodes come from
_NODES = 8  # that an edit can bring of its own
_ROWS, _SINGLE = 3, 10
_HALF_STEP = 2.0**-24  # of the uniform numbers


class Draws(NamedTuple):
    """Uniform numbers in [0, 1) from which one child is made.

    Each way takes what it needs. They may all take the same, for only one of them is gone; a way
    and what it falls back to take different ones.

    Attributes:
        nodes: some for every node.
        single: others.
        way: which way is gone.
    """

    nodes: Float[Array, "*O 3 L"]
    single: Float[Array, "*O 10"]
    way: Float[Array, "*O"]


class Parent(NamedTuple):
    """A program and where the subtree under each of its nodes begins."""

    program: Program
    starts: Int[Array, "L"]


class Edit(NamedTuple):
    """What becomes of a host: nodes [start, end) go, others come.

    First `before` of its own nodes, then [first, last) of a source, then `behind` more of its own.

    Attributes:
        start: of what goes.
        end: of what goes.
        opcode: the edit's own nodes.
        constant: of those.
        before: how many of them come first.
        behind: how many follow what comes of the source.
        first: of what comes of the source.
        last: of what comes of the source.
        source: `HOST`, `DONOR` or `FRESH`.
        edited: likewise, what is edited, usually the host.
    """

    start: Int[Array, ""]
    end: Int[Array, ""]
    opcode: Int[Array, "8"]
    constant: Float[Array, "8 4"]
    before: Int[Array, ""]
    behind: Int[Array, ""]
    first: Int[Array, ""]
    last: Int[Array, ""]
    source: Int[Array, ""]
    edited: Int[Array, ""]

    @property
    def growth(self) -> Int[Array, ""]:
        """By how many nodes the program becomes longer."""
        return self.before + self.behind + self.last - self.first - (self.end - self.start)


def draw(key: Key[Array, ""], count: int, capacity: int) -> Draws:
    """For so many children of that capacity; consumes the key."""
    numbers = jax.random.uniform(key, (count, _ROWS * capacity + _SINGLE + 1), jnp.float32)
    nodes = numbers[:, : _ROWS * capacity].reshape(count, _ROWS, capacity)
    return Draws(nodes, numbers[:, _ROWS * capacity : -1], numbers[:, -1])


def normal(uniform: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Standard normal numbers of uniform ones in [0, 1), finite at both ends."""
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(2 * (uniform + _HALF_STEP) - 1)


def parent(program: Program) -> Parent:
    """Of one program."""
    return Parent(program, subtree_starts(program))


def edit(
    start: Array | int,
    end: Array | int,
    source: Array | int = HOST,
    first: Array | int = 0,
    last: Array | int = 0,
    *,
    own: Int[Array, "N"] | tuple[int, ...] = (),
    constant: Float[Array, "M 4"] | None = None,
    before: Array | int = 0,
    behind: Array | int = 0,
    edited: Array | int = HOST,
) -> Edit:
    """An edit; of its own nodes, N of 8 at most, the first M have the given constants."""
    opcode = jnp.asarray(own, jnp.int32)
    opcode = jnp.pad(opcode, (0, _NODES - len(opcode)))
    given = jnp.zeros((0, 4), jnp.float32) if constant is None else constant
    constants = jnp.pad(given, ((0, _NODES - len(given)), (0, 0)))
    numbers = {
        "start": start,
        "end": end,
        "before": before,
        "behind": behind,
        "first": first,
        "last": last,
        "source": source,
        "edited": edited,
    }
    whole = {name: jnp.asarray(number, jnp.int32) for name, number in numbers.items()}
    return Edit(opcode=opcode, constant=constants, **whole)


def splice(edit: Edit, host: Program, donor: Program, fresh: Program | None = None) -> Program:
    """Carries out an edit, whose result must fit the capacity of what is edited.

    Args:
        edit: what to do.
        host: of capacity L, as the result.
        donor: of any capacity.
        fresh: of any capacity; None where the edit takes nothing of it.
    """
    capacity = host.capacity
    sources = [host, donor] if fresh is None else [host, donor, fresh]
    offsets = np.cumsum([0, *(source.capacity for source in sources)])
    own, nothing = offsets[-1], offsets[-1] + _NODES
    lengths = jnp.stack([source.length for source in sources])
    offset = jnp.asarray(offsets, jnp.int32)

    position = jnp.arange(capacity, dtype=jnp.int32)
    taken = edit.start + edit.before
    closing = taken + edit.last - edit.first
    rest = closing + edit.behind
    base = offset[edit.edited]
    index = base + edit.end + position - rest
    index = jnp.where(position < rest, own + edit.before + position - closing, index)
    from_source = offset[edit.source] + edit.first + position - taken
    index = jnp.where(position < closing, from_source, index)
    index = jnp.where(position < taken, own + position - edit.start, index)
    index = jnp.where(position < edit.start, base + position, index)
    length = lengths[edit.edited] + edit.growth
    index = jnp.where(position < length, jnp.clip(index, 0, nothing - 1), nothing)

    padding = jnp.full(1, PADDING, jnp.int32)
    opcodes = [source.opcode for source in sources]
    constants = [source.constant for source in sources]
    opcode = jnp.concatenate([*opcodes, edit.opcode, padding])[index]
    constant = jnp.concatenate([*constants, edit.constant, jnp.zeros((1, 4), jnp.float32)])[index]
    return Program(opcode, constant, length.astype(jnp.int32))


def in_use(program: Program) -> Bool[Array, "L"]:
    """Which nodes are the formula's; the rest is padding."""
    return jnp.arange(program.capacity) < program.length


def choose(draws: Float[Array, "L"], among: Bool[Array, "L"]) -> Int[Array, ""]:
    """A uniform index among those that are true; 0 where none is."""
    return jnp.argmax(jnp.where(among, draws, -1.0)).astype(jnp.int32)


def choose_subtree(
    draws: Float[Array, "L"], tree: Parent, largest: Int[Array, ""] | None = None
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The range [start, end) under a uniform node, among those of at most `largest` nodes."""
    among = in_use(tree.program)
    if largest is not None:
        size = jnp.arange(tree.program.capacity) + 1 - tree.starts
        among &= size <= largest
    node = choose(draws, among)
    return tree.starts[node], node + 1


def either(condition: Bool[Array, ""], one: T, other: T) -> T:
    """`one` where the condition holds, else `other`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
