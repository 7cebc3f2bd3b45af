"""Networks in native code, held to the same networks in plain JAX."""

from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from evojax_art.nets.cifar import CifarResNet, CifarVgg
from evojax_art.nets.efficientnet import Depthwise, EfficientNetLite
from evojax_art.nets.layers import PLAIN
from evojax_art.nets.native import inference
from evojax_art.nets.native.plan import INPUT, Recorder, Tensor, plan_steps
from evojax_art.nets.squeezenet import SqueezeNet
from evojax_art.nets.weights import load_net
from evojax_art.runtime.plan import make_plan

pytestmark = pytest.mark.skipif(
    make_plan(device=jax.devices("cpu")[0]).implementation != "native",
    reason="no native code here",
)


@pytest.fixture(autouse=True)
def on_cpu():
    with jax.default_device(jax.devices("cpu")[0]):
        yield


NETWORKS = {
    "squeezenet": (lambda: SqueezeNet(rngs=nnx.Rngs(0)), 63),
    "efficientnet": (lambda: EfficientNetLite(size=75, rngs=nnx.Rngs(0)), 75),
    "resnet": (lambda: CifarResNet(rngs=nnx.Rngs(0)), 40),
    "vgg": (lambda: CifarVgg(rngs=nnx.Rngs(0)), 32),
}


def with_odd_norms(net):
    """Batch norms as training leaves them, not as they begin."""
    key = jax.random.key(3)
    for _, module in nnx.iter_modules(net):
        if isinstance(module, nnx.BatchNorm):
            for name in ("mean", "var", "scale", "bias"):
                key, draw = jax.random.split(key)
                variable = getattr(module, name)
                variable[...] = jax.random.uniform(draw, variable.shape, minval=0.5, maxval=1.5)
    net.eval()
    return net


def both_ways(net, fn):
    """What a function of the network gives, natively and plainly."""
    results = []
    for implementation in ("native", "xla"):
        net.implementation = implementation
        graph, weights = nnx.split(net)
        results.append(jax.jit(lambda weights, graph=graph: fn(nnx.merge(graph, weights)))(weights))
    return results


@pytest.fixture(params=NETWORKS)
def case(request):
    build, size = NETWORKS[request.param]
    pictures = jax.random.normal(jax.random.key(1), (5, size, size, 3))
    return with_odd_norms(build()), pictures


def test_logits_are_those_of_plain_jax(case):
    net, pictures = case
    native, plain = both_ways(net, lambda net: net.logits_from_input(pictures))
    np.testing.assert_allclose(native, plain, atol=1e-5 * float(jnp.max(jnp.abs(plain))))


def test_gradients_are_those_of_plain_jax():
    build, size = NETWORKS["resnet"]
    net = with_odd_norms(build())
    pictures = jax.random.normal(jax.random.key(1), (2, size, size, 3))

    def gradient(net):
        return jax.grad(lambda pictures: jnp.sum(net.logits_from_input(pictures)[:, 3]))(pictures)

    native, plain = both_ways(net, gradient)
    assert jnp.any(plain != 0)
    np.testing.assert_array_equal(native, plain)


def test_loaded_networks_are_native_where_the_interpreter_is():
    assert load_net("cifar100").implementation == "native"
    assert load_net("cifar100", plan=make_plan(implementation="switch")).implementation == "xla"


