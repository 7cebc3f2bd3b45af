"""Illumination: niches, MAP-Elites, the compiled generation, and the folder of a run."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VOCABULARY, TinyNet
from flax import nnx
from PIL import Image
from test_lineage import elite as made_elite

import evojax_art as ea
from evojax_art.cli.main import main
from evojax_art.language.formula import parse
from evojax_art.language.program import encode, is_valid, to_expressions
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import class_measure
from evojax_art.objective.evaluation import Evaluation
from evojax_art.objective.niches import EveryClass, niches_measure, niches_of
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.objective.target import TargetConfig
from evojax_art.objective.views import ViewsConfig
from evojax_art.refine.waves import NODES
from evojax_art.render.look import RasterConfig
from evojax_art.runs.repertoire import Elite
from evojax_art.runs.steadiness import kept
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import make_plan
from evojax_art.search.illumination import GradientConfig, Illumination
from evojax_art.search.map_elites import MapElites
from evojax_art.search.protocol import NOBODY, Offspring

SMALL = (
    "--raster.size 8 --max-length 24 --map-elites.offspring 16 --map-elites.starters 32 "
    "--formulas 96 --unseen none"
).split()


def nets(count: int = 2) -> dict[str, TinyNet]:
    """Networks that disagree."""
    names = ("cifar100", "cifar100_judge")[:count]  # their costs are known
    made = {name: TinyNet(rngs=nnx.Rngs(number)) for number, name in enumerate(names)}
    for net in made.values():
        net.head.kernel[...] = 4 * net.head.kernel[...]
    return made


def illumination(join="mean", objective: ObjectiveConfig | None = None, **settings):
    made = nets()
    config = TargetConfig(net=tuple(made), join=join)
    target, niches = niches_of(made, config, (), ViewsConfig())
    algorithm = MapElites(niches=len(niches.groups), offspring=16, starters=32)
    return Illumination(
        dataclasses.replace(algorithm, **settings.pop("algorithm", {})),
        made,
        target,
        build_objective(objective or ObjectiveConfig(), target, target),
        RasterConfig(size=8),
        max_length=24,
        batch=8,
        **settings,
    )


@pytest.mark.parametrize("certainty", [0.0, 30.0])
def test_niches_are_classes_each_as_if_alone(certainty):
    logits = jax.random.normal(jax.random.key(0), (5, 6)).at[:, 2].add(certainty)
    logs = jax.nn.log_softmax(logits)
    groups = [(0,), (2,), (1, 3), (2, 5)]
    found = niches_measure(logs, groups)
    for niche, group in enumerate(groups):
        alone = class_measure(logs, group)
        np.testing.assert_allclose(found.value[:, niche], alone.value, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.score[:, niche], alone.score, rtol=1e-5)


def test_niches_of_several_networks_are_those_that_all_have():
    made, names = nets(), TINY_VOCABULARY.names
    made["cifar100_judge"].vocabulary = Vocabulary((names[3], "carrot", names[1]))
    config = TargetConfig(net=tuple(made))
    _, niches = niches_of(made, config, (), ViewsConfig())
    assert niches.groups == ((1,), (3,))
    _, niches = niches_of(made, config, ("goose",), ViewsConfig())
    assert niches.groups == ((3,),)
    with pytest.raises(InputError, match="cifar100_judge has no class that means 'blue whale'"):
        niches_of(made, config, ("whale",), ViewsConfig())
    made["cifar100_judge"].vocabulary = Vocabulary(("carrot", "turnip"))
    with pytest.raises(InputError, match="cifar100 and cifar100_judge have no class in common"):
        niches_of(made, config, (), ViewsConfig())


def test_a_niche_needs_a_class():
    with pytest.raises(InputError, match="name at least one"):
        EveryClass(TINY_VOCABULARY, [])
    with pytest.raises(InputError, match="one that it is not"):
        EveryClass(TINY_VOCABULARY, [range(4)])


def told(algorithm: MapElites, state, scores, lengths, generation=1, kinds=None):
    """The state after children of such scores and lengths."""
    count = len(lengths)
    texts = ["x" if length == 1 else "( conj " * (length - 1) + "x" + " )" * (length - 1)
             for length in lengths]  # fmt: skip
    programs = encode([parse(text) for text in texts], max_length=8)
    birth = jnp.stack([jnp.full(count, generation), jnp.arange(count)], axis=1).astype(jnp.int32)
    scores = jnp.asarray(scores, jnp.float32)
    evaluation = Evaluation(
        fitness=scores[:, -1],
        valid=jnp.isfinite(scores).all(axis=1),
        metrics={"besides": jnp.zeros(count)},
        appearance=jnp.zeros((count, 48)),
        descriptors=None if kinds is None else jnp.asarray(kinds, jnp.float32)[:, None],
        scores=scores,
    )
    parents = jnp.full((count, 2), NOBODY, jnp.int32)
    return algorithm.tell(jax.random.key(0), state, Offspring(programs, parents, birth), evaluation)


def test_every_niche_keeps_its_best():
    """Against the rule written out: of what was told, the best standing, the first of equals."""
    algorithm = MapElites(niches=5, starters=8, parsimony=0.1)
    state = algorithm.init(jax.random.key(0), 8, None)
    generator = np.random.default_rng(0)
    best = [(-math.inf, (NOBODY, NOBODY), -math.inf)] * 5
    for generation in range(1, 5):
        scores = generator.normal(size=(6, 5)).astype(np.float32)
        scores[2] = -np.inf  # not valid
        lengths = generator.integers(1, 8, 6)
        state = told(algorithm, state, scores, lengths, generation)
        for child in range(6):
            for niche in range(5):
                standing = scores[child, niche] - np.float32(0.1) * lengths[child]
                if standing > best[niche][0]:
                    best[niche] = (standing, (generation, child), scores[child, niche])
        assert [tuple(birth) for birth in state.held.birth.tolist()] == [b for _, b, _ in best]
        np.testing.assert_allclose(state.held.fitness, [fitness for *_, fitness in best])
        threshold = [standing + 0.1 for standing, *_ in best]
        np.testing.assert_allclose(algorithm.threshold(state), threshold, rtol=1e-5)


def test_who_is_not_valid_takes_no_niche():
    algorithm = MapElites(niches=2, starters=4)
    state = told(algorithm, algorithm.init(jax.random.key(0), 8, None), [[-np.inf, -np.inf]], [1])
    assert not state.held.taken.any()
    assert not state.takeovers.any()


def test_kinds_have_places_of_their_own():
    algorithm = MapElites(niches=2, starters=4, kinds=2, parsimony=0.0)
    state = algorithm.init(jax.random.key(0), 8, None)
    state = told(algorithm, state, [[3, 0], [1, 2], [2, 1]], [1, 2, 3], kinds=[0.1, 0.6, 1.0])
    np.testing.assert_array_equal(state.held.fitness, [3, 0, 2, 2])
    np.testing.assert_array_equal(state.held.birth[:, 1], [0, 0, 2, 1])
    np.testing.assert_array_equal(algorithm.threshold(state), [2, 0])


def test_a_run_may_keep_a_bright_and_a_dark_elite(tmp_path):
    flags = ["--map-elites.kinds", "2", "--raster.size", "32", "--out", str(tmp_path / "run")]
    assert main(["illuminate", *SMALL, *flags]) == 0
    lines = (tmp_path / "run" / "elites.jsonl").read_text().splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {0, 1}


def test_hosts_are_curious_and_focused():
    algorithm = MapElites(niches=4, starters=4)
    state = algorithm.init(jax.random.key(0), 8, None)
    state = told(algorithm, state, [[3, 1, 1, 0], [0, 2, 2, 2]], [1, 1])
    focused = dataclasses.replace(algorithm, main=3, focus=1.0, tournament=32)
    hosts = focused.choose(jax.random.key(1), state, 64)
    assert set(hosts.tolist()) <= {1, 2, 3}, "fitter in the main niche than the first"
    children = algorithm.ask(jax.random.key(1), state._replace(asked=jnp.int32(99)))
    in_vain = children._replace(birth=jnp.zeros_like(children.parents))
    count = algorithm.offspring
    evaluation = Evaluation(
        fitness=jnp.full(count, -9.0),
        valid=jnp.ones(count, bool),
        metrics={"besides": jnp.zeros(count)},
        appearance=jnp.zeros((count, 48)),
        scores=jnp.full((count, 4), -9.0),
    )
    after = algorithm.tell(jax.random.key(2), state, in_vain, evaluation)
    times = np.bincount(children.parents[:, 0], minlength=4)
    expected = np.maximum(algorithm.patience**times, 0.02)
    np.testing.assert_allclose(after.curiosity, expected, rtol=1e-4)


def test_who_was_polished_takes_the_main_niche_if_nobody_there_is_fitter():
    algorithm = MapElites(niches=4, starters=4, main=3)
    state = algorithm.init(jax.random.key(0), 8, None)
    state = told(algorithm, state, [[3, 1, 1, 0], [0, 2, 2, 2]], [1, 1])
    best = algorithm.survivors(state)
    np.testing.assert_array_equal(best.fitness, state.main_fitness)
    changed = best._replace(
        fitness=best.fitness.at[0].set(5.0),
        birth=best.birth.at[0].set(jnp.array([9, 7])),
        programs=best.programs._replace(length=best.programs.length.at[0].set(3)),
    )
    after = algorithm.put(state, changed)
    assert after.held.birth[3].tolist() == [9, 7]
    assert (after.held.fitness[3], after.main_fitness[3], after.held.programs.length[3]) == (
        5,
        5,
        3,
    )
    for place in range(3):
        assert after.held.birth[place].tolist() == state.held.birth[place].tolist()
        assert after.held.fitness[place] == state.held.fitness[place]
    worse = changed._replace(fitness=best.fitness.at[0].set(-5.0))
    assert algorithm.put(state, worse).held.birth[3].tolist() == state.held.birth[3].tolist()


@pytest.mark.parametrize("join", ["mean", "least"])
def test_elites_are_the_same_without_the_short_cut(join):
    texts = []
    for short_cut in (True, False):
        run = illumination(join, ObjectiveConfig(short_cut=short_cut, tv_weight=1.0))
        state = run.init(jax.random.key(0))
        for generation in range(1, 7):
            state, _ = run.step(state, generation)
        held = state.repertoire.held
        texts.append([str(text) for text in to_expressions(held.programs)])
        again = run.evaluator.evaluate(held.programs, run.params)
        own = jnp.diagonal(again.scores)
        np.testing.assert_allclose(held.fitness, own, rtol=1e-4, atol=1e-4)
        natural = again.metrics["besides"]
        np.testing.assert_allclose(state.repertoire.value, own - natural, rtol=1e-4, atol=1e-4)
    assert texts[0] == texts[1]


def test_measures_are_those_of_the_elites():
    run = illumination()
    state, passed = run.step(run.init(jax.random.key(0)), 1)
    found = passed.measures
    confidence = 1 / (1 + np.exp(-np.asarray(state.repertoire.value, np.float64)))
    assert (found.niches, found.takeovers) == (4, 4)
    np.testing.assert_allclose(found.median, np.median(confidence), rtol=1e-5)
    np.testing.assert_allclose(found.mean, np.mean(confidence), rtol=1e-5)
    np.testing.assert_allclose(found.qd_score, np.sum(confidence), rtol=1e-5)
    assert found.above_half == np.sum(confidence >= 0.5)
    assert found.winners == len(set(np.asarray(passed.child).tolist()))


def test_children_by_gradient_climb_towards_their_own_niche():
    run = illumination(gradient=GradientConfig(every=2, elites=4, steps=20, learning_rate=0.01))
    state, climbed = run.init(jax.random.key(1)), 0
    for generation in range(1, 9):
        held = state.repertoire.held  # copied, for the step consumes it
        before, length = np.array(held.fitness), np.array(held.programs.length)
        state, passed = run.step(state, generation)
        held = state.repertoire.held
        saved = run.algorithm.parsimony * (length - held.programs.length)
        assert np.all(held.fitness + saved >= before - 0.01)
        count = 16 + 4 * (generation % 2 == 0)
        assert len(passed.places) == count
        if generation % 2 == 0:
            np.testing.assert_array_equal(passed.places[16:, 1], NOBODY)
            places = np.asarray(passed.places[16:, 0])
            born = run.evaluator.evaluate(
                jax.tree.map(lambda t: t[16:], passed.programs), run.params
            )
            own = np.asarray(born.scores)[np.arange(4), places % 4]
            climbed += np.sum(own > before[places] + 0.01)
    assert climbed >= 3, "hardly anybody climbed"
    assert run.scored(4) == 4 * 16 + 2 * 4 * 21


def test_children_under_waves_keep_their_formula_and_climb():
    run = illumination(gradient=GradientConfig(every=1, elites=4, steps=10, waves=2))
    state, climbed = run.init(jax.random.key(1)), 0
    for generation in range(1, 5):
        held = state.repertoire.held
        before = np.array(held.fitness)
        lengths, opcodes = np.array(held.programs.length), np.array(held.programs.opcode)
        state, passed = run.step(state, generation)
        born = jax.tree.map(lambda t: t[16:], passed.programs)
        assert jnp.all(jax.vmap(is_valid)(born))
        places = np.asarray(passed.places[16:, 0])
        for child, place in zip(born.opcode, places, strict=True):
            length = lengths[place]
            np.testing.assert_array_equal(child[:length], opcodes[place][:length])
        room = (born.capacity - lengths[places]) // NODES
        np.testing.assert_array_equal(born.length - lengths[places], NODES * np.minimum(room, 2))
        own = np.asarray(run.evaluator.evaluate(born, run.params).scores)[np.arange(4), places % 4]
        climbed += np.sum(own > before[places] + 0.01)
    assert climbed >= 6, "hardly anybody climbed"


def test_a_run_writes_what_others_read(tmp_path, capsys):
    for name in ("one", "two"):
        out = tmp_path / name
        assert main(["illuminate", *SMALL, "--raster.size", "32", "--out", str(out)]) == 0
    assert "which had no say" not in capsys.readouterr().out
    lines = (out / "elites.jsonl").read_text().splitlines()
    assert lines == (tmp_path / "one" / "elites.jsonl").read_text().splitlines()
    elites = [json.loads(line) for line in lines]
    net = load_net()
    assert [elite["class"] for elite in elites] == list(range(100))
    assert [elite["name"] for elite in elites] == list(net.classes)
    for elite in elites[:3]:
        assert elite["scores"]["cifar100"] == pytest.approx(elite["confidence"], abs=1e-3)
    rows = [json.loads(line) for line in (out / "lineage.jsonl").read_text().splitlines()]
    kin = {row["id"]: row for row in rows}
    for elite in elites:
        row = kin[elite["id"]]
        assert row["formula"] == elite["formula"]
        assert elite["class"] in row["won"]
        assert len(row["parents"]) == len(row["of"])
        assert all(parent in kin for parent in row["parents"])
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["niches"] == 100
    median = np.median([elite["confidence"] for elite in elites])
    assert last["median"] == pytest.approx(median, rel=1e-4)
    again = ["illuminate", "--config", str(out / "config.toml"), "--seeds", str(out / "elites.txt")]
    assert main([*again, "--formulas", "16", "--out", str(tmp_path / "again")]) == 0


def test_a_run_says_what_others_think_and_draws_it(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--classes", "crab", "rose", "bicycle", "--unseen", "cifar100_judge", "--gallery", "2"]
    few = ["--formulas", "64", "--look-every", "0.0001", "--raster.size", "32"]
    assert main(["illuminate", *SMALL, *flags, *few, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "cifar100_judge, which had no say" in told
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    ranks = [
        json.loads(line)["unseen"]["cifar100_judge"]["rank"]
        for line in (out / "elites.jsonl").read_text().splitlines()
    ]
    assert len(ranks) == 3
    shares = {f"top{most}": float(np.mean(np.array(ranks) < most)) for most in (1, 5)}
    assert rows[-1]["unseen"] == {"cifar100_judge": pytest.approx(shares)}
    assert any(row["unseen"] for row in rows[:-1])
    with Image.open(out / "curves.png") as curves:
        assert curves.width > 1000
    page = (out / "gallery.html").read_text()
    assert page.count('"thumbnail"') == 2
    assert str(out / "gallery.html") in told


def test_map_elites_breeds_for_classes(tmp_path, capsys):
    flags = ["--algorithm", "map_elites", "--layer", "block2", "--out", str(tmp_path / "run")]
    assert main(["evolve", *flags]) == 2
    assert "algorithm map_elites breeds for classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes", "unicorn"], "classes 'unicorn': no class of that name"),
        (["--net", "clip_vit_b32"], "clip_vit_b32"),
        (["--judged-size", "7"], "judged_size must be 0, or 16 to 1024, got 7"),
        (["--map-elites.patience", "0"], "map_elites.patience must be above 0"),
        (["--gradient.steps", "0"], "gradient.steps must be 1 or more"),
        (["--objective.scale", "probability"], "leave out objective.scale"),
        (["--unseen", "cifar100"], "unseen cifar100 is a judge"),
        (["--formulas", "0"], "formulas must be 1 or more"),
        (["--gallery", "-1"], "gallery must be 0 or more"),
        (["--map-elites.growth.leave-out", "isine"], "growth.leave_out 'isine': no such operator"),
    ],
)
def test_what_makes_no_sense_is_refused(flags, message, tmp_path, capsys):
    assert main(["illuminate", *flags, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_who_stays_what_it_is_at_other_sizes():
    net = load_net()
    niches = EveryClass(net.vocabulary, [(index,) for index in range(100)])
    texts = [
        "( isin ( * x_iy ( q 9 9 2 0 ) ) )",
        "( over ( - ( q 0.2 2 0 0 ) radius ) x_k )",
        "y_k",
    ]
    sizes = (16, 48)
    seen = [
        np.asarray(net.logits(ea.render(encode(texts, 64), size, size, samples=3)))
        for size in sizes
    ]
    favourites = np.argsort(-seen[0], axis=1)
    wanted = [favourites[0, 0], favourites[1, 4], favourites[2, 5]]
    elites = [
        Elite.read(
            made_elite(0) | {"class": int(index), "name": niches.names[int(index)], "formula": text}
        )
        for index, text in zip(wanted, texts, strict=True)
    ]
    expected = [
        all(np.sum(logits[n] > logits[n, index]) < 5 for logits in seen)
        for n, index in enumerate(wanted)
    ]
    assert not expected[2]
    found = kept(elites, {"cifar100": net}, niches, make_plan(), sizes=sizes)
    assert found.tolist() == expected
    one = kept(elites, {"cifar100": net}, niches, make_plan(), sizes=sizes[:1])
    assert one.tolist() == [True, True, False]
    stranger = dataclasses.replace(elites[0], name="tench, Tinca tinca")
    with pytest.raises(InputError, match="'tench, Tinca tinca' is none of cifar100"):
        kept([stranger], {"cifar100": net}, niches, make_plan(), sizes=sizes)
