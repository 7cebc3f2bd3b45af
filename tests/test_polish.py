"""Polish: never worse, one line of text, the same picture when it is read back."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.artwork.picture import read_png_text
from evojax_art.cli.main import main
from evojax_art.language.formula import parse, to_text
from evojax_art.language.program import decode, encode, free_constants, is_valid, take
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.refine.ascent import Ascent, AscentConfig, displaced, scattered, usual_reach
from evojax_art.refine.constants import FormulaPolisher, PolishConfig, lifted
from evojax_art.refine.drawing import moved, raster_points
from evojax_art.refine.waves import NODES, laid_over, reach_of_waves
from evojax_art.render.batch import render
from evojax_art.render.look import Raster, RasterConfig
from evojax_art.runtime.errors import InputError
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic
from evojax_art.search.memetic import MemeticConfig, polish_best

FORMULA = "( exp ( * x_iy_jx_ky ( q 0.7 0.2 -0.4 0.5 ) ) )"
SHORT = AscentConfig(steps=12, check_every=4)


def evaluator_of(net, **objective) -> Evaluator:
    return Evaluator(net, (0,), ObjectiveConfig(**objective), RasterConfig(size=12, samples=1))


def fitness_of(evaluator: Evaluator, formula) -> float:
    population = encode([formula])
    return float(evaluator.evaluate(population, evaluator.params).fitness[0])


@pytest.mark.parametrize("settings", [{}, {"optimizer": "lbfgs"}], ids=["adam", "lbfgs"])
def test_a_formula_gets_better_and_stays_a_line_of_text(tiny_net, settings):
    evaluator = evaluator_of(tiny_net)
    config = PolishConfig(restarts=2, ascent=replace(SHORT, **settings))
    start = parse(FORMULA)
    result = FormulaPolisher(evaluator, config)(start, jax.random.key(0))
    assert result.start.fitness == pytest.approx(fitness_of(evaluator, start), abs=1e-5)
    assert result.best.fitness > result.start.fitness + 0.01
    again = parse(to_text(result.best.expression))
    assert again == result.best.expression
    assert fitness_of(evaluator, again) == pytest.approx(result.best.fitness, abs=1e-4)
    assert [node.op for node in again.postfix] == [node.op for node in start.postfix]


def test_tracing_falls_back_and_says_so(tiny_net, caplog):
    config = PolishConfig(restarts=1, gradient="trace", ascent=replace(SHORT, steps=1))
    FormulaPolisher(evaluator_of(tiny_net), config)(parse(FORMULA), jax.random.key(0))
    assert [record.message for record in caplog.records] == [
        "polish: gradient 'trace' was slower and is gone; taking 'reverse'"
    ]


def test_named_constants_move_too(tiny_net):
    polisher = FormulaPolisher(evaluator_of(tiny_net), PolishConfig(restarts=2, ascent=SHORT))
    result = polisher(parse("( + ( * x_iy j ) golden )"), jax.random.key(0))
    assert result.num_constants == 2
    assert "golden" not in to_text(result.best.expression)
    assert result.best.fitness > result.start.fitness


def test_what_cannot_get_better_stays_as_it_was(tiny_net):
    """Where the objective is flat, named constants keep their names."""
    evaluator = evaluator_of(tiny_net, class_weight=0.0)
    start = parse("( * x_iy j )")
    result = FormulaPolisher(evaluator, PolishConfig(restarts=2, ascent=SHORT))(
        start, jax.random.key(0)
    )
    assert result.best.expression == start
    assert result.best.fitness == result.start.fitness


def test_copies_behind_the_best_start_again_near_it(tiny_net):
    evaluator = evaluator_of(tiny_net)
    ascent = Ascent(evaluator, SHORT)
    program = take(free_constants(encode([FORMULA], 32)), jnp.int32(0))
    reaches = jnp.broadcast_to(usual_reach(program), (4, 32, 1))
    copies = scattered(jax.random.key(0), program, reaches, 1.0)
    where = evaluator.evaluate(copies, evaluator.params)
    where = where._replace(fitness=jnp.array([0.0, 1.0, 3.0, 2.0]))  # the third is the best
    state = ascent.init(copies, where)
    state = state._replace(offset=state.offset + 0.5)
    again = ascent.restart(state, where, jax.random.key(1), 0.5)
    start, best = np.asarray(again.start.constant), np.asarray(copies.constant[2])
    np.testing.assert_array_equal(start[0], best)
    for copy in (1, 3):
        moved_by = np.abs(start[copy] - best) / np.maximum(reaches[copy], 1e-9)
        assert 0 < moved_by.max() < 0.5 * 4
    np.testing.assert_array_equal(start[2], best)
    stays = np.array([False, False, True, False])[:, None, None]
    np.testing.assert_array_equal(again.offset, np.where(stays, state.offset, 0))
    np.testing.assert_array_equal(again.evaluation.fitness, state.evaluation.fitness)
    np.testing.assert_array_equal(again.best.constant, state.best.constant)


def test_what_the_gradient_does_not_see_is_found_by_starting_again(tiny_net):
    start = parse("( floor ( + ( * x_iy ( q 4 1 0 0 ) ) ( q 0.4 0.4 0.4 0.4 ) ) )")
    evaluator = evaluator_of(tiny_net)
    alone = FormulaPolisher(evaluator, PolishConfig(restarts=1, ascent=SHORT))
    assert alone(start, jax.random.key(0)).best.expression == start
    several = FormulaPolisher(evaluator, PolishConfig(restarts=4, ascent=SHORT))
    result = several(start, jax.random.key(0))
    assert result.best.fitness > result.start.fitness + 0.01


def test_early_end_keeps_the_best(tiny_net):
    shares = []

    def stop(share, score):
        shares.append(share)
        return False

    polisher = FormulaPolisher(evaluator_of(tiny_net), PolishConfig(restarts=1, ascent=SHORT))
    result = polisher(parse(FORMULA), jax.random.key(0), stop)
    assert len(shares) == 1
    assert result.steps < SHORT.steps
    assert result.best.fitness >= result.start.fitness


def test_lifting_changes_nothing_yet():
    start = parse("( exp ( * x_iy j ) )")
    before, after = (render(encode([item]), 32, 72, 0.3) for item in (start, lifted(start)))
    np.testing.assert_allclose(before, after, atol=1e-5)
    assert len(lifted(start)) == len(start) + 10


def test_waves_change_nothing_yet():
    start = encode([FORMULA], 64)
    program = laid_over(jax.random.key(0), take(start, jnp.int32(0)), 3)
    assert is_valid(program)
    assert program.length == start.length[0] + 3 * NODES
    under = jax.tree.map(lambda field: field[None], program)
    before, after = (render(each, 32, 72, 0.3) for each in (start, under))
    np.testing.assert_allclose(before, after, atol=1e-5)
    reach = np.asarray(reach_of_waves(program))[:, 0]
    np.testing.assert_array_equal(
        np.flatnonzero(reach),
        [int(start.length[0]) + 9 * n + m for n in range(3) for m in range(3)],
    )
    assert len(parse(str(decode(under)[0]))) == program.length


def test_no_more_waves_than_there_is_room_for():
    (length,) = np.asarray(encode([FORMULA], 32).length)
    for room, fitting in ((8, 0), (9, 1), (20, 2), (90, 5)):
        start = take(encode([FORMULA], int(length) + room), jnp.int32(0))
        program = laid_over(jax.random.key(0), start, 5)
        assert is_valid(program)
        assert program.length == length + 9 * fitting


def test_waves_climb_and_the_formula_under_them_stays(tiny_net):
    start = parse("( exp ( * x_iy ( * j ( q 0.7 0.2 -0.4 0.5 ) ) ) )")
    config = PolishConfig(waves=3, restarts=2, ascent=SHORT)
    result = FormulaPolisher(evaluator_of(tiny_net), config)(start, jax.random.key(0))
    assert result.num_constants == 9
    assert result.best.fitness > result.start.fitness
    assert result.best.expression.postfix[: len(start)] == start.postfix
    assert parse(str(result.best.expression)) == result.best.expression


def test_no_constants(tiny_net):
    polisher = FormulaPolisher(evaluator_of(tiny_net), PolishConfig(ascent=SHORT))
    with pytest.raises(InputError, match="--lift"):
        polisher(parse("( exp x_iy )"), jax.random.key(0))
    lifting = FormulaPolisher(
        evaluator_of(tiny_net), PolishConfig(lift=True, restarts=2, ascent=SHORT)
    )
    result = lifting(parse("( exp x_iy )"), jax.random.key(0))
    assert result.best.fitness > result.start.fitness


def test_offsets_move_constants_alone():
    population = free_constants(encode([FORMULA, "( + j x )"], 16))
    after = displaced(population, jnp.ones_like(population.constant), usual_reach(population))
    changed = np.asarray((after.constant != population.constant).any(-1))
    assert (
        changed == np.asarray(population.opcode == encode(["( q 1 2 3 4 )"]).opcode[0, 0])
    ).all()
    size = np.linalg.norm((0.7, 0.2, -0.4, 0.5))
    place = int(np.flatnonzero(changed[0])[0])
    moved_by = np.asarray(after.constant - population.constant)[0, place]
    np.testing.assert_allclose(moved_by, 0.3 * (size + 0.1), rtol=1e-5)


def test_cameras():
    at = raster_points(Raster(height=16, width=16), 0.0)
    many = moved(jax.random.key(0), at, 400, 0.01, 0.02, 1.0)
    np.testing.assert_array_equal(many.x[0], at.x)
    centre = np.asarray(many.x[1:].mean(axis=1) - at.x.mean())
    assert 0.008 < centre.std() < 0.012
    width = np.log(np.asarray(many.x[1:]).std(axis=1) / np.asarray(at.x).std())
    assert 0.015 < width.std() < 0.025


def test_the_best_of_a_population_pass_on_what_they_became(tiny_net):
    evaluator = evaluator_of(tiny_net)
    evolution = Evolution(
        Genetic(population=8, offspring=8),
        tiny_net,
        evaluator.target,
        ObjectiveConfig(),
        RasterConfig(size=12, samples=1),
        max_length=32,
        polish=MemeticConfig(every=2, top=3, steps=4),
    )
    state = evolution.init(jax.random.key(1))
    state, first = evolution.step(state)
    state, second = evolution.step(state)
    assert second.best_fitness >= first.best_fitness
    survivors = evolution.algorithm.survivors(state.algorithm)
    exact = evolution.evaluate(survivors.programs).fitness
    held = np.isfinite(np.asarray(survivors.fitness))
    np.testing.assert_allclose(exact[held], survivors.fitness[held], atol=1e-4)
    born = np.asarray(survivors.birth)
    assert set(born[:, 0].tolist()) <= {1, 2}
    config = MemeticConfig(top=3, steps=6)
    place, programs, evaluation = jax.jit(
        lambda survivors: polish_best(
            survivors, evaluator, evaluator.params, config, jax.random.key(0)
        )
    )(survivors)
    valid = np.asarray(evaluation.valid)
    assert valid.any()
    gains = np.asarray(evaluation.fitness - survivors.fitness[place])
    assert (gains[valid] > 0).all()
    for index in np.flatnonzero(valid):
        again = fitness_of(evaluator, decode(programs)[index])
        assert again == pytest.approx(float(evaluation.fitness[index]), abs=1e-4)


def test_the_command(tmp_path, monkeypatch, tiny_weights, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--net", "tiny", "--weights", str(tiny_weights), "--target", "red", "--size", "32"]
    flags += ["--restarts", "2", "--ascent.steps", "8", "--raster.size", "12"]
    assert main(["polish", FORMULA, *flags]) == 0
    printed = capsys.readouterr()
    formula = printed.out.splitlines()[0]
    assert re.search(r"value .* -> .*, 1 constants, compiling .* 8 steps", printed.err)
    text = read_png_text(tmp_path / "polished.png")
    assert text["formula"] == formula
    assert text["polished_from"] == FORMULA
    (tmp_path / "two.txt").write_text(f"{FORMULA}\nx\n( * x_iy j )\n")
    assert main(["polish", "two.txt", *flags]) == 0
    printed = capsys.readouterr()
    assert "2 of 3: left out: this formula has no constants" in printed.err
    assert sorted(path.name for path in (tmp_path / "polished").iterdir()) == [
        "0001.png",
        "0003.png",
    ]


def test_a_picture_says_what_it_was_bred_for(tmp_path, monkeypatch, tiny_weights, capsys):
    monkeypatch.chdir(tmp_path)
    weights = ["--weights", str(tiny_weights), "--size", "32"]
    weights += ["--restarts", "1", "--ascent.steps", "2", "--raster.size", "12"]
    wishes = {"a.png": ["--target", "green", "goose"], "b.png": ["--layer", "squares:1"]}
    for name, wish in wishes.items():
        assert main(["polish", FORMULA, *wish, "--net", "tiny", "--out", name, *weights]) == 0
    assert main(["polish", "a.png", "b.png", "--out", "again", *weights]) == 0
    first, second = (read_png_text(tmp_path / "again" / f"{n:04d}.png") for n in (1, 2))
    assert (first["target"], first["net"]) == ("green, goose", "tiny")
    assert second["layer"] == "squares:1"
    assert "target" not in second
    assert main(["polish", "b.png", "--target", "red", "--out", "c.png", *weights]) == 0
    assert read_png_text(tmp_path / "c.png")["target"] == "red"
    capsys.readouterr()
    assert main(["polish", "a.png", FORMULA, "--target", "nothing", "--net", "tiny", *weights]) == 2
    assert "no class of that name" in capsys.readouterr().err
    assert not (tmp_path / "polished").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "no constants"),
        (["( exp y"], "missing|never closed"),
        (["nothing.png"], "nothing.png"),
        ([FORMULA, "--restarts", "0"], "restarts must be 1 or more"),
        ([FORMULA, "--ascent.steps", "0"], "steps must be 1 or more"),
        ([FORMULA, "--ascent.learning-rate", "nan"], "learning_rate must be above 0"),
        ([FORMULA, "--layer", "nope"], "no layer 'nope'"),
        ([FORMULA, "--guide", "a.png"], "--layer"),
        ([FORMULA, FORMULA, "--out", "a.png"], "folder"),
        ([FORMULA, "--out", "no/such/folder.png"], "no folder"),
        ([FORMULA, "--size", "0"], "--size"),
        ([FORMULA, "--image", "cat=none.jpg"], "none.jpg"),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch, capsys, tiny_weights):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    net = ["--net", "tiny", "--weights", str(tiny_weights), "--target", "red"]
    assert main(["polish", *arguments, *net]) == 2
    printed = capsys.readouterr()
    assert re.search(message, printed.err)
    assert "Traceback" not in printed.err
    assert sorted(tmp_path.iterdir()) == before
