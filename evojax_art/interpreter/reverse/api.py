"""Any program, differentiably: reverse mode over write-once values, without compiling a formula.

Forward, node by node, each value goes to its own place. Backward, from the root to the first node,
the cotangent of its value becomes those of its operands or constant. One compiled function serves
every program of a capacity, so a population's constants can be polished on the device, and a
formula of any length without waiting for a compiler. On a CPU that is native code
(`reverse.native`), elsewhere plain JAX (`reverse.xla`).

Gradients are finite by one rule: a component of a cotangent that is not finite, or larger than
`LARGEST_COTANGENT`, is dropped (becomes 0) at the point where it arises. A pixel whose value
overflows says nothing about a constant; the others do. `floor`, and the quotient inside `mod`, have
the gradient 0 where they have one, and what they do to their operands' steps goes unseen; `normp`,
`imin`, `imax`, the clamps of `iexp`, `ilog`, crunch and the wrap of `subst` are differentiated on
the side of the kink on which a point lies.

Nothing is shared between nodes: a constant that is equal to another now may not be so tomorrow.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering.values import NONE, UNWRAPPED, read_nodes
from evojax_art.runtime.plan import Plan, current_plan, implementation_of

_LANES = 16  # points of a tile come in multiples of this, so that vector units are full


def interpret(
    population: Program,
    at: Coordinates,
    images: tuple[Pyramid, ...] = (),
    samples: int = 1,
    plan: Plan | None = None,
) -> Float[Array, "P 4 T"]:
    """The values of P programs at T points each, differentiable in `constant` alone.

    Args:
        population: P programs.
        at: coordinates, each [P, T] float32; they have no gradient.
        images: photographs that formulas read.
        samples: points of a pixel.
        plan: where and how; None: `current_plan`.
    """
    return _interpret(population, at, images, samples, plan or current_plan(population))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _interpret(
    population: Program, at: Coordinates, images: tuple[Pyramid, ...], samples: int, plan: Plan
) -> Float[Array, "P 4 T"]:
    tiles, num_points = _in_tiles(at, plan)
    given = (population, *_operands(population), tiles)
    values = _implementation(plan).value(*given, images, samples, plan)
    return values.reshape(*values.shape[:2], -1)[..., :num_points]


def _with_residuals(population: Program, at: Coordinates, images, samples: int, plan: Plan):
    # Values are computed again backward: to keep them would take 16 bytes a node and point.
    return _interpret(population, at, images, samples, plan), (population, at, images)


def _backward(samples: int, plan: Plan, residuals, cotangent: Float[Array, "P 4 T"]):
    population, at, images = residuals
    tiles, num_points = _in_tiles(at, plan)
    padding = tiles.x.shape[1] * tiles.x.shape[2] - num_points
    padded = jnp.pad(cotangent, ((0, 0), (0, 0), (0, padding)))
    cotangent = padded.reshape(*padded.shape[:2], *tiles.x.shape[1:])
    given = (population, *_operands(population), tiles)
    constants = _implementation(plan).pullback(*given, cotangent, images, samples, plan)
    return Program(None, constants, None), None, None  # pyright: ignore


_interpret.defvjp(_with_residuals, _backward)


def _implementation(plan: Plan) -> Any:
    return implementation_of("gradient", plan.gradient_implementation).load()


def _operands(population: Program) -> tuple[Int[Array, "P L"], Int[Array, "P L"]]:
    """Of each node its operands; of a leaf its frame, L for the picture's own, and `UNWRAPPED`."""
    nodes = jax.vmap(read_nodes)(population)
    frame = jnp.where(nodes.frame == NONE, population.capacity, nodes.frame)
    leaf = nodes.arity == 0
    unwrapped = jnp.where(nodes.unwrapped, UNWRAPPED, 0)
    return jnp.where(leaf, frame, nodes.left), jnp.where(leaf, unwrapped, nodes.right)


def _in_tiles(at: Coordinates, plan: Plan) -> tuple[Coordinates, int]:
    """Coordinates [P, N, T], the last points repeated to fill the last tile; and how many count."""
    num_formulas, num_points = at.x.shape
    tile = min(plan.gradient_tile, -(-num_points // _LANES) * _LANES)
    padding = -num_points % tile
    padded = (jnp.pad(t, ((0, 0), (0, padding)), mode="edge") for t in at)
    return Coordinates(*(t.reshape(num_formulas, -1, tile) for t in padded)), num_points
