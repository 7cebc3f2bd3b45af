"""Pictures of any size, in bands of rows."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from evojax_art.formula import Expression, parse
from evojax_art.ops import Crunch
from evojax_art.program import encode
from evojax_art.render import check_settings, render_rows, smooth_plus

_BAND_POINTS = 1 << 20  # points per step of a large picture


def render_large(
    formula: str | Expression,
    height: int,
    width: int,
    z: float = 0.0,
    crunch: Crunch = "sigmoid",
    smooth: bool = False,
    *,
    samples: int = 1,
    max_length: int | None = None,
    progress_fn: Callable[[float], None] = lambda share: None,
) -> UInt8[np.ndarray, "H W 3"]:
    """One formula as a byte picture of any size.

    Works in bands of rows, so beside the picture itself memory does not grow with its size.

    Args:
        formula: what to draw; the other arguments are `render`'s.
        height: H, pixels.
        width: W, pixels.
        z: the third coordinate.
        crunch: colours.
        smooth: plus-shaped blur.
        samples: n by n samples per pixel.
        max_length: capacity of its program; formulas of one capacity share compiled code. None:
            the next power of two.
        progress_fn: called with the share that is done, up to 1.0.

    Raises:
        InputError: as `render`, or a formula that does not parse.
    """
    check_settings(height, width, samples, crunch)
    expression = parse(formula) if isinstance(formula, str) else formula
    population = encode([expression], max_length=max_length or _rounded_capacity(len(expression)))
    rows = min(height, max(1, _BAND_POINTS // (width * samples**2)))
    halo = 1 if smooth else 0
    band_fn = partial(
        render_rows,
        num_rows=rows + 2 * halo,
        height=height,
        width=width,
        crunch=crunch,
        samples=samples,
    )
    picture = np.empty((height, width, 3), np.uint8)
    for first in range(0, height, rows):
        band = band_fn(population, jnp.float32(z), jnp.int32(first - halo))
        if smooth:
            inside = np.arange(first - 1, first + rows + 1)
            band = smooth_plus(band, (inside >= 0) & (inside < height))[:, 1:-1]
        last = min(height, first + rows)
        picture[first:last] = to_bytes(band[0, : last - first])
        progress_fn(last / height)
    return picture


def to_bytes(images: Float[Array, "..."]) -> UInt8[np.ndarray, "..."]:
    """Colours in [0, 1] as bytes, rounded as the original rounds: floor(255 v + 0.5)."""
    values = np.clip(np.asarray(images, np.float32), 0, 1)
    return np.floor(values * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _rounded_capacity(length: int) -> int:
    """The next power of two, so that formulas of many lengths share compiled code."""
    return max(16, 1 << (length - 1).bit_length())
