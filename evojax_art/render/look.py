"""How a formula is drawn: what it looks like, and which pixels there are.

`Look` belongs to a formula: it goes with it wherever it is drawn, and into the text of its picture.
`Raster` belongs to a picture. All that draws takes one of each.
"""

from dataclasses import dataclass
from functools import partial
from typing import get_args

import jax
from jaxtyping import Array, Float

from evojax_art.language.ops import Crunch
from evojax_art.runtime.errors import InputError

_LARGEST_Z = 3.4e38  # which float32 can hold
_MOST_SAMPLES = 64  # squared; more would take memory without bound

Crop = tuple[int, int, int, int]  # left, top, width and height, pixels


@partial(jax.tree_util.register_dataclass, data_fields=["z"], meta_fields=["crunch", "smooth"])
@dataclass(frozen=True, kw_only=True)
class Look:
    """How a formula wants to be drawn; a pytree in which z may be traced.

    Attributes:
        z: the third coordinate, time in a movie.
        crunch: "sigmoid", or "1995" for the original's colours, black beyond +-30.
        smooth: the original's plus-shaped blur over a pixel and its four neighbours.

    Raises:
        InputError: an unknown crunch, or a z that is known and not finite.
    """

    z: float | Float[Array, "..."] = 0.0
    crunch: Crunch = "sigmoid"
    smooth: bool = False

    def __post_init__(self):
        if self.crunch not in get_args(Crunch):
            kinds = ", ".join(get_args(Crunch))
            raise InputError(f"unknown crunch {self.crunch!r}; there are {kinds}")
        if isinstance(self.z, float) and not abs(self.z) <= _LARGEST_Z:
            raise InputError(f"z must be finite, got {self.z}")


@dataclass(frozen=True, kw_only=True)
class Raster:
    """The pixels of a picture, and where they are sampled; hashable, so that it can be static.

    Attributes:
        height: of the whole picture, pixels.
        width: of the whole picture, pixels.
        samples: n by n samples per pixel, 1 to 64.
        jitter: a sample is at a random place of its cell of the pixel, not in its middle.
        crop: left, top, width and height of the part to draw, pixels; None: all of it.

    Raises:
        InputError: a value out of its range.
    """

    height: int
    width: int
    samples: int = 1
    jitter: bool = False
    crop: Crop | None = None

    def __post_init__(self):
        for name in ("height", "width", "samples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.samples > _MOST_SAMPLES:
            raise InputError(f"samples must be at most {_MOST_SAMPLES}, got {self.samples}")
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
    def part(self) -> Crop:
        """Left, top, width and height of what is drawn."""
        return self.crop or (0, 0, self.width, self.height)


@dataclass(frozen=True, kw_only=True)
class RasterConfig:
    """The square pictures that are judged.

    Attributes:
        size: height and width in pixels; 0 takes the network's own, to which others are resized.
        samples: n by n samples per pixel. Without them formulas win by aliasing: static that
            vanishes at another size.
        crunch: "sigmoid", or "1995" for the original's colours, black beyond +-30.
        smooth: the original's plus-shaped blur.
        z: the third coordinate.
    """

    size: int = 0
    samples: int = 2
    crunch: Crunch = "sigmoid"
    smooth: bool = False
    z: float = 0.0

    def __post_init__(self):
        for name, least in (("size", 0), ("samples", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"raster.{name} must be {least} or more, got {getattr(self, name)}"
                )
        _ = self.look  # which says what is wrong with it

    @property
    def look(self) -> Look:
        """What formulas look like in them."""
        return Look(z=self.z, crunch=self.crunch, smooth=self.smooth)

    def raster(self, default_size: int) -> Raster:
        """Their pixels, for a network that takes pictures of the default size."""
        size = self.size or default_size
        return Raster(height=size, width=size, samples=self.samples)
