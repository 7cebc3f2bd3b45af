import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import signal
import threading
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import TINY_VOCABULARY, TinyNet, register_tiny
from PIL import Image
from safetensors.numpy import load_file, save_file

from evojax_art.artwork.beside import guide_beside
from evojax_art.artwork.formula_files import read_formulas
from evojax_art.artwork.picture import read_png_text, write_png
from evojax_art.artwork.provenance import Provenance, read_provenance
from evojax_art.cli.evolve import EvolveCommand
from evojax_art.cli.flags import parse_flags
from evojax_art.cli.main import main
from evojax_art.language.bindings import bind_images
from evojax_art.language.formula import parse
from evojax_art.language.program import decode, encode, to_expressions
from evojax_art.nets.entry import NetEntry, Published
from evojax_art.nets.registry import REGISTRY, weights_path
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.target import TargetConfig
from evojax_art.render.batch import render
from evojax_art.runs.evolve import _bind, _seeds
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.toml import config_text, read_config
from evojax_art.runtime.cache import CACHE_VARIABLE
from evojax_art.runtime.errors import InputError

SMALL = (
    "--net tiny --raster.size 8 --record-size 16 --record-samples 1 --record-step 0 "
    "--max-length 24 "
    "--genetic.population 16 --genetic.offspring 8 --formulas 64"
).split()


def evolve(*flags):
    return main(["evolve", *SMALL, *map(str, flags)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder and what it printed; to be looked at, not changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        weights = register_tiny(folder.parent, patch)
        assert evolve("--weights", weights, "--out", folder) == 0
    return folder, SimpleNamespace(out=out.getvalue(), err=err.getvalue())


def test_run_leaves_a_folder_to_look_at(finished):
    folder, printed = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.toml",
        "metrics.jsonl",
        "records",
        "records.png",
        "best.png",
        "best.txt",
        "population.txt",
    }
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["generation"] for row in rows] == list(range(1, 9))
    assert rows[-1]["formulas"] == 64
    scores = [row["best_score"] for row in rows]
    assert scores == sorted(scores)
    records = sorted((folder / "records").iterdir())
    assert len(records) == sum(row["is_record"] for row in rows)
    with Image.open(folder / "records.png") as sheet:
        assert sheet.width > 192
    assert "target 0: red crab" in printed.err
    assert "target 1: green crab" in printed.err
    assert str(folder) in printed.out


def test_records_carry_what_made_them(finished):
    folder, _ = finished
    last = sorted((folder / "records").iterdir())[-1]
    text = read_png_text(last)
    best = (folder / "best.txt").read_text().strip()
    assert text["formula"] == best
    assert text["seed"] == "0"
    assert int(text["generation"]) >= 1
    assert 0 < float(text["score"]) <= 1
    assert (folder / "best.png").read_bytes() == last.read_bytes()


def test_small_gains_are_not_drawn_but_the_last_best_is(tiny_weights, tmp_path):
    folder = tmp_path / "run"
    flags = ("--weights", tiny_weights, "--out", folder, "--record-step", 50)
    assert evolve(*flags, "--formulas", 256) == 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["is_record"] for row in rows) > 2
    first, last = (read_png_text(path) for path in sorted((folder / "records").iterdir()))
    assert first["generation"] == "1"
    assert last["generation"] == str(max(row["generation"] for row in rows if row["is_record"]))
    assert float(last["score"]) == pytest.approx(rows[-1]["best_score"], rel=1e-5)
    assert (folder / "best.txt").read_text().strip() == last["formula"]


