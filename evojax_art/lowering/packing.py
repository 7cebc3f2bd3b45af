"""Tapes as a GPU kernel reads them: an instruction is one word, and few values need a place.

A kernel keeps the value it has just computed (the newest) at hand, and builds leaves where they
are read. So only a value that is still read after the next instruction needs a *slot*: slot s is
the tape's register `NUM_LEAVES + s`. A word has four fields of eight bits, lowest first:

    position    of the op in `ops.INSTRUCTIONS`
    slot        slot + 1 for the value, 0 where it needs none
    first       operand 1: 0 the newest value, 1 to NUM_LEAVES the leaf of register `first - 1`,
                from FIRST_SLOT on the slots
    second      operand 2, likewise; of a coordinate leaf `values.UNWRAPPED` or 0, else 0

Tapes with more registers than eight bits can name take two words an instruction, of two fields of
16 bits each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from evojax_art.language.ops import INSTRUCTIONS, OPS
from evojax_art.language.program import ARITY
from evojax_art.lowering.tape import NUM_LEAVES, Tape
from evojax_art.lowering.values import READS_COORDINATES

NEWEST = 0  # operand code of the value just computed
FIRST_SLOT = 1 + NUM_LEAVES
_NOTHING, _NOWHERE = -2, -1  # no operand; no target: they are never equal
_POSITION = np.zeros(len(OPS), np.int32)
_POSITION[[op.opcode for op in INSTRUCTIONS]] = np.arange(len(INSTRUCTIONS))


class Packed(NamedTuple):
    """Tapes of P formulas with at most L instructions, W words each.

    Attributes:
        words: int32 [P, W (L + 1)]; the last step is padding, so that one may read ahead.
        constants: float32 [P, 4 L].
        length: int32 [P].
        result: int32 [P], the operand code of a formula's value.
        order: int32 [P], formulas that need many slots first, then the others; the longest first.
        num_spilling: int32 [1], how many formulas need more slots than a kernel has on chip.
    """

    words: Any
    constants: Any
    length: Any
    result: Any
    order: Any
    num_spilling: Any


def field_bits(num_own: int) -> int:
    """Bits of a word's field, for tapes with so many registers that are no leaves."""
    return 8 if FIRST_SLOT + num_own <= 256 else 16


def words_per_step(bits: int) -> int:
    """W, the words of an instruction."""
    return 4 * bits // 32


def unpack(words: Sequence[Any], bits: int) -> list[Any]:
    """The four fields of an instruction."""
    mask = (1 << bits) - 1
    return [(word >> start) & mask for word in words for start in range(0, 32, bits)]


def pack(tapes: Tape, num_slots: int, bits: int) -> Packed:
    """Packs a population's tapes.

    Args:
        tapes: without tails (`xla.fold`).
        num_slots: slots that the kernel has on chip.
        bits: `field_bits` of the tapes.
    """
    num_formulas, capacity = tapes.opcode.shape
    step = jnp.arange(capacity)
    running = step < tapes.length[:, None]
    arity = jnp.asarray(ARITY)[tapes.opcode]
    reads_frame = jnp.asarray(READS_COORDINATES)[tapes.opcode]
    has_first = (arity > 0) | reads_frame
    target = jnp.where(running, tapes.target, _NOWHERE)
    first = jnp.where(running & has_first, tapes.first, _NOTHING)
    second = jnp.where(running & (arity == 2), tapes.second, _NOTHING)
    newest = jnp.pad(target, ((0, 0), (1, 0)), constant_values=_NOWHERE)  # as each step finds it

    def operand(register: Array, newest: Array) -> Array:
        return jnp.where((register == _NOTHING) | (register == newest), NEWEST, register + 1)

    stored = running & _is_stored(tapes, target, first, second)
    slot = jnp.where(stored, target - NUM_LEAVES + 1, 0)
    fields = [
        jnp.asarray(_POSITION)[tapes.opcode],
        slot,
        operand(first, newest[:, :-1]),
        jnp.where(reads_frame, tapes.second, operand(second, newest[:, :-1])),
    ]
    per_word = 32 // bits
    words = [
        sum(field << (bits * place) for place, field in enumerate(fields[start : start + per_word]))
        for start in range(0, 4, per_word)
    ]
    words = jnp.pad(jnp.stack(words, axis=-1), ((0, 0), (0, 1), (0, 0)))
    last = jnp.take_along_axis(newest, tapes.length[:, None], axis=1)[:, 0]
    spills = jnp.max(slot, axis=1) > num_slots
    return Packed(
        words=words.reshape(num_formulas, -1).astype(jnp.int32),
        constants=tapes.constant.reshape(num_formulas, -1),
        length=tapes.length,
        result=operand(tapes.result, last).astype(jnp.int32),
        order=jnp.argsort(-tapes.length - (capacity + 1) * spills).astype(jnp.int32),
        num_spilling=jnp.sum(spills, dtype=jnp.int32)[None],
    )


def _is_stored(
    tapes: Tape, target: Int[Array, "P L"], first: Int[Array, "P L"], second: Int[Array, "P L"]
) -> Bool[Array, "P L"]:
    """Whether a step behind the next reads a value before its register is overwritten.

    The end reads the result, as a step at `length` would.
    """
    capacity = target.shape[1]
    step = jnp.arange(capacity)
    reader, writer = step[None, None, :], step[None, :, None]
    overwrites = (target[:, None, :] == target[:, :, None]) & (reader > writer)
    until = jnp.min(jnp.where(overwrites, reader, capacity), axis=2)
    reads = (first[:, None, :] == target[:, :, None]) | (second[:, None, :] == target[:, :, None])
    read = jnp.any(reads & (reader > writer + 1) & (reader <= until[:, :, None]), axis=2)
    is_result = (target == tapes.result[:, None]) & (until == capacity)
    return read | (is_result & (step < tapes.length[:, None] - 1))
