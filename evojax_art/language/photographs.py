"""Photographs as leaves: reading files, pyramids of them, and their value at any point.

A leaf's value at (x, y) is (1, U(r), U(g), U(b)): U the inverse sigmoid, r, g, b the picture's
colours at column w/2 + x s and row h/2 + y s, clamped to the picture and read between the four
pixels around, so that it is differentiable in the coordinates (in pieces). There are two ways:

    the original's   s = max(w, h) / 2, of the picture after `softened`; so the square of
                     [-1, 1] holds all of it, and `( subst x_iy cat )` its middle
    whole            s = min(w, h), of the picture as it is. This is the inverse of the pixel grid
                     (see `render`): drawn at its own size the bare leaf gives the picture back

Where the points of a render lie further apart than the pixels of the picture, colours come from its
mipmaps: a texel of level l is the mean of 2^l by 2^l pixels, as far as these are inside the
picture, so the last level is one texel, the picture's mean. Texel t is centred on pixel
(t + 1/2) 2^l - 1/2. The level is the base-2 logarithm of the distance between neighbouring points
in pixels of the picture, 0 below one, and colours are blended between the two levels around it;
a share of less than 1/256 is left out.

The distance is that between the points 2k and 2k + 1 of the interpreter's order, for both of them,
divided by the root of the samples per pixel. Those are neighbours in a row wherever renders are
laid out with rows of even length, and are the same sample of two pixels. Inside a frame it is taken
before coordinates are wrapped, so a seam does not blur. It has no gradient.

Coordinates that are no numbers count as 0, infinite ones lie beyond the edge; where the distance is
no number, it is the last level. So a leaf is always finite.

A leaf's value has one definition, `sample` and `spacing`, in any array namespace. What they ask of
a picture is `Texels`: native code has its own (`interpreter.cpu.photographs`).
"""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image, ImageOps

from evojax_art.language.ops import Op, uncrunch
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.runtime.errors import InputError

AnyArray = Any  # of NumPy, of JAX, or to be written by native code
_MOST_PIXELS = 1 << 26
_FORMATS = {"PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF"}
_SIDE, _CORNER = 1 / 2, 2**-1.414  # of the original's kernel, whose middle is 1
_LEAST_SHARE = 1 / 256  # of a coarser level, to be worth reading
_DARKEST = 1e-13  # below it a colour counts as 0, whose uncrunch is -30


@runtime_checkable
class Texels(Protocol):
    """What is asked of a picture; `level` and `place` are whole numbers, one or an array."""

    @property
    def scale(self) -> AnyArray:
        """Pixels per unit of x and y."""
        ...

    @property
    def last(self) -> AnyArray:
        """The coarsest level."""
        ...

    def shape(self, level: Any) -> tuple[Any, Any]:
        """Height and width of levels."""
        ...

    def start(self, level: Any) -> Any:
        """The first texel of levels."""
        ...

    def texel(self, place: Any) -> Sequence[Any]:
        """RGB at places."""
        ...


class Pyramid(NamedTuple):
    """A picture and its mipmaps.

    Attributes:
        texels: RGB in [0, 1], row by row, level by level.
        sizes: height and width of each level.
        offsets: where each level begins.
        scale: pixels per unit of x and y.
    """

    texels: Float[Array, "N 3"]
    sizes: Int[Array, "levels 2"]
    offsets: Int[Array, "levels"]
    scale: Float[Array, ""]

    @property
    def last(self) -> int:
        """The coarsest level."""
        return len(self.offsets) - 1

    def shape(self, level: Any) -> tuple[Any, Any]:
        """Height and width of levels."""
        return self.sizes[:, 0][level], self.sizes[:, 1][level]

    def start(self, level: Any) -> Any:
        """The first texel of levels."""
        return self.offsets[level]

    def texel(self, place: Any) -> tuple[Any, Any, Any]:
        """RGB at places of `texels`."""
        # The largest picture has fewer than 2**29 numbers, which int32 can count.
        flat = self.texels.reshape(-1)  # XLA would cut out a channel of all texels
        red, green, blue = (flat[3 * place + channel] for channel in range(3))
        return red, green, blue