class Every(nnx.Module):
    """All kinds of layers, with sizes and channels that fill neither tiles nor vectors."""

    def __init__(self):
        rngs = nnx.Rngs(7)
        self.first = nnx.Conv(5, 19, (3, 3), 2, padding="SAME", rngs=rngs)
        self.wide = nnx.Linear(19, 37, rngs=rngs)
        self.deep = Depthwise(37, 5, 2, dtype=jnp.float32, rngs=rngs)
        self.same = Depthwise(37, 3, 1, dtype=jnp.float32, rngs=rngs)
        self.left = nnx.Conv(37, 17, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.right = nnx.Conv(37, 20, (1, 3), padding="SAME", rngs=rngs)
        self.last = nnx.Conv(37, 3, (2, 2), padding="VALID", rngs=rngs)

    def stages(self, layers, x):
        x = layers.layer(self.first, x, "relu")
        x = layers.layer(self.wide, x)
        x = layers.layer(self.deep, x, "relu6")
        x = layers.layer(self.same, x, "relu", plus=x)
        pooled = layers.mean_pool(x, 2)
        x = layers.max_pool(pooled, 2, 1)
        x = layers.max_pool(x, 3, 2)
        branches = [layers.layer(branch, x, "relu") for branch in (self.left, self.right)]
        x = layers.concatenate(branches)
        return {"last": layers.layer(self.last, x, "relu")}


@pytest.fixture(scope="module")
def every():
    return Every(), np.asarray(jax.random.normal(jax.random.key(2), (7, 51, 41, 5)))


def sums(net, pictures, **options):
    """What the target makes of pictures, called as XLA would."""
    recorder = Recorder()
    rows, columns, channels = pictures.shape[1:]
    given = Tensor(rows, columns, channels, base=INPUT)
    last = net.stages(recorder, given)["last"]
    recorder.sum(last)
    above, below, left, right = given.pads
    padded = np.pad(pictures, [(0, 0), (above, below), (left, right), (0, 0)])
    table = plan_steps(recorder.steps, len(pictures))._asdict()
    steps = table.pop("steps")
    parameters = [np.ascontiguousarray(array) for array in recorder.parameters]
    result = np.empty((len(pictures), last.channels), np.float32)
    inference.run([steps, padded, *parameters], [result], table, **options)
    return result


def test_every_layer_is_that_of_plain_jax(every):
    net, pictures = every
    plain = jnp.sum(net.stages(PLAIN, jnp.asarray(pictures))["last"], axis=(1, 2))
    for lanes, num_threads in product((4, 8, 16), (1, 3)):
        native = sums(net, pictures, lanes=lanes, num_threads=num_threads)
        np.testing.assert_allclose(native, plain, rtol=1e-4, atol=1e-4)


def test_a_picture_is_seen_alike_whatever_is_beside_it(every):
    net, pictures = every
    together = sums(net, pictures)
    for first, end in pairwise((0, 1, 4, 7)):
        np.testing.assert_array_equal(sums(net, pictures[first:end]), together[first:end])


def test_nan_stays_in_its_picture(every):
    net, pictures = every
    spoiled = pictures.copy()
    spoiled[3, 20, 20] = np.nan
    seen, clean = sums(net, spoiled), sums(net, pictures)
    assert np.isnan(seen[3]).all()
    others = np.arange(7) != 3
    np.testing.assert_array_equal(seen[others], clean[others])


def test_the_least_size_is_the_smallest_that_leaves_something():
    net = SqueezeNet(rngs=nnx.Rngs(0))
    net.stages(Recorder(), Tensor(net.least, net.least, 3, base=INPUT))
    with pytest.raises(ValueError, match="does not fit"):
        net.stages(Recorder(), Tensor(net.least - 1, net.least - 1, 3, base=INPUT))


def test_what_native_code_cannot_do_is_refused():
    rngs, recorder = nnx.Rngs(0), Recorder()
    few = Depthwise(8, 3, 1, dtype=jnp.float32, rngs=rngs)
    with pytest.raises(ValueError, match="16 channels or more, got 8"):
        recorder.layer(few, Tensor(5, 5, 8))
    halves = [Tensor(5, 5, 16), Tensor(5, 5, 16)]
    recorder.concatenate(halves)
    with pytest.raises(ValueError, match="cannot be joined"):
        recorder.concatenate(halves)
    with pytest.raises(ValueError, match="does not fit"):
        recorder.max_pool(Tensor(2, 5, 16), 5, 1)
    with pytest.raises(ValueError, match="cannot be added"):
        recorder.layer(nnx.Linear(16, 16, rngs=rngs), Tensor(5, 5, 16), plus=Tensor(5, 4, 16))
    with pytest.raises(ValueError, match="cannot read"):
        recorder.layer(nnx.Linear(16, 16, rngs=rngs), halves[0])
