"""How natural pictures look, as a term and as the gate of 2015; the measures are in `tv`."""

from dataclasses import dataclass

from jaxtyping import Array, Bool

from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Contribution, Metrics
from evojax_art.objective.tv import tv_noise


@dataclass(frozen=True)
class TotalVariation:
    """A term: minus the total variation, which is the metric `tv`.

    Attributes:
        weight: its factor; with 0 it is only measured.
    """

    weight: float

    def __call__(self, observed: Observed) -> Contribution:
        """Traceable, and differentiable."""
        tv = observed.total_variation
        return Contribution(-self.weight * tv, {"tv": tv})


@dataclass(frozen=True)
class NoiseGate:
    """A constraint: the noise, which is the metric of that name, stays below a limit.

    Attributes:
        limit: pictures of this noise or more are out; 0.05 in 2015.
    """

    limit: float

    def __call__(
        self, observed: Observed, matters: Bool[Array, "P"]
    ) -> tuple[Bool[Array, "P"], Metrics]:
        """Traceable; takes longer than all else."""
        noise = tv_noise(observed.pictures, matters, observed.plan)
        return noise < self.limit, {"noise": noise}
