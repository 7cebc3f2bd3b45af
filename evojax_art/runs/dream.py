"""Dreams: a picture is moved, climbs a little, and is fed back, frame after frame.

A frame is the one before, zoomed, turned and perhaps warped by a formula that reads it as the leaf
`frame`; then its pixels are polished for a few steps (`refine.pixels`), or formulas that read it
are bred for a few generations and the best one draws it anew. Its noise is kept below the gate of
2015, so static does not build up.

Every frame follows from the bytes of the last, its number and the settings alone. So a folder of
numbered PNGs is all the state there is: what was interrupted goes on as if it had not been.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8
from scipy import ndimage

from evojax_art.artwork.provenance import Provenance
from evojax_art.language.formula import Expression, parse
from evojax_art.language.photographs import pyramid
from evojax_art.language.program import decode, encode
from evojax_art.nets.base import Network, by_name
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.target import TargetConfig
from evojax_art.objective.terms import Target
from evojax_art.objective.tv import tv_noise
from evojax_art.objective.views import ViewsConfig
from evojax_art.refine.pixels import PixelPolisher, PixelsConfig, within_gate
from evojax_art.refine.views import resized
from evojax_art.render.batch import render
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import INLINE, formerly
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic
from evojax_art.search.memetic import MemeticConfig
from evojax_art.search.start_from import variations

LEAF = "frame"  # what formulas call the frame before
Picture = Float[Array | np.ndarray, "H W 3"]  # RGB in [0, 1]
_SAMPLES = 2  # by as many per pixel, where a formula draws a frame


@dataclass(frozen=True, kw_only=True)
class BreedConfig:
    """How formulas are bred around a frame.

    Attributes:
        population: survivors.
        generations: of each frame, half as many children in each as there are survivors.
        max_length: longest formula, in nodes.
        near: factor of the distance to the frame before, subtracted from the target's value, see
            `objective`; smaller gives wilder changes.
        memetic: how the best climb the gradient in between.
    """

    population: int = 64
    generations: int = 6
    max_length: int = 40
    near: float = 6.0
    memetic: MemeticConfig = field(
        default_factory=lambda: MemeticConfig(every=8, top=4, steps=4),
        metadata=formerly("polish"),
    )

    def __post_init__(self):
        for name, least in (("population", 2), ("generations", 1), ("max_length", 3), ("near", 0)):
            if not getattr(self, name) >= least:
                raise InputError(f"breed.{name} must be {least} or more, got {getattr(self, name)}")


def _gentle() -> PixelsConfig:
    """Less for each frame than for a picture of its own."""
    return PixelsConfig(octaves=2, octave_scale=2.0, steps=6, learning_rate=0.06)


@dataclass(frozen=True, kw_only=True)
class DreamConfig:
    """A dream's settings, except how long it is.

    Attributes:
        target: what to see, and which network says so.
        seed: same seed, same dream (on the same device).
        size: WIDTHxHEIGHT of the frames, or one number for the longer side of a photograph and
            both of a formula's picture.
        zoom: every frame is the last one this much larger.
        turn: and turned clockwise by so many degrees.
        warp: a formula that reads the leaf `frame`, drawn in the frame's place before each is
            polished, such as "( at ( * ( q 1 0.02 0 0 ) x_iy ) frame )". (With `subst` in place of
            `at`, the square in the middle repeats.)
        formulas: breed formulas around each frame; its pixels are not polished then.
        views: that pictures are judged in besides.
        pixels: how pixels are polished.
        breed: how formulas are bred.
    """

    target: TargetConfig = field(default_factory=TargetConfig, metadata=INLINE)
    seed: int = 0
    size: str = "256"
    zoom: float = 1.03
    turn: float = 0.5
    warp: str = ""
    formulas: bool = False
    views: ViewsConfig = field(default_factory=ViewsConfig)
    pixels: PixelsConfig = field(default_factory=_gentle)
    breed: BreedConfig = field(default_factory=BreedConfig)

    def __post_init__(self):
        self.target.check()
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")
        if not 0.25 <= self.zoom <= 4:
            raise InputError(f"zoom must be 0.25 to 4, got {self.zoom:g}")
        if not abs(self.turn) <= 180:
            raise InputError(f"turn must be -180 to 180 degrees, got {self.turn:g}")


class Frame(NamedTuple):
    """One frame and what is known of it.

    Attributes:
        picture: RGB.
        value: the target's.
        score: the target's.
        noise: the 2015 measure.
        formula: what drew it, from the frame before; empty where its pixels were polished.
    """

    picture: UInt8[np.ndarray, "H W 3"]
    value: float
    score: float
    noise: float
    formula: str = ""

    def provenance(self, number: int) -> Provenance:
        """What its PNG says; the picture is not to be had from the formula alone.

        Args:
            number: in the dream.
        """
        return Provenance(
            frame=number,
            value=self.value,
            score=self.score,
            noise=self.noise,
            drawn_by=self.formula,
        )


class Dreamer:
    """Makes frames; what they need is compiled with the first.

    Args:
        config: how.
        nets: the network that looks, or several by name.
        target: what is wanted of them.

    Raises:
        InputError: a warp that is no formula, or does not read `frame`.
    """

    def __init__(self, config: DreamConfig, nets: Network | Mapping[str, Network], target: Target):
        self._config = config
        self._nets, self._target = nets, target
        self._warp = read_warp(config.warp) if config.warp else None
        self._polisher = PixelPolisher(nets, target, config.pixels, views=config.views, onward=True)
        self._evolution: Evolution | None = None

    def first(self, picture: UInt8[np.ndarray, "H W 3"]) -> Frame:
        """The start, as it is."""
        return self._frame(picture)

    def next(self, last: UInt8[np.ndarray, "H W 3"], number: int, formula: str = "") -> Frame:
        """The frame after another.

        Args:
            last: that frame.
            number: of the new one, from 1.
            formula: what drew the last, which the new one's ancestors are joined by.
        """
        key = jax.random.fold_in(jax.random.key(self._config.seed), number)
        config = self._config
        picture: Picture = moved(last / np.float32(255), config.zoom, config.turn)
        if self._warp:
            picture = _drawn(self._warp, len(self._warp), picture)
        if config.formulas:
            picture, formula = self._bred(picture, formula, key)
            return self._frame(_bytes(picture), formula)
        return self._frame(_bytes(self._polisher(picture, key).picture))

    def _frame(self, picture: UInt8[np.ndarray, "H W 3"], formula: str = "") -> Frame:
        seen = jnp.asarray(picture / np.float32(255))
        value, score = self._polisher.evaluate(seen)
        return Frame(picture, value, score, float(tv_noise(seen[None])[0]), formula)

    def _bred(
        self, picture: Picture, formula: str, key: Key[Array, ""]
    ) -> tuple[Float[Array, "H W 3"], str]:
        breed = self._config.breed
        seed_key, init_key = jax.random.split(key)
        given = (LEAF, breed.population, breed.max_length, (LEAF,))
        seeds = variations(seed_key, *given, detailed=True)
        if formula:
            seeds[-1] = parse(formula, images=(LEAF,))
        evolution = self._evolution_around(picture)
        state = evolution.init(init_key, encode(seeds, breed.max_length))
        for _ in range(2 + breed.generations):  # two for the seeds themselves
            state, _ = evolution.step(state)
        best = decode(jax.tree.map(lambda field: field[None], state.best.program), (LEAF,))[0]
        drawn = _drawn(parse(best, images=(LEAF,)), breed.max_length, picture)
        return within_gate(drawn, self._config.pixels.noise_gate), best

    def _evolution_around(self, picture: Picture) -> Evolution:
        """Compiled for the first frame, then used for all."""
        breed = self._config.breed
        size = max(net.size for net in by_name(self._nets).values())
        images = (pyramid(picture, whole=True),)
        height, width, _ = picture.shape
        side = min(height, width)  # formulas are judged by the square in the middle
        top, left = (height - side) // 2, (width - side) // 2
        square = jnp.asarray(picture)[top : top + side, left : left + side]
        reference = resized(square, (size, size))
        if self._evolution is None:
            self._evolution = Evolution(
                Genetic(population=breed.population, offspring=-(-breed.population // 2)),
                self._nets,
                self._target,
                ObjectiveConfig(near=breed.near),
                RasterConfig(size=size),
                max_length=breed.max_length,
                photographs=images,
                reference=reference,
                views=self._config.views,
                polish=breed.memetic,
            )
        return self._evolution.among(images, reference)


def moved(
    picture: Float[np.ndarray, "H W 3"], zoom: float, turn: float
) -> Float[np.ndarray, "H W 3"]:
    """A picture zoomed and turned about its middle.

    By cubic splines, which stay sharp over hundreds of frames where other kernels blur; what comes
    in from beyond an edge is the edge.

    Args:
        picture: RGB in [0, 1].
        zoom: how much larger it gets.
        turn: clockwise, degrees.
    """
    if zoom == 1 and turn == 0:
        return picture
    angle = math.radians(turn)
    rows = np.array([math.cos(angle), -math.sin(angle)]) / zoom
    columns = np.array([math.sin(angle), math.cos(angle)]) / zoom
    matrix = np.stack([rows, columns])
    middle = (np.array(picture.shape[:2]) - 1) / 2
    offset = middle - matrix @ middle
    channels = [
        ndimage.affine_transform(
            picture[..., channel], matrix, offset.tolist(), order=3, mode="nearest"
        )
        for channel in range(3)
    ]
    return np.clip(np.stack(channels, axis=-1), 0, 1)


def read_warp(text: str) -> Expression:
    """The formula of `--warp`.

    Raises:
        InputError: no formula, or one that does not read `frame`.
    """
    warp = parse(text, images=(LEAF,))
    if not any(op.image == 0 for op, _ in warp.postfix):
        raise InputError(f"the warp {warp} does not read the leaf {LEAF}, so nothing of it is left")
    return warp


def _drawn(formula: Expression, capacity: int, picture: Picture) -> Float[Array, "H W 3"]:
    """A formula's picture, where the leaf `frame` is a picture of that size."""
    height, width, _ = picture.shape
    images = (pyramid(picture, whole=True),)
    program = encode([formula], capacity)  # one size, compiled once
    return render(program, height, width, samples=_SAMPLES, images=images)[0]


def _bytes(picture: Picture) -> UInt8[np.ndarray, "H W 3"]:
    return np.floor(np.asarray(picture) * np.float32(255) + 0.5).astype(np.uint8)
