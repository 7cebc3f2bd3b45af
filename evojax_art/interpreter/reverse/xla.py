"""Values and pullbacks of programs in plain JAX: a branch per op, and arrays of all values.

Functions and arguments are those of `reverse.native`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evojax_art.interpreter.instruction import EXECUTED
from evojax_art.interpreter.reverse.pullback import LARGEST_COTANGENT
from evojax_art.interpreter.xla import branch, branch_index
from evojax_art.language.ops import CONSTANT, Op
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering.values import UNWRAPPED
from evojax_art.runtime.plan import Plan

Images = tuple[Pyramid, ...]
Values = Float[Array, "M 4 N T"]


def value(
    program: Program,
    first: Int[Array, "P L"],
    second: Int[Array, "P L"],
    at: Coordinates,
    images: Images,
    samples: int,
    plan: Plan,
) -> Float[Array, "P 4 N T"]:
    """Values of P programs at coordinates [P, N, T]; see `reverse.native.value`."""

    def one(program, first, second, at):
        return _forward(program, first, second, at, images, samples)[program.length - 1]

    return _for_each(plan, one, program, first, second, at)


def pullback(
    program: Program,
    first: Int[Array, "P L"],
    second: Int[Array, "P L"],
    at: Coordinates,
    cotangent: Float[Array, "P 4 N T"],
    images: Images,
    samples: int,
    plan: Plan,
) -> Float[Array, "P L 4"]:
    """The cotangents of their constants."""

    def one(program, first, second, at, cotangent):
        return _backward(program, first, second, at, cotangent, images, samples)

    return _for_each(plan, one, program, first, second, at, cotangent)


def _for_each(plan: Plan, fn: Callable[..., Array], *operands) -> Array:
    if plan.platform == "cpu":  # where a branch is a branch
        return jax.lax.map(lambda row: fn(*row), operands)
    return jax.vmap(fn)(*operands)


def _forward(
    program: Program, first, second, at: Coordinates, images: Images, samples: int
) -> Values:
    """Every node's value; behind them the picture's own coordinates as a frame."""
    branches = [branch(jnp, op, images, samples) for op in EXECUTED]
    branch_of = branch_index(EXECUTED)
    frame = jnp.stack([*at, jnp.zeros_like(at.x)])
    values = jnp.zeros((program.capacity + 1, *frame.shape), frame.dtype).at[-1].set(frame)

    def step(index: Array, values: Values) -> Values:
        value = jax.lax.switch(
            branch_of[program.opcode[index]],
            branches,
            values[first[index]],
            values[second[index]],
            program.constant[index],
            second[index] == UNWRAPPED,
        )
        return values.at[index].set(value)

    return jax.lax.fori_loop(0, program.length, step, values)


def _backward(
    program: Program,
    first,
    second,
    at: Coordinates,
    cotangent: Float[Array, "4 N T"],
    images: Images,
    samples: int,
) -> Float[Array, "L 4"]:
    values = _forward(program, first, second, at, images, samples)
    branches = [_pullback(op, images, samples) for op in EXECUTED]
    branch_of = branch_index(EXECUTED)

    def step(state):
        index, cotangents, constants = state
        to_first, to_second, to_constant = jax.lax.switch(
            branch_of[program.opcode[index]],
            branches,
            values[first[index]],
            values[second[index]],
            program.constant[index],
            second[index] == UNWRAPPED,
            _without_wild(cotangents[index]),
        )
        cotangents = cotangents.at[first[index]].add(_without_wild(to_first))
        cotangents = cotangents.at[second[index]].add(_without_wild(to_second))
        return index - 1, cotangents, constants.at[index].set(to_constant)

    start = jnp.zeros_like(values).at[program.length - 1].set(cotangent)
    state = (program.length - 1, start, jnp.zeros_like(program.constant))
    return jax.lax.while_loop(lambda state: state[0] >= 0, step, state)[-1]


def _without_wild(t: Array) -> Array:
    """A cotangent by the rule of `reverse.api`."""
    return jnp.where(jnp.abs(t) <= LARGEST_COTANGENT, t, 0)


def _pullback(op: Op, images: Images, samples: int):
    """From a value's cotangent to those of both operands and of the constant."""
    value_fn = branch(jnp, op, images, samples)

    def apply(first, second, constant, unwrapped, cotangent):
        if op.opcode == CONSTANT:
            nothing = jnp.zeros_like(first)
            return nothing, nothing, jnp.sum(cotangent, axis=(1, 2))

        def value(first, second):
            return value_fn(first, second, constant, unwrapped)

        _, pull = jax.vjp(value, first, second)
        return *pull(cotangent), jnp.zeros_like(constant)

    return apply
