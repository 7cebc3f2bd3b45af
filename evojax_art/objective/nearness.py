"""Keeping near a picture: its composition stays, details are free."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Contribution

_COARSE = 8  # pixels to a side of what is compared


@dataclass(frozen=True)
class Nearness:
    """A term: minus the distance to the reference; nothing where there is none.

    Attributes:
        weight: factor of the distance, which is the metric `distance`.
    """

    weight: float

    def __call__(self, observed: Observed) -> Contribution:
        """Traceable, and differentiable."""
        if observed.reference is None or not self.weight:
            return Contribution(jnp.zeros(len(observed.pictures), observed.pictures.dtype), {})
        apart = distance(observed.pictures, observed.reference)
        return Contribution(-self.weight * apart, {"distance": apart})


def distance(
    images: Float[Array, "P H W 3"], reference: Float[Array, "h w 3"]
) -> Float[Array, "P"]:
    """How far pictures are from another one: 0 where equal, 1 for its mean colour.

    The mean squared difference of colours by their variance (and 0.001), after both are reduced to
    8x8 pixels: so the composition counts, not the details.
    """
    wanted = _coarse(reference)
    variance = jnp.mean((wanted - jnp.mean(wanted, axis=(0, 1))) ** 2)
    return jnp.mean((_coarse(images) - wanted) ** 2, axis=(1, 2, 3)) / (variance + 1e-3)


def _coarse(images: Float[Array, "*P H W 3"]) -> Float[Array, "*P 8 8 3"]:
    shape = (*images.shape[:-3], _COARSE, _COARSE, 3)
    return jax.image.resize(images, shape, "linear", antialias=True)
