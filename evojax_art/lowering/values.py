"""Which node of a program computes which value: evaluation order, equal subtrees, constants.

All of it is array arithmetic over a program's nodes without a loop over them, because on a GPU a
loop of L steps costs L kernel launches. It is written for one program, for `jax.vmap`.

Order. The larger operand of an operator is evaluated first, so that a value waits for a subtree of
at most half the size: of values that are read once, never more than log2(L) + 1 wait. The operands
keep their places, so operators that do not commute keep their meaning. Under `subst` and
`at` the left side, the frame, goes first whatever its size.

Equal subtrees. A subtree is a range of the program, so equal ones have equal ranges; and, where
they read coordinates, equal frames, both wrapped or neither. A hash of both proposes for each node
the first one like it, and a comparison of all nodes' ops, constants and operands with those of
their proposed twins decides: it is exact by induction. Where a single one fails (hashes that
collide, or share a slot of the table in every round; frames nested deeper than `_FRAME_ROUNDS` in a
repeated subtree) nothing of that program is shared.

Dead code. A frame that no leaf reads is not evaluated.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from evojax_art.language.ops import AT, CONSTANT, FRAMING, OPS, PADDING
from evojax_art.language.program import ARITY, Program, subtree_starts

READS_COORDINATES = np.array([op.reads_coordinates for op in OPS])
_IS_FRAMING = np.isin(np.arange(len(OPS)), FRAMING)
NONE = -1  # in place of a node
UNWRAPPED = 1  # in place of a coordinate leaf's second operand: its frame is read as it is
_FRAME_ROUNDS = 3
_TABLE_ROUNDS, _TABLE_FACTOR = 2, 8  # of the table of hashes; its slots for each node
_BASE = 0x9E3779B1  # of the rolling hash; odd, so that its powers have inverses


class Values(NamedTuple):
    """What a program's nodes are to each other; all [L], in the order of evaluation.

    Attributes:
        node: where the program has it.
        opcode: of the node; 0 behind the program's end.
        computed: whether its value is to be computed: not that of a leaf, a twin, or dead code.
        constant: whether its value is the same everywhere.
        framed: whether it is a frame, the value of some `subst`'s or `at`'s left side.
        first: the value that is its left or only operand, or its frame; itself computed or a leaf.
            `NONE` where there is none.
        second: the same of its right operand.
        unwrapped: whether it is a coordinate leaf that reads its frame as it is.
        root: the formula's value, [].
    """

    node: Int[Array, "L"]
    opcode: Int[Array, "L"]
    computed: Bool[Array, "L"]
    constant: Bool[Array, "L"]
    framed: Bool[Array, "L"]
    first: Int[Array, "L"]
    second: Int[Array, "L"]
    unwrapped: Bool[Array, "L"]
    root: Int[Array, ""]


def name_values(program: Program, hash_fn: "HashFn | None" = None) -> Values:
    """The values of one program.

    Args:
        program: the program.
        hash_fn: proposes which subtrees are equal; None: `subtree_hashes`. Any function is right,
            as all that it proposes is checked.
    """
    nodes = read_nodes(program)
    position = jnp.arange(program.capacity)
    at_frame = nodes.frame != NONE
    twin = _twins(nodes, program.constant, (hash_fn or subtree_hashes)(program, nodes))
    dead = nodes.unread | ((twin != position) & nodes.in_use)
    # A framing op's value is its right side's, whose root comes right before it.
    is_framing = jnp.asarray(_IS_FRAMING)[nodes.opcode]
    value_of = jax.lax.cummax(jnp.where(is_framing, -1, position))
    value_of = nodes.turn[twin[value_of[twin]]]

    def operand(node: Int[Array, "L"], there: Bool[Array, "L"]) -> Int[Array, "L"]:
        return jnp.where(there, value_of[jnp.maximum(node, 0)], NONE)

    needs_work = (nodes.arity > 0) | at_frame | (nodes.opcode == CONSTANT)
    node = jnp.zeros_like(position).at[nodes.turn].set(position)
    has_first = at_frame | (nodes.arity > 0)
    return Values(
        node=node,
        opcode=nodes.opcode[node],
        computed=(nodes.in_use & ~is_framing & needs_work & ~_inside(dead, nodes.start))[node],
        constant=(nodes.in_use & ~nodes.reads)[node],
        framed=_scatter(is_framing, value_of[nodes.left], is_framing),
        first=operand(jnp.where(at_frame, nodes.frame, nodes.left), has_first)[node],
        second=operand(nodes.right, nodes.arity == 2)[node],
        unwrapped=(at_frame & nodes.unwrapped)[node],
        root=value_of[program.length - 1],
    )


class Nodes(NamedTuple):
    """A program's structure; all [L], by node.

    Attributes:
        in_use: before the program's end.
        opcode: of the node.
        arity: its operands.
        start: where its subtree begins.
        left: root of its left or only operand.
        right: root of its right operand.
        frame: for a coordinate leaf, root of the left side of the innermost framing op whose right
            side it is in; `NONE` outside, and for all other nodes.
        reads: whether there is a coordinate leaf in its subtree.
        unread: whether it is such a left side and no leaf reads it.
        turn: when it is evaluated.
        scope: the frame that a coordinate leaf would have in its place.
        unwrapped: whether it would read that as it is: it is `at`'s, or the picture's own.
    """

    in_use: Bool[Array, "L"]
    opcode: Int[Array, "L"]
    arity: Int[Array, "L"]
    start: Int[Array, "L"]
    left: Int[Array, "L"]
    right: Int[Array, "L"]
    frame: Int[Array, "L"]
    reads: Bool[Array, "L"]
    unread: Bool[Array, "L"]
    turn: Int[Array, "L"]
    scope: Int[Array, "L"]
    unwrapped: Bool[Array, "L"]


HashFn = Callable[[Program, Nodes], UInt32[Array, "L"]]


def read_nodes(program: Program) -> Nodes:
    """The structure of one program."""
    capacity = program.capacity
    position = jnp.arange(capacity)
    in_use = position < program.length
    opcode = jnp.where(in_use, program.opcode, PADDING)
    arity = jnp.asarray(ARITY)[opcode]
    is_framing = jnp.asarray(_IS_FRAMING)[opcode]
    start = subtree_starts(program)
    right = jnp.maximum(position - 1, 0)
    left = jnp.where(arity == 2, start[right] - 1, right)

    around = _framing_ops(arity, is_framing, left, right)
    scope = jnp.where(around != NONE, left[around], NONE)
    is_coordinate = jnp.asarray(READS_COORDINATES)[opcode]
    frame = jnp.where(is_coordinate, scope, NONE)

    is_frame = _scatter(is_framing, left, is_framing)
    is_read = _scatter(is_framing, frame, frame != NONE)
    return Nodes(
        in_use=in_use,
        opcode=opcode,
        arity=arity,
        start=start,
        left=left,
        right=right,
        frame=frame,
        reads=_range_sum(is_coordinate.astype(jnp.int32), start) > 0,
        unread=is_frame & ~is_read,
        turn=_turns(arity, is_framing, start, left),
        scope=scope,
        unwrapped=(around == NONE) | (opcode[around] == AT),
    )


def _framing_ops(arity, is_framing, left, right) -> Int[Array, "L"]:
    """The innermost framing op whose right side a node is in, `NONE` outside of all.

    It is found upwards, from parent to parent, doubling the stride.
    """
    capacity = arity.shape[0]
    position = jnp.arange(capacity)
    up = position.at[jnp.where(arity > 0, left, capacity)].set(position, mode="drop")
    up = up.at[jnp.where((arity == 2) & ~is_framing, right, capacity)].set(position, mode="drop")
    # Up to the root, or to that of a right side, which comes right before its framing op.
    up = jax.lax.fori_loop(0, (capacity - 1).bit_length(), lambda _, up: up[up], up)
    ends = _scatter(is_framing, right, is_framing)[up]
    return jnp.where(ends, up + 1, NONE)


def _turns(arity, is_framing, start, left) -> Int[Array, "L"]:
    """The evaluation order: where the right operand is larger, the two exchange their ranges."""
    position = jnp.arange(arity.shape[0])
    size_left, size_right = left - start + 1, position - 1 - left
    swaps = (arity == 2) & ~is_framing & (size_right > size_left)
    moved = jnp.where(swaps, size_right, 0)
    back = jnp.where(swaps, size_left, 0)
    change = jnp.zeros_like(position).at[start].add(moved).at[left + 1].add(-moved - back) + back
    return position + jnp.cumsum(change)


def _twins(
    nodes: Nodes, constant: Float[Array, "L 4"], hashes: UInt32[Array, "L"]
) -> Int[Array, "L"]:
    """For each node the first in evaluation order that has the same value; often itself."""
    capacity = len(hashes)
    position = jnp.arange(capacity)
    # What is dead may only be a twin among the dead.
    dead = _inside(nodes.unread, nodes.start)
    rank = nodes.turn + jnp.where(dead, capacity, 0)
    at_turn = jnp.zeros_like(position).at[nodes.turn].set(position)
    proposed, found = position, ~nodes.in_use
    for round_ in range(_TABLE_ROUNDS):
        # The first in each slot of a hash table, if its hash is the same and not just its slot.
        slot = (hashes >> (round_ * 9)) & jnp.uint32(_TABLE_FACTOR * _power(capacity) - 1)
        slot = jnp.where(found, _TABLE_FACTOR * _power(capacity), slot).astype(jnp.int32)
        table = jnp.full(_TABLE_FACTOR * _power(capacity), 2 * capacity)
        earliest = table.at[slot].min(rank, mode="drop")[slot]
        candidate = at_turn[earliest % capacity]
        matches = ~found & (hashes[candidate] == hashes)
        proposed = jnp.where(matches, candidate, proposed)
        found |= matches

    def operand(node, there):
        return jnp.where(there, proposed[jnp.maximum(node, 0)], NONE)

    first = jnp.where(
        nodes.arity > 0,
        operand(nodes.left, nodes.arity > 0),
        operand(nodes.frame, nodes.frame != NONE),
    )
    second = operand(nodes.right, nodes.arity == 2)
    bits = jax.lax.bitcast_convert_type(constant, jnp.int32)
    same = (nodes.opcode == nodes.opcode[proposed]) & (first == first[proposed])
    same &= (second == second[proposed]) & jnp.all(bits == bits[proposed], axis=-1)
    same &= (nodes.frame == NONE) | (nodes.unwrapped == nodes.unwrapped[proposed])
    return jnp.where(jnp.all(same), proposed, position)


def subtree_hashes(program: Program, nodes: Nodes) -> UInt32[Array, "L"]:
    """A hash of each node's subtree and of the frame that it reads."""
    bits = jax.lax.bitcast_convert_type(program.constant, jnp.uint32)
    factors = jnp.asarray([0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F, 0x165667B1], jnp.uint32)
    tokens = _mix(nodes.opcode.astype(jnp.uint32) + jnp.sum(_mix(bits) * factors, axis=-1))
    capacity = program.capacity
    powers = np.array([pow(_BASE, n, 1 << 32) for n in range(capacity)], np.uint32)
    inverses = np.array([pow(_BASE, -n, 1 << 32) for n in range(capacity)], np.uint32)
    subtree = _range_sum(tokens * powers, nodes.start) * jnp.asarray(inverses)[nodes.start]
    # A frame is known by its position first, by its own hash once that is known.
    in_scope = nodes.scope != NONE
    frame = jnp.where(in_scope, _mix(nodes.scope.astype(jnp.uint32) + jnp.uint32(1)), 0)

    def of_all(frame: UInt32[Array, "L"]) -> UInt32[Array, "L"]:
        return _mix(subtree + jnp.where(nodes.reads, frame, 0) * factors[0])

    def refine(_, frame: UInt32[Array, "L"]) -> UInt32[Array, "L"]:
        inside = of_all(frame)[jnp.maximum(nodes.scope, 0)]
        return jnp.where(in_scope, inside + nodes.unwrapped.astype(jnp.uint32), 0)

    return of_all(jax.lax.fori_loop(0, _FRAME_ROUNDS, refine, frame))


def _mix(t: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Spreads the bits of a word."""
    t = (t ^ (t >> 16)) * jnp.uint32(0x7FEB352D)
    t = (t ^ (t >> 15)) * jnp.uint32(0x846CA68B)
    return t ^ (t >> 16)


def _range_sum(t: Array, start: Int[Array, "L"]) -> Array:
    """The sum of t over each node's subtree."""
    total = jnp.cumsum(t, dtype=t.dtype)
    return total - jnp.where(start > 0, total[jnp.maximum(start - 1, 0)], 0)


def _power(capacity: int) -> int:
    """The power of two at or above it."""
    return 1 << (capacity - 1).bit_length()


def _inside(root: Bool[Array, "L"], start: Int[Array, "L"]) -> Bool[Array, "L"]:
    """Whether a node is in the subtree of any of the roots."""
    root = root.astype(start.dtype)
    opened = jnp.zeros_like(start).at[start].add(root)
    return jnp.cumsum(opened - root) + root > 0


def _scatter(like: Bool[Array, "L"], index: Int[Array, "L"], there: Bool[Array, "L"]):
    """True at each index that is there."""
    capacity = like.shape[0]
    return jnp.zeros_like(like).at[jnp.where(there, index, capacity)].set(True, mode="drop")
