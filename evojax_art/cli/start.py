"""The picture that a command starts from: a photograph, or one that a formula draws."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from evojax_art.artwork.provenance import read_provenance
from evojax_art.cli.inputs import picture_size, read_given
from evojax_art.language.bindings import Bound
from evojax_art.language.formula import check_images
from evojax_art.language.photographs import read_image
from evojax_art.render.large import render_picture
from evojax_art.render.look import Raster
from evojax_art.runtime.errors import InputError

_PHOTOGRAPHS = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif"}
_SAMPLES = 3  # of a pixel, by as many, where a formula draws the picture


def read_start(given: str, size: str) -> UInt8[np.ndarray, "H W 3"]:
    """The picture.

    Args:
        given: a photograph, a PNG of ours, which is drawn anew, or a formula.
        size: see `DreamConfig`; a photograph is cut to a shape that is not its own.

    Raises:
        InputError: none of these, or several formulas.
    """
    path = Path(given)
    width, height = picture_size(size)
    if min(width, height) < 32 or max(width, height) > 4096:
        raise InputError(f"--size {size}: frames have 32 to 4096 pixels to a side")
    is_picture = is_photograph(given)
    if is_picture and path.is_file() and path.suffix.lower() == ".png":
        is_picture = not read_provenance(path).formula
    if is_picture:
        return _fitted(read_image(path), width, height, free="x" not in size)
    jobs = read_given(given)
    if len(jobs) != 1:
        raise InputError(f"{given}: give one formula to start from, not {len(jobs)}")
    bound = jobs[0].bound(Bound())
    check_images(jobs[0].expression, len(bound.names))
    raster = Raster(height=height, width=width, samples=_SAMPLES)
    drawn = render_picture(jobs[0].expression, jobs[0].look, raster, images=bound.pyramids)
    return np.asarray(drawn, np.uint8)


def is_photograph(given: str) -> bool:
    """Whether an argument names a picture file, by its suffix."""
    return Path(given).suffix.lower() in _PHOTOGRAPHS


def _fitted(
    picture: UInt8[np.ndarray, "h w 3"], width: int, height: int, *, free: bool
) -> UInt8[np.ndarray, "H W 3"]:
    """A photograph at another size.

    Args:
        picture: the photograph.
        width: of the frames.
        height: of the frames.
        free: keep its shape, and make the longer side that long.
    """
    rows, columns, _ = picture.shape
    box = (0.0, 0.0, float(columns), float(rows))
    if free:
        scale = width / max(rows, columns)
        width, height = max(32, round(columns * scale)), max(32, round(rows * scale))
    else:  # the largest part of that shape, from the middle
        shape = min(columns / width, rows / height)
        left, top = (columns - width * shape) / 2, (rows - height * shape) / 2
        box = (left, top, columns - left, rows - top)
    image = Image.fromarray(picture)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))
