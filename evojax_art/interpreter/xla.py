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
from jaxtyping import Array, Float

from evojax_art.language.ops import (
    CONSTANT,
    INSTRUCTIONS,
    OPS,
    Coordinates,
    Op,
    Quaternion,
    frame_coordinates,
)
from evojax_art.language.photographs import Pyramid, leaf_value
from evojax_art.lowering.tape import LEAVES, NUM_LEAVES, Tape
from evojax_art.lowering.values import UNWRAPPED

FinishFn = Callable[[Quaternion], Float[Array, "C D"]]


class _TileNumpy:
    """`jax.numpy` that skips work which no point of the tile needs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def where_due(due, fn, value):
        return jax.lax.cond(jnp.any(due), fn, lambda unchanged: unchanged, value)


def switch(
    tapes: Tape,
    at: Coordinates,
    finish_fn: FinishFn,
    images: Sequence[Pyramid] = (),
    samples: int = 1,
) -> Float[Array, "tiles P C D"]:
    """Interprets a population, tile by tile and formula by formula.

    Args:
        tapes: a population's tapes, folded.
        at: coordinates, each [tiles, T] float32.
        finish_fn: turns the value of a formula on a tile, four arrays [T], into what is kept.
        images: what picture leaves read, slot by slot.
        samples: points of a pixel.

    Returns:
        What `finish_fn` made of each tile and formula.
    """
    num_tiles, tile = at.x.shape
    num_formulas = tapes.opcode.shape[0]
    kept = jax.eval_shape(finish_fn, Quaternion(*[at.x[0]] * 4))
    branches = [_branch(_TileNumpy(), op, images, samples) for op in INSTRUCTIONS]
    branch_of = _branch_index()

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
        leaves = _leaf_registers(_TileNumpy(), here, images, samples)
        registers = registers.at[:NUM_LEAVES].set(leaves)
        state = (tile_index, registers, results)
        _, registers, results = jax.lax.fori_loop(0, num_formulas, formula, state)
        return registers, results

    registers = jnp.zeros((tapes.num_registers, 4, tile), at.x.dtype)
    results = jnp.zeros((num_tiles, num_formulas, *kept.shape), kept.dtype)
    return jax.lax.fori_loop(0, num_tiles, one_tile, (registers, results))[1]


def lockstep(
    tapes: Tape,
    at: Coordinates,
    finish_fn: FinishFn,
    images: Sequence[Pyramid] = (),
    samples: int = 1,
) -> Float[Array, "tiles P C D"]:
    """Interprets a population, tile by tile, all formulas at once; arguments as for `switch`."""
    num_formulas = tapes.opcode.shape[0]
    everyone = jnp.arange(num_formulas)

    def one_tile(here: Coordinates):
        shape = (num_formulas, tapes.num_registers, 4, here.x.shape[0])
        leaves = _leaf_registers(jnp, here, images, samples)
        registers = jnp.zeros(shape, here.x.dtype).at[:, :NUM_LEAVES].set(leaves)
        registers = _run_in_step(tapes, registers, images, samples)
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
    samples: int = 1,
) -> Float[Array, "P R 4 T"]:
    """Executes the instructions of all formulas, the first of each, then the second, ..."""
    everyone = jnp.arange(registers.shape[0])
    branches = [jax.vmap(_branch(jnp, op, images, samples)) for op in INSTRUCTIONS]
    branch_of = _branch_index()

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
        for index, (op, branch) in enumerate(zip(INSTRUCTIONS, branches, strict=True)):
            due = running & (wanted == index)
            if op.image is not None and op.image < len(images):  # dear: left out where it can be

                def sampled(value, branch=branch, due=due):
                    return jnp.where(due, branch(*operands), value)

                value = jax.lax.cond(jnp.any(due), sampled, lambda value: value, value)
            else:
                value = jnp.where(due, branch(*operands), value)
        return registers.at[everyone, tapes.target[:, step]].set(value)

    return jax.lax.fori_loop(0, jnp.max(tapes.length), instruction, registers)


def _branch_index() -> Array:
    index = [0] * len(OPS)
    for position, op in enumerate(INSTRUCTIONS):
        index[op.opcode] = position
    return jnp.asarray(index)


def _leaf_registers(
    xp, at: Coordinates, images: Sequence[Pyramid] = (), samples: int = 1
) -> Float[Array, "leaves 4 T"]:
    values = (leaf_value(xp, op, images, at, at, samples) for op in LEAVES)
    return jnp.stack([jnp.stack(value) for value in values])


def _branch(xp, op: Op, images: Sequence[Pyramid] = (), samples: int = 1):
    """An instruction: `(first [4, T], second [4, T], constant [4], unwrapped []) -> [4, T]`."""

    def apply(first, second, constant, unwrapped):
        if op.opcode == CONSTANT:
            return jnp.broadcast_to(constant[:, None], first.shape)
        operands = [Quaternion(*first), Quaternion(*second)][: max(1, op.arity)]
        if op.reads_coordinates:
            here = frame_coordinates(jnp, operands[0], unwrapped)
            frame = Coordinates(*operands[0][:3])
            return jnp.stack(leaf_value(xp, op, images, here, frame, samples))
        return jnp.stack(op.fn(xp, *operands))

    return apply
