"""Networks of Caffe's zoo, and the files that they come in."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from made_caffe import caffemodel, field, number

from evojax_art.nets.caffe_files import read_tensors
from evojax_art.nets.googlenet import GoogLeNet
from evojax_art.nets.pooling import normalise_responses
from evojax_art.nets.weights import load_net
from evojax_art.runtime.errors import InputError

FILE = "bvlc_googlenet.caffemodel"


@pytest.fixture(scope="module")
def trained(shared_weights):
    return load_net("bvlc_googlenet", shared_weights / FILE)


@pytest.fixture(scope="module")
def reference(shared_weights):
    """Four pictures and what OpenCV computes for them."""
    with np.load(shared_weights / "bvlc_googlenet_reference.npz") as arrays:
        return dict(arrays)


LAYERS = {
    "data": [],
    "conv": [np.arange(24.0).reshape(2, 3, 2, 2), np.array([1.0, 2.0])],
    "dense/fc": [np.arange(6.0).reshape(2, 3), np.array([3.0, 4.0])],
}


def test_numbers_beyond_float32_become_infinite_without_a_word(tmp_path):
    path = tmp_path / "large.caffemodel"
    path.write_bytes(caffemodel({"conv": [np.array([1e300, np.nan, -1e300])]}, is_double=True))
    assert np.isinf(read_tensors(path)["conv/weight"][[0, 2]]).all()


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("how", [{}, {"is_double": True}, {"is_packed": False}])
def test_both_layouts_are_read(tmp_path, is_old, how):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(LAYERS, is_old=is_old, **how))
    tensors = read_tensors(path)
    assert list(tensors) == ["conv/weight", "conv/bias", "dense/fc/weight", "dense/fc/bias"]
    for name, blobs in LAYERS.items():
        for kind, expected in zip(("weight", "bias"), blobs, strict=False):
            np.testing.assert_array_equal(tensors[f"{name}/{kind}"], expected)
            assert tensors[f"{name}/{kind}"].dtype == np.float32


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no layers with weights"),
        (field(1, b"a net without any"), "has no layers with weights"),
        (caffemodel(LAYERS)[:-3], "it ends 3 bytes too early"),
        (b"\x80\x02}q\x00.", "a damaged .caffemodel, or none"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes too early"),
        (b"\xff" * 12, "a number of more than ten bytes"),
        (field(2, field(6, b"\x08\x03")), "0 numbers where the shape"),
        (
            field(100, field(7, field(7, field(1, number(0) + number(1 << 65))))),
            "0 numbers where the shape",
        ),
        (b"\x08\x01" * 300_000, "more than 200000 fields"),
        (field(100, field(7, field(7, field(1, b"\x01" * 100_000)))), "a shape of more than 8"),
    ],
)
def test_damaged_files_are_refused_in_a_line(tmp_path, content, said):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(InputError) as error:
        read_tensors(path)
    print(f"{time.monotonic() - started:.3f} s")
    assert said in str(error.value)
    assert "net.caffemodel" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@given(st.data())
@settings(max_examples=300)
def test_any_damage_is_refused_or_read(tmp_path_factory, data):
    content = bytearray(caffemodel(LAYERS, is_old=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "net.caffemodel"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        tensors = read_tensors(path)
    except InputError:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 2 * len(content)


@pytest.mark.usefixtures("full_precision")
def test_googlenet_is_that_of_the_reference(trained, reference):
    pictures = jnp.asarray(reference["images"], jnp.float32) / 255
    difference = np.abs(trained.logits(pictures) - reference["logits"]).max()
    print(f"largest difference of a logit {difference}")
    assert difference < 1e-3
    outputs = trained.features(pictures)
    thinned = {"pool1.norm1": 5, "pool2.3x3_s2": 3, "inception_3a.output": 3}
    thinned |= {"inception_3b.output": 3, "inception_4c.output": 2, "inception_4e.output": 2}
    for name, step in (thinned | {"inception_5b.output": 1}).items():
        output = np.asarray(outputs[name.replace(".", "/", 1)]).transpose(0, 3, 1, 2)
        expected = reference[name]
        np.testing.assert_allclose(
            output[:, :, ::step, ::step], expected, 0, 1e-4 * expected.max(), err_msg=name
        )


def test_side_heads_are_left_out(tmp_path, shared_weights, trained):
    content = (shared_weights / FILE).read_bytes()
    head = [np.ones((8, 4), np.float32), np.ones(8, np.float32)]
    path = tmp_path / FILE
    path.write_bytes(content + caffemodel({"loss1/fc": head, "loss2/fc": head}))
    pictures = jnp.full((1, 224, 224, 3), 0.5)
    np.testing.assert_array_equal(
        load_net("bvlc_googlenet", path).logits(pictures), trained.logits(pictures)
    )


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(LAYERS))
    with pytest.raises(InputError, match=r"not the weights of bvlc_googlenet, it lacks layers/"):
        load_net("bvlc_googlenet", path)


def test_names_in_a_file_do_not_break_the_line(tmp_path, shared_weights):
    path = tmp_path / FILE
    stranger = caffemodel({"a\n\x1b[2J" + "b" * 1000: LAYERS["conv"]})
    path.write_bytes((shared_weights / FILE).read_bytes() + stranger)
    with pytest.raises(InputError, match="which is unknown") as error:
        load_net("bvlc_googlenet", path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200 + len(str(path))


@pytest.mark.usefixtures("full_precision")
def test_gradient_is_that_of_central_differences():
    net = GoogLeNet(rngs=nnx.Rngs(0))
    image = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    graph, weights = nnx.split(net)

    @jax.jit
    def score(image):
        logits = nnx.merge(graph, weights).logits_from_input(255 * image - 120)
        return jax.nn.log_softmax(logits)[0, 7]

    gradient = jax.grad(score)(image)
    direction, step = jnp.sign(gradient), 1e-4  # the way that changes most, beside rounding
    slope = jnp.vdot(gradient, direction)
    measured = (score(image + step * direction) - score(image - step * direction)) / (2 * step)
    assert jnp.isfinite(slope)
    np.testing.assert_allclose(slope, measured, rtol=0.05)


def test_response_normalisation_is_as_defined():
    x = np.random.default_rng(0).normal(scale=100, size=(2, 3, 3, 7))
    expected = np.empty_like(x)
    for channel in range(7):
        squares = (x[..., max(0, channel - 2) : channel + 3] ** 2).sum(-1)
        expected[..., channel] = x[..., channel] / (1 + 1e-4 / 5 * squares) ** 0.75
    np.testing.assert_allclose(normalise_responses(jnp.asarray(x, jnp.float32)), expected, 1e-5)
