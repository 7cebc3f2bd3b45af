"""One door to all interpreters."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.errors import InputError
from evojax_art.interpreter import xla
from evojax_art.ops import Coordinates, Keep, Quaternion, keep
from evojax_art.program import Program
from evojax_art.tape import lower

Implementation = Literal["best", "native", "pallas", "xla", "switch", "lockstep"]
_GROUP = 1 << 14  # formulas lowered at a time,
_CACHED_GROUP = 1024  # and on a CPU, whose cache should hold them


def best_elsewhere() -> Literal["pallas", "lockstep"]:
    """What "best" means on this process's accelerator."""
    if jax.default_backend() != "gpu":
        return "lockstep"
    from evojax_art.interpreter import pallas

    return "pallas" if pallas.is_supported() else "lockstep"


def interpret(
    population: Program,
    at: Coordinates,
    kept: Keep,
    samples: int = 1,
    implementation: Implementation = "best",
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "P N C"]:
    """Evaluates every formula at every point, on the device; traceable.

    Args:
        population: P programs.
        at: coordinates, each [tiles, samples * D] float32, D a multiple of `tape.LANES`: D pixels
            with their first sample, the same with their second, and so on.
        kept: what to keep of a value: "raw" its four components, or the colours of a crunch.
        samples: points of a pixel, over which the result is averaged.
        implementation: "native" (CPU), "pallas" (GPU, Hopper and newer; on a CPU interpreted, for
            tests), or "xla", plain JAX anywhere, which is `switch` or `lockstep` of
            `interpreter.xla`; "best" is the first of these that the platform has.
        dtype: of the result; the arithmetic is float32.

    Returns:
        What was kept of the N = tiles * D pixels, in order.

    Raises:
        InputError: an implementation that does not exist.
    """
    # In groups, so that what lowering needs beside its result does not grow with the population.
    group = _CACHED_GROUP if jax.default_backend() == "cpu" else _GROUP
    tapes = jax.lax.map(lower, population, batch_size=min(group, len(population.length)))

    def finish(value: Quaternion) -> Float[Array, "C D"]:
        parts = jnp.stack(keep(jnp, value, kept))
        return parts.reshape(len(parts), samples, -1).mean(axis=1)

    # Imported where they are used: a GPU's machine need not have LLVM, and Pallas takes half a
    # second, which a CPU need not spend.
    def run_native(tapes, at):
        from evojax_art.interpreter import native

        return native.interpret(tapes, at, kept, samples).astype(dtype)

    def run_pallas(tapes, at):
        from evojax_art.interpreter import pallas

        return pallas.interpret(xla.fold(tapes), at, kept, samples, dtype)

    def run_xla(interpret_fn):
        def run(tapes, at):
            tiles = interpret_fn(xla.fold(tapes), at, finish)  # [tiles, P, C, D]
            by_formula = tiles.transpose(1, 0, 3, 2).astype(dtype)
            return by_formula.reshape(by_formula.shape[0], -1, by_formula.shape[-1])

        return run

    implementations: dict[str, Callable[..., Array]] = {
        "native": run_native,
        "pallas": run_pallas,
        "switch": run_xla(xla.switch),
        "lockstep": run_xla(xla.lockstep),
    }

    def by_platform(accelerator: str) -> Callable[..., Array]:
        return lambda *operands: jax.lax.platform_dependent(
            *operands, cpu=implementations["switch"], default=implementations[accelerator]
        )

    # Where there is nothing but a CPU, nothing else need be traced.
    only_cpu = jax.default_backend() == "cpu"
    implementations["xla"] = implementations["switch"] if only_cpu else by_platform("lockstep")
    implementations["best"] = run_native if only_cpu else by_platform(best_elsewhere())
    if implementation not in implementations:
        raise InputError(
            f"unknown implementation {implementation!r}; there are "
            f"{', '.join(get_args(Implementation))}"
        )
    return implementations[implementation](tapes, at)
