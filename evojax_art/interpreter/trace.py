"""One formula as straight-line JAX, differentiable in its constants and in the coordinates.

`trace` walks the tree once, in Python, and calls the op table's functions on JAX arrays, so XLA
compiles exactly this formula: equal subtrees at equal coordinates once, no registers, no loop.
Compiling takes a time that grows with the formula; `reverse` differentiates any program without.

Gradients are finite by one rule: a component of a cotangent that is not finite, or larger than
`LARGEST_COTANGENT`, is dropped (becomes 0) at the point where it arises. A pixel whose value
overflows says nothing about a constant; the others do. `floor`, and the quotient inside `mod`, have
the gradient 0 where they have one, and what they do to their operands' steps goes unseen; `normp`,
`imin`, `imax`, the clamps of `iexp`, `ilog`, crunch and the wrap of `subst` are differentiated on
the side of the kink on which a point lies.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art.language.formula import Expression
from evojax_art.language.ops import (
    AT,
    CONSTANT,
    FRAMING,
    Coordinates,
    Quaternion,
    frame_coordinates,
)
from evojax_art.language.photographs import Pyramid, leaf_value

LARGEST_COTANGENT = 1e12


@jax.custom_vjp
def finite_gradient(value):
    """The value itself, whose cotangent is made finite by the rule above."""
    return value


def drop_wild(cotangent):
    """The rule above, of any pytree of cotangents."""

    def kept(t: Array) -> Array:
        return jnp.where(jnp.abs(t) <= LARGEST_COTANGENT, t, jnp.zeros_like(t))

    return jax.tree.map(kept, cotangent)


finite_gradient.defvjp(lambda value: (value, None), lambda _, cotangent: (drop_wild(cotangent),))


def trace(
    expression: Expression, images: Sequence[Pyramid] = (), samples: int = 1
) -> Callable[[Float[Array, "C 4"], Coordinates], Quaternion]:
    """The function of one formula whose C constants are free.

    Args:
        expression: its `q` leaves are the constants, in postfix order; named ones stay as they are.
        images: pictures that it reads, see `images`.
        samples: points of a pixel.

    Returns:
        `(constants, at) -> value`; coordinates are arrays of one shape, any float dtype.
    """
    return partial(_run, expression, images, samples)


def _run(
    expression: Expression,
    images: Sequence[Pyramid],
    samples: int,
    constants: Float[Array, "C 4"],
    at: Coordinates,
) -> Quaternion:
    values: list[Quaternion] = []
    number_of: dict[tuple, int] = {}  # of a value, by what it is: equal subtrees have one
    number: list[int] = []  # of each node's value
    constant = iter(constants)
    operands = expression.operand_roots
    around = _framing_ops(expression, operands)
    for index, (op, _) in enumerate(expression.postfix):
        below = [number[root] for root in operands[index]]
        if op.opcode in FRAMING:
            number.append(below[1])
            continue
        frame, framing = None, around[index]
        if framing is not None and op.reads_coordinates:
            frame = number[operands[framing][0]], expression.postfix[framing].op.opcode == AT
        what = (op.opcode, index if op.opcode == CONSTANT else frame, *below)
        if what not in number_of:
            if op.opcode == CONSTANT:
                parts = (jnp.broadcast_to(part, at.x.shape) for part in next(constant))
                value = Quaternion(*parts)
            elif op.arity:
                value = op.fn(jnp, *(values[operand] for operand in below))
            elif frame is None:
                value = leaf_value(jnp, op, images, at, at, samples)
            else:
                there = values[frame[0]]
                here = frame_coordinates(jnp, there, frame[1])
                value = leaf_value(jnp, op, images, here, Coordinates(*there[:3]), samples)
            number_of[what] = len(values)
            values.append(finite_gradient(value))
        number.append(number_of[what])
    return values[number[-1]]


def _framing_ops(expression: Expression, operands: Sequence[Sequence[int]]) -> list[int | None]:
    """For each node the innermost framing op whose right side it is in."""
    around: list[int | None] = [None] * len(expression)
    for index in reversed(range(len(expression))):
        for root in operands[index]:
            around[root] = around[index]
        if expression.postfix[index].op.opcode in FRAMING:
            around[operands[index][1]] = index
    return around
