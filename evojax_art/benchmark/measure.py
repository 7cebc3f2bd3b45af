"""Measuring one thing: compile time, memory and counted work of its first call, medians of others.

Compile time is what JAX's own clock says of tracing, lowering and compiling, not a first run minus
a median, so it holds whatever a function dispatches inside. The persistent compilation cache has
no say here: see `without_compilation_cache`.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from evojax_art.runtime.plan import current_plan

_COMPILE_EVENTS = frozenset(
    f"/jax/core/compile/{name}_duration"
    for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What must at least be done, however it is done.

    Attributes:
        flops: floating-point operations; a transcendental function counts as one.
        bytes: to be read or written.
        arithmetic: which of `floors.Floors.flops_per_second` bounds it.
    """

    flops: float
    bytes: float
    arithmetic: str = "float32"


@dataclass(frozen=True, kw_only=True)
class CompiledCall:
    """What the compiler says of one call, summed over the executables it consists of.

    Attributes:
        flops: by XLA's cost analysis, which counts the body of a loop once.
        bytes: read and written between fusions, likewise.
        traffic_bytes: of arguments and results.
        memory_bytes: of arguments, results and temporaries of the largest executable; None where
            the runtime does not tell.
    """

    flops: float
    bytes: float
    traffic_bytes: float
    memory_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one call works on.

    Attributes:
        arguments_fn: makes the call's arguments; not timed.
        formulas: that the call is for.
        node_pixels: that it interprets: nodes as written times samples.
        work: that it must at least do; None leaves it to the job's `work_fn`.
    """

    arguments_fn: Callable[[], tuple]
    formulas: int
    node_pixels: float | None = None
    work: Work | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something to measure.

    Attributes:
        part: its name, that of its row.
        call_fn: one call; the same compiled code serves every batch.
        batches: what the calls work on, at least one.
        work_fn: the work of a call, from what the compiler says of it.
        floor_seconds_per_formula: in place of any work: a floor that is known already.
    """

    part: str
    call_fn: Callable[..., Any]
    batches: Sequence[Batch]
    work_fn: Callable[[CompiledCall], Work] | None = None
    floor_seconds_per_formula: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What came out; all sums are over the batches that were measured.

    Attributes:
        formulas: of the measured batches.
        node_pixels: of the measured batches; None where nothing is interpreted.
        seconds: of one run over them, median.
        all_seconds: every run.
        compile_seconds: tracing, lowering and compiling, for one batch.
        compiled: what the compiler says of the call.
        device_peak_bytes: the device's allocator's highest mark so far; None on a CPU.
        work: of each measured batch; None where nobody counted.
    """

    formulas: int
    node_pixels: float | None
    seconds: float
    all_seconds: list[float] = field(repr=False)
    compile_seconds: float
    compiled: CompiledCall
    device_peak_bytes: int | None
    work: list[Work] | None


def measure(job: Job, repeats: int, max_seconds: float) -> Measurement:
    """Compiles with the first batch, then times runs over as many batches as there is time for.

    Args:
        job: what to measure.
        repeats: timed runs; fewer, but at least one, where a single batch takes too long.
        max_seconds: for all timed runs together, about.
    """
    jax.clear_caches()  # or the first call might find compiled what another row needed too
    known = _live_executables()
    arguments = job.batches[0].arguments_fn()
    with _compile_clock() as intervals:
        once = _timed(job, [arguments])
    compile_seconds = covered(intervals)
    compiled = _summed(known)
    once = max(once - compile_seconds, 1e-6)
    if once * repeats * len(job.batches) > max_seconds:  # a device's libraries wake up but once
        once = min(once, _timed(job, [job.batches[0].arguments_fn()]))
    num_batches = max(1, min(len(job.batches), int(max_seconds / (repeats * once))))
    repeats = max(1, min(repeats, int(max_seconds / (num_batches * once))))
    batches = job.batches[:num_batches]
    seconds = []
    for _ in range(repeats):
        prepared = jax.block_until_ready([batch.arguments_fn() for batch in batches])
        seconds.append(_timed(job, prepared))
    work = [
        batch.work or (job.work_fn(compiled) if job.work_fn else None)  # all or none of a job
        for batch in batches
    ]
    pixels = [batch.node_pixels for batch in batches if batch.node_pixels is not None]
    return Measurement(
        formulas=sum(batch.formulas for batch in batches),
        node_pixels=sum(pixels) if pixels else None,
        seconds=statistics.median(seconds),
        all_seconds=seconds,
        compile_seconds=compile_seconds,
        compiled=compiled,
        device_peak_bytes=(current_plan().device.memory_stats() or {}).get("peak_bytes_in_use"),
        work=[item for item in work if item] or None,
    )


@contextmanager
def without_compilation_cache() -> Iterator[None]:
    """Keeps JAX's persistent cache out, so that compile times are those of compiling."""
    name = "jax_enable_compilation_cache"
    enabled = getattr(jax.config, name)

    def switch(on: bool) -> None:
        jax.config.update(name, on)
        compilation_cache.reset_cache()  # JAX remembers its first look at the setting

    switch(False)
    try:
        yield
    finally:
        switch(enabled)


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of a union of intervals: traces nest, and compilations may run side by side."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _timed(job: Job, prepared: Sequence[tuple]) -> float:
    # A device gets the next batch while it works on one, so that it never waits for the host. On a
    # CPU two batches would run at the same time, which a generation's do not.
    ahead = 0 if current_plan().platform == "cpu" else 1
    waiting = []
    start = time.perf_counter()
    for arguments in prepared:
        waiting.append(job.call_fn(*arguments))
        if len(waiting) > ahead:
            jax.block_until_ready(waiting.pop(0))
    jax.block_until_ready(waiting)
    return time.perf_counter() - start


@contextmanager
def _compile_clock() -> Iterator[list[tuple[float, float]]]:
    intervals: list[tuple[float, float]] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILE_EVENTS:
            now = time.perf_counter()
            intervals.append((now - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield intervals
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _live_executables() -> list[Any]:
    device: Any = current_plan().device
    client = device.client
    return client.live_executables() if hasattr(client, "live_executables") else []


def _summed(known: list[Any]) -> CompiledCall:
    """What the compiler says of the executables that are not among `known`.

    A computation that is spread over devices is described by the share of one of them.
    """
    ids = {id(item) for item in known}
    new = [item for item in _live_executables() if id(item) not in ids]
    flops = accessed = traffic = 0.0
    memory = []
    for item in new:
        devices = len(item.local_devices())
        try:
            cost, stats = item.cost_analysis(), item.get_compiled_memory_stats()
        except jax.errors.JaxRuntimeError:  # not every runtime knows
            continue
        flops += devices * (cost.get("flops", 0.0) + cost.get("transcendentals", 0.0))
        accessed += devices * cost.get("bytes accessed", 0.0)
        edges = stats.argument_size_in_bytes + stats.output_size_in_bytes
        traffic += devices * edges
        temporary = stats.temp_size_in_bytes - stats.alias_size_in_bytes
        memory.append(devices * float(edges + temporary))
    return CompiledCall(
        flops=flops,
        bytes=accessed,
        traffic_bytes=traffic,
        memory_bytes=max(memory) if memory else None,
    )
