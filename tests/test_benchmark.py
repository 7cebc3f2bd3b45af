"""The benchmark measures what it says; how fast anything is decides no test."""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, register_tiny
from PIL import Image

import evojax_art as ea
from evojax_art.benchmark import machine, measure, parts, sweeps, work
from evojax_art.benchmark.floors import Floors
from evojax_art.cli.main import main
from evojax_art.language.ops import BY_NAME
from evojax_art.language.program import is_valid
from evojax_art.objective.tv import GATE_WEIGHT, denoise_tv_chambolle

PARTS = ["lowering", "rendering", "network", "noise", "variation", "generation"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A tiny benchmark from the command line: folder, output, hits in the compilation cache."""
    folder = tmp_path_factory.mktemp("benchmark")
    flags = """
        --population 12 --max-length 16 --size 8 --repeats 2 --net tiny --batch 5 --polish
        --sweep size --sizes 8 4 --max-seconds 1e4
    """.split()
    paths = ["--json", folder / "figures.json", "--plot", folder / "figure.png"]
    printed, hits = io.StringIO(), []

    def listen(event, **_):
        hits.extend([event] * event.endswith("cache_hits"))

    jax.monitoring.register_event_listener(listen)
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            weights = register_tiny(folder, patch)
            given = [*flags, "--weights", weights, *paths, "--keep", folder / "kept"]
            assert main(["benchmark", *map(str, given)]) == 0
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return SimpleNamespace(folder=folder, printed=printed.getvalue(), hits=hits)


@pytest.fixture(scope="module")
def figures(outcome):
    """Its JSON."""
    return json.loads((outcome.folder / "figures.json").read_text())


@pytest.fixture(scope="module")
def rows(figures):
    """Its rows of a generation's parts."""
    return figures["rows"][: len(PARTS)]


def test_says_what_was_measured_with_what(figures):
    assert figures["device"]
    assert figures["platform"] == jax.default_backend()
    assert figures["cpus"] >= 1
    assert figures["jax"] == jax.__version__
    known = {"population": 12, "size": 8, "max_length": 16, "net": "tiny", "repeats": 2, "batch": 5}
    assert {name: figures[name] for name in known} == known
    assert 1 <= figures["mean_nodes"] <= 16


def test_floors_are_measured_beside_the_rows(figures):
    floors = figures["floors"]
    assert floors["bytes_per_second"] > 0
    assert min(floors["flops_per_second"].values()) > 0
    assert floors["flops_per_second"].keys() >= {"float32"}
    assert {len(runs) for runs in floors["all_seconds"].values()} == {5}


def test_every_part_has_a_row(rows):
    assert [row["part"] for row in rows] == PARTS
    for row in rows:
        assert len(row["all_seconds"]) == 2
        assert row["seconds"] == pytest.approx(np.median(row["all_seconds"]))
        assert row["formulas_per_second"] == pytest.approx(row["formulas"] / row["seconds"])
        assert row["compile_seconds"] > 0
        assert row["memory_bytes"] > 0
        assert 0 < row["floor_share"] < math.inf
        assert row["floor_share"] == pytest.approx(row["floor_seconds"] / row["seconds"])
    judged = {row["part"]: row["formulas"] for row in rows}
    assert judged == dict.fromkeys(PARTS, 12) | {"network": 10, "noise": 10}  # two batches of 5


def test_node_pixels_count_nodes_as_written(figures, rows):
    for row in rows:
        if row["part"] in ("rendering", "generation"):
            expected = 12 * figures["mean_nodes"] * 64 / row["seconds"]
            assert row["node_pixels_per_second"] == pytest.approx(expected, rel=0.01)
        else:
            assert row["node_pixels_per_second"] is None


def test_rows_of_polish_count_pictures_times_steps(figures):
    many, one = figures["rows"][len(PARTS) :]
    assert (many["part"], many["formulas"]) == ("polishing", 64 * 5)
    assert re.fullmatch(r"copies, \d+ nodes", one["part"])
    assert one["formulas"] == 8 * 5
    for row in (many, one):
        assert row["formulas_per_second"] == pytest.approx(row["formulas"] / row["seconds"])
        assert row["compile_seconds"] > 0


def test_shares_are_of_the_generation(figures):
    rows = {row["part"]: row["seconds"] / row["formulas"] for row in figures["rows"]}
    shares = figures["shares_of_generation"]
    assert list(shares) == [*PARTS[:-1], "rest"]
    for part in PARTS[:-1]:
        assert shares[part] == pytest.approx(rows[part] / rows["generation"])
    assert shares["rest"] >= 0


def test_compile_times_owe_nothing_to_the_compilation_cache(outcome):
    assert jax.config.jax_enable_compilation_cache  # the tests' own, on again
    assert outcome.hits == []


def test_sweeps_say_how_time_grows(figures):
    (sweep,) = figures["sweeps"]
    first, last = sweep["points"]
    assert (sweep["axis"], sweep["part"], sweep["unit"]) == ("size", "rendering", "pixel")
    assert (first["value"], last["value"]) == (4, 8)
    ratio = last["seconds_per_unit"] / first["seconds_per_unit"]
    assert sweep["growth"] == {"start": 4, "to": 8, "ratio": pytest.approx(ratio)}
    assert sweep["left_out"] == {}


def test_sweep_of_the_length_fills_the_programs():
    programs = sweeps.full_programs(jax.random.key(0), 32, 24)
    assert set(np.asarray(programs.length)) == {24}
    assert jax.jit(jax.vmap(is_valid))(programs).all()


def test_tables_are_printed(outcome):
    for text in ("node-pixels/s", "generation", "rendering by size", "time per pixel at 8 over"):
        assert text in outcome.printed


def test_figure_is_a_png(outcome):
    with Image.open(outcome.folder / "figure.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 600
        assert len(image.convert("L").getcolors(256) or []) > 20


def test_kept_files_are_named_by_device_and_commit(outcome, figures):
    stem = machine.file_stem(figures)
    assert {path.name for path in (outcome.folder / "kept").iterdir()} == {
        f"{stem}.json",
        f"{stem}.png",
    }
    gpu = {"platform": "gpu", "device": "NVIDIA H100 80GB HBM3", "evojax_art": "0.1.0"}
    assert (
        machine.file_stem(gpu | {"commit": "2c01727", "modified": False})
        == "nvidia-h100-80gb-hbm3-2c01727"
    )
    cpu = {"platform": "cpu", "cpus": 2, "device": "AMD EPYC 9B14", "evojax_art": "0.1.0"}
    assert (
        machine.file_stem(cpu | {"commit": "", "modified": False}) == "amd-epyc-9b14-2-cores-0.1.0"
    )


def test_a_point_that_takes_too_long_is_left_out_and_said_so(monkeypatch):
    def point(plan, value, repeats, max_seconds):
        return sweeps.Point(
            value=value,
            formulas=value,
            seconds=value / 1000,
            all_seconds=[value / 1000],
            seconds_per_formula=1e-3,
            seconds_per_unit=1e-3,
            compile_seconds=1.0,
            memory_bytes=1e6 * value,
            device_peak_bytes=None,
        )

    monkeypatch.setattr(sweeps, "_point", point)
    monkeypatch.setattr(sweeps, "available_bytes", lambda: 5e9)
    values = (256, 1024, 4096, 16384, 65536)
    plan = sweeps.Plan(
        axis="population",
        part="rendering",
        values=values,
        job_fn=lambda _: None,
        units_fn=lambda _: 1.0,
    )
    slow = sweeps.run_plan(plan, 3, 20.0, lambda _: None)
    assert [item.value for item in slow.points] == [256, 1024, 4096]
    assert slow.left_out == {
        16384: "it would take 33 s, more than max-seconds = 20",
        65536: "a smaller one is left out",
    }
    assert slow.growth == sweeps.Growth(start=1024, to=4096, ratio=1.0)
    large = sweeps.run_plan(plan, 3, 1e4, lambda _: None)
    assert large.left_out[16384] == "it would take 16.4 GB of memory, more than there is"


def test_a_part_that_takes_too_long_is_measured_on_fewer_batches():
    jitted = jax.jit(lambda x: x + 1)

    def slow(x):
        jax.block_until_ready(jitted(x))
        calls.append(0)
        return np.sum([0.0 for _ in range(2_000_000)])  # some milliseconds at least

    calls = []
    batch = measure.Batch(arguments_fn=lambda: (jnp.ones(4),), formulas=3)
    job = measure.Job(part="slow", call_fn=slow, batches=[batch] * 1000)
    found = measure.measure(job, repeats=2, max_seconds=1e-4)
    assert found.formulas == 3
    assert len(found.all_seconds) == 1
    assert len(calls) == 3  # the first, a second look, one that counts


def test_covered_time_counts_nested_intervals_once():
    assert measure.covered([(0, 4), (1, 2), (3, 5), (7, 8)]) == 6
    assert measure.covered([]) == 0


def test_a_floor_is_the_longer_of_arithmetic_and_traffic():
    floors = Floors(
        bytes_per_second=10.0,
        flops_per_second={"float32": 100.0, "bfloat16": 400.0},
        all_seconds={},
        copy_bytes=0,
        matrix_size=0,
    )
    assert floors.seconds(measure.Work(flops=500, bytes=10)) == 5
    assert floors.seconds(measure.Work(flops=500, bytes=80)) == 8
    assert floors.seconds(measure.Work(flops=4000, bytes=1, arithmetic="bfloat16")) == 10
    assert floors.seconds(measure.Work(flops=500, bytes=1, arithmetic="tensor_float32")) == 5


def test_work_is_counted_from_the_op_table():
    flops = work.flops_of_ops()
    counted = {"*": 28, "+": 4, "conj": 3, "rolL": 0, "x": 0, "isin": 4, "subst": 9}
    assert {name: flops[BY_NAME[name].opcode] for name in counted} == counted
    assert np.all(flops >= 0)
    product, sine = (ea.encode([text], max_length=5) for text in ("( * x y )", "( isin x )"))
    at_8 = work.work_of_rendering(product, 8, 1)
    assert at_8.flops - work.work_of_rendering(sine, 8, 1).flops == 64 * (28 - 4)
    assert work.work_of_rendering(product, 8, 3).flops == 9 * at_8.flops
    assert at_8.bytes == 8 * 8 * 3 * 4 + 5 * 20


def test_iterations_of_the_noise_measure_are_counted_exactly():
    generator = np.random.default_rng(0)
    planes = jnp.asarray(generator.uniform(size=(2, 8, 8)), jnp.float32)
    planes = jnp.concatenate([planes, jnp.full((1, 8, 8), 0.5)])
    counts = work.noise_iterations(planes)
    for plane, count in zip(planes, counts, strict=True):
        image = plane[None, :, :, None]
        whole, enough, short = (
            denoise_tv_chambolle(image, GATE_WEIGHT, max_num_iter=limit)
            for limit in (200, int(count), int(count) - 1)
        )
        assert jnp.array_equal(whole, enough)
        assert count == 1 or not jnp.array_equal(whole, short)
    assert counts[2] == 1  # a flat one


def test_a_builder_is_all_that_a_further_row_needs():
    def counting(subject):
        batch = measure.Batch(arguments_fn=lambda: (subject.population,), formulas=subject.count)
        yield measure.Job(part="counting", call_fn=jax.jit(lambda p: p.length), batches=[batch])

    floors = Floors(
        bytes_per_second=1.0,
        flops_per_second={"float32": 1.0},
        all_seconds={},
        copy_bytes=0,
        matrix_size=0,
    )
    (job,) = counting(SimpleNamespace(population=ea.encode(["x", "y"]), count=2))
    row = parts.row_of(job, measure.measure(job, 1, 1.0), floors)
    assert (row.part, row.formulas, row.floor_share) == ("counting", 2, None)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_gpu_check_without_a_gpu_says_so_and_leaves_nothing(tmp_path):
    result = subprocess.run(
        ["bash", ROOT / "scripts" / "gpu_check.sh", tmp_path / "results"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert result.returncode == 2
    assert result.stderr == "gpu_check: JAX sees no GPU, it runs on cpu; nothing was measured\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_a_gpu_tells_its_memory_and_its_rates(figures):
    assert figures["floors"]["flops_per_second"].keys() >= {"tensor_float32", "bfloat16"}
    assert all(row["device_peak_bytes"] > 0 for row in figures["rows"])
