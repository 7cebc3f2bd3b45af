"""The settings of an objective, and the objective that they mean.

A further term is a file of its own, its setting here, and its line in `build_objective`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art.objective.evaluation import Objective
from evojax_art.objective.naturalness import ContrastGate, NoiseGate, Spectrum, TotalVariation
from evojax_art.objective.nearness import Nearness
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Target, TargetTerm
from evojax_art.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """How fitness is composed.

    Attributes:
        scale: "log_odds" of the score spreads both ends, so that selection still sees a
            difference between 1e-6 and 1e-5, and between 99 % and 99.9 % (a layer's activations
            are on a logarithmic scale then); "probability" is the plain score, as in 2015.
        class_weight: factor of the scaled score, a layer's as well.
        tv_weight: factor of the total variation, subtracted.
        spectrum_weight: factor of how far the slope of the spectrum is from a photograph's,
            subtracted; see `naturalness`. With 0 it is not measured.
        near: factor of the distance to the photograph that was started from, subtracted: how far
            colours are apart once both are reduced to 8x8 pixels, 1 for a picture that is all of
            the photograph's mean colour. Without a photograph it does nothing.
        noise_gate: pictures whose noise is this or more are out, 0.05 in 2015; 0 means no gate.
            The measure is iterative and costs as much as the classifier.
        contrast_gate: pictures of less contrast are out, as those of a faint grain on one colour:
            the standard deviation of their colours once reduced to 16x16 pixels; 0 means no gate.
        short_cut: of several judges, and several views, only the first are asked about formulas
            that can no longer survive. The run is the same, and faster.
    """

    scale: Literal["log_odds", "probability"] = "log_odds"
    class_weight: float = 1.0
    tv_weight: float = 0.0
    spectrum_weight: float = 0.0
    near: float = 4.0
    noise_gate: float = 0.0
    contrast_gate: float = 0.0
    short_cut: bool = True

    def __post_init__(self):
        for name in ("class_weight", "tv_weight", "spectrum_weight"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"objective.{name} must be finite, got {getattr(self, name)}")
        for name in ("near", "noise_gate", "contrast_gate"):
            if not 0 <= getattr(self, name) < math.inf:  # nor NaN
                raise InputError(
                    f"objective.{name} must be 0 or more, and finite, got {getattr(self, name)}"
                )
        if self.contrast_gate > 0.5:  # that of black and white
            raise InputError(
                f"objective.contrast_gate must be 0.5 at most, got {self.contrast_gate}"
            )


def build_objective(
    config: ObjectiveConfig, target: Target, niches: Target | None = None, main: int | None = None
) -> Objective:
    """The objective of these settings.

    Args:
        config: the settings.
        target: what is wanted of a network.
        niches: what is wanted in each of K niches; the target is then one of them, or none.
        main: the niche that is the target.
    """
    wanted = TargetTerm(niches or target, config.class_weight, config.scale)
    natural = (
        TotalVariation(config.tv_weight),
        Nearness(config.near),
        *((Spectrum(config.spectrum_weight),) if config.spectrum_weight else ()),
    )
    return Objective(
        terms=natural if niches else (wanted, *natural),
        niches=wanted if niches else None,
        main=main,
        descriptor_fn=_brightness if niches else None,
        constraints=(
            *((ContrastGate(config.contrast_gate),) if config.contrast_gate else ()),
            *((NoiseGate(config.noise_gate),) if config.noise_gate else ()),
        ),
        short_cut=config.short_cut,
    )


def _brightness(observed: Observed) -> Float[Array, "P 1"]:
    """The mean of all colours, in [0, 1]."""
    return jnp.mean(observed.pictures, axis=(1, 2, 3))[:, None]
