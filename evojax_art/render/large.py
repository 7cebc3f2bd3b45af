"""Pictures of any size: bands of rows, jittered and adaptive supersampling, parts of a picture.

A pixel's colour depends on its column and row in the whole picture alone, so bands, parts and the
whole agree. Pixels are drawn in batches of one size, whichever they are: one compilation serves a
picture.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt16

from evojax_art.interpreter.api import lower_all
from evojax_art.language.formula import Expression, check_images, parse
from evojax_art.language.ops import Crunch
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import encode
from evojax_art.render.batch import smooth_plus
from evojax_art.render.look import Crop, Look, Raster
from evojax_art.render.pixels import FIRST_LOOK, Chunks, Drawer, inside
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan, current_plan


def render_large(
    formula: str | Expression,
    height: int,
    width: int,
    z: float = 0.0,
    crunch: Crunch = "sigmoid",
    smooth: bool = False,
    *,
    samples: int = 1,
    jitter: bool = False,
    adaptive: float = 0.0,
    crop: Crop | None = None,
    bits: Literal[8, 16] = 8,
    max_length: int | None = None,
    progress_fn: Callable[[float], None] = lambda share: None,
    images: Sequence[Pyramid] = (),
    plan: Plan | None = None,
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]:
    """One formula as a picture of whole numbers, of any size or part of it.

    Beside the picture itself memory does not grow with its size; `render_bands` does without it.

    Args:
        formula: what to draw.
        height: H, pixels.
        width: W, pixels.
        z: the third coordinate.
        crunch: colours.
        smooth: plus-shaped blur.
        samples: n by n samples per pixel.
        jitter: samples at random places.
        adaptive: full samples only where the first differ by more than this, see `render_bands`.
        crop: left, top, width and height to draw, which are then the result's.
        bits: of a channel.
        max_length: capacity of its program; formulas of one capacity share compiled code. None:
            the next power of two.
        progress_fn: called with the share that is done, up to 1.0.
        images: pictures that the formula reads, see `images`.
        plan: where and how; None: `current_plan`.

    Raises:
        InputError: a setting out of its range, or a formula that does not parse or reads a picture
            that is not there.
    """
    return render_picture(
        formula,
        Look(z=z, crunch=crunch, smooth=smooth),
        Raster(height=height, width=width, samples=samples, jitter=jitter, crop=crop),
        adaptive=adaptive,
        bits=bits,
        max_length=max_length,
        progress_fn=progress_fn,
        images=images,
        plan=plan,
    )


def render_picture(
    formula: str | Expression,
    look: Look,
    raster: Raster,
    *,
    bits: Literal[8, 16] = 8,
    **settings: Any,
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]:
    """`render_bands` in one piece, as whole numbers.

    Args:
        formula: what to draw.
        look: of it.
        raster: its pixels.
        bits: of a channel.
        **settings: as for `render_bands`.

    Raises:
        InputError: as for `render_bands`.
    """
    _, _, width, height = raster.part
    picture = np.empty((height, width, 3), np.uint8 if bits == 8 else np.uint16)
    first = 0
    for band in render_bands(formula, look, raster, **settings):
        picture[first : first + len(band)] = to_bytes(band, bits)
        first += len(band)
    return picture


def render_bands(
    formula: str | Expression,
    look: Look,
    raster: Raster,
    *,
    adaptive: float = 0.0,
    max_length: int | None = None,
    progress_fn: Callable[[float], None] = lambda share: None,
    images: Sequence[Pyramid] = (),
    chunks: Chunks = Chunks(),
    plan: Plan | None = None,
) -> Iterator[Float[np.ndarray, "R W 3"]]:
    """The colours of a picture in [0, 1], some rows at a time, from the top.

    Args:
        formula: what to draw.
        look: of it.
        raster: its pixels.
        adaptive: in [0, 1); where 2 by 2 samples of a pixel differ by no more than this in any
            channel, and neither does their mean from that of the four pixels around it, that mean
            is taken for the colour. 0: every pixel gets all samples.
        max_length: capacity of its program; None: the next power of two.
        progress_fn: called with the share that is done, up to 1.0.
        images: pictures that the formula reads, see `images`.
        chunks: how the work is cut up.
        plan: where and how; None: `current_plan`.

    Raises:
        InputError: `adaptive` out of its range or with too few samples, a formula that does not
            parse, or reads a picture that is not there; at once.
    """
    if not 0 <= adaptive < 1:
        raise InputError(f"adaptive must be at least 0 and below 1, got {adaptive}")
    if adaptive and raster.samples <= FIRST_LOOK:
        raise InputError(
            f"adaptive sampling looks at 2 by 2 samples first: samples must be 3 or more, "
            f"got {raster.samples}"
        )
    expression = parse(formula) if isinstance(formula, str) else formula
    check_images(expression, len(images))
    population = encode([expression], max_length=max_length or _rounded_capacity(len(expression)))
    plan = plan or current_plan(population)
    with plan.on_device():
        # Lowered once, because compiling that takes longer than all else.
        tapes = _lower(population, plan)
    drawer = Drawer(tapes, look, raster, adaptive, tuple(images), chunks, plan)
    return _bands(drawer, progress_fn)


def _bands(
    drawer: "Drawer", progress_fn: Callable[[float], None]
) -> Iterator[Float[np.ndarray, "R W 3"]]:
    """`render_bands`, once all is known."""
    raster, chunks = drawer.raster, drawer.chunks
    refined, smoothed = drawer.adaptive > 0, drawer.look.smooth
    halo = int(refined) + int(smoothed)  # pixels around a band that have a say in its colours
    left, top, width, height = raster.part
    columns = np.arange(left - halo, left + width + halo, dtype=np.int32)
    num_bands = -(-height // max(chunks.least_rows, chunks.band_pixels // width))
    num_rows = -(-height // num_bands)  # of every band, so that one compilation serves all
    for number in range(num_bands):
        first = number * num_rows
        rows = np.arange(top + first - halo, top + first + num_rows + halo, dtype=np.int32)

        def done_fn(share: float, number: int = number) -> None:
            progress_fn((number + share) / num_bands)

        draw_fn = drawer.adaptively if refined else drawer.fully
        band = draw_fn(columns, rows, done_fn)
        if smoothed:
            edge = slice(int(refined), -int(refined) or None)
            within = inside(rows[edge], raster.height), inside(columns[edge], raster.width)
            band = np.asarray(smooth_plus(band[None], *within))[0, 1:-1, 1:-1]
        yield band[: height - first]


def to_bytes(
    images: Float[Array, "..."] | Float[np.ndarray, "..."], bits: Literal[8, 16] = 8
) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
    """Colours in [0, 1] as bytes, rounded as the original rounds: floor(255 v + 0.5).

    With `bits=16` as whole numbers up to 65535: floor(65535 v + 0.5).
    """
    most = np.float32((1 << bits) - 1)
    values = np.clip(np.asarray(images, np.float32), 0, 1)
    return np.floor(values * most + np.float32(0.5)).astype(np.uint8 if bits == 8 else np.uint16)


_lower = jax.jit(lower_all, static_argnames="plan")


def _rounded_capacity(length: int) -> int:
    """The next power of two, so that formulas of many lengths share compiled code."""
    return max(16, 1 << (length - 1).bit_length())
