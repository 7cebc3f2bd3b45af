"""Pictures that know how they would change with the constants of their formulas.

They are the pictures of `render`, to rounding: the same op table, grid, crunch and smoothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from evojax_art.interpreter.reverse import api as reverse
from evojax_art.language.ops import crunch
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Coordinates
from evojax_art.render.batch import pixel_coordinates, smooth_plus
from evojax_art.render.look import Look, Raster
from evojax_art.runtime.plan import Plan


def draw(
    population: Program,
    look: Look,
    raster: Raster,
    at: Coordinates,
    images: tuple[Pyramid, ...] = (),
    plan: Plan | None = None,
) -> Float[Array, "P H W 3"]:
    """Pictures of a population, differentiable in its constants.

    Args:
        population: P programs.
        look: their colours and smoothing; z is that of `at`.
        raster: H by W pixels, without a crop.
        at: where, each [T] as `raster_points` gives them, or [P, T].
        images: pictures that formulas read.
        plan: where and how; None: `current_plan`.
    """
    count = population.length.shape[0]
    everywhere = Coordinates(*(jnp.broadcast_to(t, (count, t.shape[-1])) for t in at))
    num_samples = raster.samples**2
    value = reverse.interpret(population, everywhere, images, num_samples, plan)
    colours = crunch(jnp, value[:, 1:], look.crunch)
    pixels = colours.reshape(count, 3, num_samples, -1).mean(axis=2)
    pictures = pixels.transpose(0, 2, 1).reshape(count, raster.height, raster.width, 3)
    return smooth_plus(pictures) if look.smooth else pictures


def raster_points(raster: Raster, z: float | Float[Array, ""]) -> Coordinates:
    """Coordinates of all samples, each [T]: the first of every pixel, then the second, and so on.

    Args:
        raster: where pixels are.
        z: of them all.
    """
    index = jnp.arange(raster.height * raster.width).reshape(1, 1, -1)
    columns, rows = index % raster.width, index // raster.width
    at = pixel_coordinates(columns, rows, jnp.float32(z), raster)
    return Coordinates(*(t[0] for t in at))


def moved(
    key: Key[Array, ""],
    at: Coordinates,
    count: int,
    shift: float | Array,
    scale: float | Array,
    turn: float | Array,
) -> Coordinates:
    """The points of `count` cameras that are a little beside the first, which stays.

    What looks right from all of them is no accident of the pixel grid. These are the random
    transformations of feature visualisation (Olah et al. 2017), applied to the coordinates, so
    nothing is resampled.

    Args:
        key: consumed.
        at: coordinates, each [T].
        count: cameras.
        shift: standard deviation, as a share of the picture's shorter side.
        scale: of the logarithm of the size.
        turn: of the angle, in degrees.
    """
    x_shift, y_shift, size, angle = (
        jax.random.normal(key, (4, count, 1)) * (jnp.arange(count) > 0)[:, None]
    )
    size, angle = jnp.exp(scale * size), jnp.deg2rad(turn) * angle
    cos, sin = size * jnp.cos(angle), size * jnp.sin(angle)
    x = cos * at.x - sin * at.y + shift * x_shift
    y = sin * at.x + cos * at.y + shift * y_shift
    return Coordinates(x, y, jnp.broadcast_to(at.z, x.shape))
