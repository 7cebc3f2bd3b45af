"""Pooling and normalisation as Caffe has them, for the networks that came from there."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def max_pool(x: Float[Array, "P H W C"], stride: int, padding: int = 0) -> Float[Array, "P h w C"]:
    """3x3 maximum; where windows do not fill the size they reach over the far edge."""
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        over = -(size + 2 * padding - 3) % stride
        pads.append((padding, padding + over))
    lowest = np.asarray(-np.inf, x.dtype)  # known when this is traced: else it has no gradient
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, window, strides, [*pads, (0, 0)])


def normalise_responses(x: Float[Array, "P H W C"]) -> Float[Array, "P H W C"]:
    """Local response normalisation across 5 channels (Krizhevsky et al. 2012), as in Caffe.

    x / (1 + a / 5 s)^0.75, where a is 1e-4 and s the sum of squares over a channel and two on
    either side.
    """
    channels = x.shape[-1]
    squares = jnp.pad(x * x, [(0, 0)] * 3 + [(2, 2)])
    total = sum(squares[..., first : first + channels] for first in range(5))
    root = jax.lax.rsqrt(1 + (1e-4 / 5) * total)
    return x * root * jnp.sqrt(root)
