"""What every network offers, whatever its architecture, and what those with classes offer more."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.nets.layers import PLAIN, Layers
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.runtime.errors import InputError

Pictures = Float[Array | np.ndarray, "P H W 3"]  # RGB in [0, 1]


class Network(nnx.Module):
    """Sees pictures, and owns its preprocessing.

    Subclasses set the attributes below and define `activations`.

    Attributes:
        size: pictures are resized to this height and width.
        mean: of each channel, subtracted from pictures in [0, 1].
        std: of each channel, divided by.
        dtype: of the arithmetic; weights stay float32.
        multiple: pictures that are not resized must have sides that are multiples of this.
        least: height and width of the smallest pictures of which anything is left at the end.
        implementation: "native" or "xla", of those that know both (`Staged`).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: DTypeLike
    multiple: int = 1
    least: int = 1
    implementation: str = "xla"

    def activations(self, x: Float[Array, "P h w 3"]) -> dict[str, Array]:
        """Every stage's output, of preprocessed pictures of any size that it can take, in order."""
        raise NotImplementedError

    def preprocess(self, images: Pictures, *, resize: bool = True) -> Float[Array, "P h w 3"]:
        """Pictures in [0, 1] as the network takes them, in `dtype`.

        Args:
            images: of any size and aspect ratio.
            resize: to `size`; without, they keep theirs.

        Raises:
            InputError: pictures that are not resized, of a size that the network cannot take.
        """
        pictures = jnp.asarray(images)
        height, width = pictures.shape[1:3]
        if not resize and (height % self.multiple or width % self.multiple):
            raise InputError(
                f"the network's layers take pictures whose sides are multiples of {self.multiple}, "
                f"got {width}x{height}"
            )
        if resize and (height, width) != (self.size, self.size):
            shape = (pictures.shape[0], self.size, self.size, 3)
            pictures = jax.image.resize(pictures, shape, "bilinear", antialias=True)
        x = (pictures - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        return x.astype(self.dtype)

    def features(self, images: Pictures, *, resize: bool = True) -> dict[str, Array]:
        """Every stage's output, in order, in `dtype`, of pictures in [0, 1] of any size.

        Args:
            images: of any size and aspect ratio.
            resize: to `size`; without, they keep theirs.

        Raises:
            InputError: pictures that are not resized, of a size that the network cannot take.
        """
        return self.activations(self.preprocess(images, resize=resize))


class Classifier(Network):
    """A network that tells classes apart.

    Subclasses define `logits_from_input` too.

    Attributes:
        vocabulary: its K classes.
    """

    vocabulary: Vocabulary

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its K classes, in order."""
        return self.vocabulary.names

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Names that stand for several classes, and their indices."""
        return self.vocabulary.groups

    def logits_from_input(self, x: Float[Array, "P h w 3"]) -> Float[Array, "P K"]:
        """Logits of preprocessed pictures, in `dtype`."""
        raise NotImplementedError

    def logits(self, images: Pictures) -> Float[Array, "P K"]:
        """Logits, float32, of pictures in [0, 1] of any size and aspect ratio."""
        logits = self.logits_from_input(self.preprocess(images))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def probabilities(self, images: Pictures) -> Float[Array, "P K"]:
        """Class probabilities of pictures in [0, 1] of any size; each row sums to one."""
        return _probabilities(self, jnp.asarray(images))


class Staged(Classifier):
    """A classifier of layers that follow each other, whose last stage is averaged.

    Subclasses define `stages` and `logits_from_mean`, perhaps `entry`.
    """

    def entry(self, x: Float[Array, "P h w 3"]) -> Float[Array, "P H W C"]:
        """What the first layer sees of preprocessed pictures."""
        return x

    def stages(self, layers: Layers, x: Any) -> dict[str, Any]:
        """Every stage's output, in order."""
        raise NotImplementedError

    def train(self, **attributes: Any) -> None:
        """As Flax has it; native code knows no statistics of a batch."""
        self.implementation = "xla"
        super().train(**attributes)

    def logits_from_mean(self, mean: Float[Array, "P D"]) -> Float[Array, "P K"]:
        """Of the last stage's pixels."""
        return mean

    def activations(self, x: Float[Array, "P h w 3"]) -> dict[str, Array]:
        """Every stage's output, of preprocessed pictures of any size, in order, and `logits`."""
        outputs = self.stages(PLAIN, self.entry(x))
        mean = jnp.mean(list(outputs.values())[-1], axis=(1, 2))
        return outputs | {"logits": self.logits_from_mean(mean)}

    def logits_from_input(self, x: Float[Array, "P h w 3"]) -> Float[Array, "P K"]:
        """Logits of preprocessed pictures; the head averages whatever their size."""
        if self.implementation == "native" and x.dtype == jnp.float32:
            graph, weights = nnx.split(self)
            return _native_logits(graph, weights, x)
        return self.activations(x)["logits"]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _native_logits(graph: Any, weights: Any, x: Array) -> Array:
    from evojax_art.nets.native.inference import mean_of_last  # needs LLVM

    net = nnx.merge(graph, weights)
    return net.logits_from_mean(mean_of_last(net.stages, net.entry(x)))


def _native_forward(graph: Any, weights: Any, x: Array):
    def plain(weights: Any, x: Array) -> Array:
        return nnx.merge(graph, weights).activations(x)["logits"]

    return jax.vjp(plain, weights, x)


def _native_backward(graph: Any, pull: Any, cotangent: Array):
    del graph
    return pull(cotangent)


_native_logits.defvjp(_native_forward, _native_backward)


@nnx.jit
def _probabilities(net: Classifier, images: Array) -> Array:
    return jax.nn.softmax(net.logits(images), axis=-1)


def by_name(nets: Network | Mapping[str, Network]) -> Mapping[str, Network]:
    """Networks by their names; one alone needs none."""
    return nets if isinstance(nets, Mapping) else {"": nets}


def split_nets(nets: Mapping[str, Network]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What networks are and what they have learned, of which only this passes through jit."""
    split = {name: nnx.split(net) for name, net in nets.items()}
    graphs = {name: graph for name, (graph, _) in split.items()}
    return graphs, {name: weights for name, (_, weights) in split.items()}


def merge_nets(graphs: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """The networks again."""
    return {name: nnx.merge(graph, weights[name]) for name, graph in graphs.items()}