def in_cache(tensors: dict[str, np.ndarray]) -> NetEntry:
    """`tiny` whose published weights are these tensors, which lie in the cache."""
    path = weights_path("tiny")
    save_file(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = Published(url=f"https://example.invalid/{path.name}", sha256=digest)
    return dataclasses.replace(REGISTRY["tiny"], weights=published)


def test_unseen_judge_is_reported_and_never_asked_before(
    tiny_weights, tmp_path, monkeypatch, capsys
):
    """Here the unseen judge is a copy of the judge that has crabs and the other two exchanged."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    tensors = load_file(tiny_weights)
    order = [2, 3, 0, 1]
    other = {"head/kernel": tensors["head/kernel"][:, order].copy(), "head/bias": np.zeros(4, "f4")}
    unseen = in_cache(other)
    without, having = tmp_path / "without", tmp_path / "having"
    flags = ("--weights", tiny_weights, "--out")
    assert evolve(*flags, without) == 0
    assert "unseen" not in capsys.readouterr().err
    monkeypatch.setitem(REGISTRY, "exchanged", unseen)
    tiny = dataclasses.replace(REGISTRY["tiny"], unseen=("exchanged",))
    monkeypatch.setitem(REGISTRY, "tiny", tiny)
    assert evolve(*flags, having) == 0
    printed = capsys.readouterr()
    assert "unseen " in printed.err
    assert "exchanged, which it was not bred for: " in printed.out
    assert (without / "best.txt").read_text() == (having / "best.txt").read_text()
    text = read_png_text(having / "best.png")
    assert json.loads(text["unseen"])["exchanged"] < 0.5 < float(text["score"])
    assert "unseen" not in read_png_text(without / "best.png")


def test_unseen_judge_is_asked_for_the_same_classes_in_its_own_order(
    tiny_weights, tmp_path, monkeypatch
):
    """The unseen judge is the judge itself, whose classes have another order."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    order = [2, 3, 1, 0]  # by position the crabs would be the whale and the goose
    vocabulary = Vocabulary(tuple(TINY_VOCABULARY.names[index] for index in order))

    class Permuted(TinyNet):
        def __init__(self, **options):
            super().__init__(**options)
            self.vocabulary = vocabulary

    tensors = load_file(tiny_weights)
    other = {"head/kernel": tensors["head/kernel"][:, order].copy(), "head/bias": np.zeros(4, "f4")}
    unseen = dataclasses.replace(in_cache(other), build=Permuted, vocabulary=lambda: vocabulary)
    monkeypatch.setitem(REGISTRY, "permuted", unseen)
    tiny = dataclasses.replace(REGISTRY["tiny"], unseen=("permuted",))
    monkeypatch.setitem(REGISTRY, "tiny", tiny)
    assert evolve("--weights", tiny_weights, "--out", tmp_path / "run", "--formulas", 16) == 0
    text = read_png_text(tmp_path / "run" / "best.png")
    # It is shown the picture in eight bits.
    assert json.loads(text["unseen"])["permuted"] == pytest.approx(float(text["score"]), abs=0.01)
    assert float(text["score"]) > 0.6


def test_unseen_judge_without_weights_is_left_out_unless_it_is_named(
    tiny_weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setitem(REGISTRY, "absent", REGISTRY["tiny"])
    tiny = dataclasses.replace(REGISTRY["tiny"], unseen=("absent",))
    monkeypatch.setitem(REGISTRY, "tiny", tiny)
    flags = ("--weights", tiny_weights, "--formulas", 8, "--out")
    assert evolve(*flags, tmp_path / "run") == 0
    assert "unseen" not in capsys.readouterr().err
    assert evolve(*flags, tmp_path / "other", "--unseen", "absent") == 2
    assert "no weights at" in capsys.readouterr().err
    assert evolve(*flags, tmp_path / "other", "--unseen", "none", "absent") == 2
    assert "none stands alone" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_render_repeats_a_record(finished, tmp_path):
    folder, _ = finished
    out = tmp_path / "again.png"
    flags = ["--size", "16", "--samples", "1", "--out", str(out)]
    assert main(["render", str(folder / "best.png"), *flags]) == 0
    with Image.open(out) as again, Image.open(folder / "best.png") as best:
        np.testing.assert_array_equal(again, best)


def test_saved_config_repeats_the_run(finished, tiny_weights, tmp_path):
    folder, _ = finished
    again = tmp_path / "again"
    assert main(["evolve", "--config", str(folder / "config.toml"), "--out", str(again)]) == 0
    for name in ("best.txt", "population.txt", "records.png"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_flags_override_the_config(tiny_weights, tmp_path):
    config = tmp_path / "a.toml"
    config.write_text("formulas = 8\nseed = 5\n[genetic]\noffspring = 4\n[objective]\nnear = 2\n")
    out = tmp_path / "run"
    flags = ["--weights", str(tiny_weights), "--out", str(out), "--seed", "6"]
    assert main(["evolve", f"--config={config}", *SMALL[:-2], *flags]) == 0
    saved = tomllib.loads((out / "config.toml").read_text())
    assert (saved["seed"], saved["formulas"], saved["objective"]["near"]) == (6, 8, 2)
    assert saved["genetic"]["offspring"] == 8  # the flag in SMALL


def test_population_seeds_the_next_run(finished, tiny_weights, tmp_path):
    folder, _ = finished
    survivors = read_formulas(folder / "population.txt")
    best = parse((folder / "best.txt").read_text())  # or a shorter formula of the same picture
    assert len(survivors[0]) <= len(best)
    first, second = render(encode([survivors[0], best]), 8, 8, samples=2)
    np.testing.assert_allclose(first, second, atol=1e-5)
    out = tmp_path / "next"
    seeds = ("--seeds", folder / "population.txt")
    assert evolve("--weights", tiny_weights, "--out", out, *seeds, "--formulas", 8) == 0
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert first["best_score"] == pytest.approx(last["best_score"], rel=1e-5)


def test_archive_seeds_in_json(gart, tiny_weights, tmp_path):
    rows = json.loads((gart / "archive_even.json").read_text())
    fitting = [row for row in rows if row["nodes"] <= 24][:16]  # as many as a population
    seeds = tmp_path / "seeds.json"
    seeds.write_text(json.dumps(fitting))
    flags = ("--weights", tiny_weights, "--out", tmp_path / "run", "--seeds", seeds)
    assert evolve(*flags, "--formulas", 24) == 0
    best = parse((tmp_path / "run" / "best.txt").read_text())
    assert best in [parse(row["formula"]) for row in fitting]


@pytest.mark.parametrize("rule", ["log", "code"])
def test_mount2015_runs(tiny_weights, tmp_path, rule):
    flags = f"--algorithm mount2015 --mount2015.rule {rule} --mount2015.slots 16".split()
    flags += "--mount2015.batch 8 --objective.scale probability".split()
    flags += ["--objective.noise-gate", "0.05", "--weights", tiny_weights]
    assert evolve(*flags, "--out", tmp_path / "run") == 0


def test_score_and_time_limits_stop_a_run(tiny_weights, tmp_path, capsys):
    flags = ("--weights", tiny_weights, "--formulas", 10**9)
    assert evolve(*flags, "--out", tmp_path / "a", "--stop-score", 0.0) == 0
    assert "score 0.0 reached" in capsys.readouterr().out
    assert evolve(*flags, "--out", tmp_path / "b", "--minutes", 0.001) == 0
    assert "0.001 minutes are over" in capsys.readouterr().out


def test_waves_finish_the_best(tiny_weights, tmp_path, capsys):
    folder = tmp_path / "run"
    flags = ("--weights", tiny_weights, "--out", folder, "--formulas", 128)
    assert evolve(*flags, "--finish.waves", 4, "--finish.steps", 15) == 0
    printed = capsys.readouterr().out
    before, after = (read_png_text(path) for path in sorted((folder / "records").iterdir())[-2:])
    assert after["polished_from"] == before["formula"]
    assert after["parents"] == before["id"]
    assert float(after["value"]) > float(before["value"])
    assert len(parse(after["formula"])) == len(parse(before["formula"])) + 4 * 9
    assert f"{after['formula']}\n" == (folder / "best.txt").read_text()
    assert "finished from" in printed
    assert after["formula"] in printed
    assert int(after["formulas"]) == 128 + 15
    assert (folder / "best.png").read_bytes() == sorted((folder / "records").iterdir())[
        -1
    ].read_bytes()


def test_nothing_is_finished_that_is_good_enough(tiny_weights, tmp_path, capsys):
    flags = ("--weights", tiny_weights, "--out", tmp_path / "run", "--stop-score", 1e-6)
    assert evolve(*flags, "--finish.waves", 4) == 0
    assert "finished from" not in capsys.readouterr().out


def test_interrupt_ends_cleanly_with_everything_written(tiny_weights, tmp_path, capsys):
    folder = tmp_path / "run"

    def interrupt_when_under_way():
        metrics = folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_when_under_way)
    # In the background a shell has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        status = evolve("--weights", tiny_weights, "--out", folder, "--formulas", 10**9)
        thread.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 0
    assert "interrupted" in capsys.readouterr().out
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert read_formulas(folder / "population.txt")
    assert (folder / "records.png").exists()
    assert not list(folder.rglob(".*"))


def test_default_folders_do_not_overwrite_each_other(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert evolve("--weights", tiny_weights, "--formulas", 8) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["crab-0", "crab-0-2"]


def test_all_classes_are_no_target(tiny_net):
    with pytest.raises(InputError, match="all classes"):
        ClassTarget(tiny_net.vocabulary, (0, 1, 2, 3))


@pytest.fixture
def photograph(tmp_path):
    """An upright picture, redder to the right."""
    path = tmp_path / "Dune.png"
    columns, rows = np.meshgrid(np.linspace(0, 255, 8), np.linspace(0, 255, 12))
    Image.fromarray(np.stack([columns, rows, 0 * rows + 90], axis=-1).astype(np.uint8)).save(path)
    return path


def test_layer_in_place_of_a_target(tiny_weights, tmp_path, capsys):
    folder = tmp_path / "run"
    assert evolve("--weights", tiny_weights, "--layer", "squares:1", "--out", folder) == 0
    printed = capsys.readouterr()
    assert "target: layer squares:1" in printed.err
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["formulas"] == 64
    record = sorted((folder / "records").iterdir())[-1]
    text = read_png_text(record)
    assert (text["layer"], "unseen" in text) == ("squares:1", False)
    assert not {"target", "guide"} & text.keys()
    # The network's first layer is the square of ((green - 1/2) / (1/4)).
    picture = render(encode([text["formula"]]), 8, 8, samples=2)[0]
    score = float(np.mean((4 * np.asarray(picture)[..., 1] - 2) ** 2))
    assert rows[-1]["best_score"] == pytest.approx(score, rel=1e-4)
    assert rows[-1]["best_value"] == pytest.approx(math.asinh(score / 0.02), rel=1e-4)
    assert rows[-1]["best_fitness"] == pytest.approx(rows[-1]["best_value"])
    assert float(text["score"]) == pytest.approx(score, rel=1e-4)
    assert f"best: {score:.3g}"[:-1] in printed.out
    assert "layer squares:1; noise" in printed.out
    assert record.stem == f"{len(list((folder / 'records').iterdir())):03d}-{score:.4g}"


def test_guide_and_score_limit(tiny_weights, tmp_path, photograph, capsys):
    folder = tmp_path / "run"
    flags = ("--layer", "squares", "--guide", photograph, "--stop-score", -1e9)
    assert evolve("--weights", tiny_weights, *flags, "--out", folder) == 0
    text = read_png_text(folder / "best.png")
    assert (text["layer"], text["guide"]) == ("squares", str(photograph))
    moved = folder.rename(tmp_path / "moved")
    for path in (moved / "best.png", next((moved / "records").iterdir())):
        found = guide_beside(read_provenance(path), path.parent)
        assert found.is_relative_to(moved)
        assert found.read_bytes() == photograph.read_bytes()
    folder = moved
    assert float(text["score"]) < 1
    assert "layer squares like Dune.png" in capsys.readouterr().out
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    saved = tomllib.loads((folder / "config.toml").read_text())
    assert saved["guide"] == str(photograph)


def test_a_run_that_starts_from_a_photograph(tiny_weights, tmp_path, photograph):
    folder = tmp_path / "run"
    flags = ("--weights", tiny_weights, "--objective.near", 1e6, "--start-from", photograph)
    flags += tuple("--raster.samples 1 --record-size 8 --max-length 16".split())  # one compilation
    assert evolve(*flags, "--out", folder) == 0
    formulas = (folder / "population.txt").read_text().splitlines()
    assert formulas[0] == "Dune"  # nothing is nearer to it than itself
    assert sum("Dune" in formula for formula in formulas) > 4
    assert (folder / "best.txt").read_text() == "Dune\n"

    # The picture finds the photograph again, and is all of its middle.
    out = tmp_path / "drawn.png"
    size = ["--size", "8", "--samples", "1", "--out", str(out)]
    assert main(["render", str(folder / "best.png"), *size]) == 0
    with Image.open(photograph) as whole:
        middle = np.asarray(whole, int)[2:10]
    for path in (out, folder / "best.png"):
        with Image.open(path) as drawn:
            assert np.abs(np.asarray(drawn, int) - middle).max() <= 1

    # The population can go on under the same name.
    config = RunConfig(start_from=photograph, seeds=folder / "population.txt", max_length=16)
    bound, name = _bind(config)
    seeds = _seeds(config, bound.names, name, jax.random.key(0))
    assert decode(seeds, bound.names) == formulas


def test_saved_config_has_the_pictures():
    images = ("a=b c.png", "d:whole=e=f.png")
    target = TargetConfig(layer="stem", guide=Path("g.png"))
    config = RunConfig(image=images, start_from=Path("u.png"), target=target)
    table = tomllib.loads(config_text(config, "a comment"))
    assert (table["image"], table["start_from"]) == (list(images), "u.png")
    assert "images" not in table["genetic"]["growth"]


def test_saved_pictures_are_read_back_and_flags_add_to_them(tmp_path):
    path = tmp_path / "config.toml"
    config = RunConfig(image=("a=b c.png", "d:whole=e=f.png"), start_from=Path("u.png"))
    path.write_text(config_text(config, "a comment"))
    assert read_config(path, RunConfig) == config
    flags = ["--image", "z=g.png", "--config", str(path)]
    more = parse_flags(EvolveCommand, flags, "evolve").run
    assert more.image == (*config.image, "z=g.png")
    assert math.isinf(config.stop_score)


def test_seeds_in_a_picture_bring_their_photographs(tmp_path, photograph):
    seed, given = tmp_path / "seed.png", bind_images([f"dune={photograph}"])
    (formula,) = to_expressions(encode(["( exp dune )"], images=given.names), given.names)
    said = Provenance(formula=str(formula), photographs=given.read_by(formula))
    write_png(seed, np.zeros((2, 2, 3), np.uint8), said.to_text())
    config = RunConfig(seeds=seed, image=(f"sky={photograph}", f"SKY:whole={photograph}"))
    bound, _ = _bind(config)
    assert bound.names == ("SKY", "dune")  # the later flag of a name counts
    assert [source.whole for source in bound.sources] == [True, False]
    assert len(bound.pyramids) == 2
    seeds = _seeds(config, bound.names, "", jax.random.key(0))
    assert decode(seeds, bound.names) == ["( exp dune )"]
