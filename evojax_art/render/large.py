"""Pictures of any size: bands of rows, jittered and adaptive supersampling, parts of a picture.

A pixel's colour depends on its column and row in the whole picture alone, so bands, parts and the
whole agree. Pixels are drawn in batches of one size, whichever they are: one compilation serves a
picture.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

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
from evojax_art.render.batch import check_settings, render_pixels, smooth_plus
from evojax_art.runtime.errors import InputError

_BATCH_POINTS = 1 << 20  # points drawn by one call of compiled code
_DUE_POINTS = 1 << 17  # and where there are as many pixels as turn out to be due
_BAND_PIXELS = 1 << 20  # pixels of a band, and of what is held in memory
_LEAST_ROWS = 8  # of a band, so that its borders, which may be drawn twice, stay a small part
_FIRST_LOOK = 2  # samples, squared, by which adaptive sampling chooses pixels
_MOST_SAMPLES = 64  # squared; more would take memory without bound

_Pixels = tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]  # their columns and rows


@dataclass(frozen=True, kw_only=True)
class View:
    """What to draw of a formula, and how.

    Attributes:
        height: of the whole picture, pixels.
        width: likewise.
        z: the third coordinate.
        crunch: colours.
        smooth: plus-shaped blur.
        samples: n by n samples per pixel, 1 to 64.
        jitter: a sample is at a random place of its cell of the pixel, not in its middle.
        adaptive: from 0 to 1; where 2 by 2 samples of a pixel differ by no more than this in any
            channel, and neither does their mean from that of the four pixels around it, that mean
            is taken for the colour. 0: every pixel gets all samples.
        crop: left, top, width and height of the part to draw, pixels; None: all of it.

    Raises:
        InputError: a value out of its range.
    """

    height: int
    width: int
    z: float = 0.0
    crunch: Crunch = "sigmoid"
    smooth: bool = False
    samples: int = 1
    jitter: bool = False
    adaptive: float = 0.0
    crop: tuple[int, int, int, int] | None = None

    def __post_init__(self):
        check_settings(self.height, self.width, self.samples, self.crunch)
        if self.samples > _MOST_SAMPLES:
            raise InputError(f"samples must be at most {_MOST_SAMPLES}, got {self.samples}")
        if not math.isfinite(self.z):
            raise InputError(f"z must be finite, got {self.z}")
        if not 0 <= self.adaptive < 1:
            raise InputError(f"adaptive must be at least 0 and below 1, got {self.adaptive}")
        if self.adaptive and self.samples <= _FIRST_LOOK:
            raise InputError(
                f"adaptive sampling looks at 2 by 2 samples first: samples must be 3 or more, "
                f"got {self.samples}"
            )
        left, top, width, height = self.part
        if min(left, top) < 0 or min(width, height) < 1:
            raise InputError(
                f"crop {left},{top},{width},{height}: left and top must be 0 or more, width and "
                "height 1 or more"
            )
        if left + width > self.width or top + height > self.height:
            raise InputError(
                f"crop {left},{top},{width},{height} reaches beyond the picture's "
                f"{self.width}x{self.height}"
            )

    @property
    def part(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of what is drawn."""
        return self.crop or (0, 0, self.width, self.height)


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
    crop: tuple[int, int, int, int] | None = None,
    bits: Literal[8, 16] = 8,
    max_length: int | None = None,
    progress_fn: Callable[[float], None] = lambda share: None,
    images: Sequence[Pyramid] = (),
) -> UInt8[np.ndarray, "H W 3"] | UInt16[np.ndarray, "H W 3"]:
    """One formula as a picture of whole numbers, of any size or part of it.

    Beside the picture itself memory does not grow with its size; `render_bands` does without it.

    Args:
        formula: what to draw; the arguments up to `crop` are `View`'s.
        height: H, pixels.
        width: W, pixels.
        z: the third coordinate.
        crunch: colours.
        smooth: plus-shaped blur.
        samples: n by n samples per pixel.
        jitter: samples at random places.
        adaptive: full samples only where the first differ by more than this.
        crop: left, top, width and height to draw, which are then the result's.
        bits: of a channel.
        max_length: capacity of its program; formulas of one capacity share compiled code. None:
            the next power of two.
        progress_fn: called with the share that is done, up to 1.0.
        images: pictures that the formula reads, see `images`.

    Raises:
        InputError: as `View`, or a formula that does not parse or reads a picture that is not
            there.
    """
    view = View(
        height=height,
        width=width,
        z=z,
        crunch=crunch,
        smooth=smooth,
        samples=samples,
        jitter=jitter,
        adaptive=adaptive,
        crop=crop,
    )
    picture = np.empty((view.part[3], view.part[2], 3), np.uint8 if bits == 8 else np.uint16)
    first = 0
    bands = render_bands(
        formula, view, max_length=max_length, progress_fn=progress_fn, images=images
    )
    for band in bands:
        picture[first : first + len(band)] = to_bytes(band, bits)
        first += len(band)
    return picture


