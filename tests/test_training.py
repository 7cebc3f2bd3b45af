"""The training of the embedded networks, on photographs that a few steps can learn."""

import json
import os
import pickle
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from flax import nnx
from PIL import Image
from rich.console import Console
from torch_pickles import call, dictionary, named, plain, stream

from evojax_art.nets.cifar import CifarClassifier
from evojax_art.nets.entry import NetEntry
from evojax_art.nets.layers import Convolution
from evojax_art.nets.registry import REGISTRY
from evojax_art.nets.vocabulary import cifar100
from evojax_art.nets.weights import load_net
from evojax_art.runs.training.augmentation import AugmentationConfig, augment
from evojax_art.runs.training.calibration import (
    accuracy,
    best_temperature,
    calibration_error,
    photograph_logits,
)
from evojax_art.runs.training.photographs import Photographs, read_photographs
from evojax_art.runs.training.session import formula_pictures, train
from evojax_art.runs.training.training import Training, TrainingConfig, restore, save
from evojax_art.runtime.errors import InputError

CALM = AugmentationConfig(cutout_share=0, colour_share=0, blur_share=0, noise_share=0)


class Norm(nnx.BatchNorm):
    """A layer of a normalisation alone."""

    def as_convolution(self):
        factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
        return Convolution(jnp.diag(factor)[None, None], self.bias[...] - self.mean[...] * factor)


