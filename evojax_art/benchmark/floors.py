"""What the device can do at best, measured beside everything else.

A large copy gives bytes per second, a large matrix product floating-point operations per second;
both use all CPU devices, or the first of others. The fastest of the runs counts: a floor is what
nothing goes below. The share of the floor of a part is the time it needs at these rates, the
longer of its arithmetic and its traffic (the roofline model), divided by the time it took.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evojax_art.benchmark.measure import Work
from evojax_art.runtime.plan import current_plan

_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Floors:
    """The device's rates.

    Attributes:
        bytes_per_second: read and written, of a copy.
        flops_per_second: of a matrix product, by arithmetic: "float32", and on a GPU
            "tensor_float32" (JAX's default precision for float32) and "bfloat16".
        all_seconds: every run of each.
        copy_bytes: moved by one copy.
        matrix_size: rows and columns of the matrices.
    """

    bytes_per_second: float
    flops_per_second: dict[str, float]
    all_seconds: dict[str, list[float]]
    copy_bytes: int
    matrix_size: int

    def seconds(self, work: Work) -> float:
        """The time that this work takes at least."""
        rate = self.flops_per_second.get(work.arithmetic, self.flops_per_second["float32"])
        return max(work.flops / rate, work.bytes / self.bytes_per_second)


def measure_floors() -> Floors:
    """Runs a copy and matrix products; takes a second or two."""
    plan = current_plan()
    on_cpu = plan.platform == "cpu"
    devices: list[Any] = jax.local_devices(backend="cpu") if on_cpu else [plan.device]
    mesh = Mesh(np.array(devices), ("devices",))
    rows, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("devices",), ()))

    # Beyond any cache. Each byte is read once and written once, in place: fresh memory for the
    # result would be ten times slower on a CPU, where the system hands it out page by page.
    count = (1 << 26 if on_cpu else 1 << 29) // len(devices) * len(devices)
    moved = [jax.jit(lambda: jnp.ones(count, jnp.float32), out_shardings=rows)()]
    copy_fn = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy():
        moved.append(copy_fn(moved.pop()))
        return moved[0]

    seconds = {"copy": _runs(copy)}
    moved.clear()

    size = (2048 if on_cpu else 8192) // len(devices) * len(devices)
    kinds: dict[str, tuple[Any, Any]] = {"float32": (jnp.float32, "highest")}
    if not on_cpu:
        kinds |= {"tensor_float32": (jnp.float32, None), "bfloat16": (jnp.bfloat16, None)}
    for name, (dtype, precision) in kinds.items():
        left, right = (
            jax.jit(lambda dtype=dtype: jnp.ones((size, size), dtype), out_shardings=sharding)()
            for sharding in (rows, everywhere)
        )
        product = jax.jit(lambda a, b, precision=precision: jnp.matmul(a, b, precision=precision))
        seconds[name] = _runs(partial(product, left, right))
    return Floors(
        bytes_per_second=8 * count / min(seconds["copy"]),
        flops_per_second={name: 2 * size**3 / min(seconds[name]) for name in kinds},
        all_seconds=seconds,
        copy_bytes=8 * count,
        matrix_size=size,
    )


def _runs(fn: Callable[[], jax.Array]) -> list[float]:
    jax.block_until_ready(fn())
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        seconds.append(time.perf_counter() - start)
    return seconds
