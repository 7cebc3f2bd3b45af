import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TinyNet
from flax import nnx

from evojax_art.language.program import decode, encode, is_valid
from evojax_art.objective.evaluation import APPEARANCE, Evaluation
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.errors import InputError
from evojax_art.search import protocol as base
from evojax_art.search.generation import VISIT, Evolution, Until
from evojax_art.search.genetic import Genetic, better_alike, equal_pictures
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


def survivors_of(evolution, state):
    return evolution.algorithm.survivors(state.algorithm)


def offspring_of(*formulas):
    """Children of nobody."""
    programs = encode(formulas, max_length=8)
    nobody = jnp.full((len(formulas), 2), base.NOBODY)
    return base.Offspring(programs, nobody, nobody)


def evaluation_of(*fitness, valid=True, appearance=None):
    fitness = jnp.array(fitness)
    valid = jnp.broadcast_to(jnp.asarray(valid), fitness.shape)
    if appearance is None:
        appearance = jnp.zeros((len(fitness), APPEARANCE))
    return Evaluation(jnp.where(valid, fitness, -jnp.inf), valid, {}, appearance)


@pytest.fixture(params=ALGORITHMS)
def evolution(request):
    return evolution_by(ALGORITHMS[request.param])


def test_fitness_rises_and_genomes_stay_valid(evolution):
    state, summaries = trajectory(evolution, 0, 40)
    best = [float(summary.best_fitness) for summary in summaries]
    assert best == sorted(best)
    assert best[-1] > best[0]
    survivors = survivors_of(evolution, state)
    assert bool(jnp.all(jax.jit(jax.vmap(is_valid))(survivors.programs)))
    filled = np.asarray(survivors.fitness)
    assert filled.max() == pytest.approx(best[-1]) or isinstance(evolution.algorithm, Mount2015)
    assert all(
        summary.is_record == (later > earlier)
        for summary, earlier, later in zip(summaries[1:], best, best[1:], strict=False)
    )


def test_same_seed_same_run_bit_for_bit(evolution):
    runs = [trajectory(evolution, seed, 12)[0] for seed in (3, 3, 4)]
    ends = [survivors_of(evolution, run) for run in runs]
    texts = [decode(end.programs) for end in ends]
    assert texts[0] == texts[1] != texts[2]
    for one, other in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_best_is_what_it_is_said_to_be(evolution):
    state, _ = trajectory(evolution, 1, 10)
    best = state.best.evaluation
    again = evolution.evaluate(jax.tree.map(lambda field: field[None], state.best.program))
    assert bool(best.valid)
    assert float(again.fitness[0]) == pytest.approx(float(best.fitness), rel=1e-5)
    assert float(again.metrics["score"][0]) == pytest.approx(float(best.metrics["score"]), rel=1e-5)


