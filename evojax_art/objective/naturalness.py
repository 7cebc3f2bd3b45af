"""How natural pictures look: two terms, the gate of 2015, and one for what is almost one colour.

The measures of noise are in `tv`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Contribution, Metrics
from evojax_art.objective.tv import tv_noise

_COARSE = 16  # fields to a side
_SPECTRUM = 64  # pixels to a side of what a spectrum is taken of,
_WAVES = (2, 16)  # and how many waves across it count: neither the whole nor single pixels
_NATURAL = -2.0  # slope of the power of photographs: it falls with the square of the frequency
_FLAT = 1e-7  # power that counts as none


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
class Spectrum:
    """A term: minus how far the spectrum's slope, the metric `slope`, is from a photograph's.

    The power of photographs falls with the square of the frequency (Field 1987), whatever they
    show. Where it falls less a picture is noisy, where it falls more it is blurred.

    Attributes:
        weight: factor of the distance.
    """

    weight: float

    def __call__(self, observed: Observed) -> Contribution:
        """Traceable, and differentiable."""
        slope = spectral_slope(observed.pictures)
        return Contribution(-self.weight * jnp.abs(slope - _NATURAL), {"slope": slope})


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


def spectral_slope(images: Float[Array, "P H W 3"]) -> Float[Array, "P"]:
    """By what power of the frequency the power of the brightness falls: -2 in photographs.

    A line through the logarithms of both, of pictures reduced to 64x64, every octave alike; 0 for
    white noise and for one colour.
    """
    size = _SPECTRUM
    small = jax.image.resize(images, (len(images), size, size, 3), "linear", antialias=True)
    grey = jnp.mean(small, axis=-1)
    window = jnp.asarray(np.hanning(size)[:, None] * np.hanning(size), jnp.float32)
    mean = jnp.sum(grey * window, axis=(1, 2), keepdims=True) / jnp.sum(window)
    power = jnp.abs(jnp.fft.rfft2((grey - mean) * window)) ** 2 / size**2
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    waves = size * waves
    inside = (waves >= _WAVES[0]) & (waves < _WAVES[1])
    octaves = np.log(np.where(inside, waves, 1.0))
    weight = np.where(inside, 1 / np.maximum(waves, 1) ** 2, 0.0)
    weight /= weight.sum()
    octaves -= np.sum(weight * octaves)
    line = weight * octaves / np.sum(weight * octaves**2)
    return jnp.sum(jnp.asarray(line, jnp.float32) * jnp.log(power + _FLAT), axis=(1, 2))


def coarse_contrast(images: Float[Array, "P H W 3"]) -> Float[Array, "P"]:
    """Standard deviation of the colours of pictures reduced to 16x16, root mean square of three.

    0 for one colour, 0.5 for a picture half black and half white; fine grain does not count.
    """
    small = jax.image.resize(images, (len(images), _COARSE, _COARSE, 3), "linear", antialias=True)
    return jnp.sqrt(jnp.mean(jnp.var(small, axis=(1, 2)), axis=-1))
