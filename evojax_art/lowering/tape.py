"""Tapes: programs in the form that interpreters execute.

A tape is three-address code over a register file. The first `NUM_LEAVES` registers hold the leaves
that depend on no formula: the named constants, and the coordinate leaves at the picture's own
coordinates. They are filled once per tile of pixels and shared by every formula, so a leaf is an
operand and costs no instruction. The registers behind them are a formula's own.

    opcode    int32   [M]     what to do; rows of `INSTRUCTIONS`
    target    int32   [L]     register that receives the value
    first     int32   [L]     register of the left (or only) operand
    second    int32   [L]     register of the right operand; of a coordinate leaf see below
    constant  float32 [L, 4]  the value that `q` loads
    length    int32   []      instructions in use, 0 to L
    result    int32   []      register of the formula's value (a leaf's when length is 0)

`subst a b` is no instruction: inside b, a coordinate leaf becomes an instruction that reads a's
register, wraps it and forms the leaf there, so a coordinate frame is a register like any other and
nesting costs nothing. Under `at` the same instruction has `UNWRAPPED` as `second`, which is 0 else.
Equal subtrees are computed once, in an order that needs few registers (see `values`). A register is
free again after its last use.

Constant subtrees are instructions of a tail of `num_folded` instructions behind the first `length`;
each of these writes the register `NUM_LEAVES` + its place in the tail. A `q` whose `first` is such
a register stands for its value: `fold` runs the tail once per formula and leaves a tape without.

Lowering runs on the device, for one program; `jax.vmap` makes it a population's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evojax_art.language.ops import CONSTANT, OPS
from evojax_art.language.program import Program
from evojax_art.lowering.values import NONE, UNWRAPPED, HashFn, Values, name_values

LEAVES = tuple(op for op in OPS if op.arity == 0 and not op.structural)  # register by register
NUM_LEAVES = len(LEAVES)
LANES = 16  # points of a tile come in multiples of this, so that vector units are full
_LEAF_REGISTER = np.full(len(OPS), -1, np.int32)
_LEAF_REGISTER[[op.opcode for op in LEAVES]] = np.arange(NUM_LEAVES)


class Tape(NamedTuple):
    """One formula in executable form, or a population's with a leading axis P; M is L + 1."""

    opcode: Int[Array, "*P M"]
    target: Int[Array, "*P M"]
    first: Int[Array, "*P M"]
    second: Int[Array, "*P M"]
    constant: Float[Array, "*P M 4"]
    length: Int[Array, "*P"]
    result: Int[Array, "*P"]
    num_folded: Int[Array, "*P"]

    @property
    def num_registers(self) -> int:
        """Size of a register file that holds every register it names."""
        return num_registers(self.opcode.shape[-1] - 1)


def num_registers(capacity: int) -> int:
    """Size of a register file that no valid program of `capacity` nodes can exceed.

    D values that are read once and S that are read more often, all waiting, have at least D + 2S
    places in the program where they are read, and as many operators less one join those: so
    2D + 4S - 1 nodes at least, and D + S is at most half of `capacity`, rounded up.
    """
    return NUM_LEAVES + capacity // 2 + 1


def lower(program: Program, hash_fn: HashFn | None = None) -> Tape:
    """The tape of one program; `hash_fn` is `name_values`'s."""
    values = name_values(program, hash_fn)
    plan = _plan(values)
    own = _allocate(plan)
    leaf = jnp.asarray(_LEAF_REGISTER)[values.opcode]
    tail_place = jnp.cumsum(plan.folded) - 1

    def operand(value: Int[Array, "*L"], of_folded: Bool[Array, "*L"]) -> Int[Array, "*L"]:
        there = jnp.maximum(value, 0)
        register = NUM_LEAVES + jnp.where(of_folded, tail_place[there], own[there])
        register = jnp.where(values.computed[there], register, leaf[there])
        return jnp.where(value == NONE, 0, register)

    no, yes = jnp.zeros_like(plan.main), jnp.ones_like(plan.main)
    is_load = plan.main & values.constant
    loaded = jnp.where(plan.folded, NUM_LEAVES + tail_place, 0)
    records = jnp.array(
        [  # of a value as an instruction of the formula, and as one of its tail
            (jnp.where(is_load, CONSTANT, values.opcode), values.opcode),
            (NUM_LEAVES + own, NUM_LEAVES + tail_place),
            (
                jnp.where(is_load, loaded, operand(values.first, no)),
                operand(values.first, yes),
            ),
            (
                jnp.where(values.unwrapped, UNWRAPPED, operand(values.second, no)),
                operand(values.second, yes),
            ),
            (values.node, values.node),
        ]
    ).reshape(5, -1)

    # The formula's instructions move to the front, those of its tail right behind them.
    size = program.capacity + 1
    length = jnp.sum(plan.main, dtype=jnp.int32)
    num_folded = jnp.sum(plan.folded, dtype=jnp.int32)
    slots = jnp.where(plan.main, jnp.cumsum(plan.main) - 1, size)
    tail_slots = jnp.where(plan.folded, length + tail_place, size)
    source = (
        jnp.zeros(size, jnp.int32)
        .at[jnp.concatenate([slots, tail_slots])]
        .set(jnp.arange(2 * program.capacity), mode="drop")
    )
    in_use = jnp.arange(size) < length + num_folded
    opcode, target, first, second, node = jnp.where(in_use, records[:, source], 0)
    return Tape(
        opcode=opcode,
        target=target,
        first=first,
        second=second,
        constant=jnp.where((opcode == CONSTANT)[:, None], program.constant[node], 0),
        length=length,
        result=operand(values.root, jnp.zeros((), bool)),
        num_folded=num_folded,
    )


