"""Pictures that know how they would change with the constants of their formulas.

They are the pictures of `render`, to rounding: the same op table, grid, crunch and smoothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from evojax_art.interpreter.reverse import api as reverse
from evojax_art.interpreter.trace import trace
from evojax_art.language.formula import Expression
from evojax_art.language.ops import CONSTANT, Coordinates, crunch
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.render.batch import pixel_coordinates, sample_points, smooth_plus
from evojax_art.render.look import SceneConfig

ValueFn = Callable[..., Any]  # (population, at, images, samples) -> [P, 4, T]


def draw(
    population: Program,
    scene: SceneConfig,
    at: Coordinates,
    images: tuple[Pyramid, ...] = (),
    value_fn: ValueFn = reverse.interpret,
) -> Float[Array, "P S S 3"]:
    """Pictures of a population, differentiable in its constants.

    Args:
        population: P programs.
        scene: how they are drawn; its size must be settled.
        at: where, each [T] as `scene_points` gives them, or [P, T].
        images: pictures that formulas read.
        value_fn: evaluates the population: `reverse.interpret`, or `traced`.
    """
    count = population.length.shape[0]
    everywhere = Coordinates(*(jnp.broadcast_to(t, (count, t.shape[-1])) for t in at))
    value = value_fn(population, everywhere, images, scene.samples**2)
    colours = crunch(jnp, value[:, 1:], scene.crunch)
    pixels = colours.reshape(count, 3, scene.samples**2, -1).mean(axis=2)
    pictures = pixels.transpose(0, 2, 1).reshape(count, scene.size, scene.size, 3)
    return smooth_plus(pictures) if scene.smooth else pictures


def traced(expression: Expression) -> ValueFn:
    """Evaluates copies of one formula whose constants differ, by its straight-line trace."""
    places = [n for n, (op, _) in enumerate(expression.postfix) if op.opcode == CONSTANT]

    def value(population: Program, at: Coordinates, images: tuple[Pyramid, ...], samples: int):
        trace_fn = trace(expression, images, samples)
        constants = population.constant[:, jnp.array(places, int)]
        return jnp.stack(jax.vmap(trace_fn)(constants, at), axis=1)

    return value


def scene_points(scene: SceneConfig) -> Coordinates:
    """Coordinates of all samples: the first of every pixel, then the second, and so on."""
    index = jnp.arange(scene.size**2).reshape(1, 1, -1)
    points = sample_points(index % scene.size, index // scene.size, scene.samples)
    at = pixel_coordinates(points, jnp.float32(scene.z), scene.size, scene.size)
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
