"""CaffeNet and AlexNet, narrow and of made weights, held to OpenCV's outputs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_caffe import NARROWER, caffemodel, field, made_layers, number, pictures

from evojax_art.nets.caffe_files import read_tensors
from evojax_art.nets.caffenet import NETS, CaffeNet
from evojax_art.nets.registry import REGISTRY
from evojax_art.nets.weights import load_net
from evojax_art.objective.layers import LayerTarget
from evojax_art.objective.observed import Observed
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

    def load(name, path=file):
        entry = NETS[name]
        build = partial(entry.build, narrower=NARROWER)  # type: ignore[call-arg]
        monkeypatch.setitem(REGISTRY, "narrow", replace(entry, build=build))
        return load_net("narrow", path)

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
    assert jnp.isfinite(gradient).all()
    direction, step = jnp.sign(gradient), 1e-4  # the way that changes most, beside rounding
    slope = jnp.vdot(gradient, direction)
    measured = (score(image + step * direction) - score(image - step * direction)) / (2 * step)
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
    assert shapes(199)["fc8"] == shapes(230)["fc8"] == (1000,)
    assert (shapes(198)["pool5"], shapes(198)["fc8"]) == ((5, 5, 256), (0, 0, 1000))
    assert (shapes(300)["pool5"], shapes(300)["fc6"]) == ((9, 9, 256), (4, 4, 4096))


@pytest.mark.usefixtures("full_precision")
def test_dense_layers_see_every_part_of_larger_pictures(narrow):
    net = narrow("bvlc_reference_caffenet")
    found = net.features(jax.random.uniform(jax.random.key(0), (1, 240, 300, 3)), resize=False)
    pooled, dense = found["pool5"], net.dense
    assert found["fc8"].shape == (1, 2, 4, 1000)
    for row, column in ((0, 0), (1, 3)):
        part = pooled[:, row : row + 6, column : column + 6].reshape(1, -1)
        expected = dense["fc8"](jax.nn.relu(dense["fc7"](jax.nn.relu(dense["fc6"](part)))))
        np.testing.assert_allclose(found["fc8"][:, row, column], expected, rtol=0, atol=1e-3)


def test_a_layer_is_dreamt_of_at_any_size_that_fits_it(narrow):
    net = narrow("bvlc_reference_caffenet")
    target = LayerTarget(net, "fc8:3")
    assert target.measure(Observed(jnp.full((2, 250, 230, 3), 0.5), net)).value.shape == (2,)
    with pytest.raises(InputError, match="pictures of 100x100 are too small for layer fc8"):
        target.measure(Observed(jnp.full((2, 100, 100, 3), 0.5), net))


@pytest.mark.parametrize(
    ("layer", "shapes", "said"),
    [
        ("conv1", [(96, 3, 11, 11), (96,)], "conv1/0/bias has shape (96,) in place of (6,)"),
        ("conv1", [(6,), (6,)], "conv1/0/kernel has shape (6,) in place of (11, 11, 3, 6)"),
        ("conv2", [(15, 3, 5, 5), (15,)], "it lacks layers/conv2/0/bias"),
        ("conv4", [(24, 1), (24,)], "conv4/0/kernel has shape (12, 1) in place of"),
        ("fc6", [(256,), (256,)], "dense/fc6/kernel has shape (256,) in place of (576, 256)"),
        ("fc7", [(256, 255), (256,)], "dense/fc7/kernel has shape (255, 256) in place of"),
        ("fc7", [], "it lacks dense/fc7/bias"),
        ("fc9", [(1, 1), (1,)], "it holds 'dense/fc9/bias', which is unknown"),
    ],
)
def test_layers_of_other_networks_are_refused_in_a_line(tmp_path, narrow, layer, shapes, said):
    layers = made_layers() | {layer: [np.ones(shape, np.float32) for shape in shapes]}
    path = tmp_path / "other.caffemodel"
    path.write_bytes(caffemodel(layers))
    with pytest.raises(InputError) as error:
        narrow("bvlc_reference_caffenet", path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: not the weights of narrow")
    assert len(str(error.value).splitlines()) == 1


def test_narrow_weights_are_not_those_of_the_network(file):
    with pytest.raises(InputError, match=r"not the weights of bvlc_reference_caffenet, .* shape"):
        load_net("bvlc_reference_caffenet", file)


def test_a_shape_given_over_and_over_costs_no_more_than_other_fields(tmp_path):
    shape = field(7, field(1, b"\x01" * 8))
    path = tmp_path / "shapes.caffemodel"
    path.write_bytes(field(100, field(7, shape * 21_000)))
    with pytest.raises(InputError, match="more than 200000 fields"):
        read_tensors(path)
    last = field(7, field(1, number(3))) * 100 + field(5, np.ones(3, "<f4").tobytes())
    path.write_bytes(field(100, field(1, b"some") + field(7, last)))
    assert read_tensors(path)["some/weight"].shape == (3,)
