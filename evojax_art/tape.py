"""Tapes: programs in the form that interpreters execute.

A tape is three-address code over a register file. The first `NUM_LEAVES` registers hold the leaves
that depend on no formula: the named constants, and the coordinate leaves at the picture's own
coordinates. They are filled once per tile of pixels and shared by every formula, so a leaf is an
operand and costs no instruction. The registers behind them are a formula's own.

    opcode    int32   [L]     what to do; rows of `INSTRUCTIONS`
    target    int32   [L]     register that receives the value
    first     int32   [L]     register of the left (or only) operand
    second    int32   [L]     register of the right operand
    constant  float32 [L, 4]  the value that `q` loads
    length    int32   []      instructions in use, 0 to L
    result    int32   []      register of the formula's value (a leaf's when length is 0)

`subst a b` is no instruction: inside b, a coordinate leaf becomes an instruction that reads a's
register, wraps it and forms the leaf there, so a coordinate frame is a register like any other and
nesting costs nothing. A register is free again after its last use.

Lowering runs on the device, for one program; `jax.vmap` makes it a population's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evojax_art.ops import CONSTANT, OPS, PADDING, SUBST
from evojax_art.program import ARITY, Program, subtree_starts

LEAVES = tuple(op for op in OPS if op.arity == 0 and not op.structural)  # register by register
NUM_LEAVES = len(LEAVES)
_LEAF_REGISTER = np.full(len(OPS), -1, np.int32)
_LEAF_REGISTER[[op.opcode for op in LEAVES]] = np.arange(NUM_LEAVES)
_READS_COORDINATES = np.array([op.reads_coordinates for op in OPS])


class Tape(NamedTuple):
    """One formula in executable form, or a population's with a leading axis P."""

    opcode: Int[Array, "*P L"]
    target: Int[Array, "*P L"]
    first: Int[Array, "*P L"]
    second: Int[Array, "*P L"]
    constant: Float[Array, "*P L 4"]
    length: Int[Array, "*P"]
    result: Int[Array, "*P"]


def num_registers(capacity: int) -> int:
    """Size of a register file that no valid program of `capacity` nodes can exceed.

    A value in a formula's own register waits for an operator whose other operand is still to come,
    so every two such values cost at least four nodes: themselves and those operators.
    """
    return NUM_LEAVES + capacity // 2 + 1


def lower(program: Program) -> Tape:
    """The tape of one program."""
    capacity = program.capacity
    values = _link(program)
    register = _allocate(values, num_registers(capacity) - NUM_LEAVES)

    def operand(node: Int[Array, "*L"]) -> Int[Array, "*L"]:
        leaf = values.leaf[node]
        return jnp.where(leaf >= 0, leaf, NUM_LEAVES + register[node])

    # Nodes that are instructions move to the front, in order.
    position = jnp.arange(capacity)
    slot = jnp.where(values.computed, jnp.cumsum(values.computed) - 1, capacity)
    source = jnp.zeros_like(position).at[slot].set(position, mode="drop")
    length = jnp.sum(values.computed, dtype=jnp.int32)

    def pack(field: Array) -> Array:
        shape = (capacity,) + (1,) * (field.ndim - 1)
        return jnp.where((position < length).reshape(shape), field[source], 0)

    return Tape(
        opcode=pack(program.opcode),
        target=pack(NUM_LEAVES + register),
        first=pack(operand(values.first)),
        second=pack(operand(values.second)),
        constant=pack(program.constant),
        length=length,
        result=operand(values.root),
    )


class _Values(NamedTuple):
    """Every node's value by name of the node that computes it (static single assignment).

    Attributes:
        computed: whether the node is an instruction.
        leaf: register of the shared leaf that is the node's value, -1 where there is none.
        first: node of the left or only operand; of the frame, for a leaf under `subst`.
        second: node of the right operand.
        last_use: the last node that reads the value; the node itself where none does.
        root: node of the formula's value.
    """

    computed: Bool[Array, "L"]
    leaf: Int[Array, "L"]
    first: Int[Array, "L"]
    second: Int[Array, "L"]
    last_use: Int[Array, "L"]
    root: Int[Array, ""]


def _link(program: Program) -> _Values:
    position = jnp.arange(program.capacity)
    in_use = position < program.length
    opcode = jnp.where(in_use, program.opcode, PADDING)
    arity = jnp.asarray(ARITY)[opcode]
    is_subst = opcode == SUBST
    start = subtree_starts(program)
    before = jnp.maximum(position - 1, 0)
    left_root = jnp.where(arity == 2, start[before] - 1, before)

    # A subst's value is its right side's, which ends right before it.
    value_of = jax.lax.cummax(jnp.where(is_subst, -1, position))

    # The frame of a node is the innermost subst whose right side encloses it: the nearest one
    # behind it whose right side begins no later.
    encloses = is_subst[:, None] & (start[before][:, None] <= position[None, :])
    encloses &= position[:, None] > position[None, :]
    owner = jnp.min(jnp.where(encloses, position[:, None], program.capacity), axis=0)
    in_frame = owner < program.capacity
    frame = left_root[jnp.where(in_frame, owner, 0)]

    at_frame = jnp.asarray(_READS_COORDINATES)[opcode] & in_frame
    leaf = jnp.where(at_frame, -1, jnp.asarray(_LEAF_REGISTER)[opcode])
    computed = in_use & ~is_subst & ((arity > 0) | at_frame | (opcode == CONSTANT))
    first = value_of[jnp.where(at_frame, frame, left_root)]
    second = value_of[before]

    reads_first = computed & ((arity > 0) | at_frame)
    last_use = position.at[jnp.where(reads_first, first, program.capacity)].max(
        position, mode="drop"
    )
    last_use = last_use.at[jnp.where(computed & (arity == 2), second, program.capacity)].max(
        position, mode="drop"
    )
    root = value_of[program.length - 1]
    return _Values(computed, leaf, first, second, last_use, root)


def _allocate(values: _Values, num_own: int) -> Int[Array, "L"]:
    """A register for each computed value, the lowest that is free, by one walk over the nodes."""
    computed_first = values.leaf[values.first] < 0
    computed_second = values.leaf[values.second] < 0
    own = jnp.arange(num_own)

    def step(carry, node):
        free, register = carry
        # An operand read for the last time gives its register back before the result takes one:
        # an instruction may overwrite its own operand.
        for operand, is_computed in (
            (values.first[node], computed_first[node]),
            (values.second[node], computed_second[node]),
        ):
            ends = values.computed[node] & is_computed & (values.last_use[operand] == node)
            free = free | (ends & (own == register[operand]))
        chosen = jnp.min(jnp.where(free, own, num_own - 1))  # argmax would not vectorise on a CPU
        keeps = values.computed[node] & (values.last_use[node] > node)
        free = free & ~(keeps & (own == chosen))
        return (free, register.at[node].set(chosen)), None

    nodes = jnp.arange(values.computed.shape[0])
    start = (jnp.ones(num_own, bool), jnp.zeros_like(nodes, jnp.int32))
    (_, register), _ = jax.lax.scan(step, start, nodes)
    return register
