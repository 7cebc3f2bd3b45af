"""Rows of polish: gradient ascent on formulas' constants, through pictures, network and TV."""

from collections.abc import Iterator

import jax
import numpy as np

from evojax_art.benchmark.measure import Batch, Job
from evojax_art.benchmark.parts import Subject
from evojax_art.interpreter.reverse import api as reverse
from evojax_art.language.ops import CONSTANT
from evojax_art.language.program import Program, free_constants, take, to_expressions
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.refine.ascent import AscentConfig, Climber, ClimbState
from evojax_art.refine.drawing import ValueFn, traced
from evojax_art.render.look import RasterConfig

_TOGETHER = 64  # formulas that climb side by side,
_COPIES = 4  # and copies of one, as `polish` has them
_STEPS = 5  # of a call
_TRACED_NODES = 40  # of the formula whose trace is compiled, about: the archive's average


def polishing(subject: Subject) -> Iterator[Job]:
    """Steps of Adam: of many formulas in reverse mode, and of copies of one by its trace.

    A step of one formula counts as a formula, so the rows' formulas/s are pictures times steps. The
    second row's compile time is what it takes to trace a formula that nobody has seen before.
    """
    free = free_constants(subject.population)
    usable = np.flatnonzero((np.asarray(free.opcode) == CONSTANT).any(axis=1))
    if not len(usable):
        return
    chosen = take(free, np.resize(usable, _TOGETHER))
    yield _job(subject, "polishing", chosen, reverse.interpret)
    lengths = np.asarray(free.length)[usable]
    index = usable[np.argmin(np.abs(lengths - _TRACED_NODES))]
    copies = take(free, np.full(_COPIES, index))
    (expression, *_) = to_expressions(copies)
    yield _job(subject, f"trace of {len(expression)} nodes", copies, traced(expression))


def _job(subject: Subject, part: str, population: Program, value_fn: ValueFn) -> Job:
    evaluator = Evaluator(
        subject.net,
        (0,),
        ObjectiveConfig(tv_weight=1.0),
        RasterConfig(size=subject.size, samples=subject.samples),
    )
    climber = Climber(evaluator, AscentConfig(steps=_STEPS), value_fn)
    state = climber.init(population, jax.jit(evaluator.evaluate)(population, evaluator.params))
    step_fn = jax.jit(lambda state, params, key: climber.climb(state, params, key, _STEPS, False))

    def arguments_fn() -> tuple[ClimbState, object, jax.Array]:
        return state, evaluator.params, subject.key

    count = _STEPS * len(population.length)
    batch = Batch(arguments_fn=arguments_fn, formulas=count)
    return Job(part=part, call_fn=step_fn, batches=[batch])
