"""The early part of a run: on small pictures, its survivors the seeds."""

import io
import json
import threading
from contextlib import contextmanager

import jax
import pytest
from rich.console import Console
from test_illumination import illumination

from evojax_art.cli.main import main
from evojax_art.language.program import Program, to_expressions
from evojax_art.nets.weights import load_net
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runs.early import EarlyConfig, elites_of, survivors_of
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic

SMALL = (
    "--raster.size 16 --record-size 16 --record-samples 1 --max-length 24 --unseen none "
    "--genetic.population 16 --genetic.offspring 8 --formulas 64"
).split()


SMALL_ILLUMINATION = (
    "--raster.size 16 --max-length 24 --unseen none --classes crab trees --look-every 0 "
    "--map-elites.starters 16 --map-elites.offspring 16"
).split()


class Noted(Evolution):
    """An evolution that notes what it starts from."""

    def init(self, key, seeds=None):
        self.start = texts(seeds)
        return super().init(key, seeds)


def texts(programs: Program | None) -> list[str]:
    return [] if programs is None else [str(text) for text in to_expressions(programs)]


def evolution(gate: float = 0.0) -> Noted:
    return Noted(
        Genetic(population=16, offspring=8),
        load_net(),
        (26,),
        ObjectiveConfig(contrast_gate=gate),
        RasterConfig(size=16, samples=1),
        max_length=24,
    )


def survivors(config: EarlyConfig, *evolutions: Evolution) -> list[str]:
    console = Console(file=io.StringIO())
    evolutions = evolutions or (evolution(),)
    return texts(survivors_of(evolutions, config, jax.random.key(0), None, console).seeds)


def test_survivors_are_those_of_the_generations_asked_for():
    evolved = survivors(EarlyConfig(formulas=40))
    assert len(evolved) == 16
    assert evolved == survivors(EarlyConfig(formulas=40))
    assert evolved != survivors(EarlyConfig(formulas=400))
    assert survivors(EarlyConfig(formulas=400, score=1e-9)) == survivors(EarlyConfig(formulas=8))


def test_where_nobody_is_valid_there_are_no_survivors():
    black_and_white = evolution(gate=0.5)
    assert survivors(EarlyConfig(formulas=8), black_and_white) == []


def test_those_of_one_size_are_the_seeds_of_the_next():
    first, second = evolution(), evolution()
    found = survivors(EarlyConfig(formulas=40, size=(16, 20)), first, second)
    assert first.start == []
    assert second.start == survivors(EarlyConfig(formulas=40))
    assert found != second.start


def test_several_tries_go_on_together():
    tried, second = evolution(), evolution()
    survivors(EarlyConfig(formulas=40, size=(16, 20), tries=3), tried, second)
    assert len(second.start) == 18  # the best 6 of 16, of each
    assert len(set(second.start)) > 12, "each from its own start"
    assert second.start[:6] == survivors(EarlyConfig(formulas=40))[:6]
    soon = evolution(), evolution()
    survivors(EarlyConfig(formulas=40, size=(16, 20), tries=3, score=1e-9), *soon)
    assert len(soon[1].start) == 8, "one generation of the first try"


def test_a_run_starts_from_them(tmp_path):
    populations = []
    for name, early in (("one", "80"), ("two", "80"), ("without", "0")):
        out = ["--early.formulas", early, "--early.size", "16", "24", "--out", str(tmp_path / name)]
        assert main(["evolve", *SMALL, *out]) == 0
        populations.append((tmp_path / name / "population.txt").read_text())
    assert populations[0] == populations[1]
    assert populations[0] != populations[2]


@pytest.mark.parametrize("command", ["evolve", "illuminate"])
def test_an_interrupted_early_part_is_scored_and_ends_the_run(
    command, tmp_path, monkeypatch, capsys
):
    @contextmanager
    def at_once(console, after):
        del console, after
        flag = threading.Event()
        flag.set()
        yield flag

    monkeypatch.setattr("evojax_art.runs.early.stop_on_interrupt", at_once)
    flags = SMALL if command == "evolve" else SMALL_ILLUMINATION
    early = ["--early.formulas", "100000", "--early.size", "16", "--out", str(tmp_path / "run")]
    assert main([command, *flags, *early, "--formulas", "100000"]) == 0
    assert "interrupted" in capsys.readouterr().out
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(lines[-1])["formulas"] <= 128
    assert main(["gallery", str(tmp_path / "run")]) == 0


def test_elites_of_small_pictures_are_the_seeds():
    config, console = EarlyConfig(formulas=64), Console(file=io.StringIO())
    found = elites_of([illumination()], config, jax.random.key(3), None, console).seeds
    run = illumination()
    state = run.init(jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), 0), None)
    for number in range(1, 5):  # of 16 children
        state, _ = run.step(state, number)
    expected = {str(text) for text in to_expressions(state.repertoire.held.programs)}
    assert set(texts(found)) == expected
    assert len(texts(found)) == len(expected), "each once"


def test_small_pictures_may_have_samples_of_their_own():
    proper = RasterConfig(size=224, samples=1, crunch="1995")
    finer = EarlyConfig(formulas=8, size=(32, 48), samples=2).rasters(proper)
    assert [(raster.size, raster.samples, raster.crunch) for raster in finer] == [
        (32, 2, "1995"),
        (48, 2, "1995"),
    ]
    assert EarlyConfig(formulas=8).rasters(proper)[0].samples == 1
    assert not EarlyConfig().rasters(proper)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--early.formulas", "-1"], "early.formulas must be 0 or more"),
        (["--early.size"], "early.size: give at least one"),
        (["--early.size", "16", "9"], "early.size must be 16 to 1024, got 9"),
        (["--early.samples", "65"], "early.samples must be 0 to 64, got 65"),
        (["--early.tries", "0"], "early.tries must be 1 or more, got 0"),
        (["--early.score", "nan"], "early.score must be a number"),
        (["--early.formulas", "8", "--early.size", "21"], "judged_size 21: cifar100 cannot look"),
    ],
)
def test_what_makes_no_sense_is_refused(flags, message, tmp_path, capsys):
    assert main(["evolve", *SMALL, *flags, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
