"""One door to all interpreters."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.interpreter import xla
from evojax_art.language.ops import Coordinates, Keep, Quaternion, keep
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.lowering.tape import Tape, lower
from evojax_art.runtime.errors import InputError

Implementation = Literal["best", "native", "pallas", "xla", "switch", "lockstep"]
_GROUP = 1 << 14  # formulas lowered at a time,
_CACHED_GROUP = 1024  # and on a CPU, whose cache should hold them


def best_elsewhere(with_pictures: bool) -> Literal["pallas", "lockstep"]:
    """What "best" means on this process's accelerator."""
    if jax.default_backend() != "gpu" or with_pictures:
        return "lockstep"
    from evojax_art.interpreter.gpu import pallas

    return "pallas" if pallas.is_supported() else "lockstep"


def interpret(
    population: Program | Tape,
    at: Coordinates,
    kept: Keep,
    samples: int = 1,
    implementation: Implementation = "best",
    dtype: DTypeLike = jnp.float32,
    images: Sequence[Pyramid] = (),
    separately: bool = False,
) -> Float[Array, "P N C"]:
    """Evaluates every formula at every point, on the device; traceable.

    Args:
        population: P programs, or their tapes where several calls share them.
        at: coordinates, each [tiles, samples * D] float32, D a multiple of `tape.LANES`: D pixels
            with their first sample, the same with their second, and so on.
        kept: what to keep of a value: "raw" its four components, or the colours of a crunch.
        samples: points of a pixel, over which the result is averaged.
        implementation: "native" (CPU), "pallas" (GPU, Hopper and newer; on a CPU interpreted, for
            tests), or "xla", plain JAX anywhere, which is `switch` or `lockstep` of
            `interpreter.xla`; "best" is the first of these that the platform has.
        dtype: of the result; the arithmetic is float32.
        images: pictures that formulas read, slot by slot; the leaf of a slot without one is 0. With
            pictures "best" on a GPU is plain JAX.
        separately: every sample on its own, in the order of `at`, instead of their mean.

    Returns:
        What was kept of the N = tiles * D pixels, in order.

    Raises:
        InputError: an implementation that does not exist, or that cannot read pictures.
    """
    if implementation not in get_args(Implementation):
        raise InputError(
            f"unknown implementation {implementation!r}; there are "
            f"{', '.join(get_args(Implementation))}"
        )
    if images and implementation == "pallas":
        raise InputError(
            f"implementation {implementation!r} cannot read pictures; leave it out, or take 'xla'"
        )
    # Where there is nothing but a CPU, nothing else need be traced.
    only_cpu = jax.default_backend() == "cpu"
    on_cpu = on_accelerator = implementation
    if implementation == "best":
        on_cpu, on_accelerator = ("native" if only_cpu else "switch"), best_elsewhere(bool(images))
    elif implementation == "xla":
        on_cpu, on_accelerator = "switch", "lockstep"

    together = 1 if separately else samples

    def by(name: str) -> Callable[..., Float[Array, "P N C"]]:
        interpret_fn = _INTERPRETERS[name]
        if name == "pallas":
            return lambda tapes, at, images: interpret_fn(tapes, at, kept, together, dtype)
        if name == "native":
            return lambda tapes, at, images: interpret_fn(
                tapes, at, kept, together, dtype, images, samples
            )
        return lambda tapes, at, images: _plain(
            interpret_fn, tapes, at, kept, together, dtype, images, samples
        )

    tapes = population if isinstance(population, Tape) else lower_all(population)
    images = tuple(images)
    if only_cpu or on_cpu == on_accelerator:
        return by(on_cpu)(tapes, at, images)
    return jax.lax.platform_dependent(tapes, at, images, cpu=by(on_cpu), default=by(on_accelerator))


def lower_all(population: Program) -> Tape:
    """A population's tapes, in groups: what lowering needs beside them does not grow with it."""
    group = _CACHED_GROUP if jax.default_backend() == "cpu" else _GROUP
    return jax.lax.map(lower, population, batch_size=min(group, len(population.length)))


# The modules are imported where they are used: a GPU's machine need not have LLVM, and Pallas takes
# half a second, which a CPU need not spend.
def _native(tapes, at, kept, together, dtype, images, samples):
    from evojax_art.interpreter.cpu import native

    return native.interpret(tapes, at, kept, together, images, samples).astype(dtype)


def _pallas(tapes, at, kept, samples, dtype):
    from evojax_art.interpreter.gpu import pallas

    return pallas.interpret(xla.fold(tapes), at, kept, samples, dtype)


def _plain(interpret_fn, tapes, at, kept, together, dtype, images, samples):
    def finish(value: Quaternion) -> Float[Array, "C D"]:
        parts = jnp.stack(keep(jnp, value, kept))
        return parts.reshape(len(parts), together, -1).mean(axis=1)

    tiles = interpret_fn(xla.fold(tapes), at, finish, images, samples)  # [tiles, P, C, D]
    by_formula = tiles.transpose(1, 0, 3, 2).astype(dtype)
    return by_formula.reshape(by_formula.shape[0], -1, by_formula.shape[-1])


_INTERPRETERS: dict[str, Callable[..., Array]] = {
    "native": _native,
    "pallas": _pallas,
    "switch": xla.switch,
    "lockstep": xla.lockstep,
}
