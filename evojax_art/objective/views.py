"""Views: other ways to see a picture, so that none of its merits hangs on where its pixels lie.

What one network sees in a picture, another mostly does not, and neither does the same network once
the picture is moved by half a pixel. A picture that is judged in several views has to be what it is
wanted to be in all of them. A view may be seen at half the size, as its formula would be drawn
there with one sample a pixel or with four; then it is moved, scaled and turned, mirrored beyond its
edges; then blurred; then made brighter or darker.

The same views are for all pictures of a generation, so that pictures compete and not views.

A formula can also be drawn at other sizes. These are no random views: a picture has to be what it
is wanted to be at every size, and is drawn there only where no other size has ruled it out.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from evojax_art.runtime.errors import InputError

_PLAIN, _DECIMATED, _AVERAGED = range(3)  # grains


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Random views that pictures are judged in, besides as they are.

    Attributes:
        count: of random views in every generation, the same for all its pictures; 0 for none.
        join: "mean" of the logarithms of the scores in them, or the "least" of these.
        shift: of a picture, at most, as a share of its sides.
        scale: of it, at most; 0.1 makes it larger or smaller by up to a tenth.
        turn: of it, at most, in degrees.
        blur: standard deviation of the blur, at most, in pixels.
        brightness: factor and offset of the colours, at most; 0.1 makes a tenth of difference.
        coarse: share of the views that are seen at half the size, every other of them by leaving
            pixels out, as one sample a pixel would draw them.
        sizes: other heights and widths, pixels, at which formulas are drawn besides, in this order,
            and networks look again; what each is least sure of counts.
    """

    count: int = 0
    join: Literal["mean", "least"] = "mean"
    shift: float = 0.05
    scale: float = 0.1
    turn: float = 5.0
    blur: float = 1.0
    brightness: float = 0.1
    coarse: float = 0.5
    sizes: tuple[int, ...] = ()

    def __post_init__(self):
        for name, most in (
            ("count", 64),
            ("shift", 0.5),
            ("scale", 0.9),
            ("turn", 180),
            ("blur", 4),
            ("brightness", 1),
            ("coarse", 1),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise InputError(f"views.{name} must be 0 to {most}, got {value:g}")
        for size in self.sizes:
            if not 16 <= size <= 2048:
                raise InputError(f"views.sizes must be 16 to 2048, got {size}")

    @property
    def are_more(self) -> bool:
        """Whether networks see more of a formula than one picture."""
        return bool(self.count or self.sizes)


class Views(NamedTuple):
    """K ways to see a picture.

    Attributes:
        shift: down and to the right, as shares of height and width.
        log_scale: above 0, what is seen is larger than the picture.
        turn: radians.
        blur: standard deviation, pixels.
        gain: added to a factor of 1.
        offset: added to the colours.
        grain: 0 as it is, 1 every second pixel in a row, 2 the mean of two by two.
    """

    shift: Float[Array, "K 2"]
    log_scale: Float[Array, "K"]
    turn: Float[Array, "K"]
    blur: Float[Array, "K"]
    gain: Float[Array, "K"]
    offset: Float[Array, "K"]
    grain: Int[Array, "K"]


def draw_views(key: Key[Array, ""], config: ViewsConfig) -> Views:
    """Random views, evenly within the settings' bounds; consumes the key."""
    keys, count = jax.random.split(key, 7), config.count

    def evenly(key: Key[Array, ""], most: float, *axes: int) -> Array:
        return most * jax.random.uniform(key, (count, *axes), minval=-1.0)

    grain = jax.random.uniform(keys[6], (count,))
    coarse = jnp.where(grain < config.coarse / 2, _DECIMATED, _AVERAGED)
    return Views(
        shift=evenly(keys[0], config.shift, 2),
        log_scale=evenly(keys[1], math.log1p(config.scale)),
        turn=evenly(keys[2], math.radians(config.turn)),
        blur=jnp.abs(evenly(keys[3], config.blur)),
        gain=evenly(keys[4], config.brightness),
        offset=evenly(keys[5], config.brightness / 2),
        grain=jnp.where(grain < config.coarse, coarse, _PLAIN),
    )


def view(
    images: Float[Array, "P H W 3"], views: Views, config: ViewsConfig
) -> Float[Array, "K P H W 3"]:
    """Pictures in [0, 1] as each view shows them; differentiable.

    Args:
        images: of any size.
        views: how to see them.
        config: whose bounds they keep; what these rule out is not computed.
    """
    count, height, width, _ = images.shape
    grains = _grains(images) if config.coarse else images[None]
    # All pictures are read at the same places: the colours of a place are one row.
    seen = _moved(grains.transpose(0, 2, 3, 1, 4).reshape(-1, height, width, count * 3), views)
    if config.blur:
        seen = _blurred(seen, views.blur, math.ceil(2 * config.blur))
    if config.brightness:
        gain, offset = (t[:, None, None, None] for t in (views.gain, views.offset))
        seen = jnp.clip(seen * (1 + gain) + offset, 0, 1)
    seen = seen.reshape(-1, height, width, count, 3).transpose(0, 3, 1, 2, 4)
    return seen.astype(images.dtype)


def _grains(images: Float[Array, "P H W 3"]) -> Float[Array, "3 P H W 3"]:
    """The pictures as they are, and at half the size in two ways, each pixel drawn four times."""

    def taken(images: Array, axis: int, second: int) -> Array:
        size = images.shape[axis]
        place = jnp.arange(size) // 2 * 2 + second
        return jnp.take(images, jnp.minimum(place, size - 1), axis)

    def mean(images: Array, axis: int) -> Array:
        return (taken(images, axis, 0) + taken(images, axis, 1)) / 2

    decimated = taken(taken(images, 1, 0), 2, 0)
    return jnp.stack([images, decimated, mean(mean(images, 1), 2)])


def _moved(grains: Float[Array, "G H W C"], views: Views) -> Float[Array, "K H W C"]:
    """Between neighbouring pixels, linearly."""
    num_grains, height, width, _ = grains.shape
    flat = grains.reshape(num_grains * height * width, -1)
    down = (jnp.arange(height) + 0.5) / height - 0.5
    right = (jnp.arange(width) + 0.5) / width - 0.5
    aspect = width / height
    cosine, sine = jnp.cos(views.turn), jnp.sin(views.turn)
    smaller = jnp.exp(-views.log_scale)

    def places(view: Array, first: Array, second: Array, size: int) -> Array:
        """[K, H, W] in pixels, of the first coordinate."""
        turned = first + second
        source = turned * smaller[:, None, None] - view[:, None, None]
        return (source + 0.5) * size - 0.5

    across = cosine[:, None, None], sine[:, None, None]
    rows = places(
        views.shift[:, 0],
        across[0] * down[:, None],
        across[1] * right * aspect,
        height,
    )
    columns = places(
        views.shift[:, 1],
        across[0] * right,
        -across[1] * down[:, None] / aspect,
        width,
    )
    top, left = jnp.floor(rows), jnp.floor(columns)
    below, beyond = (rows - top)[..., None], (columns - left)[..., None]
    grain = views.grain if num_grains > 1 else jnp.zeros_like(views.grain)
    base = (grain * height * width)[:, None, None]

    def pixel(row: Array, column: Array) -> Array:
        place = _mirrored(row, height) * width + _mirrored(column, width)
        return flat[base + place]

    seen = (1 - below) * ((1 - beyond) * pixel(top, left) + beyond * pixel(top, left + 1))
    lower = (1 - beyond) * pixel(top + 1, left) + beyond * pixel(top + 1, left + 1)
    return seen + below * lower


def _mirrored(place: Array, size: int) -> Int[Array, "..."]:
    """Places beyond the edges as those within, each edge's pixel twice."""
    wrapped = jnp.mod(place.astype(jnp.int32), 2 * size)
    return jnp.minimum(wrapped, 2 * size - 1 - wrapped)


def _blurred(
    seen: Float[Array, "K H W C"], deviation: Float[Array, "K"], radius: int
) -> Float[Array, "K H W C"]:
    """By a Gaussian of each view's own width, edges drawn out."""
    offsets = jnp.arange(-radius, radius + 1)
    narrow = jnp.maximum(deviation, 1e-3)[:, None]
    weights = jax.nn.softmax(-((offsets / narrow) ** 2) / 2, axis=1)
    for axis in (1, 2):
        size = seen.shape[axis]
        pads = [(radius, radius) if axis == other else (0, 0) for other in range(4)]
        padded = jax.lax.optimization_barrier(jnp.pad(seen, pads, mode="edge"))
        seen = jnp.zeros_like(seen)
        for number in range(2 * radius + 1):
            shifted = jax.lax.slice_in_dim(padded, number, number + size, axis=axis)
            seen += weights[:, number, None, None, None] * shifted
    return seen
