"""How time and memory grow with the population, the picture and the program.

A sweep measures the same thing at a few points of one axis. Its growth says how much dearer a unit
of work is at the last point than at an early one: 1 is perfectly linear, less means that small
points do not fill the device. A point that would take too long or too much memory is left out, and
the result says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Key

from evojax_art.benchmark.machine import available_bytes
from evojax_art.benchmark.measure import Job, measure
from evojax_art.benchmark.parts import (
    GENERATION,
    RENDERING,
    Subject,
    generation_job,
    render_fn,
    rendering_batch,
)
from evojax_art.language.program import Program, take
from evojax_art.search.variation import GrowthConfig, grow

Axis = Literal["population", "size", "length"]
UNITS: dict[Axis, str] = {"population": "formula", "size": "pixel", "length": "node"}
_COMMON_START = 1024  # formulas: below it even a CPU does not see its overheads vanish
_FEW = 64  # formulas at each size of a picture


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured point.

    Attributes:
        value: of the axis: formulas, pixels along a side, or nodes.
        formulas: measured on.
        seconds: of one run, median.
        all_seconds: every run.
        seconds_per_formula: the same by formula.
        seconds_per_unit: by formula and by what the axis counts: formula, pixel or node.
        compile_seconds: tracing, lowering and compiling.
        memory_bytes: arguments, results and temporaries of the largest compiled call.
        device_peak_bytes: the highest mark of the device's allocator so far; None on a CPU.
    """

    value: int
    formulas: int
    seconds: float
    all_seconds: list[float] = field(repr=False)
    seconds_per_formula: float
    seconds_per_unit: float
    compile_seconds: float
    memory_bytes: float | None
    device_peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How much dearer a unit is at `to` than at `start`, as a ratio."""

    start: int
    to: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One part along one axis.

    Attributes:
        axis: what changes.
        part: what is measured.
        unit: what growth is per.
        points: in ascending order.
        left_out: points that were not measured, and why.
        growth: over the measured points; None where there are fewer than two.
    """

    axis: Axis
    part: str
    unit: str
    points: list[Point]
    left_out: dict[int, str]
    growth: Growth | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep that is still to be measured.

    Attributes:
        axis: what changes.
        part: what is measured.
        values: the points, ascending.
        job_fn: what to measure at a point.
        units_fn: units that a formula has at a point.
    """

    axis: Axis
    part: str
    values: tuple[int, ...]
    job_fn: Callable[[int], Job]
    units_fn: Callable[[int], float]


def plans(
    subject: Subject, values: dict[Axis, tuple[int, ...]], population_fn: Callable[[int], Program]
) -> Iterator[Plan]:
    """The sweeps along the given axes.

    Args:
        subject: what the rows are measured on.
        values: points of each axis.
        population_fn: that many formulas like the subject's.
    """
    if "population" in values:
        points = values["population"]
        largest = population_fn(max(points))

        def rendered(count: int) -> Job:
            return _rendering_job(subject, take(largest, np.arange(count)), subject.size)

        def generated(count: int) -> Job:
            return generation_job(subject, take(largest, np.arange(count)))

        for part, job_fn in ((RENDERING, rendered), (GENERATION, generated)):
            yield _plan("population", points, job_fn, lambda _: 1.0, part)
    if "size" in values:
        few = take(subject.population, np.arange(min(_FEW, subject.count)))

        def sized(size: int) -> Job:
            return _rendering_job(subject, few, size)

        yield _plan("size", values["size"], sized, lambda size: float(size**2))
    if "length" in values:

        def filled(length: int) -> Job:
            programs = full_programs(subject.key, subject.count, length)
            return _rendering_job(subject, programs, subject.size)

        yield _plan("length", values["length"], filled, float)


def run_plan(
    plan: Plan, repeats: int, max_seconds: float, announce: Callable[[str], None]
) -> Sweep:
    """Measures the points of a plan, cheapest first.

    Args:
        plan: the sweep.
        repeats: timed runs a point.
        max_seconds: for all runs of a point, about; compilation does not count.
        announce: told what is being measured.
    """
    points: list[Point] = []
    left_out: dict[int, str] = {}
    for value in plan.values:
        reason = "a smaller one is left out" if left_out else ""
        reason = reason or _too_much(plan, points, value, max_seconds)
        if not reason:
            announce(f"{plan.part}, {plan.axis} {value:,}")
            try:
                points.append(_point(plan, value, repeats, max_seconds))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                reason = "the device has not enough memory"
        if reason:
            left_out[value] = reason
    return Sweep(
        axis=plan.axis,
        part=plan.part,
        unit=UNITS[plan.axis],
        points=points,
        left_out=left_out,
        growth=growth_of(plan.axis, points),
    )


def growth_of(axis: Axis, points: list[Point]) -> Growth | None:
    """From the first point, or the first beyond `_COMMON_START` formulas, to the last."""
    late = [p for p in points if axis != "population" or p.value >= _COMMON_START]
    chosen = late if len(late) > 1 else points
    if len(chosen) < 2:
        return None
    start, end = chosen[0], chosen[-1]
    ratio = end.seconds_per_unit / start.seconds_per_unit
    return Growth(start=start.value, to=end.value, ratio=ratio)


def full_programs(key: Key[Array, ""], count: int, length: int) -> Program:
    """`count` random formulas, 256 at most, of as many nodes as fit `length`."""
    growth = GrowthConfig(max_depth=31, binary=0.5, unary=0.5)  # no leaf before there is no room
    keys = jax.random.split(key, min(256, count))
    return jax.jit(jax.vmap(lambda key: grow(key, length, growth)))(keys)


def _plan(
    axis: Axis,
    values: tuple[int, ...],
    job_fn: Callable[[int], Job],
    units_fn: Callable[[int], float],
    part: str = RENDERING,
) -> Plan:
    ordered = tuple(sorted(set(values)))
    return Plan(axis=axis, part=part, values=ordered, job_fn=job_fn, units_fn=units_fn)


def _rendering_job(subject: Subject, programs: Program, size: int) -> Job:
    batch = rendering_batch(programs, size, subject.samples)
    return Job(part=RENDERING, call_fn=render_fn(subject, size=size), batches=[batch])


def _point(plan: Plan, value: int, repeats: int, max_seconds: float) -> Point:
    measured = measure(plan.job_fn(value), repeats, max_seconds)
    per_formula = measured.seconds / measured.formulas
    return Point(
        value=value,
        formulas=measured.formulas,
        seconds=measured.seconds,
        all_seconds=measured.all_seconds,
        seconds_per_formula=per_formula,
        seconds_per_unit=per_formula / plan.units_fn(value),
        compile_seconds=measured.compile_seconds,
        memory_bytes=measured.compiled.memory_bytes,
        device_peak_bytes=measured.device_peak_bytes,
    )


def _too_much(plan: Plan, points: list[Point], value: int, max_seconds: float) -> str:
    """Why this point cannot be measured, judged by the one before it; empty if it can."""
    if not points:
        return ""
    last = points[-1]
    work = plan.units_fn(value) / plan.units_fn(last.value)
    work *= value / last.value if plan.axis == "population" else 1.0
    seconds = 2 * work * last.seconds  # the first run, which compiles, and one that counts
    if seconds > max_seconds:
        return f"it would take {seconds:.0f} s, more than max-seconds = {max_seconds:g}"
    needed = work * (last.memory_bytes or 0.0)
    if needed > 0.9 * available_bytes():
        return f"it would take {needed / 1e9:.1f} GB of memory, more than there is"
    return ""
