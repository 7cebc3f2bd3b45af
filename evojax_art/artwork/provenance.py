"""Where a picture came from: the record that its PNG carries as text.

The format, number 1. Each entry is a text chunk of the PNG (`tEXt`, `zTXt` or `iTXt`; W3C, PNG
Specification, third edition); one that does not apply is left out. Numbers are decimal.

evojax_art            number of this format
formula               what draws the picture, as `evojax_art.parse` takes it
images                photographs that it reads, JSON: {LEAF: {"file": as it was named, "whole":
                      which convention, see `language.photographs`, "sha256": of the file's bytes,
                      hexadecimal}}
z, crunch, smooth     its look, see `render.look`: a number; sigmoid or 1995; True or False
size                  WIDTHxHEIGHT of the whole picture, pixels
samples               n of n by n samples per pixel
jitter                True if these are at random places
crop                  LEFT,TOP,WIDTH,HEIGHT of WIDTHxHEIGHT, pixels: the part that this is
adaptive              threshold of adaptive sampling, in [0, 1)
target                terms that name the classes it was bred for, joined by ", "
prompt                or what was to be seen, in words
against               what else it might have been, JSON: a list of texts; empty for the usual
layer                 or the layer of the network, NAME or NAME:CHANNEL
guide, guide_sha256   the picture whose activations that layer was to match: as it was named, and
                      its checksum as above
net                   the network that evaluated it; or several, separated by spaces
score, value          of what was wanted; for classes a probability and its log-odds
judges                score by each of several networks, JSON: {NET: score}; `score` is joint
unseen                score by each network that it was not bred for, likewise
unseen_score          in older pictures, that of the one there was; or nan
noise                 the 2015 measure
judged_size           height and width in pixels, and
judged_samples        n by n samples per pixel, of the picture that was evaluated
seed                  of the run
generation, formulas  that found it, and how many were evaluated until then; both from 1
id                    of the individual in its run: GENERATION.PLACE, as 12.34
parents               ids of what it was made from, separated by spaces
polished_from         the formula that its constants were polished from
pixels_polished_from  the photograph, file or formula that its pixels were polished from
frame                 number in its dream, from 0
drawn_by              the formula that drew this frame from the one before
fps                   frames per second, where it is one of a movie
Software              evojax_art and its version

Keys keep their meaning: a new one may come at any time, and is passed over by older readers; the
number goes up only if old readers would be misled, and they refuse it. Pictures from before there
was a number are read alike. One without it whose `formula` is none of ours is another program's,
and says nothing.

A picture may come from a stranger, so what it names is opened only beside it, see `beside`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evojax_art.artwork.picture import read_png_text
from evojax_art.language.bindings import Source
from evojax_art.language.formula import image_ops
from evojax_art.render.look import Crop, Look, Raster
from evojax_art.runtime.errors import InputError

FORMAT = 1
_KEY = "evojax_art"
_TEXTS = (
    "formula",
    "prompt",
    "layer",
    "net",
    "id",
    "polished_from",
    "pixels_polished_from",
    "drawn_by",
)
_NUMBERS = ("score", "value", "unseen_score", "noise", "fps")
_SCORES = ("judges", "unseen")
_COUNTS = ("judged_size", "judged_samples", "seed", "generation", "formulas", "frame")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is known of a picture; the module's docstring says what each entry means.

    Attributes:
        formula: what draws it.
        photographs: that the formula reads.
        look: of the formula.
        raster: of the picture.
        adaptive: threshold of adaptive sampling.
        target: terms that name classes.
        prompt: in words.
        against: in words, what else it might have been.
        layer: of the network.
        guide: what the layer was to match, as it was named.
        guide_sha256: of that file's bytes, hexadecimal.
        net: name of the network.
        score: of what was wanted.
        value: the same on its own scale.
        judges: scores by each network that evaluated it, where these are several.
        unseen: scores by networks that nothing was bred for.
        unseen_score: in older pictures, of the one there was.
        noise: the 2015 measure.
        judged_size: of the picture that was evaluated, pixels.
        judged_samples: n by n per pixel of that.
        seed: of the run.
        generation: that found it.
        formulas: evaluated until then.
        id: of the individual, "GENERATION.PLACE".
        parents: their ids.
        polished_from: the formula before.
        pixels_polished_from: the picture before.
        frame: number in a dream.
        drawn_by: the formula that made this frame of the one before.
        fps: of the movie that it is a frame of.
    """

    formula: str = ""
    photographs: tuple[Source, ...] = ()
    look: Look | None = None
    raster: Raster | None = None
    adaptive: float = 0.0
    target: tuple[str, ...] = ()
    prompt: str = ""
    against: tuple[str, ...] = ()
    layer: str = ""
    guide: str = ""
    guide_sha256: str = ""
    net: str = ""
    score: float | None = None
    value: float | None = None
    judges: Mapping[str, float] = field(default_factory=dict)
    unseen: Mapping[str, float] = field(default_factory=dict)
    unseen_score: float | None = None
    noise: float | None = None
    judged_size: int | None = None
    judged_samples: int | None = None
    seed: int | None = None
    generation: int | None = None
    formulas: int | None = None
    id: str = ""
    parents: tuple[str, ...] = ()
    polished_from: str = ""
    pixels_polished_from: str = ""
    frame: int | None = None
    drawn_by: str = ""
    fps: float | None = None

    def to_text(self) -> dict[str, str]:
        """The text chunks of the PNG."""
        said = {_KEY: str(FORMAT), **self._given(_TEXTS, str)}
        if self.photographs:
            said["images"] = json.dumps(
                {
                    source.name: {
                        "file": str(source.file),
                        "whole": source.whole,
                        "sha256": source.sha256,
                    }
                    for source in self.photographs
                }
            )
        if self.look:
            said["z"] = str(float(self.look.z))
            said |= {"crunch": self.look.crunch, "smooth": str(self.look.smooth)}
        if self.raster:
            said |= _raster_text(self.raster)
        if self.adaptive:
            said["adaptive"] = str(self.adaptive)
        if self.against:
            said["against"] = json.dumps(self.against)
        if self.target:
            said["target"] = ", ".join(self.target)
        for name in _SCORES:
            if scores := getattr(self, name):
                said[name] = json.dumps({net: float(f"{by:.6g}") for net, by in scores.items()})
        said |= self._given(("guide", "guide_sha256"), str)
        said |= self._given(_NUMBERS, "{:.6g}".format) | self._given(_COUNTS, str)
        if self.parents:
            said["parents"] = " ".join(self.parents)
        return said | {"Software": _software()}

    @classmethod
    def from_text(cls, text: Mapping[str, str]) -> "Provenance":
        """The record in a PNG's text chunks; entries that make no sense are left out.

        Raises:
            InputError: a newer format, or photographs that cannot be told.
        """
        number = text.get(_KEY, str(FORMAT))
        if not (re.fullmatch(r"\d{1,9}", number, re.ASCII) and 1 <= int(number) <= FORMAT):
            raise InputError(
                f"what it says of itself is in format {number:.20}, and this version of "
                f"evojax_art reads {FORMAT} and older"
            )
        if _is_foreign(text):
            return cls()
        found: dict[str, Any] = {key: text[key] for key in _TEXTS if key in text}
        found |= {key: text[key] for key in ("guide", "guide_sha256") if key in text}
        found |= _parsed(text, _SCORES, _scores) | _parsed(text, ("against",), _words)
        found |= _parsed(text, _NUMBERS, _finite) | _parsed(text, _COUNTS, int)
        return cls(
            **found,
            **_parsed(text, ("adaptive",), float),
            photographs=_photographs(text.get("images", "{}")),
            look=_look(text),
            raster=_raster(text),
            target=tuple(text["target"].split(", ")) if text.get("target") else (),
            parents=tuple(text.get("parents", "").split()),
        )

    def _given(self, names: tuple[str, ...], format_fn: Callable[[Any], str]) -> dict[str, str]:
        """Of these entries those that there are."""
        values = {name: getattr(self, name) for name in names}
        return {name: format_fn(value) for name, value in values.items() if value not in (None, "")}


