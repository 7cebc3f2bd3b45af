import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TinyNet
from flax import nnx

from evojax_art.language.program import decode, encode, is_valid
from evojax_art.objective.evaluation import ObjectiveConfig
from evojax_art.render.look import RasterConfig
from evojax_art.search import protocol as base
from evojax_art.search.generation import Evolution, fitting_batch
from evojax_art.search.genetic import Genetic
from evojax_art.search.mount2015 import Mount2015

SCENE = RasterConfig(size=8)
CAPACITY = 24
ALGORITHMS = {
    "genetic": Genetic(population=24, offspring=16),
    "mount2015 log": Mount2015(rule="log", slots=24, batch=8),
    "mount2015 code": Mount2015(rule="code", slots=24, batch=8),
}


@cache
def evolution_by(algorithm):
    """One of each, because compiling takes seconds."""
    scale = "log_odds" if isinstance(algorithm, Genetic) else "probability"
    net = TinyNet(rngs=nnx.Rngs(0))
    objective = ObjectiveConfig(scale=scale)
    return Evolution(algorithm, net, (0, 1), objective, SCENE, max_length=CAPACITY)


jitted_init = jax.jit(lambda algorithm, *rest: algorithm.init(*rest), static_argnums=(0, 2))


def trajectory(evolution, seed, generations, seeds=None):
    state = evolution.init(jax.random.key(seed), seeds)
    summaries = []
    for _ in range(generations):
        state, summary = evolution.step(state)
        summaries.append(jax.device_get(summary))
    return state, summaries


@pytest.fixture(params=ALGORITHMS)
def evolution(request):
    return evolution_by(ALGORITHMS[request.param])


def test_fitness_rises_and_genomes_stay_valid(evolution):
    state, summaries = trajectory(evolution, 0, 40)
    best = [float(summary.best_fitness) for summary in summaries]
    assert best == sorted(best)
    assert best[-1] > best[0]
    assert bool(jnp.all(jax.jit(jax.vmap(is_valid))(state.algorithm.population)))
    filled = np.asarray(state.algorithm.fitness)
    assert filled.max() == pytest.approx(best[-1]) or isinstance(evolution.algorithm, Mount2015)
    assert all(
        summary.is_record == (later > earlier)
        for summary, earlier, later in zip(summaries[1:], best, best[1:], strict=False)
    )


def test_same_seed_same_run_bit_for_bit(evolution):
    runs = [trajectory(evolution, seed, 12)[0] for seed in (3, 3, 4)]
    texts = [decode(run.algorithm.population) for run in runs]
    assert texts[0] == texts[1] != texts[2]
    np.testing.assert_array_equal(runs[0].algorithm.fitness, runs[1].algorithm.fitness)


def test_best_is_what_it_is_said_to_be(evolution):
    state, _ = trajectory(evolution, 1, 10)
    population = jax.tree.map(lambda field: field[None], state.best)
    fitness, metrics = evolution.assess(population)
    assert float(fitness[0]) == pytest.approx(float(state.best_fitness), rel=1e-5)
    assert float(metrics.score[0]) == pytest.approx(float(state.best_metrics.score), rel=1e-5)


def test_no_compilation_after_the_first_generation(evolution):
    state, _ = evolution.step(evolution.init(jax.random.key(0)))
    compiled = []

    def listener(event, seconds, **_):
        if "compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        # The guard proves that nothing crosses between host and device unasked either.
        with jax.transfer_guard("disallow"):
            for _ in range(5):
                state, _ = evolution.step(state)
        assert compiled == []
        jax.jit(lambda x: x + 1)(jnp.ones(3))
        assert compiled != []  # the listener does hear compilations
    finally:
        jax.monitoring.clear_event_listeners()


