import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from evojax_art.nets.cifar import CifarResNet, CifarVgg
from evojax_art.nets.squeezenet import SqueezeNet
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.layers import LayerTarget, layer_shapes
from evojax_art.objective.observed import Observed
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.objective.target import TargetConfig, target_of
from evojax_art.objective.views import ViewsConfig
from evojax_art.runtime.errors import InputError

FAINT = 0.02  # where the scale of values turns from linear to logarithmic


@pytest.fixture(scope="module")
def net():
    return load_net()


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (3, 32, 32, 3)) ** jnp.arange(1, 4)


def activations(net, images, layer):
    """By way of the network alone; pictures are normalised by NumPy."""
    x = (np.asarray(images) - np.array(net.mean)) / np.array(net.std)
    return np.asarray(net.activations(jnp.asarray(x, jnp.float32))[layer], np.float64)


@pytest.mark.parametrize("layer", ["stem", "block3"])
def test_a_layer_is_measured_by_its_energy(net, images, layer):
    measure = LayerTarget(net, layer).measure(Observed(images, net))
    score = np.sqrt((activations(net, images, layer) ** 2).mean((1, 2, 3)))
    np.testing.assert_allclose(measure.score, score, rtol=1e-4)
    np.testing.assert_allclose(measure.value, np.arcsinh(score / FAINT), rtol=1e-4)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(("layer", "channel"), [("block2", 17), ("block4", 255), ("logits", 26)])
