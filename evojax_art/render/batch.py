"""From formulas to pictures: the pixel grid, colours, smoothing, supersampling.

The grid is the original's: for a picture of W by H pixels and m = min(W, H), column c and row r
(row 0 at the top) stand for x = (c - W/2) / m and y = (r - H/2) / m. Colours are the crunched
components: red from i, green from j, blue from k. `samples=n` averages n by n crunched samples,
spread evenly over the pixel and centred on that point.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt32

from evojax_art.interpreter import reference
from evojax_art.interpreter.api import interpret, tile_size
from evojax_art.language.ops import Crunch, Keep
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program, to_expressions
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering.tape import LANES, Tape
from evojax_art.render.look import Look, Raster
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import BEST, Plan, current_plan

_BLUR = tuple(math.exp(-2 * (distance + 0.001) / 1.001) for distance in (0, 1))


def evaluate(
    population: Program,
    height: int = 32,
    width: int = 32,
    z: float | Float[Array, ""] = 0.0,
    *,
    implementation: str = BEST,
    images: Sequence[Pyramid] = (),
    plan: Plan | None = None,
) -> Float[Array, "P H W 4"] | Float[np.ndarray, "P H W 4"]:
    """The quaternion (e, i, j, k) of every formula at every pixel.

    Float32 on the device, or float64 NumPy with `implementation="reference"`, the specification.
    Non-finite values are returned as they come. All else is as for `render`.

    Raises:
        InputError: sizes below 1, or an unknown implementation.
    """
    raster = Raster(height=height, width=width)
    if implementation == "reference":
        rows, columns = np.mgrid[:height, : _row_length(width, images)]
        shorter = min(height, width)
        at = Coordinates(
            (columns - width / 2) / shorter,
            (rows - height / 2) / shorter,
            np.full(rows.shape, float(z)),
        )
        values = [reference.evaluate(item, at, images) for item in to_expressions(population)]
        return np.stack([np.stack(value, axis=-1) for value in values])[:, :, :width]
    plan = plan or current_plan(population, implementation=implementation)
    with plan.on_device():
        return _evaluate(population, jnp.float32(z), tuple(images), raster, plan)


def render(
    population: Program,
    height: int = 32,
    width: int = 32,
    z: float | Float[Array, ""] = 0.0,
    crunch: Crunch = "sigmoid",
    smooth: bool = False,
    *,
    samples: int = 1,
    implementation: str = BEST,
    dtype: DTypeLike = jnp.float32,
    images: Sequence[Pyramid] = (),
    plan: Plan | None = None,
) -> Float[Array, "P H W 3"]:
    """The picture of every formula, RGB in [0, 1]; finite whatever a formula does.

    Args:
        population: P programs.
        height: H, pixels.
        width: W, pixels.
        z: the third coordinate, time in a movie.
        crunch: "sigmoid", or "1995" for the original's colours (black beyond +-30).
        smooth: the original's plus-shaped blur over a pixel and its four neighbours.
        samples: n by n samples per pixel, 1 to 64.
        implementation: of the interpreter: "native" (CPU), "pallas" (GPU, Hopper and newer; on a
            CPU simulated, for tests), "xla" (plain JAX, anywhere), or "best".
        dtype: of the result, as a network may take it; the arithmetic is float32.
        images: pictures that formulas read, see `images`: the first is `image1`, and so on. The
            leaf of one that is not there is 0.
        plan: where and how all is computed, the implementation included; None: `current_plan`.

    Raises:
        InputError: a size, samples or z out of range, an unknown crunch or implementation.
    """
    return render_population(
        population,
        Look(z=z, crunch=crunch, smooth=smooth),
        Raster(height=height, width=width, samples=samples),
        implementation=implementation,
        dtype=dtype,
        images=images,
        plan=plan,
    )


def render_population(
    population: Program,
    look: Look,
    raster: Raster,
    *,
    implementation: str = BEST,
    dtype: DTypeLike = jnp.float32,
    images: Sequence[Pyramid] = (),
    plan: Plan | None = None,
) -> Float[Array, "P H W 3"]:
    """`render`, of what is drawn alike.

    Args:
        population: P programs.
        look: of all of them; z may be traced.
        raster: H by W pixels, without a crop.
        implementation: of the interpreter, as for `render`.
        dtype: of the result; the arithmetic is float32.
        images: pictures that formulas read.
        plan: where and how; None: `current_plan`.

    Raises:
        InputError: a crop, or an unknown implementation.
    """
    if raster.crop:
        raise InputError("parts of pictures are drawn one formula at a time, by render_large")
    plan = plan or current_plan(population, implementation=implementation)
    with plan.on_device():
        look = replace(look, z=jnp.float32(look.z))
        return _render(population, look, tuple(images), raster, plan, jnp.dtype(dtype))


@jax.jit
def smooth_plus(
    images: Float[Array, "P H W 3"],
    row_inside: Array | np.ndarray | None = None,
    column_inside: Array | np.ndarray | None = None,
) -> Float[Array, "P H W 3"]:
    """The original's blur: each pixel with its four edge neighbours, weighted 0.998 to 0.135.

    Args:
        images: pictures, or parts of them.
        row_inside: [H] bool, rows that belong to the picture; None means all. Neighbours outside
            the picture do not count.
        column_inside: [W] bool, columns that belong to it.
    """
    height, width = images.shape[1:3]
    rows = jnp.ones(height, bool) if row_inside is None else jnp.asarray(row_inside)
    columns = jnp.ones(width, bool) if column_inside is None else jnp.asarray(column_inside)
    weight = (rows[:, None, None] & columns[:, None]).astype(images.dtype)
    centre, neighbour = _BLUR

    def plus(field: Array) -> Array:
        padded = jnp.pad(field, ((0, 0), (1, 1), (1, 1), (0, 0)))
        around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2]
        return centre * field + neighbour * (around + padded[:, 1:-1, 2:])

    return plus(images * weight) / plus(weight[None])


@partial(jax.jit, static_argnames=("raster", "plan"))
def _evaluate(population, z, images, raster, plan):
    return _pictures(population, z, images, raster, "raw", plan, jnp.float32)


@partial(jax.jit, static_argnames=("raster", "plan", "dtype"))
def _render(population, look, images, raster, plan, dtype):
    result_dtype = jnp.float32 if look.smooth else dtype
    drawn = (look.z, images, raster, look.crunch, plan, result_dtype)
    pictures = _pictures(population, *drawn)
    return smooth_plus(pictures).astype(dtype) if look.smooth else pictures


def _pictures(
    population: Program,
    z: Float[Array, ""],
    images: tuple[Pyramid, ...],
    raster: Raster,
    kept: Keep,
    plan: Plan,
    dtype: DTypeLike,
) -> Float[Array, "P H W C"]:
    """What is kept of the formulas' values, the mean of every pixel's samples."""
    row_length = _row_length(raster.width, images)
    tile = tile_size(population, plan, images)
    shape = _tile_shape(raster.height * row_length, raster.samples, tile)
    index = jnp.arange(math.prod(shape)).reshape(shape)
    columns, rows = index % row_length, index // row_length
    at = pixel_coordinates(columns, rows, z, raster)
    values = interpret(
        population, at, kept, raster.samples**2, plan=plan, dtype=dtype, images=images
    )
    pixels = values[:, : raster.height * row_length]  # the last tile may reach beyond the picture
    pictures = pixels.reshape(len(pixels), raster.height, row_length, -1)
    return pictures[:, :, : raster.width]


@partial(jax.jit, static_argnames=("raster", "separately", "plan"))
def render_pixels(
    population: Program | Tape,
    look: Look,
    raster: Raster,
    columns: Int[Array, "N"],
    rows: Int[Array, "N"],
    images: tuple[Pyramid, ...] = (),
    separately: bool = False,
    plan: Plan | None = None,
) -> Float[Array, "P N S 3"]:
    """The colours of any pixels of every formula's picture, not smoothed.

    Args:
        population: P programs, or their tapes.
        look: of all of them.
        raster: of the whole picture, which says where its pixels are.
        columns: of the pixels, in any order; may lie outside the picture, as may rows. Where there
            are images, pairs of pixels must be neighbours in a row (see `images`).
        rows: of the same pixels.
        images: pictures that formulas read.
        separately: every sample's colour, S = samples**2; else their mean, S = 1.
        plan: where and how; None: `current_plan`.
    """
    plan = plan or current_plan()
    num_pixels, num_samples = len(columns), raster.samples**2
    shape = _tile_shape(num_pixels, raster.samples, tile_size(population, plan, images))

    def tiled(numbers: Int[Array, "N"]) -> Int[Array, "T 1 D"]:
        return jnp.pad(numbers, (0, math.prod(shape) - num_pixels)).reshape(shape)

    at = pixel_coordinates(tiled(columns), tiled(rows), look.z, raster)
    kept = interpret(
        population,
        at,
        look.crunch,
        num_samples,
        plan=plan,
        images=images,
        separately=separately,
    )
    num_tiles, _, depth = shape
    by_sample = kept.reshape(len(kept), num_tiles, -1, depth, 3).swapaxes(2, 3)
    return by_sample.reshape(len(kept), num_tiles * depth, -1, 3)[:, :num_pixels]


def pixel_coordinates(
    columns: Int[Array, "T 1 D"],
    rows: Int[Array, "T 1 D"],
    z: float | Float[Array, ""],
    raster: Raster,
) -> Coordinates:
    """Where the samples of some pixels lie in the formulas' plane, each [T, SD].

    Args:
        columns: of the pixels.
        rows: of the pixels.
        z: of all of them.
        raster: of the whole picture.
    """
    # Whole numbers up to here, so that the only rounding is the division's.
    columns, rows = sample_points(columns, rows, raster.samples, raster.jitter)
    shorter = 2 * min(raster.height, raster.width)
    x, y = (columns - raster.width) / shorter, (rows - raster.height) / shorter
    return Coordinates(x, y, jnp.broadcast_to(z, x.shape))


def sample_points(
    columns: Int[Array, "T 1 D"], rows: Int[Array, "T 1 D"], samples: int, jitter: bool = False
) -> tuple[Float[Array, "T SD"], Float[Array, "T SD"]]:
    """Column and row, in half pixels, of every sample of some pixels: first samples first.

    A pixel is n by n cells with a sample in the middle of each, or with `jitter` at a place that is
    a hash of column, row and cell: the same in every picture, part of one, and run.
    """
    step = 2 / samples  # a cell's side, in half pixels
    offset = (2 * np.arange(samples) - (samples - 1)) / samples
    across, down = (
        jnp.asarray(field.reshape(1, -1, 1), jnp.float32) for field in np.meshgrid(offset, offset)
    )
    if jitter:
        cells = jnp.arange(samples**2, dtype=jnp.uint32).reshape(1, -1, 1)
        first, second = _hash(columns.astype(jnp.uint32), rows.astype(jnp.uint32), cells)
        across, down = across + step * first, down + step * second
    points_of = (2 * columns + across, 2 * rows + down)
    return points_of[0].reshape(len(columns), -1), points_of[1].reshape(len(columns), -1)


def _hash(*numbers: UInt32[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Two numbers in [-1/2, 1/2) from three integers.

    PCG3D of Jarzynski and Olano, Hash Functions for GPU Rendering (2020): a tenth of Threefry's
    time, which on a CPU would be as long as interpreting takes.
    """
    a, b, c = (number * np.uint32(1664525) + np.uint32(1013904223) for number in numbers)
    for shift in (16, 0):
        a = a + b * c
        b = b + c * a
        c = c + a * b
        if shift:
            a, b, c = (number ^ (number >> shift) for number in (a, b, c))
    first, second = ((number >> 8).astype(jnp.float32) * 2.0**-24 - 0.5 for number in (a, b))
    return first, second


def _row_length(width: int, images: Sequence[Pyramid]) -> int:
    """Of rows as they are laid out: even where pairs of points must be neighbours in one."""
    return width + width % 2 if images else width


def _tile_shape(num_pixels: int, samples: int, tile: int) -> tuple[int, int, int]:
    """T tiles of D pixels, together no fewer than there are: (T, 1, D)."""
    pixels_per_tile = min(tile // samples**2, num_pixels)
    pixels_per_tile = max(1, -(-pixels_per_tile // LANES)) * LANES
    return -(-num_pixels // pixels_per_tile), 1, pixels_per_tile