def test_a_generation_makes_no_python_call_per_individual():
    def calls_in_a_step(algorithm):
        evolution = evolution_by(algorithm)
        state, _ = evolution.step(evolution.init(jax.random.key(0)))
        state, _ = evolution.step(state)
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            count += event == "call"

        sys.setprofile(profile)
        try:
            evolution.step(state)
        finally:
            sys.setprofile(None)
        return count

    larger = Genetic(population=96, offspring=64)
    assert calls_in_a_step(ALGORITHMS["genetic"]) == calls_in_a_step(larger)


def test_assessment_does_not_depend_on_the_batch(tiny_net):
    formulas = [f"( + x ( q {n} 0.5 0 {-n} ) )" for n in range(7)]
    population = encode(formulas, max_length=CAPACITY)
    results = [
        Evolution(
            ALGORITHMS["genetic"],
            tiny_net,
            (0,),
            ObjectiveConfig(),
            SCENE,
            max_length=CAPACITY,
            batch=batch,
        ).assess(population)[0]
        for batch in (1, 3, 7, 50)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5)


def test_seeds_are_evaluated_first_and_kept():
    seeds = encode(["( exp x )", "i", "( iexp ( + i i ) )"], max_length=CAPACITY)
    algorithm = ALGORITHMS["genetic"]
    state = evolution_by(algorithm).init(jax.random.key(0), seeds)
    offspring = jax.jit(algorithm.ask)(jax.random.key(1), state.algorithm)
    assert decode(offspring)[:3] == decode(seeds)


def test_genetic_keeps_one_formula_per_picture():
    state, _ = trajectory(evolution_by(ALGORITHMS["genetic"]), 0, 30)
    fitness = np.asarray(state.algorithm.fitness)
    held = fitness[fitness > base.EMPTY]
    assert len(set(held.tolist())) == len(held) > 10


def test_repeats_keep_the_preferred_one():
    key = jnp.array([5.0, 1.0, 5.0, 2.0, 5.0])
    length = jnp.array([9, 1, 3, 1, 4])
    assert base.repeats(key, length).tolist() == [True, False, False, False, True]


def test_fingerprints_tell_programs_apart():
    texts = ["x", "y", "( + x y )", "( + y x )", "( q 1 0 0 0 )", "( q 0 1 0 0 )", "1"]
    population = encode([*texts, "( + x y )"], max_length=8)
    marks = np.asarray(jax.jit(jax.vmap(base.fingerprint))(population)).tolist()
    assert len(set(marks)) == len(texts)
    assert marks[2] == marks[-1]


def test_tournament_prefers_the_fit():
    fitness = jnp.arange(100.0)
    winners = base.tournament(jax.random.key(0), fitness, 5, 2000)
    assert 79 < float(jnp.mean(winners)) < 86  # the expected best of five is 82.8


@pytest.mark.parametrize("rule", ["log", "code"])
def test_mount2015_fills_its_slots_with_the_starters(rule):
    evolution = evolution_by(ALGORITHMS[f"mount2015 {rule}"])
    start = evolution.init(jax.random.key(0))
    queue = decode(start.algorithm.queue)
    state = start
    for _ in range(3):
        state, _ = evolution.step(state)
    assert decode(state.algorithm.population) == queue
    assert float(jnp.min(state.algorithm.fitness)) >= 0


def test_mount2015_log_rule_overwrites_the_first_lower_slot():
    algorithm = Mount2015(rule="log", slots=16, batch=4)
    state = jitted_init(algorithm, jax.random.key(0), 8, None)
    state = state._replace(asked=jnp.int32(16), fitness=jnp.linspace(0.1, 0.9, 16))
    offspring = encode(["x", "y", "i", "j"], max_length=8)
    fitness = jnp.array([0.05, 0.5, 0.95, 0.95])
    told = jax.jit(algorithm.tell)(jax.random.key(1), state, offspring, fitness)
    before, after = np.asarray(state.fitness), np.asarray(told.fitness)
    changed = np.flatnonzero(before != after)
    assert 2 <= len(changed) <= 3  # 0.05 is lower than all, each of the others replaces one
    assert np.all(after[changed] > before[changed])
    texts = decode(told.population)
    expected = {0.5: {"y"}, 0.95: {"i", "j"}}
    assert all(texts[slot] in expected[round(float(after[slot]), 2)] for slot in changed)


