"""CaffeNet and AlexNet, narrow and of made weights, held to OpenCV's outputs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_caffe import NARROWER, caffemodel, made_layers, pictures

from evojax_art.nets.caffenet import NETS, CaffeNet
from evojax_art.nets.registry import REGISTRY
from evojax_art.nets.weights import load_net
from evojax_art.runtime.errors import InputError


@pytest.fixture(scope="module")
def reference():
    """What OpenCV computes, see `make_caffenet.py`."""
    with np.load(Path(__file__).parent / "fixtures" / "caffenet.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("caffe") / "made.caffemodel"
    path.write_bytes(caffemodel(made_layers()))
    return path


@pytest.fixture
def narrow(monkeypatch, file):
    """Loads the narrow variant of a network of the registry."""

    def load(name):
        entry = NETS[name]
        build = partial(entry.build, narrower=NARROWER)  # type: ignore[call-arg]
        monkeypatch.setitem(REGISTRY, "narrow", replace(entry, build=build))
        return load_net("narrow", file)

    return load


@pytest.mark.parametrize(
    ("name", "short"), [("bvlc_reference_caffenet", "caffenet"), ("bvlc_alexnet", "alexnet")]
)
def test_layers_are_those_of_opencv(narrow, reference, name, short):
    graph, weights = nnx.split(narrow(name))

    @jax.jit
    def see(weights, images):
        net = nnx.merge(graph, weights)
        return net.features(images), net.logits(images)

    found, logits = see(weights, pictures() / np.float32(255))
    for key in ("norm1", "conv2", "norm2", "conv4", "pool5", "fc6", "fc8"):
        wanted = reference[f"{short}.{key}"]
        ours = np.asarray(found[key])
        ours = ours.transpose(0, 3, 1, 2)[..., ::3, ::3] if ours.ndim == 4 else ours
        np.testing.assert_allclose(ours, wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=key)
    np.testing.assert_array_equal(logits, found["fc8"])
    other = reference["alexnet.fc8" if short == "caffenet" else "caffenet.fc8"]
    assert np.abs(logits - other).max() > 1, "the two are told apart"


def test_gradient_is_that_of_central_differences():
    net = CaffeNet(narrower=NARROWER, rngs=nnx.Rngs(0))
    graph, weights = nnx.split(net)
    image = jax.random.uniform(jax.random.key(1), (1, 227, 227, 3))

    @jax.jit
    def score(image):
        logits = nnx.merge(graph, weights).logits_from_input(255 * image - 120)
        return jax.nn.log_softmax(logits)[0, 7]

    gradient = jax.jit(jax.grad(score))(image)
    direction, step = jnp.sign(gradient), 1e-4  # the way that changes most, beside rounding
    slope = jnp.vdot(gradient, direction)
    measured = (score(image + step * direction) - score(image - step * direction)) / (2 * step)
    assert jnp.isfinite(slope)
    np.testing.assert_allclose(slope, measured, rtol=0.05)


@pytest.mark.parametrize("name", NETS)
def test_shapes_are_those_of_the_papers(name):
    net = nnx.eval_shape(lambda: NETS[name].build(dtype=jnp.float32, rngs=nnx.Rngs(0)))
    graph, weights = nnx.split(net)
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 60_965_224

    def shapes(size):
        x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        found = jax.eval_shape(lambda w, x: nnx.merge(graph, w).activations(x), weights, x)
        return {key: layer.shape[1:] for key, layer in found.items()}

    own = shapes(227)
    assert (own["conv1"], own["pool5"]) == ((55, 55, 96), (6, 6, 256))
    assert own["fc8"] == (1000,)
    other = shapes(300)  # a layer's picture may have any size
    assert "conv5" in other
    assert "fc6" not in other


def test_files_of_other_networks_are_refused(tmp_path, file):
    with pytest.raises(InputError, match=r"not the weights of bvlc_reference_caffenet"):
        load_net("bvlc_reference_caffenet", file)  # narrow ones
    layers = made_layers()
    del layers["fc7"]
    odd = layers["conv2"]
    layers["conv2"] = [odd[0][:-1], odd[1][:-1]]
    path = tmp_path / "other.caffemodel"
    path.write_bytes(caffemodel(layers))
    with pytest.raises(InputError, match=r"not the weights of .*, it lacks dense/fc7/bias"):
        load_net("bvlc_reference_caffenet", path)
