"""One door to all interpreters."""

from typing import Literal

import jax
from jaxtyping import Array, Float

from evojax_art.errors import InputError
from evojax_art.interpreter import xla
from evojax_art.interpreter.xla import FinishFn
from evojax_art.ops import Coordinates
from evojax_art.program import Program
from evojax_art.tape import lower

Implementation = Literal["xla", "switch", "lockstep"]


def interpret(
    population: Program,
    at: Coordinates,
    finish_fn: FinishFn,
    implementation: Implementation = "xla",
) -> Float[Array, "tiles P C D"]:
    """Evaluates every formula at every point, on the device; traceable.

    Args:
        population: P programs.
        at: coordinates, each [tiles, T] float32. Memory grows with P times T; tiles follow each
            other.
        finish_fn: turns the value of one formula on one tile, a quaternion of [T] arrays, into the
            [C, D] array to keep.
        implementation: "xla" takes the best for the platform; "switch" and "lockstep" name one
            (see `interpreter.xla`).

    Returns:
        `finish_fn`'s results.

    Raises:
        InputError: an implementation that does not exist.
    """
    tapes = jax.vmap(lower)(population)
    if implementation == "xla":
        return jax.lax.platform_dependent(
            tapes,
            at,
            cpu=lambda tapes, at: xla.switch(tapes, at, finish_fn),
            default=lambda tapes, at: xla.lockstep(tapes, at, finish_fn),
        )
    if implementation not in ("switch", "lockstep"):
        raise InputError(
            f"unknown implementation {implementation!r}; there are xla, switch and lockstep"
        )
    return getattr(xla, implementation)(tapes, at, finish_fn)
