"""What happens to photographs before a network learns from them, on the device.

The networks judge drawings, so they must not be impressed by static, banding or a colour cast:
noise, blur and colour shifts stand beside the usual flips, shifts and cut-outs.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evojax_art.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How strongly photographs are changed; 0 switches a change off.

    Attributes:
        shift: pixels, up to which a photograph moves in each direction, its edge reflected.
        cutout: height and width of a grey square anywhere.
        cutout_share: of the photographs that get one.
        colour: largest change of contrast, saturation and each channel's level.
        colour_share: of the photographs whose colours change.
        blur_share: of the photographs that are blurred, by up to the 3x3 binomial kernel.
        noise: largest standard deviation of Gaussian noise.
        noise_share: of the photographs that get noise.
    """

    shift: int = 4
    cutout: int = 8
    cutout_share: float = 0.5
    colour: float = 0.25
    colour_share: float = 0.5
    blur_share: float = 0.25
    noise: float = 0.15
    noise_share: float = 0.4

    def __post_init__(self):
        for name in ("cutout_share", "colour_share", "blur_share", "noise_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation.{name} must be 0 to 1, got {getattr(self, name)}")
        for name in ("shift", "cutout", "colour", "noise"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"augmentation.{name} must be 0 or more, got {getattr(self, name)}"
                )


def augment(
    key: Array, images: Float[Array, "P H W 3"], config: AugmentationConfig
) -> Float[Array, "P H W 3"]:
    """Changed photographs, in [0, 1]; every one draws its own changes. Consumes `key`."""
    keys = jax.random.split(key, 6)
    images = _flip(keys[0], images)
    if config.shift:
        images = _shift(keys[1], images, config.shift)
    images = _recolour(keys[2], images, config)
    images = _blur(keys[3], images, config.blur_share)
    images = _add_noise(keys[4], images, config)
    if config.cutout:
        images = _cut_out(keys[5], images, config)
    return images


def _flip(key: Array, images: Array) -> Array:
    flipped = _chosen(key, len(images), 0.5)
    return jnp.where(flipped, images[:, :, ::-1], images)


def _shift(key: Array, images: Array, pixels: int) -> Array:
    padding = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, padding, mode="reflect")
    starts = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)

    def window(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(window)(padded, starts)


def _recolour(key: Array, images: Array, config: AugmentationConfig) -> Array:
    choose_key, key = jax.random.split(key)
    shape = (len(images), 1, 1, 5)
    change = jax.random.uniform(key, shape, minval=-config.colour, maxval=config.colour)
    saturation, contrast, level = jnp.split(change, (1, 2), axis=-1)
    grey = images.mean(axis=-1, keepdims=True)
    changed = grey + (1 + saturation) * (images - grey)
    middle = changed.mean(axis=(1, 2, 3), keepdims=True)
    changed = middle + (1 + contrast) * (changed - middle) + level / 2
    chosen = _chosen(choose_key, len(images), config.colour_share)
    return jnp.where(chosen, changed.clip(0, 1), images)


def _blur(key: Array, images: Array, share: float) -> Array:
    choose_key, key = jax.random.split(key)
    amount = jax.random.uniform(key, (len(images), 1, 1, 1))
    amount = jnp.where(_chosen(choose_key, len(images), share), amount, 0.0)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    return images + amount * (blurred - images)


def _add_noise(key: Array, images: Array, config: AugmentationConfig) -> Array:
    choose_key, amount_key, key = jax.random.split(key, 3)
    amount = jax.random.uniform(amount_key, (len(images), 1, 1, 1), maxval=config.noise)
    amount = jnp.where(_chosen(choose_key, len(images), config.noise_share), amount, 0.0)
    return (images + amount * jax.random.normal(key, images.shape)).clip(0, 1)


def _cut_out(key: Array, images: Array, config: AugmentationConfig) -> Array:
    """DeVries and Taylor 2017, arXiv:1708.04552; the square may reach over the edge."""
    choose_key, centre_key, grey_key = jax.random.split(key, 3)
    height, width = images.shape[1:3]
    centre = jax.random.uniform(centre_key, (len(images), 2)) * jnp.array((height, width))
    rows = jnp.abs(jnp.arange(height) + 0.5 - centre[:, :1]) < config.cutout / 2
    columns = jnp.abs(jnp.arange(width) + 0.5 - centre[:, 1:]) < config.cutout / 2
    square = (rows[:, :, None] & columns[:, None, :])[..., None]
    square &= _chosen(choose_key, len(images), config.cutout_share)
    return jnp.where(square, jax.random.uniform(grey_key, (len(images), 1, 1, 1)), images)


def _chosen(key: Array, number: int, share: float) -> Bool[Array, "P 1 1 1"]:
    return jax.random.bernoulli(key, float(share), (number, 1, 1, 1))
