"""Which children are left out: a sketch tells that they can win nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TinyNet
from flax import nnx

from evojax_art.language.program import decode, encode, take
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.niches import EveryClass
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.errors import InputError
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic
from evojax_art.search.illumination import Illumination
from evojax_art.search.map_elites import MapElites
from evojax_art.search.protocol import NOBODY, Offspring
from evojax_art.search.sieve import sieve, with_fitting_surplus

HOST = "( isin ( * x_iy k ) )"
SAME = "( + ( isin ( * x_iy k ) ) ( - x x ) )"
OTHER = "( isin ( * y_k k ) )"
FLAT = "( q 0.2 0.3 0.1 0.4 )"
FAINT = "( * ( q 0.1 0 0 0 ) ( isin ( * x_iy k ) ) )"


def left(children: list[str], count: int, contrast_gate: float = 0.0, **given) -> list[str]:
    config = ObjectiveConfig(contrast_gate=contrast_gate)
    evaluator = Evaluator(TinyNet(rngs=nnx.Rngs(0)), [1], config, RasterConfig(size=96))
    hosts = given.get("hosts", [0] * len(children))
    parents = jnp.stack([jnp.array(hosts), jnp.full(len(children), NOBODY)], axis=1)
    offspring = Offspring(encode(children, 16), parents, jnp.full_like(parents, NOBODY))
    programs = encode([HOST, OTHER], 16)
    kept = sieve(offspring, programs, evaluator, evaluator.params, count)
    assert kept.parents.shape == (count, 2)
    return decode(kept.programs)


def test_what_is_as_its_host_or_of_one_colour_makes_room():
    assert left([SAME, FLAT, OTHER, FAINT], 2) == [OTHER, FAINT]
    assert left([OTHER, SAME], 1, hosts=[1, 1]) == [SAME]  # not what its own host draws


def test_too_few_are_made_up_for_and_order_stays():
    assert left([SAME, OTHER, FLAT], 2) == [OTHER, SAME]
    assert left([SAME, OTHER], 2) == [SAME, OTHER]


def test_a_gate_asks_for_contrast():
    assert left([FAINT, OTHER], 1, contrast_gate=0.02) == [OTHER]
    assert left([FAINT, OTHER], 1) == [FAINT]


def test_starters_are_all_evaluated():
    assert left([FLAT, SAME, OTHER], 2, hosts=[NOBODY, 0, 0]) == [FLAT, OTHER]


def test_a_surplus_is_made_and_left_out_again_of_small_pictures():
    algorithm = MapElites(niches=4, offspring=6, starters=6, surplus=0.5)
    state = algorithm.init(jax.random.key(0), 16, None)
    asked = algorithm.ask(jax.random.key(1), state)
    assert asked.parents.shape == (9, 2)
    np.testing.assert_array_equal(take(asked.programs, jnp.arange(6)).length, state.queue.length)
    assert with_fitting_surplus(algorithm, 96) is algorithm
    assert with_fitting_surplus(algorithm, 32).surplus == 0
    genetic = Genetic(offspring=6, surplus=0.5)
    asked = genetic.ask(jax.random.key(1), genetic.init(jax.random.key(0), 16, None))
    assert asked.parents.shape == (9, 2)
    with pytest.raises(InputError, match=r"genetic\.surplus must be 0 to 10, got -1"):
        Genetic(surplus=-1)
    genetic = Genetic()
    assert with_fitting_surplus(genetic, 32) is genetic
    with pytest.raises(InputError, match=r"map_elites\.surplus must be 0 to 10, got -1"):
        MapElites(surplus=-1)


@pytest.mark.parametrize("kind", ["evolution", "illumination"])
def test_a_generation_evaluates_as_many_as_it_says(kind):
    net = TinyNet(rngs=nnx.Rngs(0))
    niches = EveryClass(net.vocabulary, [(0,), (1,)])
    algorithm = MapElites(niches=2, offspring=4, starters=4, surplus=1.0)
    raster, key = RasterConfig(size=96, samples=1), jax.random.key(0)
    if kind == "illumination":
        objective = build_objective(ObjectiveConfig(), niches, niches=niches)
        run = Illumination(algorithm, {"": net}, niches, objective, raster, max_length=16, batch=4)
        state = run.init(key)
        for number in (1, 2):
            state, passed = run.step(state, number)
        asked = state.repertoire.asked
        assert passed.programs.length.shape == (4,)
        assert run.algorithm.surplus == 1.0
    else:
        algorithm = replace(algorithm, main=1)
        objective = build_objective(ObjectiveConfig(), niches, niches=niches, main=1)
        run = Evolution(algorithm, net, [1], objective, raster, max_length=16, batch=4)
        state = run.init(key)
        for _ in range(2):
            state, _ = run.step(state)
        asked = state.algorithm.asked
    assert int(asked) == run.scored(2) == 8
