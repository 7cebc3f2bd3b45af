"""The two networks that are part of the package.

`python tests/test_cifar.py` stores the logits of the shipped weights; after a new training only.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open

from evojax_art.nets.registry import REGISTRY, weights_path
from evojax_art.nets.weights import load_net, save_net
from evojax_art.runs.training.photographs import read_photographs
from evojax_art.runs.training.session import judge_report
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import make_plan

NETS = ("cifar100", "cifar100_judge")
STORED = Path(__file__).parent / "fixtures" / "cifar_logits.npz"


def probes():
    """Three pictures that every machine draws alike, in [0, 1]: waves, rings, a chequerboard."""
    y, x = np.mgrid[:32, :32] / 31
    waves = np.stack([np.sin(9 * x), np.cos(7 * y), np.sin(5 * (x + y))], axis=-1) / 2 + 0.5
    rings = np.stack([np.hypot(x - 0.5, y - 0.4) * s % 1 for s in (2, 3, 5)], axis=-1)
    squares = np.indices((32, 32)).sum(axis=0) // 4 % 2 * np.array([[[0.9]], [[0.4]], [[0.2]]])
    return np.stack([waves, rings, squares.transpose(1, 2, 0)]).astype(np.float32)


@pytest.fixture(scope="module", params=NETS)
def net(request):
    return load_net(request.param)


def report_in(name):
    with safe_open(weights_path(name), "numpy") as file:
        return json.loads(file.metadata()["report"])


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("name", NETS)
def test_shipped_weights_give_the_stored_logits(name):
    with np.load(STORED) as stored:
        expected = stored[name]
    assert expected.shape == (3, 100)
    logits = np.asarray(jax.jit(load_net(name).logits)(probes()))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", NETS)
def test_shipped_weights_are_as_accurate_as_their_report_says(name, cifar100):
    _, test = read_photographs(cifar100)
    measured, stated = judge_report(load_net(name), test), report_in(name)
    assert measured["test_photographs"] == stated["test_photographs"]
    for figure in ("accuracy", "noisy_accuracy", "calibration_error"):
        assert measured[figure] == pytest.approx(stated[figure], abs=0.004), figure


def test_shipped_networks_hold_what_was_asked_of_them():
    main, judge = report_in("cifar100"), report_in("cifar100_judge")
    assert main["accuracy"] >= 0.63
    assert judge["accuracy"] >= 0.58
    for report in (main, judge):
        assert report["accuracy"] - report["noisy_accuracy"] <= 0.12
        assert report["calibration_error"] < 0.06
    assert main["seed"] != judge["seed"]


def test_files_are_small():
    sizes = [weights_path(name).stat().st_size for name in NETS]
    assert sizes[0] <= 4e6
    assert sum(sizes) <= 6e6


def test_networks_are_small_and_differ(net):
    parameters = jax.tree.leaves(nnx.state(net, nnx.Param))
    assert sum(leaf.size for leaf in parameters) <= 2e6
    other = load_net(REGISTRY["cifar100"].unseen[0])
    assert type(other) is not type(load_net())


def test_default_network_is_the_embedded_one():
    net = load_net()
    assert (net.size, len(net.classes)) == (32, 100)
    assert net.classes[26] == "crab"


def test_pictures_of_any_size_are_judged(net):
    probabilities = np.asarray(net.probabilities(jnp.full((2, 48, 80, 3), 0.4)))
    assert probabilities.shape == (2, 100)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.usefixtures("full_precision")
def test_judging_does_not_depend_on_company(net):
    """Normalisation uses stored statistics, not those of the batch."""
    together, alone = net.probabilities(probes()), net.probabilities(probes()[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_close(net):
    graph_fn = jax.jit(load_net(dtype=jnp.bfloat16).logits)
    exact = np.asarray(load_net().logits(probes()))
    logits = graph_fn(probes())
    assert logits.dtype == jnp.float32
    assert np.abs(np.asarray(logits) - exact).max() < 0.05 * np.abs(exact).max()


def test_the_plan_says_in_what_a_network_computes():
    on_cpu = make_plan(device=jax.devices("cpu")[0], network_dtype=jnp.bfloat16)
    on_gpu = dataclasses.replace(on_cpu, platform="gpu")
    for plan, dtype, expected in [
        (on_cpu, None, jnp.float32),  # wrong there in bfloat16
        (on_cpu, jnp.bfloat16, jnp.float32),
        (on_gpu, None, jnp.bfloat16),
        (on_gpu, jnp.float32, jnp.float32),
    ]:
        assert load_net(dtype=dtype, plan=plan).dtype == expected


def test_activations_are_named_in_order(net):
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    layers = net.activations(x)
    assert list(layers)[-1] == "logits"
    assert list(layers.values())[-2].shape == (1, 4, 4, 256)
    np.testing.assert_allclose(layers["logits"], net.logits_from_input(x), atol=1e-4)


def test_pictures_that_are_not_resized_must_fit(net):
    assert net.preprocess(jnp.zeros((1, 40, 64, 3)), resize=False).shape == (1, 40, 64, 3)
    with pytest.raises(InputError, match="multiples of 8, got 30x40"):
        net.preprocess(jnp.zeros((1, 40, 30, 3)), resize=False)


def test_saved_network_is_the_same_but_for_float16(net, tmp_path):
    name = next(name for name in NETS if isinstance(net, REGISTRY[name].build))
    save_net(tmp_path / "again.safetensors", net, {})
    again = load_net(name, tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again.logits(probes()), net.logits(probes()))


def test_missing_embedded_file_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("evojax_art.nets.registry._PACKAGE", tmp_path)
    with pytest.raises(InputError, match="install evojax-art again"):
        load_net()


if __name__ == "__main__":
    np.savez(STORED, **{name: np.asarray(load_net(name).logits(probes())) for name in NETS})
