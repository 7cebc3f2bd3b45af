"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360; version 1.1 of the authors' repository).

1.2 M parameters, 0.35 G multiply-adds at 224x224; torchvision's ImageNet weights give 58 % top-1.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from evojax_art.nets.base import Staged
from evojax_art.nets.convolution import convolve, from_oihw
from evojax_art.nets.entry import NetEntry, Published
from evojax_art.nets.layers import Layers
from evojax_art.nets.vocabulary import imagenet

# Fire modules: (input channels, squeezed, expanded by each branch), as torchvision numbers them.
_FIRE = {
    3: (64, 16, 64),
    4: (128, 16, 64),
    6: (128, 32, 128),
    7: (256, 32, 128),
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}
_POOL_BEFORE = (3, 6, 9)


class Fire(nnx.Module):
    """Squeeze to few channels, then expand by a 1x1 and a 3x3 convolution side by side.

    A 1x1 convolution is a matrix product over channels; as such XLA runs it up to twice as fast on
    a CPU.
    """

    def __init__(self, inputs: int, squeezed: int, expanded: int, *, dtype, rngs: nnx.Rngs):
        self.squeeze = nnx.Linear(inputs, squeezed, dtype=dtype, rngs=rngs)
        self.expand1x1 = nnx.Linear(squeezed, expanded, dtype=dtype, rngs=rngs)
        self.expand3x3 = nnx.Conv(
            squeezed,
            expanded,
            (3, 3),
            padding=1,
            dtype=dtype,
            conv_general_dilated=convolve,
            rngs=rngs,
        )

    def stage(self, layers: Layers, x: Any) -> Any:
        """Twice the expanded channels, those of the 1x1 branch first."""
        x = layers.layer(self.squeeze, x, "relu")
        branches = (self.expand1x1, self.expand3x3)
        return layers.concatenate([layers.layer(branch, x, "relu") for branch in branches])


class SqueezeNet(Staged):
    """SqueezeNet 1.1 with ImageNet's 1000 classes."""

    least = 17

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.vocabulary = imagenet()
        self.size = 224
        self.mean = (0.485, 0.456, 0.406)
        self.std = (0.229, 0.224, 0.225)
        self.dtype = dtype
        self.stem = nnx.Conv(
            3,
            64,
            (3, 3),
            2,
            padding="VALID",
            dtype=dtype,
            conv_general_dilated=convolve,
            rngs=rngs,
        )
        self.fire = nnx.Dict(
            {str(n): Fire(*shape, dtype=dtype, rngs=rngs) for n, shape in _FIRE.items()}
        )
        self.head = nnx.Linear(512, len(self.vocabulary), dtype=dtype, rngs=rngs)

    def stages(self, layers: Layers, x: Any) -> dict[str, Any]:
        """`features.2` to `features.12` and `classifier.2`, as torchvision counts."""
        outputs = {}
        x = layers.layer(self.stem, x, "relu")
        for number in _FIRE:
            if number in _POOL_BEFORE:
                x = outputs[f"features.{number - 1}"] = layers.max_pool(x, 3, 2)
            x = outputs[f"features.{number}"] = self.fire[str(number)].stage(layers, x)
        outputs["classifier.2"] = layers.layer(self.head, x, "relu")
        return outputs


def from_torchvision(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Torchvision's parameter names and layouts as this module's paths and layouts.

    Args:
        tensors: `features.0.weight` and so on, convolutions as [out, in, height, width].

    Returns:
        `stem/kernel` and so on, kernels as [height, width, in, out], 1x1 ones as [in, out].
    """
    paths = {"features.0": "stem", "classifier.1": "head"}
    for number in _FIRE:
        for part in ("squeeze", "expand1x1", "expand3x3"):
            paths[f"features.{number}.{part}"] = f"fire/{number}/{part}"
    converted = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and tensor.ndim == 4:
            tensor = from_oihw(tensor)
        path = paths.get(layer, layer)
        converted[f"{path}/{'kernel' if kind == 'weight' else kind}"] = tensor
    return converted


NETS = {
    "squeezenet1_1": NetEntry(
        build=SqueezeNet,
        vocabulary=imagenet,
        # Torchvision publishes eight digits of the SHA-256, in the file's name. The whole is what
        # public repositories of several authors that fetched it have on record (4,958,839 bytes).
        weights=Published(
            url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
            sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        ),
        multiply_adds=0.35,
        convert=from_torchvision,
        unseen=("efficientnet_lite0", "bvlc_googlenet"),
        summary="SqueezeNet 1.1, 1000 ImageNet classes, 224x224, 1.2 M parameters (torchvision)",
    ),
}