def pyramid(picture: Float[Array, "h w 3"] | np.ndarray, whole: bool = False) -> Pyramid:
    """A picture as a leaf reads it; traceable. Of a NumPy array it is made by NumPy.

    Args:
        picture: colours in [0, 1].
        whole: as it is, and fitting the pixel grid; else by the original's convention.
    """
    xp = np if isinstance(picture, np.ndarray) else jnp
    height, width, _ = picture.shape
    texels = picture.astype(np.float32)
    levels = [texels if whole else softened(texels)]
    sums, share = levels[0], xp.ones((height, width, 1), np.float32)  # of a texel that is inside
    while levels[-1].shape[:2] != (1, 1):
        sums, share = (_four_sums(xp, field) for field in (sums, share))
        levels.append(sums / share)
    sizes = np.array([level.shape[:2] for level in levels], np.int32)
    offsets = np.cumsum([0, *sizes.prod(axis=1)[:-1]])
    scale = min(width, height) if whole else max(width, height) / 2
    return Pyramid(
        texels=jnp.asarray(xp.concatenate([level.reshape(-1, 3) for level in levels])),
        sizes=jnp.asarray(sizes),
        offsets=jnp.asarray(offsets, jnp.int32),
        scale=jnp.float32(scale),
    )


def softened(picture: Float[Array, "h w 3"] | np.ndarray) -> Any:
    """The original's averaging: the pixels around one, side by side 1/2, at a corner 2^-1.414.

    Neighbours outside the picture do not count. The result is an array of the picture's kind.
    """
    xp = np if isinstance(picture, np.ndarray) else jnp

    def around(field):
        height, width, _ = field.shape
        padded = xp.pad(field, ((1, 1), (1, 1), (0, 0)))

        def moved(row: int, column: int):
            return padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]

        sides = moved(-1, 0) + moved(1, 0) + moved(0, -1) + moved(0, 1)
        corners = moved(-1, -1) + moved(-1, 1) + moved(1, -1) + moved(1, 1)
        return field + _SIDE * sides + _CORNER * corners

    return around(picture) / around(xp.ones_like(picture[..., :1]))


def leaf_value(
    xp,
    op: Op,
    images: Sequence[Texels],
    at: Coordinates,
    unwrapped: Coordinates,
    samples: int,
) -> Quaternion:
    """The value of any coordinate leaf: a picture's where one is bound to it.

    Args:
        xp: array namespace.
        op: the leaf.
        images: pictures, slot by slot.
        at: where it is read, in the interpreter's order along the last axis.
        unwrapped: the same before `subst` wraps it.
        samples: points of a pixel.
    """
    if op.image is None or op.image >= len(images):
        return op.fn(xp, at)
    return sample(xp, images[op.image], at, spacing(xp, unwrapped, samples))


def spacing(xp, at: Coordinates, samples: Any = 1) -> AnyArray:
    """How far apart points lie, in units of x; see the module's docstring.

    Of an odd number of points the last one has its neighbour's.
    """
    to_neighbour = getattr(xp, "to_neighbour", partial(_to_neighbour, xp))
    across, down = (to_neighbour(_still(t)) for t in at[:2])
    return xp.sqrt((across * across + down * down) / samples)


