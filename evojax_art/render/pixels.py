"""The pixels of one formula's picture, by batches of one size, each with the samples that it needs.

Adaptive sampling looks at a few samples of every pixel first, and takes all where these, or their
means and those of the pixels around, differ.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evojax_art.language.photographs import Pyramid
from evojax_art.lowering.tape import LANES, Tape
from evojax_art.render.batch import render_pixels
from evojax_art.render.look import Look, Raster
from evojax_art.runtime.plan import Plan

FIRST_LOOK = 2  # samples, squared, by which adaptive sampling chooses pixels

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


def inside(numbers: Int[np.ndarray, "N"], size: int) -> Bool[np.ndarray, "N"]:
    """Which rows or columns belong to a picture of that many."""
    return (numbers >= 0) & (numbers < size)


@dataclass(frozen=True)
class Drawer:
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
        batch = self._batch(len(everywhere[0]), FIRST_LOOK)
        seen = _drawn(self._first_look, everywhere, 4, batch, lambda share: done_fn(share / 2))
        seen = seen.reshape(len(rows), len(drawn), 4)[:, wanted]
        within = inside(rows, raster.height), inside(columns, raster.width)
        colours = seen[1:-1, 1:-1, :3]
        due = np.nonzero(np.asarray(_due(seen, *within, self.adaptive)))
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
        return _summary(self._pixels(columns, rows, FIRST_LOOK, separately=True))

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
    threshold: float | Float[Array, ""],
) -> Bool[Array, "R-2 W-2"]:
    """Which pixels, of all but the outermost, need more samples."""
    colours, span = seen[..., :3], seen[..., 3]
    within = rows_inside[:, None] & columns_inside

    def differ(here: tuple[slice, slice], there: tuple[slice, slice]) -> Bool[Array, "A B"]:
        """Whether neighbours do; what lies outside the picture is none."""
        apart = jnp.abs(colours[here] - colours[there]).max(axis=-1) > threshold
        return apart & within[here] & within[there]

    inner, before, after = slice(1, -1), slice(None, -1), slice(1, None)
    down = differ((before, inner), (after, inner))
    right = differ((inner, before), (inner, after))
    around = down[:-1] | down[1:] | right[:, :-1] | right[:, 1:]
    return (around | (span[inner, inner] > threshold)) & within[inner, inner]
