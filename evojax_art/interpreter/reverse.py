"""Any program, differentiably: reverse mode over write-once values, without compiling a formula.

Forward, node by node, each value goes to its own place in an array `[L + 1, 4, T]`. Backward, from
the root to the first node, a branch per op turns the cotangent of its value into those of its
operands and constant. One compiled function serves every program of a capacity, so a population's
constants can be polished on the device; a formula that is polished alone runs faster as a `trace`.
Gradients are finite by the rule of `trace`.

Nothing is shared between nodes: a constant that is equal to another now may not be so tomorrow.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art.interpreter.trace import drop_wild
from evojax_art.ops import CONSTANT, OPS, PADDING, SUBST, Coordinates, Op, Quaternion
from evojax_art.program import Program
from evojax_art.values import NONE, Nodes, read_nodes

Values = Float[Array, "M 4 T"]


@jax.custom_vjp
def interpret(program: Program, at: Coordinates) -> Float[Array, "4 T"]:
    """The value of one program at T points.

    Differentiable in `program.constant` alone: coordinates have no gradient. Meant for
    `jax.lax.map` over programs on a CPU, where a branch is a branch, and for `jax.vmap` elsewhere.
    """
    return _forward(program, at)[program.length - 1]


def _with_residuals(program: Program, at: Coordinates):
    # Values are computed again backward: to keep them would take 16 bytes a node and point.
    return interpret(program, at), (program, at)


def _backward(residuals, cotangent: Float[Array, "4 T"]):
    program, at = residuals
    nodes = read_nodes(program)
    values = _forward(program, at)
    branches = [_pullback(op) for op in OPS]

    def step(state):
        index, cotangents, constants = state
        first, second, is_free = _operands(nodes, index)
        due = drop_wild(cotangents[index])
        to_first, to_second, to_constant = jax.lax.switch(
            nodes.opcode[index],
            branches,
            values[first],
            values[second],
            program.constant[index],
            is_free,
            due,
        )
        cotangents = cotangents.at[first].add(drop_wild(to_first))
        cotangents = cotangents.at[second].add(drop_wild(to_second))
        return index - 1, cotangents, constants.at[index].set(to_constant)

    start = jnp.zeros_like(values).at[program.length - 1].set(cotangent)
    state = (program.length - 1, start, jnp.zeros_like(program.constant))
    *_, constants = jax.lax.while_loop(lambda state: state[0] >= 0, step, state)
    return Program(None, constants, None), None  # pyright: ignore


interpret.defvjp(_with_residuals, _backward)


def _forward(program: Program, at: Coordinates) -> Values:
    """Every node's value; behind them the picture's own coordinates as a frame."""
    nodes = read_nodes(program)
    branches = [_branch(op) for op in OPS]
    frame = jnp.stack([*at, jnp.zeros_like(at.x)])
    values = jnp.zeros((program.capacity + 1, *frame.shape), frame.dtype).at[-1].set(frame)

    def step(index: Array, values: Values) -> Values:
        first, second, is_free = _operands(nodes, index)
        value = jax.lax.switch(
            nodes.opcode[index],
            branches,
            values[first],
            values[second],
            program.constant[index],
            is_free,
        )
        return values.at[index].set(value)

    return jax.lax.fori_loop(0, program.length, step, values)


def _operands(nodes: Nodes, index: Array) -> tuple[Array, Array, Array]:
    """Where a node's operands are; for a leaf its frame, and whether that is the picture's own."""
    is_free = nodes.frame[index] == NONE
    frame = jnp.where(is_free, nodes.opcode.shape[0], nodes.frame[index])
    first = jnp.where(nodes.arity[index] > 0, nodes.left[index], frame)
    return first, nodes.right[index], is_free


def _branch(op: Op) -> Callable[..., Float[Array, "4 T"]]:
    """A node's value: `(first, second, constant [4], is_free) -> [4, T]`."""

    def apply(first, second, constant, is_free):
        if op.opcode == PADDING:
            return jnp.zeros_like(first)
        if op.opcode == SUBST:
            return second
        if op.opcode == CONSTANT:
            return jnp.broadcast_to(constant[:, None], first.shape)
        if op.arity:
            operands = (Quaternion(*first), Quaternion(*second))[: op.arity]
            return jnp.stack(op.fn(jnp, *operands))
        x, y, z, _ = (t - jnp.where(is_free, 0, jnp.floor(t + 0.5)) for t in first)
        return jnp.stack(op.fn(jnp, Coordinates(x, y, z)))

    return apply


def _pullback(op: Op):
    """From a value's cotangent to those of both operands and of the constant."""
    branch = _branch(op)

    def apply(first, second, constant, is_free, cotangent):
        if op.opcode == CONSTANT:  # drop before the sum, where one wild point would spoil it
            nothing = jnp.zeros_like(first)
            return nothing, nothing, jnp.sum(cotangent, axis=1)

        def value(first, second):
            return branch(first, second, constant, is_free)

        _, pull = jax.vjp(value, first, second)
        return *pull(cotangent), jnp.zeros_like(constant)

    return apply
