"""What each implementation can do, in the order of preference; a new one is an entry here.

Modules are imported where they are used: a GPU's machine need not have LLVM, and Pallas takes half
a second, which a CPU need not spend.

An interpreter is a function `(tapes, at, kept, *, samples, per_pixel, images, dtype, plan)`, see
`api.interpret`: the mean over `samples` points of a pixel, while photographs are read as with
`per_pixel` of them. A gradient's module has `value` and `pullback`, see `reverse.native`.

Where a CPU cannot run native code, for want of LLVM or because XLA's interface is another one, the
log `evojax_art` says so once (without other orders Python writes it to standard error), and plain
JAX takes over.
"""

import logging
from functools import cache
from typing import Any

from evojax_art.runtime.plan import Device, Implementation, register

ON_CHIP_TILE = 256  # points whose registers, 4 kB each, stay in a core's or a block's memory


def _native() -> Any:
    from evojax_art.interpreter.cpu import native

    return native.interpret


def _pallas() -> Any:
    from evojax_art.interpreter.gpu import pallas

    return pallas.interpret


def _switch() -> Any:
    from evojax_art.interpreter import xla

    return xla.switch


def _lockstep() -> Any:
    from evojax_art.interpreter import xla

    return xla.lockstep


def _reverse_native() -> Any:
    from evojax_art.interpreter.reverse import native

    return native


def _reverse_xla() -> Any:
    from evojax_art.interpreter.reverse import xla

    return xla


@cache
def _no_native_code() -> str:
    """Why a CPU's interpreter cannot be compiled or called; said once."""
    try:
        import llvmlite.binding  # noqa: F401

        from evojax_art.native import ffi

        reason = ffi.obstacle()
    except (ImportError, OSError) as error:  # OSError: its library is there but does not load
        reason = f"LLVM cannot be loaded ({error})"
    if reason:
        logging.getLogger("evojax_art").warning(
            "no native code on this CPU: %s; plain JAX draws several times slower", reason
        )
    return f"cannot run: {reason}" if reason else ""


def _not_hopper(device: Device) -> str:
    """Why the kernel does not run on a device; on a CPU it is simulated, for tests."""
    capability = str(getattr(device, "compute_capability", ""))
    major = capability.split(".")[0]  # of "9.0"; ROCm says "gfx942"
    if device.platform == "cpu" or (major.isdecimal() and int(major) >= 9):
        return ""
    return (
        "needs an NVIDIA GPU of compute capability 9.0 (Hopper) or later, found "
        f"{device.device_kind}"
    )


register(
    "interpreter",
    Implementation(
        name="native",
        load=_native,
        tile=ON_CHIP_TILE,
        runs_on=("cpu",),
        why_not=lambda device: _no_native_code(),
    ),
)
register(
    "interpreter",
    Implementation(
        name="pallas",
        load=_pallas,
        tile=ON_CHIP_TILE,
        runs_on=("gpu", "cpu"),
        chosen_on=("gpu",),
        reads_photographs=False,
        why_not=_not_hopper,
    ),
)
register(
    "interpreter",
    Implementation(
        name="switch", load=_switch, tile=ON_CHIP_TILE, chosen_on=("cpu",), family="xla"
    ),
)
register(
    "interpreter",
    # A tile is a kernel launch per instruction: the larger the better.
    Implementation(name="lockstep", load=_lockstep, tile=4096, family="xla"),
)
register(
    "gradient",
    # Values and cotangents of a tile should stay in cache, 4 kB a node.
    Implementation(
        name="native",
        load=_reverse_native,
        tile=128,
        runs_on=("cpu",),
        why_not=lambda device: _no_native_code(),
    ),
)
register(
    "gradient",
    Implementation(name="xla", load=_reverse_xla, tile=1 << 30),  # all points at once
)
