"""Tapes in plain JAX: two loops over the same instructions.

`switch` runs one formula on one tile of pixels at a time and branches on the opcode, so that only
the op that is asked for is computed. It is the CPU's way: a tile's registers stay in the first
levels of cache, and an instruction costs about 0.1 us beside its arithmetic.

`lockstep` runs a whole population one instruction at a time and computes every op for every
formula, keeping the one each asked for. It is the way of a GPU, where a kernel launch per
instruction of a single formula would be all one waits for.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from evojax_art.interpreter.instruction import Operands, value_of
from evojax_art.language.ops import CONSTANT, INSTRUCTIONS, OPS, Keep, Op, keep
from evojax_art.language.photographs import Pyramid, leaf_value
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.lowering.tape import LEAVES, NUM_LEAVES, Tape
from evojax_art.lowering.values import UNWRAPPED
from evojax_art.runtime.plan import Plan

FinishFn = Callable[[Quaternion], Float[Array, "C D"]]


def switch(tapes: Tape, at: Coordinates, kept: Keep, **options: Any) -> Float[Array, "P N C"]:
    """Interprets a population, tile by tile and formula by formula; see `implementations`."""
    return _interpret(_switch, tapes, at, kept, **options)


def lockstep(tapes: Tape, at: Coordinates, kept: Keep, **options: Any) -> Float[Array, "P N C"]:
    """Interprets a population, tile by tile, all formulas at once; see `implementations`."""
    return _interpret(_lockstep, tapes, at, kept, **options)


def _interpret(
    tiles_fn: Callable[..., Float[Array, "tiles P C D"]],
    tapes: Tape,
    at: Coordinates,
    kept: Keep,
    *,
    samples: int,
    per_pixel: int,
    images: Sequence[Pyramid],
    dtype: DTypeLike,
    plan: Plan,
) -> Float[Array, "P N C"]:
    """What is kept of each tile and formula by `tiles_fn`, by formula."""
    del plan

    def finish(result: Quaternion) -> Float[Array, "C D"]:
        parts = jnp.stack(keep(jnp, result, kept))
        return parts.reshape(len(parts), samples, -1).mean(axis=1)

    tiles = tiles_fn(fold(tapes), at, finish, images, per_pixel)
    by_formula = tiles.transpose(1, 0, 3, 2).astype(dtype)
    return by_formula.reshape(by_formula.shape[0], -1, by_formula.shape[-1])


class _TileNumpy:
    """`jax.numpy` that skips work which no point of the tile needs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def where_due(due, fn, value):
        return jax.lax.cond(jnp.any(due), fn, lambda unchanged: unchanged, value)


def _switch(
    tapes: Tape, at: Coordinates, finish_fn: FinishFn, images: Sequence[Pyramid], per_pixel: int
) -> Float[Array, "tiles P C D"]:
    """What `finish_fn` makes of each formula's value on each tile, four arrays [T]."""
    num_tiles, tile = at.x.shape
    num_formulas = tapes.opcode.shape[0]
    kept = jax.eval_shape(finish_fn, Quaternion(*[at.x[0]] * 4))
    branches = [branch(_TileNumpy(), op, images, per_pixel) for op in INSTRUCTIONS]
    branch_of = branch_index()

    def instruction(step, state):
        tape, registers = state
        value = jax.lax.switch(
            branch_of[tape.opcode[step]],
            branches,
            registers[tape.first[step]],
            registers[tape.second[step]],
            tape.constant[step],
            tape.second[step] == UNWRAPPED,
        )
        return tape, registers.at[tape.target[step]].set(value)

    def formula(index, state):
        tile_index, registers, results = state
        tape = jax.tree.map(lambda field: field[index], tapes)
        _, registers = jax.lax.fori_loop(0, tape.length, instruction, (tape, registers))
        result = finish_fn(Quaternion(*registers[tape.result]))
        return tile_index, registers, results.at[tile_index, index].set(result)

    def one_tile(tile_index, state):
        registers, results = state
        here = Coordinates(*(field[tile_index] for field in at))
        leaves = _leaf_registers(_TileNumpy(), here, images, per_pixel)
        registers = registers.at[:NUM_LEAVES].set(leaves)
        state = (tile_index, registers, results)
        _, registers, results = jax.lax.fori_loop(0, num_formulas, formula, state)
        return registers, results

    registers = jnp.zeros((tapes.num_registers, 4, tile), at.x.dtype)
    results = jnp.zeros((num_tiles, num_formulas, *kept.shape), kept.dtype)
    return jax.lax.fori_loop(0, num_tiles, one_tile, (registers, results))[1]


