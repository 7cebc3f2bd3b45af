import dataclasses
import gc
import hashlib
import http.server
import os
import socket
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from torch_pickles import archive, legacy, state_file

from evojax_art.nets import registry
from evojax_art.nets.download import download
from evojax_art.nets.entry import Published
from evojax_art.nets.squeezenet import SqueezeNet
from evojax_art.nets.weights import load_net
from evojax_art.runtime.cache import CACHE_VARIABLE, cache_folder
from evojax_art.runtime.errors import InputError


@pytest.fixture(scope="module")
def reference(shared_weights):
    """Four pictures and what ncnn computes for them."""
    with np.load(shared_weights / "squeezenet1_1_reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pictures(reference):
    return jnp.asarray(reference["images"], jnp.float32) / 255


@pytest.fixture(scope="module")
def trained(shared_weights):
    return load_net("squeezenet1_1", shared_weights / "squeezenet1_1.safetensors")


@pytest.fixture(scope="module")
def untrained():
    """Random weights: for what holds whatever the weights are, and needs no reference data."""
    return SqueezeNet(rngs=nnx.Rngs(0))


def noise(*shape) -> jnp.ndarray:
    return jax.random.uniform(jax.random.key(0), shape)


# SqueezeNet against another engine


@pytest.mark.usefixtures("full_precision")
def test_probabilities_are_those_of_the_reference(trained, pictures, reference):
    probabilities = trained.probabilities(pictures)
    print(f"largest difference of a probability {np.abs(probabilities - reference['probs']).max()}")
    np.testing.assert_allclose(probabilities, reference["probs"], rtol=0, atol=1e-5)
    best, expected = (
        np.argsort(-np.asarray(x))[:, :5] for x in (probabilities, reference["probs"])
    )
    np.testing.assert_array_equal(best, expected)
    np.testing.assert_allclose(trained.logits(pictures), reference["logits"], rtol=0, atol=1e-3)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(("layer", "thinned"), [(2, 5), (5, 3), (8, 2), (12, 2)])
def test_layers_are_those_of_the_reference(trained, pictures, reference, layer, thinned):
    x = (pictures - jnp.asarray(trained.mean)) / jnp.asarray(trained.std)
    output = np.asarray(trained.activations(x)[f"features.{layer}"]).transpose(0, 3, 1, 2)
    expected = reference[f"features_{layer}"]
    tolerance = 2e-5 * expected.max()
    np.testing.assert_allclose(output[:, :, ::thinned, ::thinned], expected, 0, tolerance)


def test_bfloat16_is_close(shared_weights, pictures, reference):
    net = load_net(
        "squeezenet1_1", shared_weights / "squeezenet1_1.safetensors", dtype=jnp.bfloat16
    )
    logits = net.logits(pictures)
    assert logits.dtype == jnp.float32
    # Eight bits of precision through 26 layers: 1 % of the largest logit here, three times allowed.
    largest = reference["logits"].max(axis=1, keepdims=True)
    assert (np.abs(logits - reference["logits"]) < 0.03 * largest).all()
    probabilities = net.probabilities(pictures)
    np.testing.assert_array_equal(
        np.argmax(probabilities, axis=1), np.argmax(reference["probs"], axis=1)
    )
    np.testing.assert_allclose(probabilities, reference["probs"], rtol=0, atol=0.05)


# What holds for any weights


@pytest.mark.parametrize("shape", [(1, 1), (64, 48), (40, 300), (500, 7)])
def test_pictures_of_any_size_are_judged(untrained, shape):
    logits = untrained.logits(noise(2, *shape, 3))
    assert logits.shape == (2, 1000)
    assert np.isfinite(logits).all()
    colour = jnp.asarray((0.2, 0.5, 0.8))
    plain, expected = (
        untrained.logits(jnp.broadcast_to(colour, (1, *size, 3))) for size in (shape, (224, 224))
    )
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-4 * scale)


def test_probabilities_are_the_softmax_of_the_logits(untrained):
    images = noise(2, 32, 32, 3)
    probabilities = untrained.probabilities(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    exponentials = np.exp(untrained.logits(images))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)


