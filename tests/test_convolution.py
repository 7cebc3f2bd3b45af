"""The gradient of our convolution is that of JAX's."""

import jax
import numpy as np
import pytest

from evojax_art.nets.convolution import convolve


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 1), (1, 1)]], ids=str)
@pytest.mark.parametrize("size", [8, 9])
def test_gradients(kernel, stride, padding, size):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, size, size + 1, 3))
    weights = jax.random.normal(keys[1], (kernel, kernel, 3, 4))

    def gradients(convolve_fn):
        def loss(x, weights):
            return (convolve_fn(x, weights, (stride, stride), padding) ** 3).sum()

        return jax.grad(loss, (0, 1))(x, weights)

    def plainly(*arguments):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(*arguments, dimension_numbers=layout)

    for ours, theirs in zip(gradients(convolve), gradients(plainly), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
