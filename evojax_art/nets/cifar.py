"""Two small networks for 32x32 pictures, trained here on CIFAR-100 (see `runs.training`).

`CifarResNet` judges by default. `CifarVgg` is built, seeded and trained apart from it, so that its
opinion of what evolved for the other is worth something: it is the unseen judge of a run.

Both end in calibrated logits: divided by a temperature that was fitted on photographs (Guo et al.
2017, arXiv:1706.04599).
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.nets.base import Staged
from evojax_art.nets.convolution import convolve
from evojax_art.nets.entry import NetEntry
from evojax_art.nets.layers import Convolution, Layers
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
        self.stride = stride

    def __call__(self, x: Float[Array, "P H W C"]) -> Float[Array, "P h w D"]:
        """Padded; a stride of 2 halves the size."""
        return self.norm(self.conv(x))

    def as_convolution(self) -> Convolution:
        """See `layers`; with the normalisation in the kernel and a bias."""
        norm: Any = self.norm
        factor = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
        bias = norm.bias[...] - norm.mean[...] * factor
        return Convolution(self.conv.kernel[...] * factor, bias, self.stride, "SAME")


class Downsample(nnx.Module):
    """A residual block that halves the picture (He et al. 2016, arXiv:1512.03385).

    The skip connection averages 2x2 pixels before its 1x1 convolution (He et al. 2019,
    arXiv:1812.01187, ResNet-D), where the original looks at one pixel of four.
    """

    def __init__(self, inputs: int, outputs: int, *, dtype, rngs: nnx.Rngs):
        self.first = Normed(inputs, outputs, 2, dtype=dtype, rngs=rngs)
        self.second = Normed(outputs, outputs, dtype=dtype, rngs=rngs)
        self.skip = Normed(inputs, outputs, kernel=1, dtype=dtype, rngs=rngs)

    def stage(self, layers: Layers, x: Any) -> Any:
        """H and W must be even."""
        inner = layers.layer(self.first, x, "relu")
        skipped = layers.layer(self.skip, layers.mean_pool(x, 2))
        return layers.layer(self.second, inner, "relu", plus=skipped)


class Bottleneck(nnx.Module):
    """A residual block whose 3x3 convolution works on half the channels."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        half = channels // 2
        self.narrow = Normed(channels, half, kernel=1, dtype=dtype, rngs=rngs)
        self.middle = Normed(half, half, dtype=dtype, rngs=rngs)
        self.widen = Normed(half, channels, kernel=1, dtype=dtype, rngs=rngs)

    def stage(self, layers: Layers, x: Any) -> Any:
        """Same shape."""
        inner = layers.layer(self.middle, layers.layer(self.narrow, x, "relu"), "relu")
        return layers.layer(self.widen, inner, "relu", plus=x)


class CifarClassifier(Staged):
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

    def logits_from_mean(self, mean: Float[Array, "P D"]) -> Float[Array, "P K"]:
        """Calibrated."""
        logits = self.head(mean)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return logits / self.temperature[...]


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

    def entry(self, x: Float[Array, "P h w 3"]) -> Float[Array, "P H W 12"]:
        """2x2 pixels as one."""
        return _space_to_depth(x)

    def stages(self, layers: Layers, x: Any) -> dict[str, Any]:
        """`stem` [P, 16, 16, 64], `block1`, `block2` [P, 8, 8, 128], `block3`, `block4`."""
        outputs = {}
        x = outputs["stem"] = layers.layer(self.stem, x, "relu")
        for name in ("block1", "block2", "block3", "block4"):
            x = outputs[name] = getattr(self, name).stage(layers, x)
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

    def stages(self, layers: Layers, x: Any) -> dict[str, Any]:
        """`conv1` [P, 16, 16, 32] to `conv6` [P, 4, 4, 256]; 1, 2 and 4 are pooled."""
        outputs = {}
        for number, conv in enumerate(self.convs, 1):
            x = layers.layer(conv, x, "relu")
            x = outputs[f"conv{number}"] = layers.max_pool(x, 2, 2) if number in (1, 2, 4) else x
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
