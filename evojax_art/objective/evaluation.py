"""What a population is bred for: weighted terms of its pictures, one fitness per individual."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art.nets.base import Classifier
from evojax_art.objective import tv as naturalness
from evojax_art.objective.goals import ClassGoal, Goal
from evojax_art.runtime.errors import InputError

REJECTED = -1e9  # fitness of what may never win: beyond the gate, or not finite
_COARSE = 8  # pixels to a side of what is compared with a photograph


class Metrics(NamedTuple):
    """What is known of each individual besides its fitness.

    Attributes:
        score: the goal's, for classes their probability together, in [0, 1].
        value: the goal's, for classes the log-odds of that.
        tv: total variation, see `naturalness.total_variation`.
        noise: the 2015 noise measure; NaN where the gate did not need it.
    """

    score: Float[Array, "P"]
    value: Float[Array, "P"]
    tv: Float[Array, "P"]
    noise: Float[Array, "P"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """How fitness is composed.

    Attributes:
        scale: "log_odds" of the score spreads both ends, so that selection still sees a
            difference between 1e-6 and 1e-5, and between 99 % and 99.9 % (a layer's activations
            are on a logarithmic scale then); "probability" is the plain score, as in 2015.
        class_weight: factor of the scaled score, a layer's as well.
        tv_weight: factor of the total variation, subtracted.
        near: factor of the distance to the photograph of `start_from`, subtracted: how far colours
            are apart once both are reduced to 8x8 pixels, 1 for a picture that is all of the
            photograph's mean colour. Without a photograph it does nothing.
        noise_gate: pictures whose noise is this or more are out, 0.05 in 2015; 0 means no gate.
            The measure is iterative and costs as much as the classifier.
    """

    scale: Literal["log_odds", "probability"] = "log_odds"
    class_weight: float = 1.0
    tv_weight: float = 0.0
    near: float = 4.0
    noise_gate: float = 0.0

    def __post_init__(self):
        for name in ("near", "noise_gate"):
            if getattr(self, name) < 0:
                raise InputError(f"objective.{name} must be 0 or more, got {getattr(self, name)}")


def assess(
    images: Float[Array, "P H W 3"],
    net: Classifier,
    goal: Goal,
    config: ObjectiveConfig,
    threshold: Float[Array, ""] | float = -jnp.inf,
    reference: Float[Array, "h w 3"] | None = None,
) -> tuple[Float[Array, "P"], Metrics]:
    """Fitness and metrics of pictures; traceable, and differentiable without a gate.

    A fitness that is not finite, and one beyond the gate, becomes `REJECTED`, so it never wins.
    Where fitness is nothing but a probability that is 0, as in 2015.

    Args:
        images: RGB in [0, 1].
        net: the judge.
        goal: what is wanted of it.
        config: the terms.
        threshold: below it a fitness does not matter, so the gate's measure, which takes longest,
            is left out there; its noise is NaN.
        reference: the picture that `config.near` keeps to, of any size.
    """
    value, score = goal.measure(net, images)
    # A network may have asked for less precision.
    images = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    tv = naturalness.total_variation(images)
    fitness = config.class_weight * (value if config.scale == "log_odds" else score)
    fitness -= config.tv_weight * tv
    rejected = REJECTED
    if reference is not None and config.near:
        fitness -= config.near * distance(images, reference)
    elif config.scale == "probability" and not config.tv_weight and isinstance(goal, ClassGoal):
        rejected = 0.0
    if config.noise_gate > 0:
        matters = fitness >= threshold
        noise = naturalness.tv_noise(images, matters)
        fitness = jnp.where(matters & ~(noise < config.noise_gate), rejected, fitness)
    else:
        noise = jnp.full_like(tv, jnp.nan)
    return jnp.where(jnp.isfinite(fitness), fitness, rejected), Metrics(score, value, tv, noise)


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
