"""Mutations that keep a picture: shifted, turned, stretched; in other colours; under a faint other.

They are put around a subtree, the whole formula in half of the cases: an affine map near the
identity, or a sum with a little of something else. Such a child looks like its host and yet is
another picture, which few other mutations achieve. Where there is such a map already it is changed,
so that formulas do not grow with every step.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from evojax_art.language.ops import AT, BY_NAME, CONSTANT
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Quaternion, multiply
from evojax_art.search.splicing import (
    DONOR,
    FRESH,
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
LARGEST_OVERLAY = 12  # nodes


def recolour(
    draws: Draws, host: Parent, least_step: float = LEAST_STEP
) -> tuple[Edit, Bool[Array, ""]]:
    """A subtree F becomes `( + c ( * q F ) )`, with c near 0 and q near 1, by `least_step` or more.

    Returns:
        The edit; whether its child fits.
    """
    span = _beneath(_PLACES, host, _whole_or_part(draws, host))
    shift, factor = _near_identity(draws, least_step, (1, 1, 1, 1))
    before = host.program.constant[span[0]], host.program.constant[span[0] + 1]
    composed = shift + _product(factor, before[0]), _product(factor, before[1])
    return _mapped(_COLOURS, host, span, composed, (shift, factor))


def move(
    draws: Draws, host: Parent, least_step: float = LEAST_STEP
) -> tuple[Edit, Bool[Array, ""]]:
    """A subtree F becomes `( at ( + b ( * a x_iy ) ) F )`, with b near 0 and a near 1.

    Returns:
        The edit; whether its child fits.
    """
    span = _beneath(_COLOURS, host, _whole_or_part(draws, host))
    shift, factor = _near_identity(draws, least_step, (1, 1, 0, 0))  # as complex numbers do it
    before = host.program.constant[span[0]], host.program.constant[span[0] + 1]
    composed = before[0] + _product(before[1], shift), _product(before[1], factor)
    return _mapped(_PLACES, host, span, composed, (shift, factor))


def overlay(
    draws: Draws,
    host: Parent,
    donor: Parent,
    fresh: Program,
    least_step: float = LEAST_STEP,
) -> tuple[Edit, Bool[Array, ""]]:
    """A subtree F becomes `( + F ( * q G ) )`, with q near 0, by `least_step` or more.

    G is a subtree of the donor or, as often, a random one. What a picture can still become along
    its own constants is soon exhausted; every G is one direction more. Where F is such a sum
    already, in half of the cases its last G is replaced, so that formulas do not grow with every
    step.

    Args:
        draws: as everywhere.
        host: whose subtree.
        donor: of whom G may be, at most `LARGEST_OVERLAY` nodes.
        fresh: what else G may be, or its first leaf where it does not fit.
        least_step: of q, at least; at most it is `LARGEST_STEP`.

    Returns:
        The edit; whether its child fits.
    """
    span = _whole_or_part(draws, host)
    for kind in (_COLOURS, _PLACES, _COLOURS):  # to what both are around
        span = _beneath(kind, host, span)
    end = span[1]
    start = jnp.where(draws.single[6] < 0.5, _last_overlay(host, span), end)
    room = host.program.capacity - host.program.length + (end - start) - 3
    largest = jnp.minimum(LARGEST_OVERLAY, room)
    first, last = choose_subtree(draws.nodes[1], donor, largest)
    is_fresh = draws.single[7] < 0.5
    # The first node of a postfix program is a leaf.
    fresh_last = jnp.where(fresh.length <= room, fresh.length, 1)
    child = edit(
        start,
        end,
        jnp.where(is_fresh, FRESH, DONOR),
        jnp.where(is_fresh, 0, first),
        jnp.where(is_fresh, fresh_last, last),
        own=(CONSTANT, _TIMES, _PLUS),
        constant=(_step_size(draws, least_step) * normal(draws.single[:4]))[None],
        before=1,
        behind=2,
    )
    return child, room >= 1


def _whole_or_part(draws: Draws, host: Parent) -> tuple[Int[Array, ""], Int[Array, ""]]:
    start, end = choose_subtree(draws.nodes[0], host)
    whole = draws.single[8] < 0.5
    return jnp.where(whole, 0, start), jnp.where(whole, host.program.length, end)


def _last_overlay(host: Parent, span: tuple[Int[Array, ""], Int[Array, ""]]) -> Int[Array, ""]:
    """Where q G begins, if a subtree is a sum with it; else its end."""
    start, end = span
    starts, opcode = host.starts, host.program.opcode
    factor = starts[end - 2]
    is_sum = (
        (opcode[end - 1] == _PLUS)
        & (opcode[end - 2] == _TIMES)
        & (opcode[factor] == CONSTANT)
        & (starts[end - 3] == factor + 1)
        & ~_is_recoloured(host, start, end)
    )
    return jnp.where(is_sum, factor, end)


def _is_recoloured(host: Parent, start: Int[Array, ""], end: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether a subtree is such a map of colours."""
    starts, opcode = host.starts, host.program.opcode
    return (
        (opcode[end - 1] == _PLUS)  # so that there are three nodes
        & (opcode[end - 2] == _TIMES)
        & (opcode[start] == CONSTANT)
        & (starts[end - 2] == start + 1)
        & (opcode[start + 1] == CONSTANT)
        & (starts[end - 3] == start + 2)
    )


