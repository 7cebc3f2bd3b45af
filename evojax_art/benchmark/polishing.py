"""Rows of polish: gradient ascent on formulas' constants, through pictures, network and TV."""

from collections.abc import Iterator

import jax
import numpy as np

from evojax_art.benchmark.measure import Batch, Job
from evojax_art.benchmark.parts import Subject
from evojax_art.language.ops import CONSTANT
from evojax_art.language.program import Program, free_constants, take
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.refine.ascent import Ascent, AscentConfig, AscentState
from evojax_art.render.look import RasterConfig

_TOGETHER = 64  # formulas that climb side by side,
_COPIES = 8  # and copies of one, as `polish` has them
_STEPS = 5  # of a call
_NODES = 40  # of that one, about: the archive's average


def polishing(subject: Subject) -> Iterator[Job]:
    """Steps of Adam: of many formulas, and of copies of one.

    A step of one formula counts as a formula, so the rows' formulas/s are pictures times steps.
    """
    free = free_constants(subject.population)
    usable = np.flatnonzero((np.asarray(free.opcode) == CONSTANT).any(axis=1))
    if not len(usable):
        return
    chosen = take(free, np.resize(usable, _TOGETHER))
    yield _job(subject, "polishing", chosen)
    lengths = np.asarray(free.length)[usable]
    index = usable[np.argmin(np.abs(lengths - _NODES))]
    copies = take(free, np.full(_COPIES, index))
    yield _job(subject, f"copies, {free.length[index]} nodes", copies)


def _job(subject: Subject, part: str, population: Program) -> Job:
    evaluator = Evaluator(
        subject.net,
        (0,),
        ObjectiveConfig(tv_weight=1.0),
        RasterConfig(size=subject.size, samples=subject.samples),
    )
    ascent = Ascent(evaluator, AscentConfig(steps=_STEPS))
    state = ascent.init(population, jax.jit(evaluator.evaluate)(population, evaluator.params))
    step_fn = jax.jit(lambda state, params, key: ascent.advance(state, params, key, _STEPS, False))

    def arguments_fn() -> tuple[AscentState, object, jax.Array]:
        return state, evaluator.params, subject.key

    count = _STEPS * len(population.length)
    batch = Batch(arguments_fn=arguments_fn, formulas=count)
    return Job(part=part, call_fn=step_fn, batches=[batch])