def read_provenance(path: Path) -> Provenance:
    """What a PNG says of itself; an empty record where that is nothing of ours.

    Raises:
        InputError: not a readable PNG, or as `Provenance.from_text`.
    """
    try:
        return Provenance.from_text(read_png_text(path))
    except InputError as error:
        message = str(error)
        raise error if str(path) in message else InputError(f"{path}: {message}") from None


@cache
def _software() -> str:
    return f"evojax_art {version('evojax-art')}"


def _is_foreign(text: Mapping[str, str]) -> bool:
    """Whether a text called formula, from before there was a number, is another program's."""
    if _KEY in text or text.get("Software", "").startswith("evojax_art") or "formula" not in text:
        return False
    formula = text["formula"].strip()
    return not formula.startswith("(") and len(formula.split()) != 1


def _parsed(
    text: Mapping[str, str], names: tuple[str, ...], parse_fn: Callable[[str], Any]
) -> dict[str, Any]:
    """Of these entries those that are numbers."""
    found = {}
    for name in names:
        try:
            found[name] = parse_fn(text[name])
        except (KeyError, ValueError):
            continue
    return found


def _finite(said: str | float) -> float:
    """A number.

    Raises:
        ValueError: NaN or an infinity.
    """
    number = float(said)
    if not math.isfinite(number):
        raise ValueError(said)
    return number


