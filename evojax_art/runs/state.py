"""All that a run is, as one pytree: what a checkpoint has to hold.

What is not in it follows from the configuration, or from the run's folder.
"""

import math
from typing import NamedTuple

from evojax_art.search.generation import EvolutionState


class Drawn(NamedTuple):
    """What is known of the records that were drawn; scalars of the host.

    Attributes:
        count: of the records.
        generation: that found the last one; 0 for none.
        value: of the last one, on its target's own scale; NaN for none.
        noise: of the last one.
        unseen: what the networks that nothing was bred for say of it.
    """

    count: int = 0
    generation: int = 0
    value: float = math.nan
    noise: float = math.nan
    unseen: tuple[float, ...] = ()


class RunState(NamedTuple):
    """A run between two visits of the host.

    Attributes:
        evolution: on the device.
        drawn: the records.
        generation: completed ones, as in `evolution`; known without asking the device.
        formulas: evaluated.
        seconds: taken, without compilation.
        host_seconds: of those, the ones in which the device had nothing to do.
    """

    evolution: EvolutionState
    drawn: Drawn = Drawn()
    generation: int = 0
    formulas: int = 0
    seconds: float = 0.0
    host_seconds: float = 0.0
