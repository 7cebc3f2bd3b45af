"""The specification: one expression at a time, NumPy, float64, by walking the tree.

It shares the op table with the other interpreters and nothing else: no programs, no tapes, no
registers, and `subst` is what the language says it is.
"""

import numpy as np

from evojax_art.formula import Expression
from evojax_art.ops import BY_NAME, Coordinates, Quaternion, wrap_coordinates


def evaluate(expression: Expression, at: Coordinates) -> Quaternion:
    """The value of one formula at points given as float64 arrays of one shape."""
    nodes = expression.postfix
    starts = _subtree_starts(expression)
    values: list[Quaternion] = []
    tasks: list[tuple[str, int, Coordinates]] = [("visit", len(nodes) - 1, at)]
    with np.errstate(all="ignore"):
        while tasks:
            task, index, here = tasks.pop()
            op, constant = nodes[index]
            if task == "substitute":  # the left side is known: evaluate the right side there
                tasks.append(("visit", index - 1, wrap_coordinates(np, values.pop())))
            elif task == "apply":
                operands = [values.pop() for _ in range(op.arity)][::-1]
                values.append(op.fn(np, *operands))
            elif constant is not None:
                values.append(Quaternion(*(np.full_like(here.x, c) for c in constant)))
            elif op.arity == 0:
                values.append(op.fn(np, here))
            elif op is BY_NAME["subst"]:
                tasks.append(("substitute", index, here))
                tasks.append(("visit", starts[index - 1] - 1, here))
            else:
                tasks.append(("apply", index, here))
                operand = index - 1
                for _ in range(op.arity):  # pushed right to left, so evaluated left to right
                    tasks.append(("visit", operand, here))
                    operand = starts[operand] - 1
    return values[0]


def _subtree_starts(expression: Expression) -> list[int]:
    starts: list[int] = []
    stack: list[int] = []
    for index, (op, _) in enumerate(expression.postfix):
        operands = [stack.pop() for _ in range(op.arity)]
        starts.append(operands[-1] if operands else index)
        stack.append(starts[-1])
    return starts
