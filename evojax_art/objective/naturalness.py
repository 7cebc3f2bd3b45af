"""How natural pictures look: a term, the gate of 2015, and one for what is almost one colour.

The measures of noise are in `tv`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Contribution, Metrics
from evojax_art.objective.tv import tv_noise

_COARSE = 16  # fields to a side


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


@dataclass(frozen=True)
class ContrastGate:
    """A constraint: the contrast, which is the metric of that name, reaches a limit.

    Networks are soon a little sure of anything in a faint grain on one colour, and a search that
    finds this stays there: no small step leads from it to a picture of something.

    Attributes:
        limit: pictures of less contrast are out.
    """

    limit: float

    def __call__(
        self, observed: Observed, matters: Bool[Array, "P"]
    ) -> tuple[Bool[Array, "P"], Metrics]:
        """Traceable."""
        del matters  # it costs little
        contrast = coarse_contrast(observed.pictures)
        return contrast >= self.limit, {"contrast": contrast}


def coarse_contrast(images: Float[Array, "P H W 3"]) -> Float[Array, "P"]:
    """Standard deviation of the colours of pictures reduced to 16x16, root mean square of three.

    0 for one colour, 0.5 for a picture half black and half white; fine grain does not count.
    """
    small = jax.image.resize(images, (len(images), _COARSE, _COARSE, 3), "linear", antialias=True)
    return jnp.sqrt(jnp.mean(jnp.var(small, axis=(1, 2)), axis=-1))
