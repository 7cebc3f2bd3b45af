"""CaffeNet and AlexNet (Krizhevsky et al. 2012) as Berkeley's Caffe zoo trained them.

CaffeNet judged the crab run of 2015. 61 M parameters, 0.72 G multiply-adds at 227x227. The two
differ in one thing: CaffeNet pools before it normalises responses, AlexNet after. Layers have the
names of Caffe.
"""

from collections.abc import Callable
from functools import partial
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


class _Layer(NamedTuple):
    """A convolution; `groups` of its channels see groups of the inputs'."""

    outputs: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


_LAYERS = {
    "conv1": _Layer(96, 11, stride=4),
    "conv2": _Layer(256, 5, padding=2, groups=2),
    "conv3": _Layer(384, 3, padding=1),
    "conv4": _Layer(384, 3, padding=1, groups=2),
    "conv5": _Layer(256, 3, padding=1, groups=2),
}
_DENSE = 4096
_SIDE = 6  # of what the dense layers take, pixels


class CaffeNet(Classifier):
    """Five convolutions and three dense layers, with ImageNet's 1000 classes.

    Args:
        pools_first: CaffeNet; else AlexNet, which normalises responses first.
        narrower: divides all numbers of channels, so that tests take no time.
        dtype: of the arithmetic.
        rngs: for weights.
    """

    def __init__(
        self,
        *,
        pools_first: bool = True,
        narrower: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.vocabulary = imagenet()
        self.size = 227
        self.mean = (123 / 255, 117 / 255, 104 / 255)
        self.std = (1 / 255, 1 / 255, 1 / 255)
        self.dtype = dtype
        self.pools_first = pools_first
        layers, inputs = {}, 3
        for name, layer in _LAYERS.items():
            outputs = layer.outputs // narrower
            # Groups as convolutions side by side: XLA's grouped ones are slow on a CPU.
            layers[name] = nnx.List(
                nnx.Conv(
                    inputs // layer.groups,
                    outputs // layer.groups,
                    (layer.size, layer.size),
                    layer.stride,
                    padding=layer.padding,
                    dtype=dtype,
                    conv_general_dilated=convolve,
                    rngs=rngs,
                )
                for _ in range(layer.groups)
            )
            inputs = outputs
        self.layers = nnx.Dict(layers)
        dense, inputs = {}, inputs * _SIDE**2
        for name, outputs in (
            ("fc6", _DENSE // narrower),
            ("fc7", _DENSE // narrower),
            ("fc8", len(self.vocabulary)),
        ):
            dense[name] = nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)
            inputs = outputs
        self.dense = nnx.Dict(dense)

    def logits_from_input(self, x: Float[Array, "P 227 227 3"]) -> Float[Array, "P K"]:
        """Logits of preprocessed pictures."""
        return self.activations(x)["fc8"]

    def activations(self, x: Float[Array, "P h w 3"]) -> dict[str, Array]:
        """Every layer's output under Caffe's name, behind its ReLU where it has one.

        The dense layers, `fc6` to `fc8`, are [P, D] where `pool5` has 6x6 places, as of pictures
        of 199 to 230 pixels. Of larger ones they see every 6x6 of its h x w places, [P, h - 5,
        w - 5, D]; of smaller ones there is no such part, and they are empty.
        """
        outputs: dict[str, Array] = {}
        for number, name in enumerate(_LAYERS, 1):
            parts = self.layers[name]
            seen = [
                part(some) for part, some in zip(parts, jnp.split(x, len(parts), -1), strict=True)
            ]
            x = outputs[name] = jax.nn.relu(jnp.concatenate(seen, axis=-1))
            steps: dict[str, Callable[[Array], Array]] = {}
            if number in (1, 2, 5):
                steps[f"pool{number}"] = partial(max_pool, size=3, stride=2)
            if number in (1, 2):
                steps[f"norm{number}"] = normalise_responses
            for step in steps if self.pools_first else reversed(steps):
                x = outputs[step] = steps[step](x)
        for name, layer in self.dense.items():
            x = _slid(layer, x) if name == "fc6" else layer(x)
            x = outputs[name] = x if name == "fc8" else jax.nn.relu(x)
        return outputs


def _slid(layer: nnx.Linear, x: Float[Array, "P h w C"]) -> Float[Array, "P *places D"]:
    """A dense layer of every 6x6 places; where there are no more than those, as one vector."""
    if x.shape[1:3] == (_SIDE, _SIDE):
        return layer(x.reshape(x.shape[0], -1))
    kernel = layer.kernel[...].reshape(_SIDE, _SIDE, x.shape[-1], -1).astype(x.dtype)
    bias = jnp.asarray(layer.bias).astype(x.dtype)
    return convolve(x, kernel, (1, 1), "VALID") + bias


def from_caffe(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Caffe's layers and layouts as this module's.

    Args:
        tensors: see `caffe_files.read_tensors`. The first layer takes blue, green, red, and `fc6`
            its input as [channel, row, column].

    Returns:
        `layers/conv1/0/kernel` and so on, a number for each group, kernels as [height, width, in,
        out]; `dense/fc6/kernel` and so on as [in, out]. The first layer takes red, green, blue.
    """
    converted = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition("/")
        leaf = "kernel" if kind == "weight" else kind
        if layer not in _LAYERS:
            if kind == "weight":
                tensor = _dense(tensor) if layer == "fc6" else tensor.T
            converted[f"dense/{layer}/{leaf}"] = tensor
            continue
        groups = _LAYERS[layer].groups
        if tensor.shape[0] % groups:
            converted[name] = tensor  # no layer of ours, as who assigns it will say
            continue
        is_kernel = kind == "weight" and tensor.ndim == 4
        if is_kernel and layer == "conv1":
            tensor = tensor[:, ::-1]
        for number, part in enumerate(np.split(tensor, groups)):
            converted[f"layers/{layer}/{number}/{leaf}"] = from_oihw(part) if is_kernel else part
    return converted


def _dense(weight: np.ndarray) -> np.ndarray:
    """A dense layer's weights where its input is a picture, as this module flattens it."""
    outputs, inputs = weight.shape if weight.ndim == 2 else (weight.shape[0], 0)
    if not inputs or inputs % _SIDE**2:
        return weight
    return weight.reshape(outputs, -1, _SIDE, _SIDE).transpose(2, 3, 1, 0).reshape(inputs, outputs)


def _entry(file: str, sha1: str, title: str, *, pools_first: bool) -> NetEntry:
    return NetEntry(
        build=partial(CaffeNet, pools_first=pools_first),
        vocabulary=imagenet,
        weights=Published(url=f"http://dl.caffe.berkeleyvision.org/{file}", sha1=sha1),
        multiply_adds=0.72,
        convert=from_caffe,
        unseen=("efficientnet_lite0", "bvlc_googlenet", "squeezenet1_1"),
        summary=f"{title}, 1000 ImageNet classes, 227x227, 61 M parameters",
    )


NETS = {
    "bvlc_reference_caffenet": _entry(
        "bvlc_reference_caffenet.caffemodel",
        "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        "BVLC CaffeNet (the crab run's of 2015)",
        pools_first=True,
    ),
    "bvlc_alexnet": _entry(
        "bvlc_alexnet.caffemodel",
        "9116a64c0fbe4459d18f4bb6b56d647b63920377",
        "BVLC AlexNet",
        pools_first=False,
    ),
}
