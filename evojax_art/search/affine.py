"""Mutations that keep a picture and move it: shifted, turned, stretched; or in other colours.

Both put an affine map near the identity around a subtree, the whole formula in half of the cases.
Such a child looks like its host and yet is another picture, which few other mutations achieve.
Where there is such a map already it is changed, so that formulas do not grow with every step.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from evojax_art.language.ops import AT, BY_NAME, CONSTANT
from evojax_art.language.quaternions import Quaternion, multiply
from evojax_art.search.splicing import (
    HOST,
    LARGEST_CONSTANT,
    Draws,
    Edit,
    Parent,
    choose_subtree,
    edit,
    either,
    normal,
)

_PLUS, _TIMES, _PLANE = (BY_NAME[name].opcode for name in ("+", "*", "x_iy"))
_FRAME = (CONSTANT, CONSTANT, _PLANE, _TIMES, _PLUS)  # postfix: ( + b ( * a x_iy ) )
LEAST_STEP, LARGEST_STEP = 0.03, 0.6  # the least is what is usual


def recolour(
    draws: Draws, host: Parent, least_step: float = LEAST_STEP
) -> tuple[Edit, Bool[Array, ""]]:
    """A subtree F becomes `( + c ( * q F ) )`, with c near 0 and q near 1, by `least_step` or more.

    Returns:
        The edit; whether its child fits.
    """
    start, end = _whole_or_part(draws, host)
    starts, opcode = host.starts, host.program.opcode
    is_within = (
        (opcode[end - 1] == _PLUS)  # so that there are three nodes
        & (opcode[end - 2] == _TIMES)
        & (opcode[start] == CONSTANT)
        & (starts[end - 2] == start + 1)
        & (opcode[start + 1] == CONSTANT)
        & (starts[end - 3] == start + 2)
    )
    shift, factor = _near_identity(draws, least_step, (1, 1, 1, 1))
    before = host.program.constant[start], host.program.constant[start + 1]
    composed = shift + _product(factor, before[0]), _product(factor, before[1])
    own = CONSTANT, CONSTANT, _TIMES, _PLUS
    return _mapped(host, (start, end), own, 2, is_within, composed, (shift, factor))


def move(
    draws: Draws, host: Parent, least_step: float = LEAST_STEP
) -> tuple[Edit, Bool[Array, ""]]:
    """A subtree F becomes `( at ( + b ( * a x_iy ) ) F )`, with b near 0 and a near 1.

    Returns:
        The edit; whether its child fits.
    """
    start, end = _whole_or_part(draws, host)
    here = start + jnp.arange(len(_FRAME))
    is_within = (
        (host.program.opcode[end - 1] == AT)
        & jnp.all(host.program.opcode[here] == jnp.asarray(_FRAME))
        & (host.starts[end - 2] == start + len(_FRAME))
    )
    shift, factor = _near_identity(draws, least_step, (1, 1, 0, 0))  # as complex numbers do it
    before = host.program.constant[start], host.program.constant[start + 1]
    composed = before[0] + _product(before[1], shift), _product(before[1], factor)
    own = *_FRAME, AT
    return _mapped(host, (start, end), own, len(_FRAME), is_within, composed, (shift, factor))


def _whole_or_part(draws: Draws, host: Parent) -> tuple[Int[Array, ""], Int[Array, ""]]:
    start, end = choose_subtree(draws.nodes[0], host)
    whole = draws.single[8] < 0.5
    return jnp.where(whole, 0, start), jnp.where(whole, host.program.length, end)


def _near_identity(
    draws: Draws, least_step: float, along: tuple[float, ...]
) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
    """What is added and what is multiplied by: a step from 0 and from 1, of random size."""
    low, high = math.log(least_step), math.log(LARGEST_STEP)
    size = jnp.exp(low + (high - low) * draws.single[9])
    steps = normal(draws.single[:8]).reshape(2, 4)
    shift, factor = size * steps * jnp.asarray(along, jnp.float32)
    return shift, factor.at[0].add(1.0)


def _product(a: Float[Array, "4"], b: Float[Array, "4"]) -> Float[Array, "4"]:
    return jnp.stack(multiply(jnp, Quaternion(*a), Quaternion(*b)))


def _mapped(
    host: Parent,
    around: tuple[Int[Array, ""], Int[Array, ""]],
    own: tuple[int, ...],
    before: int,
    is_within: Bool[Array, ""],
    composed: tuple[Float[Array, "4"], Float[Array, "4"]],
    added: tuple[Float[Array, "4"], Float[Array, "4"]],
) -> tuple[Edit, Bool[Array, ""]]:
    """The map composed with the one that is there, in two constants; else one around a range."""
    start, end = around
    values = jnp.where(is_within, jnp.stack(composed), jnp.stack(added))
    values = jnp.clip(values, -LARGEST_CONSTANT, LARGEST_CONSTANT)
    wrapped = edit(
        start,
        end,
        HOST,
        start,
        end,
        own=own,
        constant=values,
        before=before,
        behind=len(own) - before,
    )
    replaced = edit(start, start + 2, own=own, constant=values, before=2)
    child = either(is_within, replaced, wrapped)
    return child, host.program.length + child.growth <= host.program.capacity