def sample(xp, image: Texels, at: Coordinates, spacing: AnyArray) -> Quaternion:
    """A picture's value.

    Args:
        xp: array namespace.
        image: the picture.
        at: where.
        spacing: distance to the neighbouring points, of the same shape.
    """
    height, width = image.shape(0)
    x, y = (xp.where(t == t, t, xp.zeros_like(t)) for t in at[:2])
    column = xp.clip(width / 2 + x * image.scale, 0, width - 1)
    row = xp.clip(height / 2 + y * image.scale, 0, height - 1)
    pixels = spacing * image.scale
    # Not a number compares false.
    depth = xp.where(pixels < 2.0**image.last, xp.log2(xp.maximum(pixels, 1)), image.last)
    level = xp.floor(depth)
    share = depth - level
    share = xp.where(share < _LEAST_SHARE, xp.zeros_like(share), share)
    where_due = getattr(xp, "where_due", lambda due, fn, value: fn(value))

    def blended(finer: tuple[AnyArray, ...]) -> tuple[AnyArray, ...]:
        coarser = _bilinear(xp, image, xp.minimum(level + 1, image.last), column, row)
        return tuple(a + (b - a) * share for a, b in zip(finer, coarser, strict=True))

    colours = where_due(share > 0, blended, _bilinear(xp, image, level, column, row))
    values = (uncrunch(xp, xp.where(t < _DARKEST, xp.zeros_like(t), t)) for t in colours)
    return Quaternion(xp.ones_like(x), *values)


def _bilinear(
    xp, image: Texels, level: AnyArray, column: AnyArray, row: AnyArray
) -> tuple[AnyArray, ...]:
    """RGB at a pixel's place, as a level has it."""
    size = 2.0**level
    level = level.astype(np.int32)
    height, width = image.shape(level)
    column = xp.clip((column + 0.5) / size - 0.5, 0, width - 1)
    row = xp.clip((row + 0.5) / size - 0.5, 0, height - 1)
    left, top = xp.floor(column), xp.floor(row)
    across, down = column - left, row - top
    right, bottom = xp.minimum(left + 1, width - 1), xp.minimum(top + 1, height - 1)

    def texel(row: AnyArray, column: AnyArray) -> Sequence[AnyArray]:
        place = image.start(level) + row.astype(np.int32) * width + column.astype(np.int32)
        return image.texel(place)

    corners = [texel(r, c) for r in (top, bottom) for c in (left, right)]
    return tuple(_mixed(channel, across, down) for channel in zip(*corners, strict=True))


def _mixed(corners: Sequence[AnyArray], across: AnyArray, down: AnyArray) -> AnyArray:
    a, b, c, d = corners
    above, below = a + (b - a) * across, c + (d - c) * across
    return above + (below - above) * down


def _four_sums(xp, field: Any) -> Any:
    """Sums over squares of 2 by 2; beyond the edge there is nothing."""
    height, width, channels = field.shape
    even = xp.pad(field, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).sum(axis=(1, 3))


def _to_neighbour(xp, t: AnyArray) -> AnyArray:
    """From each point of a pair to the other."""
    count = t.shape[-1]
    if count == 1:
        return xp.zeros_like(t)
    pairs = t[..., : count - count % 2].reshape(*t.shape[:-1], -1, 2)
    neighbour = pairs[..., ::-1].reshape(*t.shape[:-1], -1)
    if count % 2:
        neighbour = xp.concatenate([neighbour, t[..., -2:-1]], axis=-1)
    return neighbour - t


def _still(t: AnyArray) -> AnyArray:
    return jax.lax.stop_gradient(t) if isinstance(t, jax.Array) else t


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """A picture from a file, upright, what is transparent laid on white; of several the first.

    Raises:
        InputError: not a picture that can be read, or one of more than 2**26 pixels.
    """
    try:
        if not path.is_file():
            raise InputError(f"cannot read {path}: there is no such file")
        Image.init()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; sizes are checked below
            with Image.open(path, formats=sorted(_FORMATS & Image.OPEN.keys())) as image:
                _check_size(path, *image.size)
                return _upright_rgb(image)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{path}: {_TOO_LARGE}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not a picture, or of a kind that cannot be read") from None
    except Exception as error:  # whatever decoders do with a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read picture {path}: {reason}") from error


_TOO_LARGE = f"a picture of more than {_MOST_PIXELS:,} pixels; scale it down first"


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise InputError(f"{path}: {width}x{height} is {_TOO_LARGE}")


def _upright_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        return np.repeat(np.asarray(upright)[..., None] >> 8, 3, axis=2).astype(np.uint8)
    if upright.has_transparency_data:
        with_alpha = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, with_alpha)
    return np.asarray(upright.convert("RGB"))
