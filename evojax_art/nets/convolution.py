"""Convolutions that are fast on a CPU too, and kernels of other frameworks."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
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


def convolve_depthwise(
    x: Float[Array, "P H W C"], kernel: Float[Array, "k k C"], stride: int
) -> Float[Array, "P h w C"]:
    """Each channel convolved by itself; padded as TensorFlow's SAME, so h is H / stride, up.

    A sum of the picture's shifted copies, each times one weight a channel, which XLA fuses to one
    loop along the channels. Its grouped convolution takes up to 40 times as long on a CPU (8
    pictures of 56x56x144, kernel 3: 112 and 3 ms on two cores, JAX 0.10).
    """
    return _depthwise(x, kernel, stride)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, stride: int) -> Array:
    return _shifted(x, kernel, stride, _same(x, kernel, stride))


def _same(x: Array, kernel: Array, stride: int) -> list[tuple[int, int]]:
    return jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")


def _shifted(x: Array, kernel: Array, stride: int, pads: Sequence[tuple[int, int]]) -> Array:
    # A barrier, for a fused padding would ask at every pixel whether it is inside.
    x = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), *pads, (0, 0)]))
    total = jnp.zeros((), x.dtype)
    for down, right, copy in _copies(x, kernel.shape, stride):
        total += copy * kernel[down, right]
    return total


def _copies(x: Array, kernel: tuple[int, ...], stride: int) -> Iterator[tuple[int, int, Array]]:
    """For each place in the kernel what it sees of a padded picture."""
    rows, columns = ((x.shape[1 + axis] - kernel[axis]) // stride * stride + 1 for axis in (0, 1))
    for down, right in itertools.product(range(kernel[0]), range(kernel[1])):
        yield down, right, x[:, down : down + rows : stride, right : right + columns : stride]


def _depthwise_forward(x: Array, kernel: Array, stride: int):
    return _depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride: int, residuals, cotangent: Array):
    x, kernel = residuals
    pads = _same(x, kernel, stride)
    none, last = (0, 0, 0), kernel.shape[0] - 1
    spread = jax.lax.pad(
        cotangent,
        jnp.zeros((), cotangent.dtype),
        [none, *[(0, 0, stride - 1)] * 2, none],
    )
    around = []
    for (before, _), length, reached in zip(pads, x.shape[1:3], spread.shape[1:3], strict=True):
        around.append((last - before, length - reached + before))
    to_x = _shifted(spread, kernel[::-1, ::-1], 1, around)
    padded = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    to_kernel = [
        jnp.sum(copy * cotangent, (0, 1, 2)) for *_, copy in _copies(padded, kernel.shape, stride)
    ]
    return to_x, jnp.stack(to_kernel).reshape(kernel.shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