def _lockstep(
    tapes: Tape, at: Coordinates, finish_fn: FinishFn, images: Sequence[Pyramid], per_pixel: int
) -> Float[Array, "tiles P C D"]:
    """The same, for all formulas at once."""
    num_formulas = tapes.opcode.shape[0]
    everyone = jnp.arange(num_formulas)

    def one_tile(here: Coordinates):
        shape = (num_formulas, tapes.num_registers, 4, here.x.shape[0])
        leaves = _leaf_registers(jnp, here, images, per_pixel)
        registers = jnp.zeros(shape, here.x.dtype).at[:, :NUM_LEAVES].set(leaves)
        registers = _run_in_step(tapes, registers, images, per_pixel)
        result = registers[everyone, tapes.result]
        return jax.vmap(lambda value: finish_fn(Quaternion(*value)))(result)

    return jax.lax.map(one_tile, at)


def fold(tapes: Tape) -> Tape:
    """Runs a population's tails (see `tape`): all constants are known, no tails are left."""
    num_formulas, size = tapes.opcode.shape
    place = jnp.minimum(tapes.length[:, None] + jnp.arange(size), size - 1)
    tails = tapes._replace(
        length=tapes.num_folded,
        constant=jnp.take_along_axis(tapes.constant, place[..., None], axis=1),
        **{
            name: jnp.take_along_axis(getattr(tapes, name), place, axis=1)
            for name in ("opcode", "target", "first", "second")
        },
    )
    anywhere = Coordinates(*(jnp.zeros(1, tapes.constant.dtype) for _ in Coordinates._fields))
    shape = (num_formulas, NUM_LEAVES + size, 4, 1)
    registers = jnp.zeros(shape, tapes.constant.dtype)
    registers = registers.at[:, :NUM_LEAVES].set(_leaf_registers(jnp, anywhere))
    registers = _run_in_step(tails, registers)[..., 0]
    stands_for = (tapes.opcode == CONSTANT) & (tapes.first >= NUM_LEAVES)
    values = jnp.take_along_axis(registers, tapes.first[..., None], axis=1)
    return tapes._replace(
        constant=jnp.where(stands_for[..., None], values, tapes.constant),
        first=jnp.where(stands_for, 0, tapes.first),
        num_folded=jnp.zeros_like(tapes.num_folded),
    )


def _run_in_step(
    tapes: Tape,
    registers: Float[Array, "P R 4 T"],
    images: Sequence[Pyramid] = (),
    per_pixel: int = 1,
) -> Float[Array, "P R 4 T"]:
    """Executes the instructions of all formulas, the first of each, then the second, ..."""
    everyone = jnp.arange(registers.shape[0])
    branches = [jax.vmap(branch(jnp, op, images, per_pixel)) for op in INSTRUCTIONS]
    branch_of = branch_index()

    def instruction(step, registers):
        operands = (
            registers[everyone, tapes.first[:, step]],
            registers[everyone, tapes.second[:, step]],
            tapes.constant[:, step],
            tapes.second[:, step] == UNWRAPPED,
        )
        wanted = branch_of[tapes.opcode[:, step]][:, None, None]
        value = registers[everyone, tapes.target[:, step]]  # kept by formulas that have ended
        running = (step < tapes.length)[:, None, None]
        for index, (op, branch_fn) in enumerate(zip(INSTRUCTIONS, branches, strict=True)):
            due = running & (wanted == index)
            if op.image is not None and op.image < len(images):  # dear: left out where it can be

                def sampled(value, branch_fn=branch_fn, due=due):
                    return jnp.where(due, branch_fn(*operands), value)

                value = jax.lax.cond(jnp.any(due), sampled, lambda value: value, value)
            else:
                value = jnp.where(due, branch_fn(*operands), value)
        return registers.at[everyone, tapes.target[:, step]].set(value)

    return jax.lax.fori_loop(0, jnp.max(tapes.length), instruction, registers)


def branch_index(ops: Sequence[Op] = INSTRUCTIONS) -> Int[Array, "opcodes"]:
    """Of every opcode its place among some ops."""
    index = [0] * len(OPS)
    for position, op in enumerate(ops):
        index[op.opcode] = position
    return jnp.asarray(index)


def _leaf_registers(
    xp, at: Coordinates, images: Sequence[Pyramid] = (), per_pixel: int = 1
) -> Float[Array, "leaves 4 T"]:
    values = (leaf_value(xp, op, images, at, at, per_pixel) for op in LEAVES)
    return jnp.stack([jnp.stack(value) for value in values])


def branch(
    xp: Any, op: Op, images: Sequence[Pyramid] = (), per_pixel: int = 1
) -> Callable[..., Float[Array, "4 *T"]]:
    """An instruction: `(first [4, *T], second [4, *T], constant [4], unwrapped []) -> [4, *T]`."""

    def leaf(op: Op, here: Coordinates, frame: Coordinates) -> Quaternion:
        return leaf_value(xp, op, images, here, frame, per_pixel)

    def apply(first, second, constant, unwrapped):
        operands = Operands(
            first_fn=lambda: Quaternion(*first),
            second_fn=lambda: Quaternion(*second),
            constant_fn=lambda: Quaternion(
                *(jnp.broadcast_to(t, first[0].shape) for t in constant)
            ),
            unwrapped_fn=lambda: unwrapped,
        )
        return jnp.stack(value_of(xp, op, operands, leaf))

    return apply
