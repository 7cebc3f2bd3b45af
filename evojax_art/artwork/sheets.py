"""Pictures side by side."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _INK = (18, 18, 20), (225, 225, 225)
_MARGIN = 8


def contact_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    captions: Sequence[str],
    *,
    cell: int = 192,
    columns: int | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A sheet of pictures with a caption under each, row by row.

    Args:
        pictures: any sizes; each is fitted into a square cell.
        captions: one line each.
        cell: side of a cell, pixels.
        columns: per row; None makes the sheet a little wider than high.
    """
    columns = columns or max(1, math.ceil(math.sqrt(len(pictures) * 1.5)))
    columns = min(columns, len(pictures))
    letter = max(10, cell // 14)
    font = ImageFont.load_default(size=letter)
    line = letter * 3 // 2
    step_x, step_y = cell + _MARGIN, cell + line + _MARGIN
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, rows * step_y + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = _MARGIN + index % columns * step_x
        top = _MARGIN + index // columns * step_y
        image = Image.fromarray(thumbnail(picture, cell))
        sheet.paste(image, (left + (cell - image.width) // 2, top + (cell - image.height) // 2))
        draw.text((left + cell / 2, top + cell + 2), caption, _INK, font, anchor="ma")
    return np.asarray(sheet)


def thumbnail(picture: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, made smaller where needed to fit a square."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices from 0 to count - 1, evenly spread, both ends included."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})
