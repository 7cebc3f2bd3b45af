"""How right a classifier is, and how much its probabilities mean."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer, Key

from evojax_art.nets.base import Classifier
from evojax_art.runs.training.photographs import Photographs

_BATCH = 250
_TEMPERATURES = np.geomspace(0.25, 4.0, 401)


def photograph_logits(
    net: Classifier,
    photographs: Photographs,
    *,
    noise: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Float[Array, "N K"]:
    """Logits of photographs, as `net` is, in batches.

    Args:
        net: in evaluation mode.
        photographs: what to judge.
        noise: standard deviation of Gaussian noise that is added to pictures in [0, 1].
        key: for the noise.
    """

    @nnx.jit
    def judge(net: Classifier, images: Array, key: Key[Array, ""]) -> Array:
        images = images.astype(jnp.float32) / 255
        images = images + noise * jax.random.normal(key, images.shape)
        return net.logits(images.clip(0, 1))

    key = jax.random.key(0) if key is None else key
    return jnp.concatenate(
        [
            judge(
                net, jnp.asarray(photographs.images[at : at + _BATCH]), jax.random.fold_in(key, at)
            )
            for at in range(0, len(photographs.images), _BATCH)
        ]
    )


def accuracy(logits: Float[Array, "N K"], labels: Integer[Array | np.ndarray, "N"]) -> float:
    """Share of rows whose largest logit is the right one."""
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == jnp.asarray(labels)))


def calibration_error(
    logits: Float[Array, "N K"], labels: Integer[Array | np.ndarray, "N"], num_bins: int = 15
) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599), in [0, 1].

    The mean distance between how sure the network is of its first choice and how often it is right,
    over bins of equal width.
    """
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)
    sure = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == np.asarray(labels)
    bins = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, right - sure, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(sure))


def best_temperature(
    logits: Float[Array, "N K"], labels: Integer[Array | np.ndarray, "N"]
) -> float:
    """What to divide logits by so that their cross-entropy is least, 0.25 to 4."""
    rows = jnp.arange(len(labels)), jnp.asarray(labels)

    def cross_entropy(temperature: Array) -> Array:
        return -jnp.mean(jax.nn.log_softmax(logits / temperature, axis=-1)[rows])

    losses = jax.lax.map(cross_entropy, jnp.asarray(_TEMPERATURES, jnp.float32))
    return float(_TEMPERATURES[int(jnp.argmin(losses))])