def test_a_channel_is_measured_by_its_mean(net, images, layer, channel):
    measure = LayerTarget(net, f"{layer}:{channel}").measure(Observed(images, net))
    score = activations(net, images, layer)[..., channel].reshape(3, -1).mean(1)
    np.testing.assert_allclose(measure.score, score, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(measure.value, np.arcsinh(score / FAINT), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channel", [None, 5])
def test_a_guide_is_measured_by_the_distance_to_its_activations(net, images, channel):
    layer = "block2" if channel is None else f"block2:{channel}"
    target = LayerTarget(net, layer, guide=np.asarray(images[0]))
    measure = target.measure(Observed(images, net))
    found = activations(net, images, "block2")
    found = found if channel is None else found[..., channel]
    missing = ((found - found[:1]) ** 2).reshape(3, -1).sum(1) / (found[0] ** 2).sum()
    np.testing.assert_allclose(measure.score, 1 - missing, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(measure.value, -np.log(missing + 1e-6), rtol=1e-3, atol=1e-2)
    assert float(measure.score[0]) == pytest.approx(1, abs=1e-5)
    assert (np.asarray(measure.score[1:]) < 0.9).all()


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("channel", [None, 5])
def test_the_best_match_of_a_guide_is_by_dot_products(net, images, channel):
    layer = "block2" if channel is None else f"block2:{channel}"
    guide = np.asarray(images[0])
    measure = LayerTarget(net, layer, guide=guide, match="best").measure(Observed(images, net))
    found = activations(net, images, "block2")
    found = found if channel is None else found[..., channel, None]
    vectors = found.reshape(3, -1, found.shape[-1])
    best = np.einsum("pic,jc->pij", vectors, vectors[0]).max(axis=2).mean(axis=1)
    score = best / (vectors[0] ** 2).sum(axis=-1).mean()
    np.testing.assert_allclose(measure.score, score, rtol=1e-3)
    np.testing.assert_allclose(measure.value, np.arcsinh(score / FAINT), rtol=1e-3)


def test_a_guide_matched_anywhere_may_be_of_any_size(net, images):
    guide = np.asarray(jax.random.uniform(jax.random.key(5), (40, 200, 3)))
    target = LayerTarget(net, "block1", guide=guide, match="best")
    assert not target.sees_whole
    assert np.isfinite(target.measure(Observed(images, net)).score).all()


def test_a_guide_of_another_size_is_resized(net, images):
    def slope(height, width):
        rows, columns = np.mgrid[:height, :width] + 0.5
        return np.stack([rows / height, columns / width, np.full_like(rows, 0.3)], axis=-1)

    target = LayerTarget(net, "block1", guide=slope(96, 64))
    pictures = jnp.stack([slope(32, 32), images[0]])
    score = target.measure(Observed(pictures, net)).score
    assert float(score[0]) == pytest.approx(1, abs=0.01)
    assert float(score[1]) < 0.5


def test_layers_see_pictures_at_their_own_size(net):
    picture = jax.random.uniform(jax.random.key(1), (1, 48, 80, 3))
    score = LayerTarget(net, "block1").measure(Observed(picture, net)).score
    expected = np.sqrt((activations(net, picture, "block1") ** 2).mean())
    assert float(score[0]) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="multiples of 8, got 30x32"):
        LayerTarget(net, "block1").measure(Observed(picture[:, :32, :30], net))


@pytest.mark.parametrize("layer", ["stem", "block2:3", "logits:0"])
def test_gradients_of_a_layer_climb(net, images, layer):
    target = LayerTarget(net, layer, None)

    def total(x):
        return target.measure(Observed(x, net)).value.sum()

    gradient = jax.grad(total)(images)
    assert np.isfinite(gradient).all()
    step = 1e-3 * gradient / jnp.linalg.norm(gradient) * jnp.linalg.norm(images)
    assert float(total(images + step)) > float(total(images))


def test_gradients_of_a_guide_that_is_reached_are_finite(net, images):
    target = LayerTarget(net, "block1", guide=np.asarray(images[0]))
    gradient = jax.grad(lambda x: target.measure(Observed(x, net)).value.sum())(images[:1])
    assert np.isfinite(gradient).all()


def measured_shape(net, target, images):
    """Of a network that may have no weights."""
    graph, weights = nnx.split(net)
    measure = jax.eval_shape(
        lambda w, x: target.measure(Observed(x, nnx.merge(graph, w))), weights, images
    )
    return measure.score.shape


@pytest.mark.parametrize("build", [CifarResNet, CifarVgg, SqueezeNet])
def test_every_network_names_its_layers(build):
    net = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
    shapes = layer_shapes(net)
    assert shapes["logits"] == (len(net.classes),)
    for name, shape in shapes.items():
        target = LayerTarget(net, f"{name}:{shape[-1] - 1}")
        picture = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
        assert measured_shape(net, target, picture) == (2,)


def test_too_small_a_picture_for_a_layer_is_refused():
    net = nnx.eval_shape(lambda: SqueezeNet(rngs=nnx.Rngs(0)))
    target = LayerTarget(net, "features.12")
    with pytest.raises(InputError, match=r"3x3 are too small for layer features\.12"):
        measured_shape(net, target, jnp.zeros((1, 3, 3, 3)))


MISTAKES = {
    "blok2": "no layer 'blok2'; did you mean block2",
    "": "no layer ''; there are stem, block1, block2, block3, block4, logits",
    "nope": "there are stem, block1, block2, block3, block4, logits",
    "block2:128": "layer block2 has no channel '128'; they go from 0 to 127",
    "block2:-1": "no channel '-1'",
    "block2:": "no channel ''",
    "logits:100": "they go from 0 to 99",
}


@pytest.mark.parametrize("layer", MISTAKES)
def test_layers_that_do_not_exist(net, layer):
    with pytest.raises(InputError) as error:
        LayerTarget(net, layer)
    assert MISTAKES[layer] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_layer_takes_the_place_of_a_target(net):
    def chosen(**settings):
        return target_of({"cifar100": net}, TargetConfig(**settings), None, ViewsConfig())

    assert chosen(target=("crab", "26")).indices == (26,)
    assert isinstance(chosen(layer="block2:3"), LayerTarget)
    assert chosen(layer="block2:3").channel == 3


def test_scores_for_people(net):
    assert ClassTarget(net.vocabulary, (26,)).text(0.99123) == "99.12 %"
    assert LayerTarget(net, "block2").text(1.23456) == "1.235"


def test_layers_as_an_objective(net, images):
    target = LayerTarget(net, "logits:26")
    value, score, _ = target.measure(Observed(images, net))
    for scale, expected in (("log_odds", value), ("probability", score)):
        config = ObjectiveConfig(scale=scale, class_weight=2.0)
        objective = build_objective(config, target)
        evaluation = objective(Observed(images, net))
        metrics = evaluation.metrics
        np.testing.assert_allclose(evaluation.fitness, 2 * np.asarray(expected), rtol=1e-5)
        np.testing.assert_array_equal(metrics["score"], score)
        np.testing.assert_array_equal(metrics["value"], value)
        broken = objective(Observed(images.at[0].set(np.nan), net))
        assert not broken.valid[0]
        assert float(broken.fitness[0]) == -np.inf  # 0 would beat negative scores
