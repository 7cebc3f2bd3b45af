"""How much arithmetic formulas and pictures need, counted, not typed in by hand.

An op's floating-point operations are what XLA's cost analysis counts in its function on a tile,
before any optimisation, so they are the same on every device; a transcendental function counts as
one, and what an op may skip where no point needs it (`where_due` in `ops.py`) as none. A formula
needs the sum over its nodes as written: an engine that computes equal subtrees once may come out
above its floor.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evojax_art.benchmark.measure import Work
from evojax_art.language.ops import OPS, SUBST, Op, crunch, frame_coordinates
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.objective.tv import GATE_WEIGHT, denoise_tv_chambolle

_TILE = 256
_ITERATIONS = 200  # of Chambolle's method at most
_SAMPLE = 8  # pictures whose iterations are counted


class _SkippingNumpy:
    """`jax.numpy` that leaves out what only a rare point needs."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def where_due(due, fn, value):
        return value


@cache
def flops_of_ops() -> np.ndarray:
    """Floating-point operations a point of every opcode, [number of opcodes]."""
    return np.array([_flops_of_op(op) for op in OPS])


def work_of_rendering(population: Program, size: int, samples: int) -> Work:
    """Interpreting these formulas and colouring their pictures.

    The traffic is the pictures', written once, and the programs', read once.
    """
    opcodes, lengths = np.asarray(population.opcode), np.asarray(population.length)
    in_use = np.arange(opcodes.shape[1]) < lengths[:, None]
    points = size**2 * samples**2
    colouring = 3 * _counted(lambda t: crunch(jnp, t, "sigmoid"), 1)
    flops = points * (flops_of_ops()[opcodes[in_use]].sum() + colouring * len(lengths))
    pictures = 4 * 3 * size**2 * len(lengths)
    return Work(flops=float(flops), bytes=float(pictures + 20 * opcodes.size))


def work_of_noise(pictures: Float[Array, "P H W 3"]) -> Work:
    """Denoising: the iterations these pictures need, and one reading of them.

    Iterations are counted on the first few pictures.
    """
    count, height, width, channels = pictures.shape
    sample = pictures[:_SAMPLE].transpose(0, 3, 1, 2).reshape(-1, height, width)
    shape = jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32)
    one_fn = jax.jit(partial(denoise_tv_chambolle, weight=GATE_WEIGHT, max_num_iter=1))
    iteration = _flops(one_fn.lower(shape).cost_analysis())
    planes = count * channels
    return Work(
        flops=planes * float(np.mean(noise_iterations(sample))) * iteration,
        bytes=float(pictures.nbytes),
    )


def noise_iterations(planes: Float[Array, "N H W"]) -> np.ndarray:
    """Iterations after which each plane's denoised picture stays what it is, [N].

    Found by bisection, so it asks nothing of the method but that a limit may cut it short.
    """

    @jax.jit
    def limited(planes, limits):
        def one(pair):
            plane, limit = pair
            plane = plane[None, :, :, None]
            return denoise_tv_chambolle(plane, GATE_WEIGHT, max_num_iter=limit)[0, :, :, 0]

        return jax.lax.map(one, (planes, limits))

    low = np.zeros(len(planes), np.int32)  # too few
    high = np.full(len(planes), _ITERATIONS, np.int32)
    final = np.asarray(limited(planes, high))
    while np.any(high - low > 1):
        middle = (low + high) // 2
        same = np.all(np.asarray(limited(planes, middle)) == final, axis=(1, 2))
        low, high = np.where(same, low, middle), np.where(same, middle, high)
    return np.maximum(high, 1)  # a flat plane would do without any


def _flops_of_op(op: Op) -> float:
    if op.opcode == SUBST:
        return _counted(lambda e, i, j, k: frame_coordinates(jnp, Quaternion(e, i, j, k)), 4)
    if op.structural:
        return 0.0
    if op.arity == 0:
        return _counted(lambda x, y, z: op.fn(jnp, Coordinates(x, y, z)), 3)

    def apply(*components):
        operands = [Quaternion(*components[n : n + 4]) for n in range(0, len(components), 4)]
        return op.fn(_SkippingNumpy(), *operands)

    return _counted(apply, 4 * op.arity)


def _counted(fn: Callable[..., Any], num_arrays: int) -> float:
    """Floating-point operations a point of a function of that many arrays."""
    tile = jax.ShapeDtypeStruct((_TILE,), jnp.float32)
    return _flops(jax.jit(fn).lower(*[tile] * num_arrays).cost_analysis()) / _TILE


def _flops(cost: Any) -> float:
    return (cost or {}).get("flops", 0.0) + (cost or {}).get("transcendentals", 0.0)