class SmallNet(CifarClassifier):
    """A linear network with a normalisation, so that statistics are trained too."""

    def __init__(self, *, dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(3, dtype=dtype, rngs=rngs)
        self.norm = Norm(3, momentum=0.9, rngs=rngs)

    def stages(self, layers, x):
        return {"norm": layers.layer(self.norm, x)}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    entry = NetEntry(
        build=SmallNet,
        vocabulary=cifar100,
        weights="none",
        multiply_adds=0.001,
        summary="a test's network",
    )
    monkeypatch.setitem(REGISTRY, "small", entry)


def photographs(number, seed):
    """Three classes, which are red, green and blue."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, number).astype(np.uint8)
    images = rng.integers(0, 120, (number, 32, 32, 3))
    images += 120 * np.eye(3, dtype=int)[labels][:, None, None]
    return Photographs(images.astype(np.uint8), labels)


@pytest.fixture
def archive(tmp_path):
    """A folder as the Python archive unpacks."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, number, seed in (("train", 200, 0), ("test", 60, 1)):
        part = photographs(number, seed)
        rows = part.images.transpose(0, 3, 1, 2).reshape(number, -1)
        table = {"data": rows, "fine_labels": part.labels.tolist(), "coarse_labels": []}
        (folder / name).write_bytes(pickle.dumps(table, protocol=2))
    return tmp_path


def config(**changes):
    settings = {"net": "small", "epochs": 3, "batch": 20, "held_out": 40, "average": 0.9}
    return TrainingConfig(**settings | changes)


def quiet():
    return Console(stderr=True, quiet=True)


# Photographs


def test_archive_and_mosaics_give_the_same(archive, tmp_path):
    train_set, test_set = read_photographs(archive)
    expected = photographs(200, 0)
    np.testing.assert_array_equal(train_set.images, expected.images)
    np.testing.assert_array_equal(train_set.labels, expected.labels)
    assert len(test_set.images) == 60

    folder = tmp_path / "mosaics"
    folder.mkdir()
    parts = {f"train_{n}": photographs(100, n) for n in range(5)} | {"test": photographs(100, 9)}
    for name, part in parts.items():
        mosaic = part.images.reshape(1, 100, 32, 32, 3).swapaxes(1, 2).reshape(32, 3200, 3)
        Image.fromarray(mosaic).save(folder / f"cifar100_{name}.webp", lossless=True)
    labels = np.concatenate([parts[f"train_{n}"].labels for n in range(5)])
    np.savez(folder / "cifar100_labels.npz", train_fine=labels, test_fine=parts["test"].labels)
    train_set, test_set = read_photographs(folder)
    np.testing.assert_array_equal(train_set.images[300:400], parts["train_3"].images)
    np.testing.assert_array_equal(train_set.labels, labels)
    np.testing.assert_array_equal(test_set.images, parts["test"].images)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_archives_run_nothing(archive, monkeypatch, protocol):
    monkeypatch.chdir(archive)
    pickled = pickle.dumps({b"data": Malicious()}, protocol)
    (archive / "cifar-100-python" / "train").write_bytes(pickled)
    with pytest.raises(InputError, match="not CIFAR-100's Python archive, or damaged") as caught:
        read_photographs(archive)
    assert not (archive / "pwned").exists()
    if protocol == 2:
        assert "system', which is no part of a plain CIFAR-100 archive; refused" in str(
            caught.value
        )
    pickle.loads(pickled)
    assert (archive / "pwned").exists()  # so it would have worked


DEEP = b")" + b"\x85" * 200_000  # a tuple in a tuple in a tuple
DOUBLED = b"]q\x01" + b"0h\x01h\x01\x86q\x01" * 64  # 2**64 empty lists, by reference
ARRAY = call(
    named("numpy.core.multiarray", "_reconstruct"),
    named("numpy", "ndarray"),
    plain((0,)),
    plain("b"),
)
BYTES = call(named("numpy", "dtype"), plain("u1"), plain(0), plain(1))


def array(shape: bytes, dtype: bytes = BYTES, content: bytes = b"C\x03abc") -> bytes:
    return ARRAY + b"(" + plain(1) + shape + dtype + plain(False) + content + b"tb"


@pytest.mark.parametrize(
    "body",
    [
        plain(1) + b"r\xff\xff\xff\xff",  # a memo of 64 GB
        b"X\xff\xff\xff\x7fabc",  # 2 GB of text
        b"B\xff\xff\xff\xffabc",
        DEEP,
        b"}" + DEEP + b"Ns",  # a key as deep as the stack
        b"}" + DOUBLED + b"Ns",  # a key that takes for ever to hash
        dictionary({"data": DEEP, "fine_labels": plain([1])}),
        dictionary({"data": array(plain((1, 3072))), "fine_labels": plain([1])}),
        dictionary({"data": array(plain((2**40, 3072))), "fine_labels": plain([1])}),
        dictionary({"data": array(DOUBLED), "fine_labels": plain([1])}),
        dictionary({"data": array(plain((3,)), DOUBLED), "fine_labels": plain([1])}),
        dictionary({"data": array(plain((3,)), content=DOUBLED), "fine_labels": plain([1])}),
        dictionary({"data": ARRAY + DOUBLED + b"b", "fine_labels": plain([1])}),
        dictionary({"data": call(named("numpy", "dtype"), DOUBLED), "fine_labels": plain([1])}),
        dictionary({"data": call(named("numpy", "dtype"), plain("O")), "fine_labels": plain([1])}),
        dictionary({"data": array(plain((0, 3072)), content=b"C\0"), "fine_labels": DOUBLED}),
        named("numpy", "ndarray") + b"(" + plain(2**40) + b"tR",
    ],
)
def test_hostile_archives_neither_crash_nor_hang(archive, body):
    (archive / "cifar-100-python" / "train").write_bytes(stream(body))
    with pytest.raises(InputError, match="not CIFAR-100's Python archive, or damaged") as caught:
        read_photographs(archive)
    assert str(caught.value).isprintable()
    assert not isinstance(caught.value.__cause__, MemoryError)


def test_archives_by_python_2_are_read(archive):
    """Text and the bytes of arrays are then of the same kind."""
    pixels = photographs(2, 3).images
    rows = pixels.transpose(0, 3, 1, 2).reshape(2, -1).tobytes()

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    dtype = call(named("numpy", "dtype"), text(b"u1"), plain(0), plain(1))
    dtype += (
        b"(" + plain(3) + text(b"|") + 3 * plain(None) + plain(-1) + plain(-1) + plain(0) + b"tb"
    )
    entries = {b"data": array(plain((2, 3072)), dtype, text(rows)), b"fine_labels": plain([4, 5])}
    table = b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"
    (archive / "cifar-100-python" / "train").write_bytes(stream(table))
    train_set, _ = read_photographs(archive)
    np.testing.assert_array_equal(train_set.images, pixels)
    np.testing.assert_array_equal(train_set.labels, [4, 5])


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("labels", [list, np.array, lambda numbers: np.array(numbers, ">u2")])
def test_archives_with_names_in_bytes_are_read(archive, protocol, labels):
    pixels = photographs(2, 3).images
    rows = np.asfortranarray(pixels.transpose(0, 3, 1, 2).reshape(2, -1))
    table = {b"data": rows, b"fine_labels": labels([4, 5]), b"coarse_labels": [0, 1]}
    (archive / "cifar-100-python" / "train").write_bytes(pickle.dumps(table, protocol))
    train_set, _ = read_photographs(archive)
    np.testing.assert_array_equal(train_set.images, pixels)
    np.testing.assert_array_equal(train_set.labels, [4, 5])


def test_archives_of_a_newer_protocol_say_so(archive):
    (archive / "cifar-100-python" / "train").write_bytes(pickle.dumps({}, 4))
    with pytest.raises(
        InputError, match="a pickle of protocol 4, where a CIFAR-100 archive has at most 3"
    ):
        read_photographs(archive)


def test_what_is_no_photographs(archive, tmp_path):
    with pytest.raises(InputError, match=r"no CIFAR-100 in .*give --data a folder"):
        read_photographs(tmp_path / "absent")
    train = archive / "cifar-100-python" / "train"
    whole = train.read_bytes()
    train.write_bytes(whole[:1000])
    with pytest.raises(InputError, match="not CIFAR-100's Python archive, or damaged"):
        read_photographs(archive)
    table = pickle.loads(whole)
    train.write_bytes(pickle.dumps(table | {"fine_labels": [1, 2, 3]}, 2))
    with pytest.raises(InputError, match="200 photographs and 3 labels"):
        read_photographs(archive)
    train.write_bytes(pickle.dumps(table | {"fine_labels": [100] * 200}, 2))
    with pytest.raises(InputError, match="labels must be from 0 to 99"):
        read_photographs(archive)


# Augmentation


augmented = jax.jit(augment, static_argnums=2)


def grey_ramp(number):
    return jnp.broadcast_to(jnp.linspace(0.2, 0.8, 32)[:, None, None], (number, 32, 32, 3))


def test_augmentation_stays_in_range_and_differs_between_photographs():
    images = jax.random.uniform(jax.random.key(0), (16, 32, 32, 3))
    strong = AugmentationConfig(colour=1.0, noise=1.0, noise_share=1, colour_share=1, blur_share=1)
    changed = augmented(jax.random.key(1), images, strong)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert not np.array_equal(changed[0] - images[0], changed[1] - images[1])
    np.testing.assert_array_equal(changed, augmented(jax.random.key(1), images, strong))


NOTHING = {"shift": 0, "cutout": 0, "colour_share": 0, "blur_share": 0, "noise_share": 0}


def test_augmentation_can_be_switched_off():
    images = grey_ramp(8)  # a flip leaves it as it is
    changed = augmented(jax.random.key(0), images, AugmentationConfig(**NOTHING))
    np.testing.assert_array_equal(changed, images)


def test_noise_has_the_given_strength():
    config = AugmentationConfig(**NOTHING | {"noise": 0.1, "noise_share": 1})
    images = jnp.full((2000, 8, 8, 3), 0.5)
    changed = augmented(jax.random.key(0), images, config)
    deviation = np.asarray(jnp.std(changed, axis=(1, 2, 3)))
    assert deviation.max() < 0.12
    assert abs(deviation.mean() - 0.05) < 0.005  # uniform from 0 to 0.1


def test_cutout_is_a_square_of_one_grey():
    config = AugmentationConfig(**NOTHING | {"cutout": 8, "cutout_share": 1})
    images = jnp.stack([jnp.full((32, 32), value) for value in (0.0, 1.0, 0.0)], axis=-1)
    changed = np.asarray(augmented(jax.random.key(0), jnp.stack([images] * 500), config))
    cut = (changed[..., 0] == changed[..., 1]) & (changed[..., 1] == changed[..., 2])
    area = cut.sum(axis=(1, 2))
    assert area.max() == 64
    assert area.min() >= 1
    assert np.median(area) > 40


def test_blur_keeps_a_flat_picture():
    config = AugmentationConfig(**NOTHING | {"blur_share": 1})
    flat = jnp.full((4, 32, 32, 3), 0.3)
    np.testing.assert_allclose(augmented(jax.random.key(0), flat, config), flat, atol=1e-6)


# Training


def test_statistics_of_a_loaded_network_are_trained():
    net = load_net("cifar100_judge")
    before = jax.tree.map(jnp.copy, nnx.state(net, nnx.BatchStat))
    net.train()
    net.logits(jax.random.uniform(jax.random.key(0), (4, 32, 32, 3)))
    after = nnx.state(net, nnx.BatchStat)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved))


