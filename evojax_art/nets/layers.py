"""What networks are made of, as functions that somebody else carries out.

A network says once which layers follow each other (`Staged.stages`), in terms of a `Layers`.
`PLAIN` computes with JAX; `nets.native` notes what is asked for and computes it later, all at once.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from evojax_art.nets.pooling import max_pool, mean_pool

Activation = Literal["none", "relu", "relu6"]
_ACTIVATIONS: dict[str, Any] = {"none": lambda x: x, "relu": jax.nn.relu, "relu6": jax.nn.relu6}


class Convolution(NamedTuple):
    """What a layer does, in numbers.

    Attributes:
        kernel: [height, width, in, out], or of each channel by itself [height, width, channels].
        bias: of every output.
        stride: along both axes.
        padding: as `jax.lax.conv_general_dilated` takes it.
    """

    kernel: Float[Array, "h w C D"] | Float[Array, "h w C"]
    bias: Float[Array, "D"]
    stride: int = 1
    padding: str | Sequence[tuple[int, int]] = "VALID"


@runtime_checkable
class Layers(Protocol):
    """Tensors, of whatever kind, are [P, H, W, C]."""

    def layer(self, module: Any, x: Any, activation: Activation = "none", plus: Any = None) -> Any:
        """What a module makes of x, and `plus` if there is any, through an activation."""
        ...

    def concatenate(self, tensors: Sequence[Any]) -> Any:
        """Their channels side by side."""
        ...

    def max_pool(self, x: Any, size: int, stride: int) -> Any:
        """Of windows; x is nowhere negative. The last may reach over the far edge."""
        ...

    def mean_pool(self, x: Any, size: int) -> Any:
        """Of windows beside each other, which fill the picture."""
        ...


class Plain:
    """Computes with JAX."""

    def layer(self, module: Any, x: Array, activation: Activation = "none", plus: Any = None):
        """See `Layers`."""
        y = module(x)
        return _ACTIVATIONS[activation](y if plus is None else y + plus)

    def concatenate(self, tensors: Sequence[Array]) -> Array:
        """See `Layers`."""
        return jnp.concatenate(tensors, axis=-1)

    def max_pool(self, x: Array, size: int, stride: int) -> Array:
        """See `Layers`."""
        return max_pool(x, size, stride)

    def mean_pool(self, x: Array, size: int) -> Array:
        """See `Layers`."""
        return mean_pool(x, size)


PLAIN = Plain()


def convolution_of(module: Any) -> Convolution:
    """The numbers of a layer: one that says them itself (`as_convolution`), or one of Flax's."""
    if hasattr(module, "as_convolution"):
        return module.as_convolution()
    kernel = module.kernel[...]
    bias = jnp.zeros(kernel.shape[-1]) if module.bias is None else module.bias[...]
    if isinstance(module, nnx.Linear):
        return Convolution(kernel[None, None], bias)
    stride, padding = module.strides, module.padding
    if not isinstance(stride, int):
        stride, *others = stride
        if any(other != stride for other in others):
            raise ValueError("strides must be the same along both axes")
    if isinstance(padding, int):
        padding = [(padding, padding)] * 2
    return Convolution(kernel, bias, stride, padding)
