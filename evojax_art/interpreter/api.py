"""One door to all interpreters."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.interpreter.implementations import ON_CHIP_TILE
from evojax_art.language.ops import Keep
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering.tape import Tape, lower, num_registers
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan, current_plan, implementation_of

_REGISTER_BYTES = 1 << 30  # that registers of all formulas on one tile may take


def interpret(
    population: Program | Tape,
    at: Coordinates,
    kept: Keep,
    samples: int = 1,
    *,
    plan: Plan | None = None,
    dtype: DTypeLike = jnp.float32,
    images: Sequence[Pyramid] = (),
    separately: bool = False,
) -> Float[Array, "P N C"]:
    """Evaluates every formula at every point, on the device; traceable.

    Args:
        population: P programs, or their tapes where several calls share them.
        at: coordinates, each [tiles, samples * D] float32, D a multiple of `tape.LANES`: D pixels
            with their first sample, the same with their second, and so on. See `tile_size`.
        kept: what to keep of a value: "raw" its four components, or the colours of a crunch.
        samples: points of a pixel, over which the result is averaged.
        plan: where and how; None: `current_plan`.
        dtype: of the result; the arithmetic is float32.
        images: photographs that formulas read, slot by slot; the leaf of a slot without one is 0.
        separately: every sample on its own, in the order of `at`, instead of their mean.

    Returns:
        What was kept of the N = tiles * D pixels, in order.

    Raises:
        InputError: there are photographs, and the plan's implementation cannot read them.
    """
    plan = plan or current_plan(population)
    name = plan.photograph_implementation if images else plan.implementation
    implementation = implementation_of("interpreter", name)
    if images and not implementation.reads_photographs:
        raise InputError(
            f"implementation {name!r} cannot read pictures; leave it out, or take 'xla'"
        )
    tapes = population if isinstance(population, Tape) else lower_all(population, plan)
    return implementation.load()(
        tapes,
        at,
        kept,
        samples=1 if separately else samples,
        per_pixel=samples,
        images=tuple(images),
        dtype=dtype,
        plan=plan,
    )


def lower_all(population: Program, plan: Plan | None = None) -> Tape:
    """A population's tapes, in groups: what lowering needs beside them does not grow with it."""
    plan = plan or current_plan(population)
    group = min(plan.lowering_group, len(population.length))
    return jax.lax.map(lower, population, batch_size=group)


def tile_size(
    population: Program | Tape, plan: Plan | None = None, images: Sequence[Pyramid] = ()
) -> int:
    """Points of a tile, at most, where this population is drawn."""
    plan = plan or current_plan(population)
    tile = plan.photograph_tile if images else plan.tile
    if tile <= ON_CHIP_TILE:
        return tile
    num_formulas, capacity = population.opcode.shape
    fitting = _REGISTER_BYTES // (num_formulas * num_registers(capacity) * 16)
    return max(ON_CHIP_TILE, min(tile, fitting))
