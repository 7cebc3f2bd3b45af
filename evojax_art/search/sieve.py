"""Children that can win nothing are told by a sketch, and make room for others.

One child in three or four draws what its host draws, or next to nothing: its mutation was somewhere
that does not show. A sketch of 32x32 points costs half a hundredth of a picture of 224x224 at 2x2
samples, and no network need look at it. So an algorithm may hand out more children than are
evaluated (`MapElites.surplus`), and those that promise nothing are left out.
"""

from dataclasses import replace
from typing import Any, TypeVar, cast

import jax.numpy as jnp
from jaxtyping import Array, Bool

from evojax_art.language.program import Program, take
from evojax_art.objective.evaluator import Evaluator, Params
from evojax_art.objective.naturalness import coarse_contrast
from evojax_art.search.protocol import NOBODY, Offspring

T = TypeVar("T")

SIZE = 32  # of a sketch, in points to a side
_TIMES = 3  # that pictures are as large at least, or sketches are not worth their time
_SAME = 1e-3  # colours that differ by less are equal
_FLAT = 0.004  # contrast of what is one colour, in all but one of 256 shades
_CAUTION = 0.9  # of a gate's contrast, since a sketch is not the picture


def with_fitting_surplus(algorithm: T, height: int) -> T:
    """The algorithm without a surplus where pictures are hardly larger than sketches."""
    if getattr(algorithm, "surplus", 0) and height < _TIMES * SIZE:
        return replace(cast(Any, algorithm), surplus=0.0)
    return algorithm


def sieve(
    offspring: Offspring, programs: Program, evaluator: Evaluator, params: Params, count: int
) -> Offspring:
    """The first `count` of those that promise something, and others where these are too few.

    Who has no host promises something: starters are all evaluated, in their order.

    Args:
        offspring: as many or more.
        programs: of the survivors, whose places the parents are.
        evaluator: of the offspring.
        params: of the evaluator.
        count: how many are evaluated.
    """
    if len(offspring.parents) == count:
        return offspring
    hosts = offspring.parents[:, 0]
    theirs = take(programs, jnp.maximum(hosts, 0))
    chosen = promises(offspring.programs, theirs, evaluator, params) | (hosts == NOBODY)
    return take(offspring, jnp.argsort(~chosen, stable=True)[:count])


def promises(
    children: Program, hosts: Program, evaluator: Evaluator, params: Params
) -> Bool[Array, "O"]:
    """Whether a child's sketch differs from its host's, and is of more than one colour."""
    ours = evaluator.sketch(children, params, SIZE)
    theirs = evaluator.sketch(hosts, params, SIZE)
    differs = jnp.any(jnp.abs(ours - theirs) > _SAME, axis=(1, 2, 3))
    return differs & (coarse_contrast(ours) >= max(_FLAT, _CAUTION * evaluator.least_contrast))