def _scores(said: str) -> dict[str, float]:
    """Numbers by name.

    Raises:
        ValueError: anything else.
    """
    try:
        return {str(name): _finite(score) for name, score in json.loads(said).items()}
    except (AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(said) from error


def _words(said: str) -> tuple[str, ...]:
    """Texts.

    Raises:
        ValueError: anything else.
    """
    try:
        words = json.loads(said)
    except RecursionError as error:
        raise ValueError(said) from error
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise ValueError(said)
    return tuple(words)


def _look(text: Mapping[str, str]) -> Look | None:
    found: dict[str, Any] = {}
    z = _parsed(text, ("z",), float).get("z", math.nan)
    if abs(z) < 1e38:  # a float32
        found["z"] = z
    if text.get("crunch") in ("sigmoid", "1995"):
        found["crunch"] = text["crunch"]
    if text.get("smooth") in ("True", "False"):
        found["smooth"] = text["smooth"] == "True"
    return Look(**found) if found else None


def _raster_text(raster: Raster) -> dict[str, str]:
    size = f"{raster.width}x{raster.height}"
    said = {"size": size, "samples": str(raster.samples)}
    if raster.jitter:
        said["jitter"] = "True"
    if raster.crop:
        said["crop"] = f"{','.join(map(str, raster.crop))} of {size}"
    return said


def _raster(text: Mapping[str, str]) -> Raster | None:
    """None also where a picture from before there was a number does not tell its size."""
    size = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text.get("size", ""), re.ASCII)
    if not size:
        return None
    crop_text = text.get("crop", "")
    part = re.fullmatch(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9}) of .*", crop_text, re.ASCII)
    crop: Crop | None = None
    if part:
        left, top, width, height = map(int, part.groups())
        crop = left, top, width, height
    jitter = text.get("jitter") == "True"
    samples = _parsed(text, ("samples",), int)
    try:
        return Raster(height=int(size[2]), width=int(size[1]), jitter=jitter, crop=crop, **samples)
    except InputError:
        return None


def _photographs(said: str) -> tuple[Source, ...]:
    try:
        sources = []
        for name, entry in json.loads(said).items():
            image_ops([name])
            file, whole, checksum = (entry[key] for key in ("file", "whole", "sha256"))
            sources.append(Source(name, Path(str(file)), bool(whole), str(checksum)))
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise InputError("what this PNG says of its pictures is damaged") from None
    return tuple(sources)