def test_training_learns_and_its_report_is_true(archive, tmp_path):
    out = tmp_path / "out"
    report = train(config(peak_rate=1.0, augmentation=CALM, epochs=8), archive, out, quiet())
    assert report["accuracy"] > 0.9
    assert report["seed"] == 0
    assert json.loads((out / "report.json").read_text()) == report
    net = load_net("small", out / "small.safetensors")
    test_set = read_photographs(archive)[1]
    logits = photograph_logits(net, test_set)
    assert accuracy(logits, test_set.labels) == pytest.approx(report["accuracy"], abs=1e-4)
    assert calibration_error(logits, test_set.labels) == pytest.approx(
        report["calibration_error"], abs=1e-4
    )
    assert float(net.temperature[...]) == pytest.approx(report["temperature"], rel=1e-3)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 8


def test_resumed_training_equals_an_uninterrupted_one(tmp_path):
    settings = config(adversarial=0.5, formulas=20)
    part = photographs(100, 0)
    formulas = formula_pictures(settings)

    def begin():
        return Training(SmallNet(rngs=nnx.Rngs(0)), part, settings, formulas)

    whole = begin()
    state = whole.init()
    for _ in range(3):
        state, _ = whole.epoch(state)

    first = begin()
    early, _ = first.epoch(first.init())
    save(tmp_path / "checkpoint.safetensors", early)
    second = begin()
    resumed = restore(tmp_path / "checkpoint.safetensors", second.init())
    for _ in range(2):
        resumed, _ = second.epoch(resumed)
    for expected, actual in zip(jax.tree.leaves(state), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_finished_training_only_reports(archive, tmp_path):
    out = tmp_path / "out"
    first = train(config(), archive, out, quiet())
    lines = (out / "metrics.jsonl").read_text()
    assert train(config(), archive, out, quiet()) == first
    assert (out / "metrics.jsonl").read_text() == lines


def test_adversary_keeps_to_its_length_and_raises_the_loss():
    settings = config(adversarial=0.5)
    part = photographs(40, 0)
    training = Training(SmallNet(rngs=nnx.Rngs(0)), part, settings)
    state = training.init()
    x = jnp.asarray(part.images, jnp.float32) / 255
    targets = jax.nn.one_hot(jnp.asarray(part.labels), 100)
    moved = jax.jit(training._uphill)(jax.random.key(0), state.learnt, x, targets)
    length = jnp.sqrt(jnp.sum((moved - x) ** 2, axis=(1, 2, 3)))
    assert float(length.max()) <= 0.5 + 1e-5
    split = nnx.split_state(state.learnt, nnx.Param, nnx.BatchStat)
    loss_fn = jax.jit(lambda x: training._loss(*split, x, targets)[0])
    assert loss_fn(moved) > loss_fn(x)


def test_formula_pictures_become_uncertain():
    settings = config(formulas=60, formula_share=1.0, epochs=20, peak_rate=1.0, augmentation=CALM)
    formulas = jnp.full((60, 32, 32, 3), jnp.array([0.1, 0.1, 0.9]))  # as blue as the third class
    surest = {}
    for name, pictures in (("with", formulas), ("without", None)):
        training = Training(SmallNet(rngs=nnx.Rngs(0)), photographs(200, 0), settings, pictures)
        state = training.init()
        for _ in range(settings.epochs):
            state, _ = training.epoch(state)
        surest[name] = float(training.averaged(state).probabilities(formulas[:1]).max())
    assert surest["with"] < surest["without"] / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"average": 1.5}, "average must be 0 to 1, got 1.5"),
        ({"peak_rate": -1.0}, "peak_rate must be 0 or more"),
        ({"held_out": 200}, "held_out = 200: the set has 200"),
        ({"batch": 1000}, "batch = 1000 is more than the 160 photographs"),
        ({"net": "squeezenet1_1"}, "net squeezenet1_1 is not trained here"),
    ],
)
def test_settings_of_no_use(archive, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(config(**changes), archive, tmp_path / "out", quiet())


def test_folder_of_another_training(archive, tmp_path):
    out = tmp_path / "out"
    train(config(epochs=1), archive, out, quiet())
    with pytest.raises(InputError, match="holds a training with other settings"):
        train(config(epochs=2), archive, out, quiet())
    (out / "checkpoint.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read checkpoint"):
        train(config(epochs=1), archive, out, quiet())


# Calibration


def test_calibration_error_of_known_cases():
    labels = jnp.zeros(1000, jnp.int32)
    sure_and_right = jnp.tile(jnp.array([20.0, 0.0]), (1000, 1))
    assert calibration_error(sure_and_right, labels) < 1e-6
    assert calibration_error(sure_and_right, 1 - labels) == pytest.approx(1.0)
    level = jnp.tile(jnp.log(jnp.array([0.7, 0.3])), (1000, 1))
    mostly = (jnp.arange(1000) >= 700).astype(jnp.int32)
    assert calibration_error(level, mostly) < 1e-6


def test_temperature_undoes_overconfidence():
    logits = 3 * jax.random.normal(jax.random.key(0), (4000, 10))
    labels = jax.random.categorical(jax.random.key(1), logits)
    assert best_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.1)


# The script


def test_script_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    script = str(ROOT / "scripts" / "train_classifier.py")
    monkeypatch.setattr("sys.argv", [script, "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(script, run_name="__main__")
    assert done.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("train_classifier.py: error: no CIFAR-100 in")
    assert printed.count("\n") == 1
