"""The execution plan: where and how things are computed, decided once and handed down.

A `Plan` is made at the edge, by a command or a public function, and is a static argument of all
that is compiled below: nothing there asks JAX which device there is. So one call traces what its
device runs and nothing else, code can be lowered for a device that is not here, and what a run
depends on is known before it starts and written beside its results.

Implementations of the interpreter and of its gradients say here what they can do, each with a
`register` when its room, above this one, is imported; the plan chooses among them and loads none.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from evojax_art.runtime.cores import num_cores
from evojax_art.runtime.errors import InputError

Kind = Literal["interpreter", "gradient"]
BEST = "best"  # the name by which the first implementation is chosen that suits the device

_PIXELS_IN_CACHE = 402_000  # 8 pictures of 224x224: what a network makes of them stays in a cache
_JUDGED_PIXELS = 100_400  # 2 pictures of 224x224: of those that a network sees by groups
_BYTES_PER_PIXEL = 384  # that a network and the renderer hold at once
_MEMORY = 16 << 30  # where a device does not tell


@runtime_checkable
class Device(Protocol):
    """What a plan asks of one of JAX's devices."""

    id: int
    platform: str
    device_kind: str

    def memory_stats(self) -> dict[str, int] | None:
        """How much memory it has and uses; None where it does not tell."""
        ...


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """What one implementation can do.

    Attributes:
        name: by which it is asked for.
        load: imports it, the first time that it is used, and returns its module.
        tile: points that it evaluates at a time.
        runs_on: platforms; empty for any.
        chosen_on: of those, where it may be chosen without being named; empty for all of them.
        family: another name for which it may be chosen, as "xla" for all that are plain JAX.
        reads_photographs: whether formulas may.
        why_not: why it cannot run on a device of its platforms, empty where it can.
    """

    name: str
    load: Callable[[], Any]
    tile: int
    runs_on: tuple[str, ...] = ()
    chosen_on: tuple[str, ...] = ()
    family: str = ""
    reads_photographs: bool = True
    why_not: Callable[[Device], str] = field(default=lambda device: "", compare=False)

    def obstacle(self, device: Device) -> str:
        """Why it cannot run on a device; empty where it can."""
        if self.runs_on and device.platform not in self.runs_on:
            return f"runs on {' and '.join(self.runs_on)}, not on {device.platform}"
        return self.why_not(device)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where and how things are computed; hashable, a static argument of compiled functions.

    Attributes:
        platform: "cpu", "gpu" or "tpu", as JAX names them.
        device_kind: what JAX calls the device.
        device_id: its number among JAX's devices of the platform.
        implementation: of the interpreter, never "best" nor a family's name.
        photograph_implementation: the same where formulas read photographs.
        gradient_implementation: of reverse mode.
        tile: points that the interpreter evaluates at a time, at most.
        photograph_tile: the same where formulas read photographs.
        gradient_tile: the same in reverse mode.
        lowering_group: formulas lowered to tapes at a time.
        evaluated_pixels: of pictures drawn and evaluated at a time, at most; see `batch`.
        evaluated_pictures: those pictures, at most.
        denoised_pixels: of pictures denoised at a time, at most; see `denoised_group`.
        network_dtype: of the networks' arithmetic, "float32" or "bfloat16".
    """

    platform: str
    device_kind: str
    device_id: int
    implementation: str
    photograph_implementation: str
    gradient_implementation: str
    tile: int
    photograph_tile: int
    gradient_tile: int
    lowering_group: int
    evaluated_pixels: int
    evaluated_pictures: int
    denoised_pixels: int
    network_dtype: str

    def batch(self, size: int) -> int:
        """How many pictures of size x size pixels to draw and evaluate at a time.

        On a CPU as many as its cache holds, elsewhere a power of two. A run depends on it, and
        it on the device's memory: write the number down where a run is to be had again.
        """
        fitting = max(1, self.evaluated_pixels // size**2)
        if self.platform != "cpu":
            fitting = 1 << (fitting.bit_length() - 1)
        return min(self.evaluated_pictures, fitting)

    def judged_group(self, count: int, size: int) -> int:
        """How many of so many pictures a network sees at a time, where not all matter.

        On a CPU few, which it judges as fast as many: one a core at 224x224 pixels, 10 at 96x96,
        where 2 would take twice the time.

        Args:
            count: pictures.
            size: height and width at which it looks, pixels.
        """
        if self.platform == "cpu":
            return min(count, max(2, num_cores(), _JUDGED_PIXELS // size**2))
        return min(count, max(16, count // 8))

    def denoised_group(self, height: int, width: int) -> int:
        """How many pictures of height x width pixels to denoise at a time: a power of two."""
        return 1 << (max(1, self.denoised_pixels // (height * width)).bit_length() - 1)

    @property
    def network_implementation(self) -> str:
        """Of networks that know both: "native" where the interpreter is, else "xla"."""
        return "native" if self.implementation == "native" else "xla"

    @property
    def device(self) -> Device:
        """JAX's device.

        Raises:
            InputError: it is not in this process.
            RuntimeError: nor is any of its platform.
        """
        for device in jax.devices(self.platform):
            if device.id == self.device_id:
                return device
        raise InputError(f"there is no device {self.device_id} of platform {self.platform}")

    def on_device(self) -> AbstractContextManager:
        """A context in which what was put on no device is computed on this plan's.

        It does nothing where the device is not in this process, as where code is made for another.
        """
        try:
            device: Any = self.device
        except (InputError, RuntimeError):  # RuntimeError: JAX has nothing of that platform
            return nullcontext()
        return jax.default_device(device)


_registry: dict[Kind, dict[str, Implementation]] = {"interpreter": {}, "gradient": {}}


def register(kind: Kind, implementation: Implementation) -> None:
    """Adds an implementation; those registered first are preferred."""
    _registry[kind][implementation.name] = implementation
    _make_plan.cache_clear()


def implementation_of(kind: Kind, name: str) -> Implementation:
    """The implementation that a plan names.

    Raises:
        InputError: there is none.
    """
    if name not in _registry[kind]:
        raise InputError(f"unknown {kind} {name!r}; there are {', '.join(_registry[kind])}")
    return _registry[kind][name]


def implementation_names(kind: Kind = "interpreter") -> tuple[str, ...]:
    """Everything by which implementations can be asked for."""
    known = _registry[kind].values()
    families = (item.family for item in known if item.family)
    return tuple(dict.fromkeys([BEST, *(item.name for item in known), *families]))


def make_plan(
    *,
    device: Device | None = None,
    implementation: str = BEST,
    gradient_implementation: str = BEST,
    network_dtype: DTypeLike = np.float32,
) -> Plan:
    """Decides where and how things are computed.

    Args:
        device: the device; None: JAX's default device, that of `jax.default_device` in its context
            or in JAX's configuration, else the first.
        implementation: of the interpreter: a name, a family's name as "xla", or "best".
        gradient_implementation: of reverse mode, likewise.
        network_dtype: of the networks' arithmetic.

    Raises:
        InputError: an implementation that does not exist, or not on this device.
    """
    return _make_plan(
        device or _default_device(),
        implementation,
        gradient_implementation,
        np.dtype(network_dtype).name,
    )


def current_plan(*arrays: Any, implementation: str = BEST) -> Plan:
    """The plan of a public function that was called without one.

    Args:
        *arrays: pytrees that it works on. Where one of their arrays was put on a device
            (`jax.device_put`), JAX computes there, and so the plan is for that device.
        implementation: as for `make_plan`.

    Raises:
        InputError: an implementation that does not exist, or not on this device.
    """
    for leaf in jax.tree.leaves(arrays):
        is_array = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
        if is_array and leaf.committed:
            device: Any = next(iter(leaf.sharding.device_set))
            return make_plan(device=device, implementation=implementation)
    return make_plan(implementation=implementation)


def _default_device() -> Device:
    chosen: Any = getattr(jax.config, "jax_default_device")  # noqa: B009
    if isinstance(chosen, str):
        return jax.local_devices(backend=chosen)[0]
    return chosen or jax.local_devices()[0]


@cache
def _make_plan(
    device: Device, implementation: str, gradient_implementation: str, network_dtype: str
) -> Plan:
    on_cpu = device.platform == "cpu"
    plain = _choose("interpreter", implementation, device)
    photographs = plain
    if implementation == BEST and not plain.reads_photographs:
        photographs = _choose("interpreter", implementation, device, reads_photographs=True)
    gradient = _choose("gradient", gradient_implementation, device)
    memory = (device.memory_stats() or {}).get("bytes_limit", _MEMORY)
    return Plan(
        platform=device.platform,
        device_kind=device.device_kind,
        device_id=device.id,
        implementation=plain.name,
        photograph_implementation=photographs.name,
        gradient_implementation=gradient.name,
        tile=plain.tile,
        photograph_tile=photographs.tile,
        gradient_tile=gradient.tile,
        # On a CPU all are as few as its cache holds; elsewhere as many as keep the device busy.
        lowering_group=1024 if on_cpu else 1 << 14,
        evaluated_pixels=_PIXELS_IN_CACHE if on_cpu else memory // 4 // _BYTES_PER_PIXEL,
        evaluated_pictures=128 if on_cpu else 1 << 14,
        # On a GPU an iteration of fewer takes no longer than its launches.
        denoised_pixels=1 if on_cpu else 1 << 22,
        network_dtype=network_dtype,
    )


def _choose(
    kind: Kind, wanted: str, device: Device, reads_photographs: bool = False
) -> Implementation:
    """The one of that name, or the first of all or of a family that suits the device."""
    known = _registry[kind]
    if wanted in known:
        obstacle = known[wanted].obstacle(device)
        if obstacle:
            raise InputError(f"implementation {wanted!r} {obstacle}")
        return known[wanted]
    for candidate in known.values():
        if (
            wanted in (BEST, candidate.family)
            and (not candidate.chosen_on or device.platform in candidate.chosen_on)
            and (candidate.reads_photographs or not reads_photographs)
            and not candidate.obstacle(device)
        ):
            return candidate
    names = ", ".join(implementation_names(kind))
    raise InputError(f"unknown implementation {wanted!r}; there are {names}")
