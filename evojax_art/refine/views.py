"""How pixel polish looks at a picture: sizes, bands of a gradient, tiles."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_COARSEST = 8  # pixels, the least side of a gradient's bands


class Cut(NamedTuple):
    """How a side of a picture is cut: `count` tiles, shifted by up to `jitter` either way."""

    count: int
    tile: int
    jitter: int


def octave_sizes(
    height: int, width: int, count: int, scale: float, least: int
) -> list[tuple[int, int]]:
    """The sizes of a picture's octaves, ascending; the last is the picture's own.

    Args:
        height: of the picture.
        width: of the picture.
        count: how many there are at most.
        scale: each one's size over that of the one before.
        least: pixels of their shorter sides; only the picture's own may have fewer.
    """
    shares = [scale**-number for number in range(count)]
    sizes = [(round(height * share), round(width * share)) for share in shares]
    return [sizes[0], *(size for size in sizes[1:] if min(size) >= least)][::-1]


def by_bands(gradient: Float[Array, "h w 3"], smoothness: float) -> Float[Array, "h w 3"]:
    """A gradient whose bands have their own lengths, and root mean square 1 as a whole.

    Args:
        gradient: of a picture.
        smoothness: length of a band over that of the next finer one. A band without any gradient
            stays so.
    """
    bands, rest = [], gradient
    while min(rest.shape[:2]) >= 2 * _COARSEST:
        coarser = _halved(rest)
        bands.append(rest - resized(coarser, rest.shape[:2]))
        rest = coarser
    bands.append(rest)
    total = jnp.zeros_like(bands[-1])
    for level, band in reversed(list(enumerate(bands))):
        total = resized(total, band.shape[:2]) + smoothness**level * _of_length_one(band)
    return _of_length_one(total)


def _of_length_one(field: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    largest = jnp.max(jnp.abs(field))  # whose square may be no float32
    field = field / jnp.where(largest > 0, largest, 1)
    return field / jnp.where(largest > 0, jnp.sqrt(jnp.mean(field**2)), 1)


def _halved(field: Float[Array, "h w 3"]) -> Float[Array, "a b 3"]:
    """Means of 2x2 pixels; an odd side's last row or column counts twice."""
    height, width, _ = field.shape
    field = jnp.pad(field, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return field.reshape(-(-height // 2), 2, -(-width // 2), 2, 3).mean(axis=(1, 3))


def resized(field: Float[Array, "h w 3"], size: tuple[int, ...]) -> Float[Array, "a b 3"]:
    """Height and width changed; what gets smaller is averaged."""
    if field.shape[:2] == tuple(size):
        return field
    return jax.image.resize(field, (*size, 3), "bilinear", antialias=True)


def cut_sides(
    picture: Float[Array, "h w 3"], limit: int, multiple: int, jitter: int
) -> tuple[Cut, Cut]:
    """Tiles of at most `limit` pixels, rounded up to a multiple, that cover a picture.

    Several are shifted by up to a quarter of their side, so that their seams show nowhere.
    """

    def cut(side: int) -> Cut:
        count = -(-side // limit)
        tile = -(-side // (count * multiple)) * multiple
        return Cut(count, tile, min(jitter, side // 4) if count == 1 else tile // 4)

    height, width, _ = picture.shape
    return cut(height), cut(width)


def corner_at(place: Float[Array, "2"], cuts: tuple[Cut, Cut]) -> Int[Array, "2"]:
    """Row and column where tiles begin, from 0 to twice the jitter; the jitter is no shift.

    Args:
        place: from [0, 1).
        cuts: the sides'.
    """
    return jnp.floor(place * jnp.array([2 * cut.jitter + 1 for cut in cuts])).astype(jnp.int32)


def cut_up(
    picture: Float[Array, "h w 3"],
    cuts: tuple[Cut, Cut],
    corner: Int[Array, "2"],
    beyond: Literal["reflect", "wrap"] = "reflect",
) -> Float[Array, "T a b 3"]:
    """A picture in tiles.

    Args:
        picture: what is cut.
        cuts: its two sides'.
        corner: where they begin, see `corner_at`.
        beyond: its edges it is mirrored, or begins again.
    """
    sizes = [cut.count * cut.tile for cut in cuts]
    margins = [
        (cut.jitter, size - side + cut.jitter)
        for cut, size, side in zip(cuts, sizes, picture.shape[:2], strict=True)
    ]
    canvas = jnp.pad(picture, (*margins, (0, 0)), mode=beyond)
    shifted = jax.lax.dynamic_slice(canvas, (corner[0], corner[1], 0), (*sizes, 3))
    (rows, height, _), (columns, width, _) = cuts
    tiles = shifted.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return tiles.reshape(rows * columns, height, width, 3)
