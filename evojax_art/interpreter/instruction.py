"""What an instruction computes, for all that execute them.

Interpreters differ in where operands are (a register file, values by node, packed words, Python
objects) and in what they make (arrays, code). What an op makes of its operands is the same for all
and stands here once: an interpreter says how an operand is had, and asks for the value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evojax_art.language.ops import CONSTANT, FRAMING, OPS, Op, frame_coordinates
from evojax_art.language.quaternions import Coordinates, Quaternion

EXECUTED = tuple(op for op in OPS if not op.structural or op.opcode in (CONSTANT, *FRAMING))
"""Ops of which a program's nodes are executed, where each node has a value (`INSTRUCTIONS` are
those of tapes, where the value of a framing op is that of its right side)."""

LeafFn = Callable[[Op, Coordinates, Coordinates], Quaternion]


@dataclass(frozen=True)
class Operands:
    """How what an instruction reads is had; each is called only where it is read.

    Attributes:
        first_fn: the left or only operand; of a coordinate leaf its frame.
        second_fn: the right operand.
        constant_fn: what `q` loads.
        unwrapped_fn: whether a coordinate leaf reads its frame as it is.
    """

    first_fn: Callable[[], Quaternion]
    second_fn: Callable[[], Quaternion]
    constant_fn: Callable[[], Quaternion]
    unwrapped_fn: Callable[[], Any]

    def arguments(self, xp: Any, op: Op) -> tuple[Any, ...]:
        """What an op's function takes: values, or for a leaf where it is, wrapped and not."""
        if op.arity:
            return tuple(fetch_fn() for fetch_fn in (self.first_fn, self.second_fn)[: op.arity])
        frame = self.first_fn()
        return frame_coordinates(xp, frame, self.unwrapped_fn()), Coordinates(*frame[:3])


def value_of(xp: Any, op: Op, operands: Operands, leaf_fn: LeafFn) -> Quaternion:
    """The value of an instruction.

    Args:
        xp: array namespace.
        op: of `INSTRUCTIONS` or `EXECUTED`.
        operands: what it reads.
        leaf_fn: the value of a coordinate leaf, of the op, where it is, and that before `subst`
            wraps it: photographs are read there in different ways.
    """
    if op.opcode == CONSTANT:
        return operands.constant_fn()
    if op.opcode in FRAMING:
        return operands.second_fn()
    arguments = operands.arguments(xp, op)
    return op.fn(xp, *arguments) if op.arity else leaf_fn(op, *arguments)
