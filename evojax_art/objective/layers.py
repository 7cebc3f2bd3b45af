"""A layer of a network, excited, or brought to what a guide picture makes of it, as a target.

LayerTarget(net, "block3:17")                    # one channel's mean activation
LayerTarget(net, "block3")                       # the layer's energy, as in DeepDream
LayerTarget(net, "block3", guide=picture)        # the activations of a guide picture
LayerTarget(net, "block3", guide=picture, match="best")    # the same wherever they are
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.nets.base import Network
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Measure
from evojax_art.runtime.errors import InputError, suggest

_TOLD = 10  # names of layers at either end
_FAINT = 0.01  # activations well below this are as good as none; layers have some of about 1


class LayerTarget:
    """A layer's activations, at the pictures' own size: nothing is resized.

    Args:
        network: whose layer it is.
        layer: `NAME` or `NAME:CHANNEL`. A channel is measured by its mean, a layer by its root mean
            square, the energy that DeepDream climbs (Mordvintsev et al. 2015).
        guide: RGB in [0, 1], any size: the layer is then measured by 1 - |a - g|^2 / |g|^2, which
            is 1 where its activations a are those g of the guide, resized to the pictures.
        match: "place" compares with the guide's activations of the same place; "best" takes for
            each place the dot product with that activation vector of the guide that gives the most,
            as the published DeepDream does, its mean over that of the guide's squared lengths. The
            guide then keeps its size, but for the longer side, which is at most twice the
            network's.
        net: name of the network; "" is the first.

    The value of a score s is asinh(s / 0.02), which is log(s / 0.01) but for the faintest and for
    negative ones; with a guide it is -log(1 - s + 1e-6), at most 13.8.

    Raises:
        InputError: a layer or channel that the network does not have; lists those there are.
    """

    is_probability = False
    resizes = False

    def __init__(
        self,
        network: Network,
        layer: str,
        guide: Float[np.ndarray, "h w 3"] | None = None,
        net: str = "",
        *,
        match: Literal["place", "best"] = "place",
    ):
        shapes = layer_shapes(network)
        self.layer, colon, channel = layer.partition(":")
        if self.layer not in shapes:
            near = suggest(self.layer, shapes) or ""
            raise InputError(f"no layer {self.layer!r}{near}; there are {_some(list(shapes))}")
        num_channels = shapes[self.layer][-1]
        if colon and not (channel.isdecimal() and int(channel) < num_channels):
            raise InputError(
                f"layer {self.layer} has no channel {channel!r}; they go from 0 to "
                f"{num_channels - 1}"
            )
        self.channel = int(channel) if colon else None
        self.guide = None if guide is None else np.asarray(guide, np.float32)
        self._is_best = match == "best"
        self._longest, self._multiple = 2 * network.size, network.multiple
        self.net = net
        self.name = layer + ("" if guide is None else " like the guide")

    @property
    def sees_whole(self) -> bool:
        """With a guide: each of a picture's parts would be made to look like all of it."""
        return self.guide is not None and not self._is_best

    def measure(self, observed: Observed) -> Measure:
        """Any score but a guide's, which is at most 1; an energy is not negative.

        Raises:
            InputError: pictures of a size that the layer cannot take.
        """
        activations = self._activations(observed)
        axes = tuple(range(1, activations.ndim))
        if self.guide is not None and self._is_best:
            score = self._best_match(activations, observed)
        elif self.guide is not None:
            wanted = self._activations(Observed(self._guide_like(observed.images), observed.nets))
            distance = jnp.mean((activations - wanted) ** 2, axes)
            missing = distance / (jnp.mean(wanted**2) + 1e-12)
            return Measure(-jnp.log(missing + 1e-6), 1 - missing)
        elif self.channel is not None:
            score = jnp.mean(activations, axes)
        else:
            score = jnp.sqrt(jnp.mean(activations**2, axes) + 1e-12)
        return Measure(jnp.arcsinh(score / (2 * _FAINT)), score)

    def opinion(self, net: Network, images: Float[Array, "P H W 3"]) -> None:
        """None: layers of two networks have nothing to do with each other."""
        del net, images

    def describe(self) -> list[str]:
        """The layer."""
        return [f"target: layer {self.name}"]

    def text(self, score: float) -> str:
        """A plain number."""
        return f"{score:.4g}"

    def _activations(self, observed: Observed, what: str = "pictures") -> Array:
        found = observed.activations(self.net)[self.layer].astype(jnp.float32)
        if not found.size:
            height, width = observed.images.shape[1:3]
            raise InputError(f"{what} of {width}x{height} are too small for layer {self.layer}")
        return found if self.channel is None else found[..., self.channel]

    def _best_match(self, activations: Float[Array, "P *any"], observed: Observed) -> Array:
        """For each place that vector of the guide which it agrees with most."""
        height, width = np.asarray(self.guide).shape[:2]
        shrink = min(1.0, self._longest / max(height, width))
        step = self._multiple
        shape = [max(step, round(side * shrink / step) * step) for side in (height, width)]
        guide = self._resized_guide(tuple(shape), observed.images.dtype)
        vectors = self._activations(Observed(guide, observed.nets), "guides")
        channels = 1 if self.channel is not None else activations.shape[-1]
        vectors = vectors.reshape(-1, channels)
        agreement = activations.reshape(len(activations), -1, channels) @ vectors.T
        length = jnp.mean(jnp.sum(vectors**2, axis=-1)) + 1e-12
        return jnp.mean(jnp.max(agreement, axis=-1), axis=-1) / length

    def _guide_like(self, images: Array) -> Array:
        """The guide at the pictures' size, [1, H, W, 3]; resized once, when this is traced."""
        return self._resized_guide(images.shape[1:3], images.dtype)

    def _resized_guide(self, size: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "1 h w 3"]:
        with jax.ensure_compile_time_eval():
            guide = jnp.asarray(self.guide)
            guide = jax.image.resize(guide, (*size, 3), "bilinear", antialias=True)
            return guide[None].astype(dtype)


def _some(names: list[str]) -> str:
    """Names for one line; of many the first and last few."""
    if len(names) > 2 * _TOLD:
        names = [*names[:_TOLD], f"... {len(names) - 2 * _TOLD} more ...", *names[-_TOLD:]]
    return ", ".join(names)


def layer_shapes(net: Network) -> dict[str, tuple[int, ...]]:
    """The layers that a target can name, in order, with the shape of one picture's activations."""
    graph, weights = nnx.split(net)
    names: list[str] = []  # a traced dict comes back in the order of its keys

    def activations(weights, x):
        found = nnx.merge(graph, weights).activations(x)
        names.extend(found)
        return list(found.values())

    x = jax.ShapeDtypeStruct((1, net.size, net.size, 3), net.dtype)
    found = jax.eval_shape(activations, weights, x)
    return {name: layer.shape[1:] for name, layer in zip(names, found, strict=True)}