def render_bands(
    formula: str | Expression,
    view: View,
    *,
    max_length: int | None = None,
    progress_fn: Callable[[float], None] = lambda share: None,
    images: Sequence[Pyramid] = (),
) -> Iterator[Float[np.ndarray, "R W 3"]]:
    """The colours of a view in [0, 1], some rows at a time, from the top.

    Args:
        formula: what to draw.
        view: which part, and how.
        max_length: as for `render_large`.
        progress_fn: likewise.
        images: likewise.

    Raises:
        InputError: a formula that does not parse, or reads a picture that is not there.
    """
    expression = parse(formula) if isinstance(formula, str) else formula
    check_images(expression, len(images))
    population = encode([expression], max_length=max_length or _rounded_capacity(len(expression)))
    # Lowered once, because compiling that takes longer than all else.
    drawer = _Drawer(_lower(population), view, tuple(images))
    refined, smoothed = view.adaptive > 0, view.smooth
    halo = int(refined) + int(smoothed)  # pixels around a band that have a say in its colours
    left, top, width, height = view.part
    columns = np.arange(left - halo, left + width + halo, dtype=np.int32)
    num_bands = -(-height // max(_LEAST_ROWS, _BAND_PIXELS // width))
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
            inside = _inside(rows[edge], view.height), _inside(columns[edge], view.width)
            band = np.asarray(smooth_plus(band[None], *inside))[0, 1:-1, 1:-1]
        yield band[: height - first]


def to_bytes(
    images: Float[Array, "..."] | Float[np.ndarray, "..."], bits: Literal[8, 16] = 8
) -> UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]:
    """Colours in [0, 1] as bytes, rounded as the original rounds: floor(255 v + 0.5).

    With `bits=16` as whole numbers up to 65535, likewise.
    """
    most = np.float32((1 << bits) - 1)
    values = np.clip(np.asarray(images, np.float32), 0, 1)
    return np.floor(values * most + np.float32(0.5)).astype(np.uint8 if bits == 8 else np.uint16)


_lower = jax.jit(lower_all)


def _rounded_capacity(length: int) -> int:
    """The next power of two, so that formulas of many lengths share compiled code."""
    return max(16, 1 << (length - 1).bit_length())


def _inside(numbers: Int[np.ndarray, "N"], size: int) -> Bool[np.ndarray, "N"]:
    return (numbers >= 0) & (numbers < size)


@dataclass(frozen=True)
class _Drawer:
    """Draws any pixels of one formula's picture, before it is smoothed."""

    tapes: Tape
    view: View
    images: tuple[Pyramid, ...]

    def fully(
        self,
        columns: Int[np.ndarray, "W"],
        rows: Int[np.ndarray, "R"],
        done_fn: Callable[[float], None],
    ) -> Float[np.ndarray, "R W 3"]:
        """All samples of every pixel."""
        drawn, wanted = _in_pairs(columns, self.images)
        everywhere = _every(drawn, rows)
        batch = _batch(len(everywhere[0]), self.view.samples**2)
        colours = _drawn(self._mean, everywhere, 3, batch, done_fn)
        return colours.reshape(len(rows), len(drawn), 3)[:, wanted]

    def adaptively(
        self,
        columns: Int[np.ndarray, "W"],
        rows: Int[np.ndarray, "R"],
        done_fn: Callable[[float], None],
    ) -> Float[np.ndarray, "R-2 W-2 3"]:
        """A few samples of every pixel, and all of those that are due; none of the outermost."""
        view = self.view
        drawn, wanted = _in_pairs(columns, self.images)
        everywhere = _every(drawn, rows)
        batch = _batch(len(everywhere[0]), _FIRST_LOOK**2)
        seen = _drawn(self._first_look, everywhere, 4, batch, lambda share: done_fn(share / 2))
        seen = seen.reshape(len(rows), len(drawn), 4)[:, wanted]
        inside = _inside(rows, view.height), _inside(columns, view.width)
        colours = seen[1:-1, 1:-1, :3]
        due = np.nonzero(np.asarray(_due(seen, *inside, view.adaptive)))
        where = columns[1:-1][due[1]], rows[1:-1][due[0]]
        wanted = slice(None)
        if self.images:  # a pixel's neighbour is drawn with it
            parity, pair = where[0] % 2, np.arange(2, dtype=np.int32)
            wanted = 2 * np.arange(len(parity)) + parity
            where = ((where[0] - parity)[:, None] + pair).ravel(), np.repeat(where[1], 2)
        batch = max(LANES, _DUE_POINTS // (2 * view.samples**2) * 2)  # even, see `_in_pairs`
        refined = _drawn(self._mean, where, 3, batch, lambda share: done_fn((1 + share) / 2))
        colours[due] = refined[wanted]
        return colours

    def _mean(
        self, columns: Int[np.ndarray, "B"], rows: Int[np.ndarray, "B"]
    ) -> Float[Array, "B 3"]:
        """The colours of pixels."""
        return self._pixels(columns, rows, self.view.samples)[:, 0]

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
        view = self.view
        return render_pixels(
            self.tapes,
            jnp.float32(view.z),
            jnp.asarray(columns),
            jnp.asarray(rows),
            view.height,
            view.width,
            view.crunch,
            samples,
            view.jitter,
            separately,
            images=self.images,
        )[0]


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


def _batch(num_pixels: int, points_per_pixel: int) -> int:
    """How many pixels to draw at a time, of so many."""
    num_batches = -(-num_pixels * points_per_pixel // _BATCH_POINTS)
    if num_batches == 1:  # the next power of two, so that small pictures share compiled code
        return max(LANES, 1 << (num_pixels - 1).bit_length())
    return max(LANES, -(-num_pixels // (2 * num_batches)) * 2)  # even, see `_in_pairs`


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
