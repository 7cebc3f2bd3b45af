"""Runs a network's steps on all cores, each thread with pictures of its own."""

import ctypes
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evojax_art.native.compiler import code_of, width
from evojax_art.native.ffi import register
from evojax_art.native.threads import bounds, once, run_all, scratch
from evojax_art.nets.native import codegen
from evojax_art.nets.native.plan import INPUT, Recorder, Tensor, plan_steps
from evojax_art.runtime.cores import num_cores

_TARGET = "evojax_art_infer"
_TASKS_PER_THREAD = 4


def mean_of_last(
    stages_fn: Callable[[Any, Any], dict[str, Any]], x: Float[Array, "P H W C"]
) -> Float[Array, "P D"]:
    """The mean over the pixels of the last stage.

    A picture's is the same to the bit, whichever are beside it.

    Args:
        stages_fn: names layers, see `Staged.stages`.
        x: float32, what the first of them sees.
    """
    recorder = Recorder()
    rows, columns, channels = x.shape[1:]
    given = Tensor(rows, columns, channels, base=INPUT)
    last = list(stages_fn(recorder, given).values())[-1]
    recorder.sum(last)
    above, below, left, right = given.pads
    x = jnp.pad(x, [(0, 0), (above, below), (left, right), (0, 0)])
    tasks = _TASKS_PER_THREAD * num_cores()
    counts = plan_steps(recorder.steps, -(-x.shape[0] // tasks))._asdict()
    steps = counts.pop("steps")
    register(_TARGET, run)
    code_of(codegen.SOURCE, _lanes())  # starts compiling it while XLA compiles the rest
    result = jax.ShapeDtypeStruct((x.shape[0], last.channels), jnp.float32)
    call = jax.ffi.ffi_call(_TARGET, result, vmap_method="sequential")
    attributes = {name: np.int64(count) for name, count in counts.items()}
    sums = call(jnp.asarray(steps.view(np.int32)), x, *recorder.parameters, **attributes)
    return sums / (last.rows * last.columns)


def run(
    operands: list[Any],
    results: list[np.ndarray],
    attributes: dict[str, Any],
    *,
    lanes: int | None = None,
    num_threads: int | None = None,
) -> None:
    """The target: splits the pictures among threads.

    Args:
        operands: the table's steps, the pictures, the parameters.
        results: what is filled, the sums [P, D].
        attributes: what else there is in a `Table`.
        lanes: of the code's vectors; None: as this CPU has them.
        num_threads: None: one a core.
    """
    steps, pictures, *parameters = operands
    lanes = lanes or _lanes()
    code = code_of(codegen.SOURCE, lanes).result()["infer"]
    addresses = [array.ctypes.data for array in (pictures, results[0], *parameters)]
    panel_size = codegen.panel_lanes(lanes) * attributes["panel"]
    sizes = attributes["arena"], codegen.OFFSETS, panel_size

    def task(span: tuple[int, int]) -> None:
        arena = scratch(sum(sizes))
        offsets, panel = arena + 4 * sizes[0], arena + 4 * sum(sizes[:2])
        ctypes.memset(arena, 0, 4 * attributes["zeros"])
        bases = np.array([arena, *addresses], np.int64)
        places = (steps.ctypes.data, bases.ctypes.data, offsets, panel)
        code(*places, len(steps), *span, attributes["group"])

    # Some for each thread, for cores that are shared are not of one speed.
    count = _TASKS_PER_THREAD * (num_threads or num_cores())
    run_all(task, pairwise(bounds(len(pictures), count)))


@once
def _lanes() -> int:
    return width()