def test_the_host_may_look_seldom_or_often():
    """Generations that pass without it are those that would pass one by one."""
    evolution = evolution_by(ALGORITHMS["genetic"])
    one_by_one, summaries = trajectory(evolution, 7, 20)
    state, seen = evolution.init(jax.random.key(7)), []
    while len(seen) < 20:
        until = Until(min(6, 20 - len(seen)), jnp.inf, jnp.nan, jnp.inf)
        state, passed, count = evolution.advance(state, until)
        assert int(count) == 1 or not np.asarray(passed.is_record)[: int(count) - 1].any()
        seen += [jax.tree.map(lambda all_, n=n: all_[n], passed) for n in range(int(count))]
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(one_by_one), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
    for one, other in zip(seen, summaries, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_host_is_asked_when_it_wants_to_look():
    evolution = evolution_by(ALGORITHMS["genetic"])

    def passed(*until):
        state = evolution.init(jax.random.key(0))
        _, summaries, count = evolution.advance(state, Until(*until))
        return int(count), jax.tree.map(lambda field: np.asarray(field)[: int(count)], summaries)

    assert passed(VISIT, np.inf, np.nan, 0.0)[0] == 1  # nothing is drawn yet
    assert passed(9, np.inf, 0.0, np.inf)[0] == 9
    count, summaries = passed(VISIT, np.inf, 0.0, 0.7)
    apart = np.abs(summaries.best_value) >= 0.7
    assert (apart & summaries.is_record)[-1]
    assert not (apart & summaries.is_record)[:-1].any()
    count, summaries = passed(VISIT, 0.7, 0.0, np.inf)
    assert (summaries.best_score >= 0.7).tolist() == [False] * (count - 1) + [True]


def test_births_name_individuals_and_their_parents(evolution):
    state, _ = trajectory(evolution, 2, 12)
    before = survivors_of(evolution, state)
    known = set(map(tuple, np.asarray(before.birth)[np.asarray(before.taken)].tolist()))
    assert 0 < len(known) <= int(before.taken.sum())  # of the code of 2015 one may hold several
    state, _ = evolution.step(jax.tree.map(jnp.copy, state))
    after = survivors_of(evolution, state)
    born = set(map(tuple, np.asarray(after.birth)[np.asarray(after.taken)].tolist()))
    assert {birth for birth in born - known if birth[0] != 13} == set()
    best = state.best
    assert 1 <= int(best.birth[0]) <= 13
    assert (np.asarray(best.parents)[:, 0] < int(best.birth[0])).all()


def test_who_is_not_valid_never_wins():
    algorithm = Genetic(population=3, offspring=3, parsimony=0.0)
    state = jitted_init(algorithm, jax.random.key(0), 8, None)
    appearance = jnp.eye(3, APPEARANCE)
    evaluation = evaluation_of(1.0, 9.0, 2.0, valid=[True, False, True], appearance=appearance)
    state = jax.jit(algorithm.tell)(
        jax.random.key(1), state, offspring_of("x", "y", "i"), evaluation
    )
    assert decode(state.held.programs)[:2] == ["i", "x"]
    assert state.held.fitness.tolist() == [2.0, 1.0, -np.inf]


def test_mount2015_counts_who_is_not_valid_as_zero():
    algorithm = Mount2015(rule="log", slots=2, batch=2)
    state = jitted_init(algorithm, jax.random.key(0), 8, None)
    evaluation = evaluation_of(0.5, 0.9, valid=[True, False])
    state = jax.jit(algorithm.tell)(jax.random.key(1), state, offspring_of("x", "y"), evaluation)
    assert state.held.fitness.tolist() == [0.5, 0.0]
    assert bool(state.held.taken.all())


def test_equal_pictures_are_told_by_more_than_bits_of_fitness():
    """Rounding differs with the batch; other pictures may happen to be as fit."""
    looks = jnp.repeat(jnp.arange(3.0)[:, None], APPEARANCE, axis=1)
    appearance = jnp.stack([looks[0], looks[0] + 1e-6, looks[1], looks[0], looks[2]])
    fitness = jnp.array([2.0, 2.0 + 1e-6, 2.0, 2.0 - 1e-6, -jnp.inf])
    programs = encode(["( exp ( exp x ) )", "( exp x )", "x", "( exp ( + x y ) )", "x"])
    everyone = base.nobody_yet(programs)._replace(fitness=fitness)
    marked = equal_pictures(everyone, appearance)
    assert marked.tolist() == [True, False, False, True, False]


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
        )
        .evaluate(population)
        .fitness
        for batch in (1, 3, 7, 50)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5)


def test_seeds_are_evaluated_first_and_kept():
    seeds = encode(["( exp x )", "i", "( iexp ( + i i ) )"], max_length=CAPACITY)
    algorithm = ALGORITHMS["genetic"]
    state = evolution_by(algorithm).init(jax.random.key(0), seeds)
    offspring = jax.jit(algorithm.ask)(jax.random.key(1), state.algorithm)
    assert decode(offspring.programs)[:3] == decode(seeds)
    assert (np.asarray(offspring.parents) == base.NOBODY).all()


def test_genetic_keeps_one_formula_per_picture():
    state, _ = trajectory(evolution_by(ALGORITHMS["genetic"]), 0, 30)
    held = survivors_of(evolution_by(ALGORITHMS["genetic"]), state)
    fitness = np.asarray(held.fitness)[np.asarray(held.taken)]
    assert len(set(fitness.tolist())) == len(fitness) > 10


def test_who_looks_alike_is_few_where_there_are_others():
    algorithm = Genetic(population=4, offspring=4, alike=0.5, parsimony=0.0)

    def told(state, fitness, colours):
        """The fitness of the survivors after children of these colours."""
        appearance = jnp.broadcast_to(jnp.array(colours)[:, None], (len(colours), APPEARANCE))
        offspring = offspring_of("x", "y", "( isin x )", "( isin y )")
        evaluation = evaluation_of(*fitness, appearance=appearance)
        state = algorithm.tell(jax.random.key(0), state, offspring, evaluation)
        return state, state.held.fitness.tolist()

    nobody = -jnp.inf
    start = algorithm.init(jax.random.key(0), 8, None)
    state, fitness = told(start, [6.0, 9.0, 7.0, 8.0], [0.5, 0.51, 0.52, 0.53])
    assert fitness == [9, 8, 7, 6], "there is nobody else"
    _, fitness = told(state, [6.5, 6.25, 5.0, nobody], [0.5, 0.1, 0.9, 0.3])
    assert fitness == [9, 8, 6.25, 7], "another, but none behind all, and one that fills a place"
    assert 5 < float(algorithm.threshold(state)) <= 6, "as the threshold says"
    _, fitness = told(state, [10.0, 6.5, 6.25, nobody], [0.49, 0.6, 0.1, 0.1])
    assert fitness == [10, 9, 6.5, 6.25], "who is more than 5 % away looks otherwise"
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"genetic\.alike must be above 0"):
            Genetic(alike=wrong)


