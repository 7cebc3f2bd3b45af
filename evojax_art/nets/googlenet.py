"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842) as Berkeley's Caffe zoo trained it.

The network of the published DeepDream. 7.0 M parameters, 1.6 G multiply-adds at 224x224. Layers
have the names of Caffe, `inception_4c/output` and so on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.nets.base import Classifier
from evojax_art.nets.convolution import convolve, from_oihw
from evojax_art.nets.entry import NetEntry, Published
from evojax_art.nets.pooling import max_pool, normalise_responses
from evojax_art.nets.vocabulary import imagenet


class _Widths(NamedTuple):
    """Channels of an inception block's layers, `three_reduced` those before the 3x3."""

    one: int
    three_reduced: int
    three: int
    five_reduced: int
    five: int
    pooled: int

    @property
    def outputs(self) -> int:
        return self.one + self.three + self.five + self.pooled


_BLOCKS = {
    "3a": _Widths(64, 96, 128, 16, 32, 32),
    "3b": _Widths(128, 128, 192, 32, 96, 64),
    "4a": _Widths(192, 96, 208, 16, 48, 64),
    "4b": _Widths(160, 112, 224, 24, 64, 64),
    "4c": _Widths(128, 128, 256, 24, 64, 64),
    "4d": _Widths(112, 144, 288, 32, 64, 64),
    "4e": _Widths(256, 160, 320, 32, 128, 128),
    "5a": _Widths(256, 160, 320, 32, 128, 128),
    "5b": _Widths(384, 192, 384, 48, 128, 128),
}
_POOL_AFTER = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}


class GoogLeNet(Classifier):
    """GoogLeNet without its side heads, which are for training, with ImageNet's 1000 classes."""

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.vocabulary = imagenet()
        self.size = 224
        self.mean = (123 / 255, 117 / 255, 104 / 255)
        self.std = (1 / 255, 1 / 255, 1 / 255)
        self.dtype = dtype
        layers = {
            "conv1/7x7_s2": _conv(3, 64, 7, dtype, rngs, stride=2),
            "conv2/3x3_reduce": _conv(64, 64, 1, dtype, rngs),
            "conv2/3x3": _conv(64, 192, 3, dtype, rngs),
        }
        inputs = 192
        for block, widths in _BLOCKS.items():
            for name, before, after, size in (
                ("1x1", inputs, widths.one, 1),
                ("3x3_reduce", inputs, widths.three_reduced, 1),
                ("3x3", widths.three_reduced, widths.three, 3),
                ("5x5_reduce", inputs, widths.five_reduced, 1),
                ("5x5", widths.five_reduced, widths.five, 5),
                ("pool_proj", inputs, widths.pooled, 1),
            ):
                layers[f"inception_{block}/{name}"] = _conv(before, after, size, dtype, rngs)
            inputs = widths.outputs
        layers["loss3/classifier"] = _conv(inputs, len(self.vocabulary), 1, dtype, rngs)
        self.layers = nnx.Dict(layers)

    def logits_from_input(self, x: Float[Array, "P h w 3"]) -> Float[Array, "P K"]:
        """Logits of preprocessed pictures; sizes other than 224 work, the head averages."""
        return self.activations(x)["loss3/classifier"]

    def activations(self, x: Float[Array, "P h w 3"]) -> dict[str, Array]:
        """Every layer's output under Caffe's name, convolutions behind their ReLU."""
        outputs: dict[str, Array] = {}

        def layer(name: str, x: Array) -> Array:
            outputs[name] = jax.nn.relu(self.layers[name](x))
            return outputs[name]

        x = layer("conv1/7x7_s2", x)
        x = outputs["pool1/3x3_s2"] = max_pool(x, 3, 2)
        x = outputs["pool1/norm1"] = normalise_responses(x)
        x = layer("conv2/3x3", layer("conv2/3x3_reduce", x))
        x = outputs["conv2/norm2"] = normalise_responses(x)
        x = outputs["pool2/3x3_s2"] = max_pool(x, 3, 2)
        for block in _BLOCKS:
            place = f"inception_{block}"
            pooled = outputs[f"{place}/pool"] = max_pool(x, 3, 1, padding=1)
            branches = (
                layer(f"{place}/1x1", x),
                layer(f"{place}/3x3", layer(f"{place}/3x3_reduce", x)),
                layer(f"{place}/5x5", layer(f"{place}/5x5_reduce", x)),
                layer(f"{place}/pool_proj", pooled),
            )
            x = outputs[f"{place}/output"] = jnp.concatenate(branches, axis=-1)
            if block in _POOL_AFTER:
                x = outputs[_POOL_AFTER[block]] = max_pool(x, 3, 2)
        x = outputs["pool5/7x7_s1"] = jnp.mean(x, axis=(1, 2))
        outputs["loss3/classifier"] = self.layers["loss3/classifier"](x)
        return outputs


def from_caffe(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Caffe's layers and layouts as this module's; the side heads are left out.

    Args:
        tensors: see `caffe_files.read_tensors`. The first layer takes blue, green, red.

    Returns:
        `layers/conv1/7x7_s2/kernel` and so on, kernels as [height, width, in, out], 1x1 ones as
        [in, out]; the first layer takes red, green, blue.
    """
    converted = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition("/")
        if layer.startswith(("loss1/", "loss2/")):
            continue
        if kind == "weight" and tensor.ndim == 4:
            tensor = from_oihw(tensor[:, ::-1] if layer == "conv1/7x7_s2" else tensor)
        elif kind == "weight":
            tensor = tensor.T
        converted[f"layers/{layer}/{'kernel' if kind == 'weight' else kind}"] = tensor
    return converted


NETS = {
    "bvlc_googlenet": NetEntry(
        build=GoogLeNet,
        vocabulary=imagenet,
        weights=Published(
            url="http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
            sha1="405fc5acd08a3bb12de8ee5e23a96bec22f08204",
        ),
        multiply_adds=1.6,
        convert=from_caffe,
        unseen=("efficientnet_lite0", "squeezenet1_1"),
        summary="BVLC GoogLeNet, 1000 ImageNet classes, 224x224, 7.0 M parameters (DeepDream's)",
    ),
}


def _conv(
    inputs: int, outputs: int, size: int, dtype: DTypeLike, rngs: nnx.Rngs, stride: int = 1
) -> nnx.Module:
    """A convolution that keeps the size but for its stride; 1x1 ones as matrix products."""
    if size == 1:
        return nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        stride,
        padding=size // 2,
        dtype=dtype,
        conv_general_dilated=convolve,
        rngs=rngs,
    )
