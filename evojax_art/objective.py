"""What a population is bred for: weighted terms of its pictures, one fitness per individual."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art import naturalness
from evojax_art.errors import InputError
from evojax_art.nets.base import Classifier

REJECTED = -1e9  # fitness of what may never win: beyond the gate, or not finite


class Metrics(NamedTuple):
    """What is known of each individual besides its fitness.

    Attributes:
        score: probability of the targets together, in [0, 1].
        tv: total variation, see `naturalness.total_variation`.
        noise: the 2015 noise measure; NaN where the gate did not need it.
    """

    score: Float[Array, "P"]
    tv: Float[Array, "P"]
    noise: Float[Array, "P"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """How fitness is composed.

    Attributes:
        scale: "log_odds" of the score spreads both ends, so that selection still sees a
            difference between 1e-6 and 1e-5, and between 99 % and 99.9 %; "probability" is the
            plain score of 2015.
        class_weight: factor of the scaled score.
        tv_weight: factor of the total variation, subtracted.
        noise_gate: pictures whose noise is this or more are out, 0.05 in 2015; 0 means no gate.
            The measure is iterative and costs as much as the classifier.
    """

    scale: Literal["log_odds", "probability"] = "log_odds"
    class_weight: float = 1.0
    tv_weight: float = 0.0
    noise_gate: float = 0.0

    def __post_init__(self):
        if self.noise_gate < 0:
            raise InputError(f"objective.noise_gate must be 0 or more, got {self.noise_gate}")


def assess(
    images: Float[Array, "P H W 3"],
    net: Classifier,
    targets: tuple[int, ...],
    config: ObjectiveConfig,
    threshold: Float[Array, ""] | float = -jnp.inf,
) -> tuple[Float[Array, "P"], Metrics]:
    """Fitness and metrics of pictures; traceable, and differentiable without a gate.

    A fitness that is not finite, and one beyond the gate, becomes `REJECTED`, so it never wins. On
    the bare probability scale that is 0, as in 2015.

    Args:
        images: RGB in [0, 1].
        net: the judge.
        targets: classes whose probabilities are summed.
        config: the terms.
        threshold: below it a fitness does not matter, so the gate's measure, which takes longest,
            is left out there; its noise is NaN.
    """
    log_probabilities = jax.nn.log_softmax(net.logits(images), axis=-1)
    log_score = jax.nn.logsumexp(log_probabilities[:, jnp.array(targets)], axis=-1)
    score = jnp.minimum(jnp.exp(log_score), 1.0)
    images = images.astype(jnp.float32)  # a network may have asked for less precision
    tv = naturalness.total_variation(images)
    if config.scale == "log_odds":
        others = jnp.delete(
            log_probabilities, jnp.array(targets), axis=1, assume_unique_indices=True
        )
        scaled = log_score - jax.nn.logsumexp(others, axis=-1)
        rejected = REJECTED
    else:
        scaled, rejected = score, 0.0 if config.tv_weight == 0 else REJECTED
    fitness = config.class_weight * scaled - config.tv_weight * tv
    if config.noise_gate > 0:
        matters = fitness >= threshold
        noise = naturalness.tv_noise(images, matters)
        fitness = jnp.where(matters & ~(noise < config.noise_gate), rejected, fitness)
    else:
        noise = jnp.full_like(tv, jnp.nan)
    return jnp.where(jnp.isfinite(fitness), fitness, rejected), Metrics(score, tv, noise)
