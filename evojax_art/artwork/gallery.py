"""A gallery: one HTML page with everything inside, pictures included; no server, no network.

The page is `gallery.html.j2`, which Jinja2 fills. All that comes from files is escaped: names and
formulas reach the page as JSON, and become text there, never markup.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_QUALITIES = (75, 45, 20, 5)
_BYTES_PER_PIXEL = 0.05  # of a picture, where so little is enough
ORDERS = (
    ("agreed", "most agreed on"),
    ("name", "by name"),
    ("confidence", "most confident"),
    ("unseen", "unseen judges"),
    ("noise", "least noise"),
    ("length", "shortest"),
    ("generation", "oldest"),
)


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A picture of a gallery, and what there is to know of it.

    Attributes:
        name: what it shall show.
        formula: what draws it.
        confidence: that it shows that, by its judges together; a finite number.
        is_probability: whether it is one; else a score, as of a layer.
        opinions: of each network: its name, the probability, the class's rank from 0, whether it
            was a judge; None for what is not known.
        noise: the 2015 measure.
        length: nodes.
        generation: that found it.
        id: in its run.
        thumbnail: small picture, of `packed`.
        large: large picture, likewise.
        ancestors: the chain of hosts: number of a small picture in the page's list, and a caption.
        commands: what to do with it: a label and a command line each.
    """

    name: str
    formula: str
    confidence: float
    is_probability: bool = True
    opinions: Sequence[tuple[str, float | None, int | None, bool]]
    noise: float
    length: int
    generation: int
    id: str
    thumbnail: bytes
    large: bytes
    ancestors: Sequence[tuple[int, str]] = ()
    commands: Sequence[tuple[str, str]] = ()


def gallery_page(title: str, exhibits: Sequence[Exhibit], ancestors: Sequence[bytes]) -> str:
    """The page.

    Args:
        title: of it.
        exhibits: in the order that is shown at first.
        ancestors: small pictures that their lineages name, of `packed`.
    """
    import jinja2  # here, because it takes a while and most commands do without

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = resources.files("evojax_art.artwork").joinpath("gallery.html.j2").read_text("utf-8")
    data = {
        "entries": [_entry(place, exhibit) for place, exhibit in enumerate(exhibits)],
        "ancestors": [_text(picture) for picture in ancestors],
    }
    return environment.from_string(text).render(title=title, orders=ORDERS, data=data)


def _entry(place: int, exhibit: Exhibit) -> dict[str, Any]:
    unseen = [p for _, p, _, seen in exhibit.opinions if not seen and p is not None]
    return {
        "place": place,
        "name": exhibit.name,
        "caption": exhibit.name.split(",")[0],
        "formula": exhibit.formula,
        "confidence": exhibit.confidence,
        "is_probability": exhibit.is_probability,
        "opinions": exhibit.opinions,
        "unseen": float(np.mean(unseen)) if unseen else None,
        "noise": exhibit.noise,
        "length": exhibit.length,
        "generation": exhibit.generation,
        "id": exhibit.id,
        "haystack": f"{exhibit.name} {exhibit.formula} {exhibit.id}".lower(),
        "thumbnail": _text(exhibit.thumbnail),
        "large": _text(exhibit.large),
        "ancestors": exhibit.ancestors,
        "commands": exhibit.commands,
    }


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


def packed(picture: UInt8[np.ndarray, "_ _ 3"]) -> bytes:
    """As WebP in few bytes a pixel: pictures of noise, which would take most, lose most of it."""
    enough = _BYTES_PER_PIXEL * picture.shape[0] * picture.shape[1]
    file = io.BytesIO()
    for quality in _QUALITIES:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="WEBP", quality=quality, method=2)
        if file.tell() <= enough:
            break
    return file.getvalue()


def unpacked(picture: bytes) -> UInt8[np.ndarray, "_ _ 3"]:
    """What `packed` packed, but for what that lost."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))