@pytest.mark.parametrize("count", [3, 700])  # fewer and more than are compared at a time
def test_better_alike_counts_them(count):
    rng = np.random.default_rng(count)
    standing = rng.permutation(count).astype(np.float32)
    appearance = rng.uniform(0.4, 0.6, (count, 1)) + rng.normal(0, 0.01, (count, APPEARANCE))
    apart = np.sqrt(np.mean((appearance[:, None] - appearance) ** 2, axis=2))
    expected = np.sum((apart < 0.05) & (standing > standing[:, None]), axis=1)
    found = jax.jit(better_alike)(jnp.asarray(standing), jnp.asarray(appearance, jnp.float32))
    assert np.abs(np.asarray(found) - expected).max() <= 1, "but for rounding at the edge"


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
    survivors = survivors_of(evolution, state)
    assert decode(survivors.programs) == queue
    assert bool(jnp.all(survivors.taken))
    assert float(jnp.min(survivors.fitness)) >= 0


def test_mount2015_log_rule_overwrites_the_first_lower_slot():
    algorithm = Mount2015(rule="log", slots=16, batch=4)
    state = jitted_init(algorithm, jax.random.key(0), 8, None)
    held = state.held._replace(fitness=jnp.linspace(0.1, 0.9, 16))
    state = state._replace(asked=jnp.int32(16), held=held)
    offspring = offspring_of("x", "y", "i", "j")
    evaluation = evaluation_of(0.05, 0.5, 0.95, 0.95)
    told = jax.jit(algorithm.tell)(jax.random.key(1), state, offspring, evaluation).held
    before, after = np.asarray(held.fitness), np.asarray(told.fitness)
    changed = np.flatnonzero(before != after)
    assert 2 <= len(changed) <= 3  # 0.05 is lower than all, each of the others replaces one
    assert np.all(after[changed] > before[changed])
    texts = decode(told.programs)
    expected = {0.5: {"y"}, 0.95: {"i", "j"}}
    assert all(texts[slot] in expected[round(float(after[slot]), 2)] for slot in changed)


def test_mount2015_draws_from_the_archive():
    algorithm = Mount2015(slots=40, batch=40, fresh=1.0, archive_share=1.0, subst=0.0)
    archive = encode(["( exp x )", "( inv y )"], max_length=CAPACITY)
    state = jitted_init(algorithm, jax.random.key(0), CAPACITY, archive)
    state = state._replace(asked=jnp.int32(1000))
    children = jax.jit(algorithm.ask)(jax.random.key(1), state)
    assert set(decode(children.programs)) == {"( exp x )", "( inv y )"}
    assert (np.asarray(children.parents) == base.NOBODY).all()


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
    assert decode(state.algorithm.held.programs) == decode(expected.algorithm.held.programs)
    np.testing.assert_array_equal(state.algorithm.held.fitness, expected.algorithm.held.fitness)
    assert float(state.best.evaluation.metrics["noise"]) < 0.03


def test_the_gate_is_asked_only_where_it_can_matter():
    evolution, state = gated(Genetic, 0.01)
    threshold = evolution.algorithm.threshold(state.algorithm)
    ask = jax.jit(evolution.algorithm.ask)  # three times: of one, all children may matter
    keys = jax.random.split(jax.random.key(0), 3)
    offspring = base.concatenate(*(ask(key, state.algorithm) for key in keys))
    some = evolution._evaluate(offspring.programs, evolution.params, threshold)
    measured = np.isfinite(np.asarray(some.metrics["noise"]))
    assert 0 < measured.sum() < len(measured)
    everything = evolution.evaluate(offspring.programs)
    assert np.isfinite(np.asarray(everything.metrics["noise"])).all()
    np.testing.assert_array_equal(some.fitness[measured], everything.fitness[measured])


def test_log_rule_needs_to_beat_the_lowest_slot():
    algorithm = Mount2015(rule="log", slots=4, batch=2)
    state = jitted_init(algorithm, jax.random.key(0), CAPACITY, None)
    assert algorithm.threshold(state) == -jnp.inf
    held = state.held._replace(fitness=jnp.array([0.5, 0.25, 0.75, 1.0]))
    state = state._replace(held=held)
    assert algorithm.threshold(state) == 0.25
    assert Mount2015(rule="code").threshold(state) == -jnp.inf