class _Plan(NamedTuple):
    """Which values are instructions, and how long each is needed; all [L] but the counts.

    Attributes:
        main: whether a value is an instruction of the formula.
        folded: whether it is one of its constants.
        last_use: the last value of the formula that reads it; itself where none does, L where it
            is the formula's.
        stacked: whether it is read once, by its parent. Such values' lives nest.
    """

    main: Bool[Array, "L"]
    folded: Bool[Array, "L"]
    last_use: Int[Array, "L"]
    stacked: Bool[Array, "L"]


def _plan(values: Values) -> _Plan:
    capacity = values.opcode.shape[0]
    position = jnp.arange(capacity)
    operators = values.computed & ~values.constant
    folds = values.computed & values.constant & (values.opcode != CONSTANT)

    def reads(readers: Bool[Array, "L"]) -> tuple[Int[Array, "L"], ...]:
        """What they read, as indices; L for nothing."""
        return tuple(
            jnp.where(readers & (operand != NONE), operand, capacity)
            for operand in (values.first, values.second)
        )

    def is_read(readers: Bool[Array, "L"]) -> Bool[Array, "L"]:
        first, second = reads(readers)
        nobody = jnp.zeros(capacity, bool)
        return nobody.at[first].set(True, mode="drop").at[second].set(True, mode="drop")

    is_root = position == values.root
    loads = values.computed & values.constant & (is_read(operators) | is_root)
    first, second = reads(operators)
    times = jnp.zeros_like(position).at[first].add(1, mode="drop").at[second].add(1, mode="drop")
    last = position.at[first].max(position, mode="drop").at[second].max(position, mode="drop")
    main = operators | loads
    # Not by its parent: a frame, which leaves read, and a constant whose parent is one too.
    elsewhere = values.framed | is_read(folds)
    return _Plan(
        main=main,
        folded=folds | (values.computed & (values.opcode == CONSTANT) & is_read(folds)),
        last_use=jnp.where(is_root, capacity, last),
        stacked=main & (times == 1) & ~elsewhere & ~is_root,
    )


def _allocate(plan: _Plan) -> Int[Array, "L"]:
    """A register for each value of the formula, counted from the first that is no leaf's.

    An operand read for the last time gives its register back before the result takes one: an
    instruction may overwrite its own operand. Values that are read once are a stack, which needs
    no loop. The others, few, take the lowest register behind the stack's that is free.
    """
    capacity = plan.main.shape[0]
    num_own = num_registers(capacity) - NUM_LEAVES
    position = jnp.arange(capacity)
    stacked = plan.stacked.astype(jnp.int32)
    ends = jnp.zeros(capacity, jnp.int32)
    ends = ends.at[jnp.where(plan.stacked, plan.last_use, capacity)].add(1, mode="drop")
    depth = jnp.cumsum(stacked - ends) - stacked
    height = jnp.max(jnp.where(plan.stacked, depth + 1, 0))

    others = plan.main & ~plan.stacked
    place = jnp.where(others, jnp.cumsum(others) - 1, capacity)
    order = jnp.zeros_like(position).at[place].set(position, mode="drop")
    num_others = jnp.sum(others)

    def step(state):
        index, busy_until, chosen = state
        value = order[index]
        # The minimum of those that are free, because argmax would not vectorise on a CPU.
        free = busy_until <= value
        register = jnp.min(jnp.where(free, jnp.arange(num_own), num_own - 1))
        busy_until = busy_until.at[register].set(plan.last_use[value])
        return index + 1, busy_until, chosen.at[value].set(register)

    start = (jnp.int32(0), jnp.zeros(num_own, position.dtype), jnp.zeros_like(position))
    _, _, chosen = jax.lax.while_loop(lambda state: state[0] < num_others, step, start)
    return jnp.minimum(jnp.where(plan.stacked, depth, height + chosen), num_own - 1)
