"""Whether pictures stay what they are when they are drawn at other sizes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from evojax_art.language.formula import parse
from evojax_art.language.program import encode
from evojax_art.nets.base import Network
from evojax_art.objective.niches import EveryClass
from evojax_art.render.look import Look, Raster
from evojax_art.runs.jury import Jury
from evojax_art.runs.repertoire import Elite
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan

SIZES = (128, 224, 448)
_CAPACITY = 64


def kept(
    elites: Sequence[Elite],
    nets: Mapping[str, Network],
    niches: EveryClass,
    plan: Plan,
    look: Look | None = None,
    sizes: Sequence[int] = SIZES,
) -> Bool[np.ndarray, "P"]:
    """Which elites' classes every network has among its first five at every size.

    Args:
        elites: P of them.
        nets: by name, at the size at which they look.
        niches: a niche for every class, in the order of the first network's.
        plan: where and how.
        look: of the pictures.
        sizes: height and width of the drawings in pixels, 3x3 samples each.

    Raises:
        InputError: an elite of a class that is not among the niches.
    """
    longest = max(elite.length for elite in elites)
    formulas = [parse(elite.formula) for elite in elites]
    programs = encode(formulas, max(_CAPACITY, longest))
    place = {
        (group[0], name): niche
        for niche, (group, name) in enumerate(zip(niches.groups, niches.names, strict=True))
    }
    for elite in elites:
        if (elite.class_, elite.name) not in place:
            raise InputError(f"class {elite.name!r} is none of {', '.join(nets)}; name the run's")
    wanted = np.array([place[elite.class_, elite.name] for elite in elites])
    remains = np.ones(len(elites), bool)
    for size in sizes:
        jury = Jury(nets, niches, look or Look(), Raster(height=size, width=size, samples=3), plan)
        for opinion in jury(programs, wanted).values():
            remains &= (opinion.rank >= 0) & (opinion.rank < 5)
    return remains
