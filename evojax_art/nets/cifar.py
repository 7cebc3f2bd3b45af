"""Two small networks for 32x32 pictures, trained here on CIFAR-100 (see `runs.training`).

`CifarResNet` judges by default. `CifarVgg` is built, seeded and trained apart from it, so that its
opinion of what evolved for the other is worth something: it is the unseen judge of a run.

Both end in calibrated logits: divided by a temperature that was fitted on photographs (Guo et al.
2017, arXiv:1706.04599).
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.nets.base import Classifier
from evojax_art.nets.convolution import convolve
from evojax_art.nets.entry import NetEntry
from evojax_art.nets.vocabulary import cifar100

SIZE = 32  # of CIFAR's photographs
_MEAN = (0.5071, 0.4865, 0.4409)  # of the 50,000 training photographs
_STD = (0.2673, 0.2564, 0.2762)
_FLOAT32_ON = ("cpu",)  # compiled in bfloat16, JAX 0.12 there gives NaN and wrong logits


class Temperature(nnx.Variable):
    """What logits are divided by, fitted after training."""


class Normed(nnx.Module):
    """A 3x3 convolution, or a 1x1 one, without bias, and a batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, *, kernel: int = 3, dtype, rngs: nnx.Rngs
    ):
        self.conv = nnx.Conv(
            inputs,
            outputs,
            (kernel, kernel),
            stride,
            use_bias=False,
            dtype=dtype,
            conv_general_dilated=convolve,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "P H W C"]) -> Float[Array, "P h w D"]:
        """Padded; a stride of 2 halves the size."""
        return self.norm(self.conv(x))


class Downsample(nnx.Module):
    """A residual block that halves the picture (He et al. 2016, arXiv:1512.03385).

    The skip connection averages 2x2 pixels before its 1x1 convolution (He et al. 2019,
    arXiv:1812.01187, ResNet-D), where the original looks at one pixel of four.
    """

    def __init__(self, inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs):
        self.first = Normed(inputs, outputs, 2, dtype=dtype, rngs=rngs)
        self.second = Normed(outputs, outputs, dtype=dtype, rngs=rngs)
        self.skip = Normed(inputs, outputs, kernel=1, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "P H W C"]) -> Float[Array, "P h w D"]:
        """H and W must be even."""
        inner = self.second(jax.nn.relu(self.first(x)))
        return jax.nn.relu(inner + self.skip(nnx.avg_pool(x, (2, 2), (2, 2))))


class Bottleneck(nnx.Module):
    """A residual block whose 3x3 convolution works on half the channels."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        half = channels // 2
        self.narrow = Normed(channels, half, kernel=1, dtype=dtype, rngs=rngs)
        self.middle = Normed(half, half, dtype=dtype, rngs=rngs)
        self.widen = Normed(half, channels, kernel=1, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "P H W C"]) -> Float[Array, "P H W C"]:
        """Same shape."""
        inner = jax.nn.relu(self.middle(jax.nn.relu(self.narrow(x))))
        return jax.nn.relu(x + self.widen(inner))


class CifarClassifier(Classifier):
    """What both networks share: classes, preprocessing, a linear head on averaged features.

    Subclasses define `stages`.
    """

    multiple = 8  # both halve a picture three times

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.vocabulary = cifar100()
        self.size = SIZE
        self.mean = _MEAN
        self.std = _STD
        self.dtype = dtype
        self.head = nnx.Linear(features, len(self.vocabulary), dtype=dtype, rngs=rngs)
        self.temperature = Temperature(jnp.ones(()))

    def stages(self, x: Float[Array, "P H W 3"]) -> dict[str, Array]:
        """Every stage's output, of preprocessed pictures, in order; the last is [P, h, w, C]."""
        raise NotImplementedError

    def activations(self, x: Float[Array, "P H W 3"]) -> dict[str, Array]:
        """The stages' outputs, and `logits` [P, K], calibrated."""
        outputs = self.stages(x)
        last = list(outputs.values())[-1]
        logits = self.head(jnp.mean(last, axis=(1, 2)))
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return outputs | {"logits": logits / self.temperature[...]}

    def logits_from_input(self, x: Float[Array, "P h w 3"]) -> Float[Array, "P K"]:
        """Calibrated logits of preprocessed pictures; the head averages whatever their size."""
        return self.activations(x)["logits"]


class CifarResNet(CifarClassifier):
    """Four residual blocks: 1.45 M parameters, 38 M multiply-adds a picture.

    The first convolution sees 2x2 pixels as 12 channels: convolutions at 32x32 would take a third
    of a CPU's time for a fiftieth of the multiply-adds.
    """

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(256, dtype=dtype, rngs=rngs)
        self.stem = Normed(12, 64, dtype=dtype, rngs=rngs)
        self.block1 = Downsample(64, 128, dtype=dtype, rngs=rngs)
        self.block2 = Bottleneck(128, dtype=dtype, rngs=rngs)
        self.block3 = Downsample(128, 256, dtype=dtype, rngs=rngs)
        self.block4 = Bottleneck(256, dtype=dtype, rngs=rngs)

    def stages(self, x: Float[Array, "P H W 3"]) -> dict[str, Array]:
        """`stem` [P, 16, 16, 64], `block1`, `block2` [P, 8, 8, 128], `block3`, `block4`."""
        outputs = {"stem": jax.nn.relu(self.stem(_space_to_depth(x)))}
        for name in ("block1", "block2", "block3", "block4"):
            x = list(outputs.values())[-1]
            outputs[name] = getattr(self, name)(x)
        return outputs


class CifarVgg(CifarClassifier):
    """Six plain convolutions and max-pooling: 1.0 M parameters, 27 M multiply-adds a picture."""

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(256, dtype=dtype, rngs=rngs)
        widths = (3, 32, 64, 96, 96, 256, 256)
        self.convs = nnx.List(
            Normed(inputs, outputs, dtype=dtype, rngs=rngs)
            for inputs, outputs in itertools.pairwise(widths)
        )

    def stages(self, x: Float[Array, "P H W 3"]) -> dict[str, Array]:
        """`conv1` [P, 16, 16, 32] to `conv6` [P, 4, 4, 256]; 1, 2 and 4 are pooled."""
        outputs = {}
        for number, conv in enumerate(self.convs, 1):
            x = jax.nn.relu(conv(x))
            x = outputs[f"conv{number}"] = _max_pool(x) if number in (1, 2, 4) else x
        return outputs


NETS = {
    "cifar100": NetEntry(
        build=CifarResNet,
        vocabulary=cifar100,
        weights="cifar100.safetensors",
        multiply_adds=0.038,
        unseen=("cifar100_judge",),
        float32_on=_FLOAT32_ON,
        summary="residual network, CIFAR-100's 100 classes, 32x32, 1.4 M parameters",
    ),
    "cifar100_judge": NetEntry(
        build=CifarVgg,
        vocabulary=cifar100,
        weights="cifar100_judge.safetensors",
        multiply_adds=0.027,
        unseen=("cifar100",),
        float32_on=_FLOAT32_ON,
        summary="plain network, CIFAR-100's 100 classes, 32x32, 1.0 M parameters",
    ),
}


def _space_to_depth(x: Array) -> Array:
    """2x2 pixels as one of four times the channels."""
    p, h, w, c = x.shape
    x = x.reshape(p, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(p, h // 2, w // 2, 4 * c)


def _max_pool(x: Array) -> Array:
    """2x2 maximum; by reshape, whose gradient is elementwise where a window's is a slow scatter."""
    p, h, w, c = x.shape
    return x.reshape(p, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
