"""Fixtures that several test modules share."""

import os
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # test processes share a GPU

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import typechecking  # noqa: F401  # before the package
from flax import nnx
from safetensors.numpy import save_file

from evojax_art.nets.base import Classifier
from evojax_art.nets.entry import NetEntry, Published
from evojax_art.nets.registry import REGISTRY
from evojax_art.nets.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # reference data that is no part of the repository

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
    """With a GPU every test is one of it; without, those that need one say why they are skipped."""
    if jax.default_backend() == "gpu":
        for item in items:
            item.add_marker("gpu")
    else:
        skip = pytest.mark.skip(reason=f"needs a GPU; JAX runs on {jax.default_backend()}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """Lets tests that compile the same thing share it; forgotten when the session ends."""
    folder = tmp_path_factory.mktemp("compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)  # of commands that tests start
    for name, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_persistent_cache_min_compile_time_secs", 0.3),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        jax.config.update(name, value)


# These test the numbers that optimised code computes, to a few units in the last place.
OPTIMISED = ("test_cifar", "test_conformance", "test_native", "test_nets", "test_pallas")
QUICKLY = "jax_disable_most_optimizations"


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly(request):
    """On a CPU XLA optimises the rest less: compiling, most of a test's time, takes a third of it.

    JAX_DISABLE_MOST_OPTIMIZATIONS, 0 or 1, decides for all tests.
    """
    if QUICKLY.upper() in os.environ or jax.default_backend() != "cpu":
        return
    quickly = request.module.__name__ not in OPTIMISED
    if jax.config.read(QUICKLY) and not quickly:
        jax.clear_caches()  # of what earlier modules compiled
    jax.config.update(QUICKLY, quickly)


@pytest.fixture
def optimised():
    """Optimises for one test, which computes for longer than it compiles."""
    before = jax.config.read(QUICKLY)
    jax.config.update(QUICKLY, False)
    yield
    jax.config.update(QUICKLY, before)


@pytest.fixture
def full_precision():
    """Products of float32 as such: on a GPU JAX otherwise rounds their factors to TF32."""
    with jax.default_matmul_precision("float32"):
        yield


@pytest.fixture
def unchecked():
    """As users call the package, without a type checker: what is wrong it has to refuse itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder


@pytest.fixture(scope="session")
def gart() -> Path:
    """Formulas and renders of the 1995 program."""
    return _folder("gart")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """SqueezeNet's weights and what another engine computes with them."""
    return _folder("weights")


@pytest.fixture(scope="session")
def cifar100() -> Path:
    """The photographs that the embedded networks were trained and tested on."""
    return _folder("cifar100")


TINY_VOCABULARY = Vocabulary(("red crab, land crab", "green crab", "blue whale", "grey goose"))


class TinyNet(Classifier):
    """Four classes by mean colour, so that a run needs no weights worth the name."""

    def __init__(self, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.vocabulary = TINY_VOCABULARY
        self.size = 8
        self.mean, self.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        self.dtype = dtype
        self.head = nnx.Linear(3, 4, dtype=dtype, rngs=rngs)

    def logits_from_input(self, x):
        return self.activations(x)["logits"]

    def activations(self, x):
        return {"squares": x**2, "logits": self.head(jnp.mean(x, axis=(1, 2)))}


@pytest.fixture
def tiny_net() -> TinyNet:
    """A network that takes no time."""
    return TinyNet(rngs=nnx.Rngs(0))


@pytest.fixture
def tiny_weights(tmp_path, monkeypatch) -> Path:
    """Registers `tiny` as a network; the path of its weights."""
    return register_tiny(tmp_path, monkeypatch)


def register_tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for fixtures of a wider scope."""
    entry = NetEntry(
        build=TinyNet,
        vocabulary=lambda: TINY_VOCABULARY,
        convert=lambda tensors: tensors,
        weights=Published(url="https://example.invalid/tiny.pth", sha256=64 * "0"),
        multiply_adds=0.001,
        summary="a test's network",
    )
    monkeypatch.setitem(REGISTRY, "tiny", entry)
    path = folder / "tiny.safetensors"
    kernel = 3 * np.array([[2, -1, -1, 0], [-1, 2, -1, 0], [-1, -1, 2, 0]], np.float32)
    save_file({"head/kernel": kernel, "head/bias": np.zeros(4, np.float32)}, path)
    return path
