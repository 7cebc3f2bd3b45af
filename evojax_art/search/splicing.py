"""Cutting and pasting of postfix ranges, and choosing them: what all variation is made of."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from evojax_art.language.program import Program, subtree_starts

LARGEST_CONSTANT = 1e6  # mutations keep constants within this


def splice(
    host: Program,
    start: Int[Array, ""],
    end: Int[Array, ""],
    donor: Program,
    donor_start: Int[Array, ""],
    donor_end: Int[Array, ""],
) -> Program:
    """`host` with its nodes [start, end) replaced by `donor`'s nodes [donor_start, donor_end).

    The result must fit the host's capacity; the donor's may differ.
    """
    capacity = host.capacity
    position = jnp.arange(capacity)
    inserted = donor_end - donor_start
    behind = position - start - inserted + end
    from_donor = (position >= start) & (position < start + inserted)
    host_index = jnp.clip(jnp.where(position < start, position, behind), 0, capacity - 1)
    donor_index = jnp.clip(donor_start + position - start, 0, donor.capacity - 1)
    length = host.length - (end - start) + inserted
    in_use = position < length

    def move(kept: Array, given: Array) -> Array:
        shape = (capacity,) + (1,) * (kept.ndim - 1)
        moved = jnp.where(from_donor.reshape(shape), given[donor_index], kept[host_index])
        return jnp.where(in_use.reshape(shape), moved, jnp.zeros_like(moved))

    opcode = move(host.opcode, donor.opcode)
    return Program(opcode, move(host.constant, donor.constant), length.astype(jnp.int32))


def in_use(program: Program) -> Bool[Array, "L"]:
    """Which nodes are the formula's; the rest is padding."""
    return jnp.arange(program.capacity) < program.length


def choose(key: Key[Array, ""], among: Bool[Array, "L"]) -> Int[Array, ""]:
    """A uniform index among those that are true; 0 where none is."""
    return jnp.argmax(jnp.where(among, jax.random.uniform(key, among.shape), -1.0))


def choose_subtree(
    key: Key[Array, ""], program: Program, largest: Int[Array, ""] | None = None
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The range [start, end) under a uniform node, among those of at most `largest` nodes."""
    starts = subtree_starts(program)
    size = jnp.arange(program.capacity) + 1 - starts
    among = in_use(program)
    if largest is not None:
        among &= size <= largest
    node = choose(key, among)
    return starts[node], node + 1


def either(condition: Bool[Array, ""], one: Program, other: Program) -> Program:
    """`one` where the condition holds, else `other`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
