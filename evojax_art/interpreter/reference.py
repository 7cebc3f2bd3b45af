"""The specification: one expression at a time, NumPy, float64, by walking the tree.

It shares the op table with the other interpreters and nothing else: no programs, no tapes, no
registers, and `subst` and `at` are what the language says they are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from evojax_art.language.formula import Expression
from evojax_art.language.ops import AT, FRAMING, frame_coordinates
from evojax_art.language.photographs import Pyramid, leaf_value
from evojax_art.language.quaternions import Coordinates, Quaternion


class _Place(NamedTuple):
    """Where a node is evaluated, and the same before it was wrapped."""

    at: Coordinates
    unwrapped: Coordinates


def evaluate(
    expression: Expression,
    at: Coordinates,
    images: Sequence[Pyramid] = (),
    samples: int = 1,
) -> Quaternion:
    """The value of one formula.

    Args:
        expression: the formula.
        at: points, float64 arrays of one shape; neighbours as `images` says.
        images: pictures that it reads, slot by slot; the leaf of a slot without one is 0.
        samples: points of a pixel.
    """
    nodes = expression.postfix
    starts = _subtree_starts(expression)
    images = jax.tree.map(_as_numpy, tuple(images))
    values: list[Quaternion] = []
    tasks: list[tuple[str, int, _Place]] = [("visit", len(nodes) - 1, _Place(at, at))]
    with np.errstate(all="ignore"):
        while tasks:
            task, index, here = tasks.pop()
            op, constant = nodes[index]
            if task == "substitute":  # the left side is known: evaluate the right side there
                frame = values.pop()
                inside = frame_coordinates(np, frame, op.opcode == AT)
                there = _Place(inside, Coordinates(*frame[:3]))
                tasks.append(("visit", index - 1, there))
            elif task == "apply":
                operands = [values.pop() for _ in range(op.arity)][::-1]
                values.append(op.fn(np, *operands))
            elif constant is not None:
                values.append(Quaternion(*(np.full_like(at.x, c) for c in constant)))
            elif op.arity == 0:
                values.append(leaf_value(np, op, images, *here, samples))
            elif op.opcode in FRAMING:
                tasks.append(("substitute", index, here))
                tasks.append(("visit", starts[index - 1] - 1, here))
            else:
                tasks.append(("apply", index, here))
                operand = index - 1
                for _ in range(op.arity):  # pushed right to left, so evaluated left to right
                    tasks.append(("visit", operand, here))
                    operand = starts[operand] - 1
    return values[0]


def _as_numpy(field) -> np.ndarray:
    field = np.asarray(field)
    return field.astype(float) if field.dtype.kind == "f" else field


def _subtree_starts(expression: Expression) -> list[int]:
    starts: list[int] = []
    stack: list[int] = []
    for index, (op, _) in enumerate(expression.postfix):
        operands = [stack.pop() for _ in range(op.arity)]
        starts.append(operands[-1] if operands else index)
        stack.append(starts[-1])
    return starts
