"""Pictures of any size: bands of rows, jittered and adaptive supersampling, parts of a picture.

A pixel's colour depends on its column and row in the whole picture alone, so bands, parts and the
whole agree. Pixels are drawn in batches of one size, whichever they are: one compilation serves a
picture.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt16

from evojax_art.interpreter.api import lower_all
from evojax_art.language.formula import Expression, check_images, parse
from evojax_art.language.ops import Crunch
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import encode
from evojax_art.lowering.tape import LANES, Tape
from evojax_art.render.batch import render_pixels, smooth_plus
from evojax_art.render.look import Crop, Look, Raster
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan, current_plan

_FIRST_LOOK = 2  # samples, squared, by which adaptive sampling chooses pixels

_Pixels = tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]  # their columns and rows


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How the drawing of a picture is cut up; nothing of it shows in the picture.

    Attributes:
        band_pixels: of a band, and of what is held in memory.
        least_rows: of a band, so that its borders, which may be drawn twice, stay a small part.
        batch_points: drawn by one call of compiled code,
        due_points: and where there are as many pixels as turn out to be due.
    """

    band_pixels: int = 1 << 20
    least_rows: int = 8
    batch_points: int = 1 << 20
    due_points: int = 1 << 17


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
    if adaptive and raster.samples <= _FIRST_LOOK:
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
    drawer = _Drawer(tapes, look, raster, adaptive, tuple(images), chunks, plan)
    return _bands(drawer, progress_fn)


