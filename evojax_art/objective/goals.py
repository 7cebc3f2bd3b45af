"""What a picture is judged by: classes of a network, a layer of it, or a guide picture's layer.

    goal = ClassGoal(net, (crab,))                    # what evolution climbs by default
    goal = LayerGoal(net, "block3:17")                # one channel's mean activation
    goal = LayerGoal(net, "block3")                   # the layer's energy, as in DeepDream
    goal = LayerGoal(net, "block3", guide=picture)    # the activations of a guide picture

Goals hold names and pictures, not weights: the network comes with each call, so that compiled
functions take its weights as arguments.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from evojax_art.nets.base import Classifier, Network
from evojax_art.runtime.errors import InputError, suggest

_FAINT = 0.01  # activations well below this are as good as none; layers have some of about 1


class Measure(NamedTuple):
    """How well pictures do; higher is better, and both are differentiable.

    Attributes:
        value: what is climbed: the score on a logarithmic scale, so that a step means as much
            wherever it starts, and can be weighed against other terms.
        score: the same as people read it.
    """

    value: Float[Array, "P"]
    score: Float[Array, "P"]


class Goal(Protocol):
    """See the module's docstring."""

    @property
    def name(self) -> str:
        """What is wanted, for people."""
        ...

    def measure(self, net: Classifier, images: Float[Array, "P H W 3"]) -> Measure:
        """How well pictures in [0, 1] do; traceable."""
        ...

    def text(self, score: float) -> str:
        """A score as people read it, in a few letters."""
        ...


class ClassGoal:
    """The probability of some classes together; the value is its log-odds.

    Args:
        net: whose classes they are.
        targets: their indices, at least one and not all.
    """

    def __init__(self, net: Classifier, targets: Sequence[int]):
        self.targets = tuple(sorted(set(targets)))
        if len(self.targets) == len(net.classes):
            raise InputError("the targets are all classes of the network; name fewer")
        self.vocabulary = net.vocabulary
        self.name = "; ".join(net.classes[index] for index in self.targets)

    def measure(self, net: Classifier, images: Float[Array, "P H W 3"]) -> Measure:
        """Score in [0, 1]; pictures are resized as the network expects."""
        log_probabilities = jax.nn.log_softmax(net.logits(images), axis=-1)
        targets = jnp.array(self.targets)
        log_score = jax.nn.logsumexp(log_probabilities[:, targets], axis=-1)
        others = jnp.delete(log_probabilities, targets, axis=1, assume_unique_indices=True)
        log_odds = log_score - jax.nn.logsumexp(others, axis=-1)
        return Measure(log_odds, jnp.minimum(jnp.exp(log_score), 1.0))

    def text(self, score: float) -> str:
        """In per cent."""
        return f"{100 * score:.4g} %"


class LayerGoal:
    """A layer's activations, at the pictures' own size: nothing is resized.

    Args:
        net: whose layer it is.
        layer: `NAME` or `NAME:CHANNEL`. A channel is measured by its mean, a layer by its root mean
            square, the energy that DeepDream climbs (Mordvintsev et al. 2015).
        guide: RGB in [0, 1], any size: the layer is then measured by 1 - |a - g|^2 / |g|^2, which
            is 1 where its activations a are those g of the guide, resized to the pictures.

    The value of a score s is asinh(s / 0.02), which is log(s / 0.01) but for the faintest and for
    negative ones; with a guide it is -log(1 - s + 1e-6), at most 13.8.

    Raises:
        InputError: a layer or channel that the network does not have; lists those there are.
    """

    def __init__(self, net: Network, layer: str, guide: Float[np.ndarray, "h w 3"] | None = None):
        shapes = layer_shapes(net)
        self.layer, colon, channel = layer.partition(":")
        if self.layer not in shapes:
            near = suggest(self.layer, shapes) or ""
            raise InputError(f"no layer {self.layer!r}{near}; there are {', '.join(shapes)}")
        num_channels = shapes[self.layer][-1]
        if colon and not (channel.isdecimal() and int(channel) < num_channels):
            raise InputError(
                f"layer {self.layer} has no channel {channel!r}; they go from 0 to "
                f"{num_channels - 1}"
            )
        self.channel = int(channel) if colon else None
        self.guide = None if guide is None else np.asarray(guide, np.float32)
        self.name = layer + ("" if guide is None else " like the guide")

    def measure(self, net: Network, images: Float[Array, "P H W 3"]) -> Measure:
        """Any score but a guide's, which is at most 1; an energy is not negative.

        Raises:
            InputError: pictures of a size that the layer cannot take.
        """
        activations = self._activations(net, images)
        axes = tuple(range(1, activations.ndim))
        if self.guide is not None:
            wanted = self._activations(net, self._guide_like(images))
            distance = jnp.mean((activations - wanted) ** 2, axes)
            missing = distance / (jnp.mean(wanted**2) + 1e-12)
            return Measure(-jnp.log(missing + 1e-6), 1 - missing)
        if self.channel is not None:
            score = jnp.mean(activations, axes)
        else:
            score = jnp.sqrt(jnp.mean(activations**2, axes) + 1e-12)
        return Measure(jnp.arcsinh(score / (2 * _FAINT)), score)

    def text(self, score: float) -> str:
        """A plain number."""
        return f"{score:.4g}"

    def _activations(self, net: Network, images: Array) -> Array:
        layers = net.features(images, resize=False)
        found = layers[self.layer].astype(jnp.float32)
        if not found.size:
            height, width = images.shape[1:3]
            raise InputError(f"pictures of {width}x{height} are too small for layer {self.layer}")
        return found if self.channel is None else found[..., self.channel]

    def _guide_like(self, images: Array) -> Array:
        """The guide at the pictures' size, [1, H, W, 3]; resized once, when this is traced."""
        with jax.ensure_compile_time_eval():
            shape = (*images.shape[1:3], 3)
            guide = jax.image.resize(jnp.asarray(self.guide), shape, "bilinear", antialias=True)
            return guide[None].astype(images.dtype)


def chosen_goal(
    net: Classifier,
    target: Sequence[str],
    layer: str = "",
    guide: Float[np.ndarray, "h w 3"] | None = None,
) -> ClassGoal | LayerGoal:
    """The goal that a user's words mean.

    Args:
        net: the judge.
        target: names of classes, see `Vocabulary.find`; several are summed.
        layer: takes the target's place.
        guide: for the layer.

    Raises:
        InputError: no such class or layer; all classes at once.
    """
    if layer:
        return LayerGoal(net, layer, guide)
    return ClassGoal(net, targets_of(net, target))


def targets_of(net: Classifier, queries: Sequence[str]) -> tuple[int, ...]:
    """The classes that several queries mean together, ascending, each once.

    Raises:
        InputError: no such class.
    """
    found = {index for query in queries for index in net.vocabulary.find(query)}
    return tuple(sorted(found))


def layer_shapes(net: Network) -> dict[str, tuple[int, ...]]:
    """The layers that a goal can name, in order, with the shape of one picture's activations."""
    graph, weights = nnx.split(net)
    names: list[str] = []  # a traced dict comes back in the order of its keys

    def activations(weights, x):
        found = nnx.merge(graph, weights).activations(x)
        names.extend(found)
        return list(found.values())

    x = jax.ShapeDtypeStruct((1, net.size, net.size, 3), net.dtype)
    found = jax.eval_shape(activations, weights, x)
    return {name: layer.shape[1:] for name, layer in zip(names, found, strict=True)}
