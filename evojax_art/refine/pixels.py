"""Pixel polish: the picture itself climbs the gradient, coarse to fine.

As in DeepDream (Mordvintsev, Olah and Tyka, 2015) the picture is climbed at several sizes, its
*octaves*, and what a coarse one has added is carried to the next finer. What is done besides:

- A pixel is a sigmoid of what is climbed, so colours end softly.
- The gradient is split into bands by a Laplacian pyramid, and each is given its own length: by
  itself it is nearly all in the finest band, and climbs to static.
- A layer sees the octave as it is, shifted at random, in tiles where it is larger than one. Classes
  are judged twice: in the whole picture, and in windows of it side by side, shifted at random, so
  that every octave adds detail of its own size everywhere.
- The 2015 gate holds: a picture whose noise reaches it is drawn towards its own denoised version,
  just as far as it must be.

The rule "plain" has none of these but the octaves: it is DeepDream as published, whose pixels take
steps of the gradient over its mean absolute value, and whose shifts wrap around the edges.

The outcome is the best picture met in the last octave, judged as it is; the start counts as one.
Best is first of all no worse than the start, in value, and in noise unless within the gate; then
within the gate; then of the highest value.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from evojax_art.nets.base import Network, by_name, merge_nets, split_nets
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Target
from evojax_art.objective.tv import GATE_WEIGHT, denoise_tv_chambolle, total_variation, tv_noise
from evojax_art.objective.views import ViewsConfig, draw_views
from evojax_art.refine.rules import bands, plain
from evojax_art.refine.views import (
    Cut,
    corner_at,
    cut_sides,
    cut_up,
    octave_sizes,
    resized,
)
from evojax_art.runtime.errors import InputError

_LOOKS = 4  # at the picture in an octave; those in the last may become the outcome
_LEAST_OCTAVE = 64  # pixels of the shorter side
_MARGIN = 0.98  # of the gate is aimed at; the rest is for rounding to bytes
_WINDOW = 2  # pixels of a window for one of the network's
_GROUP_PIXELS = 1 << 18  # of views that are judged at a time


@dataclass(frozen=True, kw_only=True)
class PixelsConfig:
    """How pixels are polished.

    Attributes:
        rule: "bands", or "plain" for DeepDream as published, see above.
        octaves: sizes at which the picture is climbed, the last its own; none has
            fewer than 64 pixels to a side, except the last.
        octave_scale: each octave's size over that of the one before.
        steps: of each octave.
        learning_rate: length of a step: the root mean square change of a pixel's log-odds; by the
            plain rule the mean change of a pixel, in 255ths.
        momentum: share of the last step that is taken again.
        smoothness: length of a gradient's band over that of the next finer one; larger gives
            larger shapes, below 1 gives static.
        tv_weight: factor of the total variation, subtracted from the target's value.
        whole: for classes, the weight of the whole picture; the rest is its windows'.
        jitter: pixels by which the picture is shifted at random, at most.
        tile: longest side that is judged at once where layers are excited; memory grows with it.
        noise_gate: the outcome's noise stays below, 0.05 in 2015; 0 for no gate.
    """

    rule: Literal["bands", "plain"] = "bands"
    octaves: int = 4
    octave_scale: float = 1.6
    steps: int = 16
    learning_rate: float = 0.1
    momentum: float = 0.5
    smoothness: float = 1.5
    tv_weight: float = 1.0
    whole: float = 0.25
    jitter: int = 16
    tile: int = 512
    noise_gate: float = 0.05

    def __post_init__(self):
        for name, least, most in (
            ("octaves", 1, 20),
            ("octave_scale", 1.1, 4.0),
            ("steps", 1, 100_000),
            ("learning_rate", 1e-6, 10.0),
            ("momentum", 0.0, 0.99),
            ("smoothness", 0.1, 10.0),
            ("tv_weight", 0.0, 1e9),
            ("whole", 0.0, 1.0),
            ("jitter", 0, 4096),
            ("tile", 64, 4096),
            ("noise_gate", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"{name} must be {least:g} to {most:g}, got {value:g}")


class PixelsOutcome(NamedTuple):
    """What polishing came to.

    Attributes:
        picture: RGB in [0, 1].
        start_value: the target's value of the picture as it was.
        value: and as it is, never lower.
        start_score: the target's score of the picture as it was.
        score: and as it is.
        start_noise: the 2015 measure of the picture as it was.
        noise: below the gate, or no more than the start's.
        compile_seconds: tracing and compiling.
        seconds: everything else.
    """

    picture: Float[np.ndarray, "H W 3"]
    start_value: float
    value: float
    start_score: float
    score: float
    start_noise: float
    noise: float
    compile_seconds: float
    seconds: float


ProgressFn = Callable[[float, float], None]


def polish_pixels(
    picture: Float[Array | np.ndarray, "H W 3"],
    nets: Network | Mapping[str, Network],
    target: Target,
    config: PixelsConfig,
    key: Key[Array, ""],
    progress_fn: ProgressFn = lambda share, value: None,
) -> PixelsOutcome:
    """Climbs the target from a picture.

    Same arguments, same outcome, on the same device.

    Args:
        picture: RGB in [0, 1], any size from 16x16.
        nets: the network that looks, or several by name.
        target: what is wanted of them.
        config: how.
        key: consumed.
        progress_fn: called with the share of the steps that are done and what the last one found
            the value to be.

    Raises:
        InputError: a picture that is too small or not finite.
    """
    return PixelPolisher(nets, target, config)(picture, key, progress_fn)


class _Candidate(NamedTuple):
    picture: Float[Array, "H W 3"]
    value: float
    score: float
    noise: float


class PixelPolisher:
    """`polish_pixels` for many pictures: what their sizes need is compiled once.

    Args:
        nets: the network that looks, or several by name.
        target: what is wanted of them.
        config: how.
        views: in which every look is judged besides, if the target asks for them; others in each
            step.
        onward: the outcome is where the last step led to, even if that is worse than the start: a
            dream goes on.
    """

    def __init__(
        self,
        nets: Network | Mapping[str, Network],
        target: Target,
        config: PixelsConfig,
        *,
        views: ViewsConfig | None = None,
        onward: bool = False,
    ):
        named = by_name(nets)
        self._size = max(net.size for net in named.values())
        self._multiple = next(iter(named.values())).multiple
        self._target, self._config, self._onward = target, config, onward
        if views and views.sizes:
            raise InputError("views.sizes: pixels cannot be drawn at other sizes, as formulas can")
        self._views = views if views and views.count else None
        self._graphs, self._weights = split_nets(named)
        self._compiled: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._compile_seconds = 0.0
        self._rule = plain() if config.rule == "plain" else bands(config.smoothness)
        self._optimizer = self._rule.optimizer(config.learning_rate, config.momentum)

    def __call__(
        self,
        picture: Float[Array | np.ndarray, "H W 3"],
        key: Key[Array, ""],
        progress_fn: ProgressFn = lambda share, value: None,
    ) -> PixelsOutcome:
        """See `polish_pixels`."""
        config, began, self._compile_seconds = self._config, time.perf_counter(), 0.0
        start = jnp.asarray(picture, jnp.float32)
        if min(start.shape[:2]) < 16 or not bool(jnp.all(jnp.isfinite(start))):
            raise InputError("pixels are polished from 16x16 of them on, and must be finite")
        best = first = self._candidate(start)
        height, width, _ = start.shape
        sizes = octave_sizes(height, width, config.octaves, config.octave_scale, _LEAST_OCTAVE)
        detail = jnp.zeros((*sizes[0], 3))
        for number, size in enumerate(sizes):
            base = self._rule.climbed(resized(start, size))
            detail = resized(detail, size)
            optimizer = self._optimizer.init(detail)
            places = jax.random.uniform(jax.random.fold_in(key, number), (config.steps, 2, 2))
            view_keys = jax.random.split(jax.random.fold_in(key, len(sizes) + number), config.steps)
            for begin, end in _stretches(config.steps, 1 if self._onward else _LOOKS):
                arguments = (self._weights, base, detail, optimizer, (places, view_keys))
                detail, optimizer, value = self._run("climb", self._climb, *arguments, begin, end)
                if number == len(sizes) - 1:
                    candidate = self._candidate(
                        within_gate(self._rule.colours(base + detail), config.noise_gate)
                    )
                    detail = self._rule.climbed(candidate.picture) - base
                    best = self._better(best, candidate, first)
                share = (number + end / config.steps) / len(sizes)
                progress_fn(share, float(value))
        seconds = time.perf_counter() - began - self._compile_seconds
        return PixelsOutcome(
            np.asarray(best.picture),
            start_value=first.value,
            value=best.value,
            start_score=first.score,
            score=best.score,
            start_noise=first.noise,
            noise=best.noise,
            compile_seconds=self._compile_seconds,
            seconds=seconds,
        )

    def _better(self, best: _Candidate, new: _Candidate, start: _Candidate) -> _Candidate:
        if self._onward:
            return new
        gate = self._config.noise_gate or math.inf

        def rank(one: _Candidate) -> tuple[bool, bool, float]:
            within = one.noise < gate
            no_worse = one.value >= start.value and (within or one.noise <= start.noise)
            return no_worse, within, one.value

        return max(best, new, key=rank)

    def _candidate(self, picture: Float[Array, "H W 3"]) -> _Candidate:
        return _Candidate(picture, *self.evaluate(picture), float(tv_noise(picture[None])[0]))

    def evaluate(self, picture: Float[Array | np.ndarray, "H W 3"]) -> tuple[float, float]:
        """The target's value and score of a picture as it is."""
        seen = jnp.asarray(picture, jnp.float32)
        value, score = self._run("evaluate", self._evaluate, self._weights, seen)
        return float(value), float(score)

    def _run(self, name: str, function: Callable, *arguments: Any) -> Any:
        """Calls it compiled, and adds the time that this took, once per size of picture."""
        key = name, arguments[1].shape
        if key not in self._compiled:
            began = time.perf_counter()
            self._compiled[key] = jax.jit(function).lower(*arguments).compile()
            self._compile_seconds += time.perf_counter() - began
        return self._compiled[key](*arguments)

    def _evaluate(self, weights: Any, picture: Float[Array, "H W 3"]) -> tuple[Array, Array]:
        """Value and score of a picture as it is, in tiles where it is too large for its layer."""
        nets, view_key = merge_nets(self._graphs, weights), jax.random.key(0)
        if self._target.resizes:
            measure = self._target.measure(self._observed(picture[None], nets, view_key))
            return measure.value[0], measure.score[0]
        cuts = self._cuts(picture)
        tiles = cut_up(picture, cuts, jnp.array([cut.jitter for cut in cuts]))
        measures = jax.lax.map(
            lambda tile: self._target.measure(self._observed(tile[None], nets, view_key)), tiles
        )
        return jnp.mean(measures.value), jnp.mean(measures.score)

    def _observed(
        self, images: Float[Array, "V a b 3"], nets: Mapping[str, Any], view_key: Key[Array, ""]
    ) -> Observed:
        views = (draw_views(view_key, self._views), self._views) if self._views else None
        return Observed(images, nets, views=views)

    def _climb(self, weights, base, detail, optimizer, chance, begin, end):
        """Steps number `begin` to `end` of an octave; detail, optimiser, and the last value."""
        nets = merge_nets(self._graphs, weights)

        def step(number, carried):
            detail, optimizer, _ = carried
            value, gradient = self._gradient(nets, base + detail, *(of[number] for of in chance))
            gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
            updates, optimizer = self._optimizer.update(gradient, optimizer)
            moved = optax.apply_updates(detail, updates)
            return self._rule.confined(base, jnp.asarray(moved)), optimizer, value

        return jax.lax.fori_loop(begin, end, step, (detail, optimizer, jnp.float32(0)))

    def _gradient(
        self,
        nets: Mapping[str, Any],
        logits: Float[Array, "h w 3"],
        places: Float[Array, "2 2"],
        view_key: Key[Array, ""],
    ):
        """What is climbed, and its gradient in the pixels' log-odds."""

        def from_pixels(logits):
            picture = self._rule.colours(logits)
            return self._looks(picture, places), total_variation(picture[None])[0]

        def group_value(views, weights):
            return jnp.sum(
                weights * self._target.measure(self._observed(views, nets, view_key)).value
            )

        (views, tv), pull_back = jax.vjp(from_pixels, logits)
        # In groups, one after the other, so that memory does not grow with the picture.
        count, height, width, _ = views.shape
        num_groups = min(count, -(-count * height * width // _GROUP_PIXELS))
        size = -(-count // num_groups)
        index = jnp.arange(num_groups * size)
        groups = views[index % count].reshape(num_groups, size, height, width, 3)
        weights = self._weights_of(count)[index % count] * (index < count)
        climb = jax.value_and_grad(group_value)
        values, slopes = jax.lax.map(
            lambda group: climb(*group), (groups, weights.reshape(num_groups, size))
        )
        slopes = slopes.reshape(-1, height, width, 3)[:count]
        tv_weight = self._config.tv_weight
        return jnp.sum(values) - tv_weight * tv, pull_back((slopes, jnp.float32(-tv_weight)))[0]

    def _looks(
        self, picture: Float[Array, "h w 3"], places: Float[Array, "2 2"]
    ) -> Float[Array, "V a b 3"]:
        """What is judged: the picture's tiles, and for classes the whole of it, the last."""
        cuts = self._cuts(picture)
        beyond = self._rule.beyond
        tiles = cut_up(picture, cuts, corner_at(places[0], cuts), beyond)
        if not self._target.resizes:
            return tiles
        frame = cut_sides(picture, max(picture.shape), 1, self._config.jitter)
        whole = cut_up(picture, frame, corner_at(places[1], frame), beyond)[0]
        return jnp.concatenate([tiles, resized(whole, tiles.shape[1:3])[None]])

    def _weights_of(self, count: int) -> Float[Array, "V"]:
        if not self._target.resizes:
            return jnp.full(count, 1 / count)
        whole = self._config.whole
        return jnp.full(count, (1 - whole) / (count - 1)).at[-1].set(whole)

    def _cuts(self, picture: Float[Array, "h w 3"]) -> tuple[Cut, Cut]:
        config = self._config
        if self._target.resizes:
            return cut_sides(picture, _WINDOW * self._size, 1, config.jitter)
        limit = max(picture.shape) if self._target.sees_whole else config.tile
        return cut_sides(picture, limit, self._multiple, config.jitter)


def within_gate(picture: Float[Array, "H W 3"], gate: float) -> Float[Array, "H W 3"]:
    """A picture, drawn towards its denoised version until its noise is below a gate; 0 for none."""
    for _ in range(8 if gate else 0):
        denoised = denoise_tv_chambolle(picture[None], GATE_WEIGHT)[0]
        noise = float(jnp.mean(jnp.abs(picture - denoised)))
        if noise < _MARGIN * gate:
            break
        picture = picture + (1 - 0.999 * _MARGIN * gate / noise) * (denoised - picture)
    return picture


def _stretches(steps: int, looks: int) -> list[tuple[int, int]]:
    ends = sorted({-(-steps * look // looks) for look in range(looks + 1)})
    return list(itertools.pairwise(ends))
