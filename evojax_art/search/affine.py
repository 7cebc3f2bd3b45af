"""Mutations that keep a picture and move it: shifted, turned, stretched; or in other colours.

Both put an affine map near the identity around a subtree, the whole formula in half of the cases.
Such a child looks like its host and yet is another picture, which few other mutations achieve.
Where there is such a map already it is changed, so that formulas do not grow with every step.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.ops import AT, BY_NAME, CONSTANT
from evojax_art.language.program import Program, subtree_starts
from evojax_art.language.quaternions import Quaternion, multiply
from evojax_art.search.splicing import LARGEST_CONSTANT, choose_subtree, either, splice

_PLUS, _TIMES, _PLANE = (BY_NAME[name].opcode for name in ("+", "*", "x_iy"))
_FRAME = (CONSTANT, CONSTANT, _PLANE, _TIMES, _PLUS)  # postfix: ( + b ( * a x_iy ) )
LEAST_STEP, LARGEST_STEP = 0.03, 0.6  # the least is what is usual


def recolour(
    key: Key[Array, ""], host: Program, least_step: float = LEAST_STEP
) -> tuple[Program, Bool[Array, ""]]:
    """A subtree F becomes `( + c ( * q F ) )`, with c near 0 and q near 1, by `least_step` or more.

    Returns:
        The child; whether it fits, else it is not valid.
    """
    step_key, node_key = jax.random.split(key)
    start, end = _whole_or_part(node_key, host)
    starts, opcode = subtree_starts(host), host.opcode
    is_within = (
        (opcode[end - 1] == _PLUS)  # so that there are three nodes
        & (opcode[end - 2] == _TIMES)
        & (opcode[start] == CONSTANT)
        & (starts[end - 2] == start + 1)
        & (opcode[start + 1] == CONSTANT)
        & (starts[end - 3] == start + 2)
    )
    shift, factor = _near_identity(step_key, least_step, (1, 1, 1, 1))
    wrapped = _spliced(host, start, end, (CONSTANT, CONSTANT), (_TIMES, _PLUS))
    before = host.constant[start], host.constant[start + 1]
    composed = shift + _product(factor, before[0]), _product(factor, before[1])
    return _mapped(host, start, is_within, composed, wrapped, (shift, factor))


def move(
    key: Key[Array, ""], host: Program, least_step: float = LEAST_STEP
) -> tuple[Program, Bool[Array, ""]]:
    """A subtree F becomes `( at ( + b ( * a x_iy ) ) F )`, with b near 0 and a near 1.

    Returns:
        The child; whether it fits, else it is not valid.
    """
    step_key, node_key = jax.random.split(key)
    start, end = _whole_or_part(node_key, host)
    here = start + jnp.arange(len(_FRAME))
    is_within = (
        (host.opcode[end - 1] == AT)
        & jnp.all(host.opcode[here] == jnp.asarray(_FRAME))
        & (subtree_starts(host)[end - 2] == start + len(_FRAME))
    )
    shift, factor = _near_identity(step_key, least_step, (1, 1, 0, 0))  # as complex numbers do it
    wrapped = _spliced(host, start, end, _FRAME, (AT,))
    before = host.constant[start], host.constant[start + 1]
    composed = before[0] + _product(before[1], shift), _product(before[1], factor)
    return _mapped(host, start, is_within, composed, wrapped, (shift, factor))


def _whole_or_part(key: Key[Array, ""], host: Program) -> tuple[Int[Array, ""], Int[Array, ""]]:
    whole_key, node_key = jax.random.split(key)
    start, end = choose_subtree(node_key, host)
    whole = jax.random.bernoulli(whole_key)
    return jnp.where(whole, 0, start), jnp.where(whole, host.length, end)


def _near_identity(
    key: Key[Array, ""], least_step: float, along: tuple[float, ...]
) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
    """What is added and what is multiplied by: a step from 0 and from 1, of random size."""
    size_key, key = jax.random.split(key)
    between = math.log(least_step), math.log(LARGEST_STEP)
    size = jnp.exp(jax.random.uniform(size_key, minval=between[0], maxval=between[1]))
    shift, factor = size * jax.random.normal(key, (2, 4)) * jnp.asarray(along, jnp.float32)
    return shift, factor.at[0].add(1.0)


def _product(a: Float[Array, "4"], b: Float[Array, "4"]) -> Float[Array, "4"]:
    return jnp.stack(multiply(jnp, Quaternion(*a), Quaternion(*b)))


def _spliced(
    host: Program,
    start: Int[Array, ""],
    end: Int[Array, ""],
    before: tuple[int, ...],
    behind: tuple[int, ...],
) -> Program:
    """With nodes before and behind a range; too long where they do not fit."""
    opcode = jnp.asarray(before + behind, jnp.int32)
    nodes = Program(opcode, jnp.zeros((len(opcode), 4)), jnp.int32(len(opcode)))
    child = splice(host, end, end, nodes, jnp.int32(len(before)), nodes.length)
    return splice(child, start, start, nodes, jnp.int32(0), jnp.int32(len(before)))


def _mapped(
    host: Program,
    start: Int[Array, ""],
    is_within: Bool[Array, ""],
    composed: tuple[Float[Array, "4"], Float[Array, "4"]],
    wrapped: Program,
    added: tuple[Float[Array, "4"], Float[Array, "4"]],
) -> tuple[Program, Bool[Array, ""]]:
    """The host with its map composed where there is one, else with another around it."""
    child = either(is_within, host, wrapped)
    values = jnp.where(is_within, jnp.stack(composed), jnp.stack(added))
    place = start + jnp.arange(2)
    constant = child.constant.at[place].set(
        jnp.clip(values, -LARGEST_CONSTANT, LARGEST_CONSTANT), mode="drop"
    )
    return child._replace(constant=constant), child.length <= host.capacity