def test_mount2015_draws_from_the_archive():
    algorithm = Mount2015(slots=40, batch=40, fresh=1.0, archive_share=1.0, subst=0.0)
    archive = encode(["( exp x )", "( inv y )"], max_length=CAPACITY)
    state = jitted_init(algorithm, jax.random.key(0), CAPACITY, archive)
    state = state._replace(asked=jnp.int32(1000))
    children = jax.jit(algorithm.ask)(jax.random.key(1), state)
    assert set(decode(children)) == {"( exp x )", "( inv y )"}


def test_mount2015_starts_from_the_archive_as_each_rule_says():
    archive = encode([f"( + x ( q {n} 0 0 0 ) )" for n in range(30)], max_length=CAPACITY)
    known = set(decode(archive))
    for rule, from_archive, distinct in (("log", 10, 10), ("code", 20, 8)):
        algorithm = Mount2015(rule=rule, slots=20, batch=4)
        queue = decode(jitted_init(algorithm, jax.random.key(0), CAPACITY, archive).queue)
        assert len(queue) == 20
        assert sum(text in known for text in queue) == from_archive
        assert len(known & set(queue)) == distinct


class Unhurried(Genetic):
    """The same, but the gate is asked about every child."""

    def threshold(self, state):
        return jnp.float32(-jnp.inf)


@cache
def gated(cls, parsimony):
    """An evolution with a gate, and its state after twelve generations."""
    algorithm = cls(population=24, offspring=16, parsimony=parsimony)
    objective, net = ObjectiveConfig(noise_gate=0.03), TinyNet(rngs=nnx.Rngs(0))
    evolution = Evolution(algorithm, net, (0,), objective, SCENE, max_length=CAPACITY)
    return evolution, trajectory(evolution, 5, 12)[0]


@pytest.mark.parametrize("parsimony", [0.0, 0.01])  # without, a shorter equal still displaces
def test_the_gate_leaves_the_run_as_it_would_be(parsimony):
    (_, state), (_, expected) = (gated(cls, parsimony) for cls in (Genetic, Unhurried))
    assert decode(state.algorithm.population) == decode(expected.algorithm.population)
    np.testing.assert_array_equal(state.algorithm.fitness, expected.algorithm.fitness)
    assert float(state.best_metrics.noise) < 0.03


def test_the_gate_is_asked_only_where_it_can_matter():
    evolution, state = gated(Genetic, 0.01)
    threshold = evolution.algorithm.threshold(state.algorithm)
    offspring = jax.jit(evolution.algorithm.ask)(jax.random.key(0), state.algorithm)
    fitness, metrics = evolution._assess(offspring, evolution._fixed, threshold)
    measured = np.isfinite(np.asarray(metrics.noise))
    assert 0 < measured.sum() < len(measured)
    everything, all_metrics = evolution.assess(offspring)
    assert np.isfinite(np.asarray(all_metrics.noise)).all()
    np.testing.assert_array_equal(fitness[measured], everything[measured])


def test_log_rule_needs_to_beat_the_lowest_slot():
    algorithm = Mount2015(rule="log", slots=4, batch=2)
    state = jitted_init(algorithm, jax.random.key(0), CAPACITY, None)
    assert algorithm.threshold(state) == base.EMPTY
    state = state._replace(fitness=jnp.array([0.5, 0.25, 0.75, 1.0]))
    assert algorithm.threshold(state) == 0.25
    assert Mount2015(rule="code").threshold(state) == -jnp.inf


def test_batches_fit_the_device(monkeypatch):
    assert [fitting_batch(size) for size in (32, 224, 2048)] == [128, 8, 1]

    class Card:
        def memory_stats(self):
            return {"bytes_limit": 140 << 30}

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Card()])
    assert [fitting_batch(size) for size in (32, 224, 2048)] == [1 << 14, 1024, 16]
