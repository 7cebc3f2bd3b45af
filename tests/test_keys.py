"""Every random key is used once: a generator that writes down which ones it is asked with.

With JAX's partitionable threefry `fold_in(key, i)` equals `split(key)[i]`, so a key may not be
folded and split both. Here every key that is split, folded or drawn from is known by its bits.
"""

from collections import Counter

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TinyNet
from flax import nnx
from PIL import Image

from evojax_art.cli.main import main
from evojax_art.language.formula import parse
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.refine.ascent import AscentConfig
from evojax_art.refine.constants import FormulaPolisher, PolishConfig
from evojax_art.refine.pixels import PixelPolisher, PixelsConfig
from evojax_art.render.look import RasterConfig
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic
from evojax_art.search.memetic import MemeticConfig
from evojax_art.search.mount2015 import Mount2015

SMALL = {"max_length": 16, "polish": MemeticConfig(every=2, top=2, steps=2)}


class Ledger:
    """Threefry, and how often each of its keys was used for what."""

    def __init__(self):
        self.uses: Counter = Counter()
        self.impl = jax.extend.random.define_prng_impl(
            key_shape=(2,),
            seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
            split=self._split,
            random_bits=self._bits,
            fold_in=self._fold_in,
            name="ledger",
            tag="ledger",
        )

    def key(self, seed):
        return jax.random.wrap_key_data(
            jax.random.key_data(jax.random.PRNGKey(seed)), impl=self.impl
        )

    def check(self, least=10):
        jax.effects_barrier()
        assert len(self.uses) >= least
        folded = {use[0] for use in self.uses if len(use) == 2}
        again = {use: count for use, count in self.uses.items() if count > 1}
        both = folded & {use[0] for use in self.uses if len(use) == 1}
        assert not again, f"{len(again)} keys of {len(self.uses)} are used again"
        assert not both, f"{len(both)} keys are folded, and used otherwise"

    def _note(self, key, *rest):
        jax.debug.callback(self._write_down, key, *rest)

    def _write_down(self, key, *rest):
        self.uses[(tuple(np.asarray(key).tolist()), *(int(item) for item in rest))] += 1

    def _plain(self, key):
        return jax.random.wrap_key_data(key, impl="threefry2x32")

    def _split(self, key, shape):
        self._note(key)
        return jax.random.key_data(jax.random.split(self._plain(key), shape))

    def _bits(self, key, width, shape):
        self._note(key)
        return jax.random.bits(self._plain(key), shape, jnp.dtype(f"uint{width}"))

    def _fold_in(self, key, data):
        self._note(key, data)
        return jax.random.key_data(jax.random.fold_in(self._plain(key), data))


@pytest.fixture
def ledger():
    return Ledger()


def test_a_ledger_notices():
    def twice(key):
        jax.random.normal(key), jax.random.normal(key)

    def split_and_folded(key):
        jax.random.split(key), jax.random.fold_in(key, 0)

    for wrong in (twice, split_and_folded):
        ledger = Ledger()
        wrong(ledger.key(1))
        with pytest.raises(AssertionError, match="used"):
            ledger.check(least=1)


@pytest.mark.parametrize(
    "algorithm",
    [
        Genetic(population=8, offspring=6),
        Mount2015(rule="log", slots=8, batch=4),
        Mount2015(rule="code", slots=8, batch=4),
    ],
    ids=["genetic", "mount2015 log", "mount2015 code"],
)
def test_keys_of_an_evolution(ledger, algorithm):
    scale = "log_odds" if isinstance(algorithm, Genetic) else "probability"
    net, objective = TinyNet(rngs=nnx.Rngs(0)), ObjectiveConfig(scale=scale)
    evolution = Evolution(algorithm, net, (0,), objective, RasterConfig(size=8), **SMALL)
    state = evolution.init(ledger.key(0))
    for _ in range(6):
        state, _ = evolution.step(state)
    ledger.check()


@pytest.mark.parametrize("start", ["nothing", "photograph"])
def test_keys_of_a_run(ledger, start, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(jax.random, "key", lambda seed, impl=None: _keyed(ledger, seed, impl))
    flags = "--net tiny --raster.size 8 --record-size 16 --record-samples 1 --max-length 24"
    flags += " --genetic.population 8 --genetic.offspring 4 --formulas 24"
    if start == "photograph":
        Image.new("RGB", (8, 8), "red").save(tmp_path / "cat.png")
        flags += f" --start-from {tmp_path / 'cat.png'}"
    given = ["--weights", str(tiny_weights), "--out", str(tmp_path / "run")]
    assert main(["evolve", *flags.split(), *given]) == 0
    ledger.check()


def test_keys_of_polish(ledger, tiny_net):
    evaluator = Evaluator(tiny_net, (0,), ObjectiveConfig(), RasterConfig(size=8, samples=1))
    config = PolishConfig(restarts=3, ascent=AscentConfig(steps=6, check_every=2))
    FormulaPolisher(evaluator, config)(parse("( exp ( * x_iy j ) )"), ledger.key(0))
    ledger.check()


def test_keys_of_pixels(ledger, tiny_net):
    target = ClassTarget(tiny_net.vocabulary, (0,))
    config = PixelsConfig(octaves=2, steps=2)
    picture = np.full((64, 64, 3), 0.5, np.float32)
    PixelPolisher(tiny_net, target, config)(picture, ledger.key(0))
    ledger.check(least=2)


_key = jax.random.key


def _keyed(ledger, seed, impl):
    return _key(seed, impl=impl) if impl else ledger.key(seed)