def rounded_up_pool(x: np.ndarray) -> np.ndarray:
    """3x3 maximum, stride 2; windows that begin inside and reach beyond the edge count."""
    height, width = (-(-(size - 3) // 2) + 1 for size in x.shape[1:3])
    windows = (
        x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
        for i in range(height)
        for j in range(width)
    )
    return np.stack(list(windows), axis=1).reshape(x.shape[0], height, width, -1)


@pytest.mark.parametrize("shape", [(227, 227), (38, 61), (26, 27)])
def test_pools_round_up(untrained, shape):
    x = noise(1, *shape, 3) - 0.5
    outputs = untrained.activations(x) | {"features.1": jax.nn.relu(untrained.stem(x))}
    for layer in (2, 5, 8):
        expected = rounded_up_pool(np.asarray(outputs[f"features.{layer - 1}"]))
        np.testing.assert_allclose(outputs[f"features.{layer}"], expected, rtol=1e-5, atol=1e-6)


# Weights from files


def torchvision_tensors(net: SqueezeNet) -> dict[str, np.ndarray]:
    """The net's weights as torchvision names them and lays them out."""
    layers = {"features.0": net.stem, "classifier.1": net.head}
    for number, fire in net.fire.items():
        for part in ("squeeze", "expand1x1", "expand3x3"):
            layers[f"features.{number}.{part}"] = getattr(fire, part)
    tensors = {}
    for name, layer in layers.items():
        kernel = np.asarray(layer.kernel[...])
        kernel = kernel[None, None] if kernel.ndim == 2 else kernel
        tensors[f"{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"{name}.bias"] = np.asarray(layer.bias[...])
    return tensors


@pytest.fixture(scope="module")
def published(untrained):
    """Random tensors of torchvision's names and shapes, biases too."""
    random = np.random.default_rng(0)
    shapes = {name: tensor.shape for name, tensor in torchvision_tensors(untrained).items()}
    return {name: random.random(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("file", ["net.safetensors", "zip.pth", "legacy.pth"])
def test_weights_come_back_from_every_format(published, tmp_path, file):
    path = tmp_path / file
    if file == "net.safetensors":
        save_file(published, path)
    else:
        path.write_bytes(state_file(published, archive if file == "zip.pth" else legacy))
    loaded = torchvision_tensors(load_net("squeezenet1_1", path))
    assert len(loaded) == 52
    for name, tensor in published.items():
        np.testing.assert_array_equal(loaded[name], tensor, err_msg=name)


def test_half_precision_weights_become_float32(tiny_weights):
    tensors = {name: tensor.astype(np.float16) for name, tensor in load_file(tiny_weights).items()}
    save_file(tensors, tiny_weights)
    kernel = load_net("tiny", tiny_weights).head.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, tensors["head/kernel"])


def refusal(function, *arguments, **options) -> str:
    """The text of the InputError, which is one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_unknown_networks_suggest_near_ones():
    assert "did you mean squeezenet1_1?" in refusal(load_net, "sqeezenet")
    assert "there are cifar100, cifar100_judge, squeezenet1_1" in refusal(load_net, "qqq")


def test_missing_weights_say_what_to_place_where(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    text = refusal(load_net, "tiny")
    assert str(tmp_path / "cache" / "tiny.pth") in text
    assert "https://example.invalid/tiny.pth" in text
    assert str(tmp_path / "absent.pth") in refusal(load_net, "tiny", tmp_path / "absent.pth")
    assert str(tmp_path) in refusal(load_net, "tiny", tmp_path)  # a folder


@pytest.mark.parametrize("make", [archive, legacy, None])
def test_truncated_weights_are_refused(tiny_weights, make):
    if make is not None:
        tiny_weights.write_bytes(state_file(load_file(tiny_weights), make))
    content = tiny_weights.read_bytes()
    load_net("tiny", tiny_weights)
    for length in [*range(0, 20), *range(20, len(content), 29), len(content) - 1]:
        tiny_weights.write_bytes(content[:length])
        assert refusal(load_net, "tiny", tiny_weights).startswith(f"{tiny_weights}: ")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8 + b"{}",  # a header of 2**64 bytes
        bytes(8) + b"{}",
        (2).to_bytes(8, "little") + b"{]",
        (40).to_bytes(8, "little") + b'{"head/kernel":{"dtype":"F32","shape":[3'.ljust(40),
        (2).to_bytes(8, "little") + b"{}",  # valid, and empty
    ],
)
def test_damaged_safetensors_are_refused(tiny_weights, content):
    tiny_weights.write_bytes(content)
    assert refusal(load_net, "tiny", tiny_weights).startswith(f"{tiny_weights}: ")


def test_weights_of_another_network_are_refused(tiny_weights):
    right = load_file(tiny_weights)
    kernel, bias = right["head/kernel"], right["head/bias"]
    wrong = {
        "lacks head/bias": {"head/kernel": kernel},
        "holds 'tail/bias'": right | {"tail/bias": bias},
        "head/bias has shape (5,) in place of (4,)": right | {"head/bias": np.zeros(5, np.float32)},
        "head/kernel has shape (4, 3)": right | {"head/kernel": np.ascontiguousarray(kernel.T)},
        "head/kernel holds numbers that are not finite": right | {"head/kernel": kernel * np.nan},
        "head/bias holds numbers that are not finite": right | {"head/bias": bias - np.inf},
    }
    for complaint, tensors in wrong.items():
        save_file(tensors, tiny_weights)
        text = refusal(load_net, "tiny", tiny_weights)
        assert str(tiny_weights) in text
        assert complaint in text


def test_what_is_no_file_of_numbers_is_refused(tiny_weights, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no file of weights"):
        load_net("tiny", tmp_path / "pipe")
    with pytest.raises(InputError, match=r"cannot read a+: File name too long"):
        load_net("tiny", "a" * 5000)
    tensors = load_file(tiny_weights)
    odd = {name: tensor.astype(np.complex64) for name, tensor in tensors.items()}
    save_file(odd, tmp_path / "complex.safetensors")
    with pytest.raises(InputError, match="holds complex numbers"):
        load_net("tiny", tmp_path / "complex.safetensors")


def test_weights_beyond_float32_are_refused(tiny_weights):
    right = load_file(tiny_weights)
    save_file(right | {"head/bias": np.full(4, 1e300)}, tiny_weights)
    refusal(load_net, "tiny", tiny_weights)


# Weights from the network


class Server:
    """Answers every request with the same bytes, and counts."""

    def __init__(self):
        self.content = b""
        self.claimed = None
        self.status = 200
        self.requests = 0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owner.requests += 1
                self.send_response(owner.status)
                self.send_header("Content-Length", str(owner.claimed or len(owner.content)))
                self.end_headers()
                self.wfile.write(owner.content)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mirror/any-name"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))


@pytest.fixture
def server():
    server = Server()
    server.thread.start()
    yield server
    server.server.shutdown()
    server.thread.join()
    server.server.server_close()
    gc.collect()  # pooch leaves its connection open when it fails: to be warned of here, not later


# See `server`.
leaves_connection_open = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def content(tiny_weights, monkeypatch):
    """The published file of `tiny`, which the registry knows by its hash."""
    content = state_file(load_file(tiny_weights), legacy)
    publish(content, "https://example.invalid/tiny.pth", monkeypatch)
    return content


def publish(content: bytes, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells the registry that `tiny` is published so."""
    published = Published(url=url, sha256=hashlib.sha256(content).hexdigest())
    entry = dataclasses.replace(registry.REGISTRY["tiny"], weights=published)
    monkeypatch.setitem(registry.REGISTRY, "tiny", entry)


def test_a_download_lands_in_the_cache_and_is_kept(server, cache, content, tiny_weights):
    server.content = content
    path = download("tiny", progress=False, url=server.url)
    assert path == registry.weights_path("tiny")
    assert path.parent == cache
    assert path.read_bytes() == content
    assert list(cache.iterdir()) == [path]
    assert download("tiny", progress=False, url=server.url) == path
    assert server.requests == 1
    expected = load_net("tiny", tiny_weights)
    np.testing.assert_array_equal(load_net("tiny").head.kernel[...], expected.head.kernel[...])


def test_a_download_comes_from_the_registry_by_default(server, cache, content, monkeypatch):
    server.content = content
    publish(content, server.url.replace("any-name", "tiny.pth"), monkeypatch)
    assert download("tiny", progress=False).read_bytes() == content


def test_a_download_reports_its_progress(server, cache, content):
    class Progress:
        total = 0
        done = 0

        def update(self, amount):
            self.done += amount

        def reset(self):
            self.done = 0

        def close(self):
            pass

    server.content = content
    progress = Progress()
    download("tiny", progress=progress, url=server.url)
    assert progress.total == len(content)


def fails_and_leaves_nothing(url: str, cache) -> str:
    """The text of the InputError of a download, which says what to place where."""
    text = refusal(download, "tiny", progress=False, url=url)
    assert f"place tiny.pth at {registry.weights_path('tiny')}" in text
    assert list(cache.iterdir()) == []
    return text


@leaves_connection_open
def test_another_file_is_not_kept(server, cache, content):
    server.content = content + b" "
    digest = hashlib.sha256(server.content).hexdigest()
    assert digest in fails_and_leaves_nothing(server.url, cache)
    server.content = content
    assert download("tiny", progress=False, url=server.url).exists()  # and the next try succeeds


@leaves_connection_open
def test_a_file_whose_hash_agrees_in_part_is_not_kept(server, cache, content, monkeypatch):
    """Eight digits, which a file's name may carry, are 32 bits: another file is soon found."""
    digest = hashlib.sha256(content).hexdigest()
    near = digest[:8] + hashlib.sha256(b"").hexdigest()[8:]
    url = f"https://example.invalid/tiny-{digest[:8]}.pth"
    published = Published(url=url, sha256=near)
    entry = dataclasses.replace(registry.REGISTRY["tiny"], weights=published)
    monkeypatch.setitem(registry.REGISTRY, "tiny", entry)
    server.content = content
    assert near in refusal(download, "tiny", progress=False, url=server.url)
    assert list(cache.iterdir()) == []


def test_a_cached_file_that_is_not_what_was_published_is_refused(cache, content):
    path = registry.weights_path("tiny")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    load_net("tiny")
    path.write_bytes(content + b" ")
    text = refusal(load_net, "tiny")
    assert hashlib.sha256(content).hexdigest() in text
    assert "--weights" in text


@pytest.mark.parametrize("digest", ["", "b8a52dc0", "g" * 64, "A" * 64])
def test_published_files_need_a_whole_hash(digest):
    with pytest.raises(ValueError, match="is no whole SHA-256"):
        Published(url="https://example.invalid/tiny.pth", sha256=digest)


@leaves_connection_open
def test_a_whole_sha1_does_where_no_more_is_stated(server, cache, content, monkeypatch):
    url, right = "https://example.invalid/tiny.pth", hashlib.sha1(content).hexdigest()
    entry = dataclasses.replace(registry.REGISTRY["tiny"], weights=Published(url=url, sha1=right))
    monkeypatch.setitem(registry.REGISTRY, "tiny", entry)
    server.content = content + b" "
    assert f"in place of {right}" in refusal(download, "tiny", progress=False, url=server.url)
    server.content = content
    path = download("tiny", progress=False, url=server.url)
    load_net("tiny")
    path.write_bytes(content + b" ")
    assert f"its SHA-1 is {hashlib.sha1(content + b' ').hexdigest()}" in refusal(load_net, "tiny")
    with pytest.raises(ValueError, match="is no whole SHA-1"):
        Published(url=url, sha1=right[:8])
    with pytest.raises(ValueError, match="one digest is enough"):
        Published(url=url, sha1=right, sha256=hashlib.sha256(content).hexdigest())


@leaves_connection_open
def test_an_interrupted_download_is_not_kept(server, cache, content):
    server.content, server.claimed = content[:100], len(content)
    fails_and_leaves_nothing(server.url, cache)


@leaves_connection_open
def test_an_error_page_is_not_kept(server, cache, content):
    server.content, server.status = content, 404
    fails_and_leaves_nothing(server.url, cache)


def test_unreachable_addresses_are_input_errors(cache, content):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fails_and_leaves_nothing(f"http://127.0.0.1:{port}/tiny.pth", cache)
    for url in ("no address", "http://", "ftp://127.0.0.1/tiny.pth"):
        fails_and_leaves_nothing(url, cache)


def test_a_cache_that_cannot_be_made_is_an_input_error(server, cache, content):
    cache.parent.write_bytes(b"a file in place of the folder")
    text = refusal(download, "tiny", progress=False, url=server.url)
    assert str(registry.weights_path("tiny")) in text
    assert server.requests == 0


def test_the_cache_has_a_default(monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder().name == "evojax_art"
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert cache_folder().name == "evojax_art"