def _bands(
    drawer: "_Drawer", progress_fn: Callable[[float], None]
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
            inside = _inside(rows[edge], raster.height), _inside(columns[edge], raster.width)
            band = np.asarray(smooth_plus(band[None], *inside))[0, 1:-1, 1:-1]
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


def _inside(numbers: Int[np.ndarray, "N"], size: int) -> Bool[np.ndarray, "N"]:
    return (numbers >= 0) & (numbers < size)


@dataclass(frozen=True)
class _Drawer:
    """Draws any pixels of one formula's picture, before it is smoothed."""

    tapes: Tape
    look: Look
    raster: Raster
    adaptive: float
    images: tuple[Pyramid, ...]
    chunks: Chunks
    plan: Plan

    def fully(
        self,
        columns: Int[np.ndarray, "W"],
        rows: Int[np.ndarray, "R"],
        done_fn: Callable[[float], None],
    ) -> Float[np.ndarray, "R W 3"]:
        """All samples of every pixel."""
        drawn, wanted = _in_pairs(columns, self.images)
        everywhere = _every(drawn, rows)
        batch = self._batch(len(everywhere[0]), self.raster.samples)
        colours = _drawn(self._mean, everywhere, 3, batch, done_fn)
        return colours.reshape(len(rows), len(drawn), 3)[:, wanted]

    def adaptively(
        self,
        columns: Int[np.ndarray, "W"],
        rows: Int[np.ndarray, "R"],
        done_fn: Callable[[float], None],
    ) -> Float[np.ndarray, "R-2 W-2 3"]:
        """A few samples of every pixel, and all of those that are due; none of the outermost."""
        raster = self.raster
        drawn, wanted = _in_pairs(columns, self.images)
        everywhere = _every(drawn, rows)
        batch = self._batch(len(everywhere[0]), _FIRST_LOOK)
        seen = _drawn(self._first_look, everywhere, 4, batch, lambda share: done_fn(share / 2))
        seen = seen.reshape(len(rows), len(drawn), 4)[:, wanted]
        inside = _inside(rows, raster.height), _inside(columns, raster.width)
        colours = seen[1:-1, 1:-1, :3]
        due = np.nonzero(np.asarray(_due(seen, *inside, self.adaptive)))
        where = columns[1:-1][due[1]], rows[1:-1][due[0]]
        wanted = slice(None)
        if self.images:  # a pixel's neighbour is drawn with it
            parity, pair = where[0] % 2, np.arange(2, dtype=np.int32)
            wanted = 2 * np.arange(len(parity)) + parity
            where = ((where[0] - parity)[:, None] + pair).ravel(), np.repeat(where[1], 2)
        points = 2 * raster.samples**2
        batch = max(LANES, self.chunks.due_points // points * 2)  # even, see `_in_pairs`
        refined = _drawn(self._mean, where, 3, batch, lambda share: done_fn((1 + share) / 2))
        colours[due] = refined[wanted]
        return colours

    def _batch(self, num_pixels: int, samples: int) -> int:
        """How many pixels to draw at a time, of so many."""
        num_batches = -(-num_pixels * samples**2 // self.chunks.batch_points)
        if num_batches == 1:  # the next power of two, so that small pictures share compiled code
            return max(LANES, 1 << (num_pixels - 1).bit_length())
        return max(LANES, -(-num_pixels // (2 * num_batches)) * 2)  # even, see `_in_pairs`

    def _mean(
        self, columns: Int[np.ndarray, "B"], rows: Int[np.ndarray, "B"]
    ) -> Float[Array, "B 3"]:
        """The colours of pixels."""
        return self._pixels(columns, rows, self.raster.samples)[:, 0]

    def _first_look(
        self, columns: Int[np.ndarray, "B"], rows: Int[np.ndarray, "B"]
    ) -> Float[Array, "B 4"]:
        """The mean of a few samples of pixels, and their range in the channel of the largest."""
        return _summary(self._pixels(columns, rows, _FIRST_LOOK, separately=True))

    def _pixels(
        self,
        columns: Int[np.ndarray, "B"],
        rows: Int[np.ndarray, "B"],
        samples: int,
        separately: bool = False,
    ) -> Float[Array, "B S 3"]:
        # Without what single pixels do not depend on, so that it asks for no other compilation.
        look = replace(self.look, z=jnp.float32(self.look.z), smooth=False)
        raster = replace(self.raster, samples=samples, crop=None)
        where = jnp.asarray(columns), jnp.asarray(rows)
        given = (self.tapes, look, raster, *where, self.images, separately, self.plan)
        with self.plan.on_device():
            return render_pixels(*given)[0]


def _in_pairs(
    columns: Int[np.ndarray, "W"], images: tuple[Pyramid, ...]
) -> tuple[Int[np.ndarray, "V"], slice]:
    """The columns to draw, and which of these are wanted.

    For images those are pairs of an even and an odd column, so that a pixel has the same
    neighbour in every part of a picture.
    """
    if not images:
        return columns, slice(None)
    before = int(columns[0]) % 2
    drawn = np.arange(columns[0] - before, (columns[-1] | 1) + 1, dtype=np.int32)
    return drawn, slice(before, before + len(columns))


def _every(columns: Int[np.ndarray, "W"], rows: Int[np.ndarray, "R"]) -> _Pixels:
    return np.tile(columns, len(rows)), np.repeat(rows, len(columns))


def _drawn(
    draw_fn: Callable[[Int[np.ndarray, "B"], Int[np.ndarray, "B"]], Float[Array, "B C"]],
    pixels: _Pixels,
    num_channels: int,
    batch: int,
    done_fn: Callable[[float], None],
) -> Float[np.ndarray, "N C"]:
    """Calls `draw_fn` for batches of pixels; while it draws one, the last is fetched."""
    num_pixels = len(pixels[0])
    colours = np.empty((num_pixels, num_channels), np.float32)
    starts = range(0, num_pixels, batch)
    ahead = None
    for start in starts:
        part = [numbers[start : start + batch] for numbers in pixels]
        some_columns, some_rows = (np.pad(item, (0, batch - len(item))) for item in part)
        drawing = draw_fn(some_columns, some_rows)
        if ahead is not None:
            colours[start - batch : start] = ahead
            done_fn(start / num_pixels)
        ahead = drawing
    if ahead is not None:
        colours[starts[-1] :] = np.asarray(ahead)[: num_pixels - starts[-1]]
    done_fn(1.0)
    return colours


@jax.jit
def _summary(samples: Float[Array, "B S 3"]) -> Float[Array, "B 4"]:
    span = jnp.max(samples.max(axis=1) - samples.min(axis=1), axis=-1, keepdims=True)
    return jnp.concatenate([samples.mean(axis=1), span], axis=-1)


@jax.jit
def _due(
    seen: Float[Array, "R W 4"],
    rows_inside: Bool[Array, "R"],
    columns_inside: Bool[Array, "W"],
    threshold: float,
) -> Bool[Array, "R-2 W-2"]:
    """Which pixels, of all but the outermost, need more samples."""
    colours, span = seen[..., :3], seen[..., 3]
    inside = rows_inside[:, None] & columns_inside

    def differ(here: tuple[slice, slice], there: tuple[slice, slice]) -> Bool[Array, "A B"]:
        """Whether neighbours do; what lies outside the picture is none."""
        apart = jnp.abs(colours[here] - colours[there]).max(axis=-1) > threshold
        return apart & inside[here] & inside[there]

    inner, before, after = slice(1, -1), slice(None, -1), slice(1, None)
    down = differ((before, inner), (after, inner))
    right = differ((inner, before), (inner, after))
    around = down[:-1] | down[1:] | right[:, :-1] | right[:, 1:]
    return (around | (span[inner, inner] > threshold)) & inside[inner, inner]