def _is_moved(host: Parent, start: Int[Array, ""], end: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether a subtree is such a map of places."""
    opcode = host.program.opcode
    return (
        (opcode[end - 1] == AT)
        & jnp.all(opcode[start + jnp.arange(len(_FRAME))] == jnp.asarray(_FRAME))
        & (host.starts[end - 2] == start + len(_FRAME))
    )


class _Map(NamedTuple):
    """A kind of maps.

    Attributes:
        own: its nodes, of which the first two are the constants.
        before: how many of them come before what is mapped.
        is_one_fn: whether the subtree of a host from its start to its end is such a map.
    """

    own: tuple[int, ...]
    before: int
    is_one_fn: Callable[..., Bool[Array, ""]]


_COLOURS = _Map((CONSTANT, CONSTANT, _TIMES, _PLUS), 2, _is_recoloured)
_PLACES = _Map((*_FRAME, AT), len(_FRAME), _is_moved)


def _beneath(
    kind: _Map, host: Parent, span: tuple[Int[Array, ""], Int[Array, ""]]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """What is inside such a map, if the range is one; else the range.

    The two kinds commute. So neither is ever put around the other, where both would soon lie in
    many layers.
    """
    start, end = span
    is_map = kind.is_one_fn(host, start, end)
    inside = start + kind.before, end - (len(kind.own) - kind.before)
    return either(is_map, inside, span)


def _near_identity(
    draws: Draws, least_step: float, along: tuple[float, ...]
) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
    """What is added and what is multiplied by: a step from 0 and from 1, of random size."""
    size = _step_size(draws, least_step)
    steps = normal(draws.single[:8]).reshape(2, 4)
    shift, factor = size * steps * jnp.asarray(along, jnp.float32)
    return shift, factor.at[0].add(1.0)


def _step_size(draws: Draws, least_step: float) -> Float[Array, ""]:
    low, high = math.log(least_step), math.log(LARGEST_STEP)
    return jnp.exp(low + (high - low) * draws.single[9])


def _product(a: Float[Array, "4"], b: Float[Array, "4"]) -> Float[Array, "4"]:
    return jnp.stack(multiply(jnp, Quaternion(*a), Quaternion(*b)))


def _mapped(
    kind: _Map,
    host: Parent,
    span: tuple[Int[Array, ""], Int[Array, ""]],
    composed: tuple[Float[Array, "4"], Float[Array, "4"]],
    added: tuple[Float[Array, "4"], Float[Array, "4"]],
) -> tuple[Edit, Bool[Array, ""]]:
    """The map composed with the one that is there, in two constants; else one around a range."""
    start, end = span
    own, before = kind.own, kind.before
    is_there = kind.is_one_fn(host, start, end)
    values = jnp.where(is_there, jnp.stack(composed), jnp.stack(added))
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
    child = either(is_there, replaced, wrapped)
    return child, host.program.length + child.growth <= host.program.capacity
