"""A convolution whose gradient is fast inside a loop, too; and kernels of other frameworks."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def from_oihw(weight: np.ndarray) -> np.ndarray:
    """A kernel as PyTorch and Caffe keep it, [out, in, height, width], as Flax does.

    Returns:
        [height, width, in, out]; [in, out] of a 1x1 one, which is a matrix product here.
    """
    kernel = weight.transpose(2, 3, 1, 0)
    return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel


def convolve(
    x: Float[Array, "P H W C"],
    kernel: Float[Array, "h w C D"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **others: Any,
) -> Float[Array, "P y x D"]:
    """What `nnx.Conv(conv_general_dilated=...)` calls, for one group and no dilation.

    The gradient in x is a convolution with the kernel turned round. XLA's CPU compiler, inside a
    loop, leaves the turning to the convolution, for which it then has no fast code: gradients of
    the embedded network took eight times as long in a `lax.scan` as outside (150 and 19 ms for 4
    pictures, JAX 0.12). Here the turned kernel is made first.
    """
    del others  # dimension numbers and dilations of `nnx.Conv`, which are those above
    if not isinstance(padding, str):
        padding = tuple(map(tuple, padding))  # type: ignore[assignment]
    return _convolve(x, kernel, tuple(strides), padding)


def _plainly(x: Array, kernel: Array, strides: tuple[int, ...], padding: Any) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


_convolve = jax.custom_vjp(_plainly, nondiff_argnums=(2, 3))


def _forward(x: Array, kernel: Array, strides: tuple[int, ...], padding: Any):
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides: tuple[int, ...], padding: Any, residuals, cotangent: Array):
    x, kernel = residuals
    sizes = kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], sizes, strides, padding)
    pads = []
    for size, length, (before, _), stride, outputs in zip(
        sizes, x.shape[1:3], padding, strides, cotangent.shape[1:3], strict=True
    ):
        in_front = size - 1 - before
        pads.append((in_front, length - ((outputs - 1) * stride + 1) - in_front + size - 1))
    turned = jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    to_x = jax.lax.conv_general_dilated(
        cotangent, turned, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_LAYOUT
    )
    _, pull = jax.vjp(lambda kernel: _plainly(x, kernel, strides, padding), kernel)
    return to_x, pull(cotangent)[0]


_convolve.defvjp(_forward, _backward)
