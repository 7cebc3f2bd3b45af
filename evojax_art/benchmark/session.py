"""A benchmark from its settings to its results: rows, floors, sweeps, files."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from evojax_art.artwork.formula_files import read_formulas
from evojax_art.artwork.plotting import check_matplotlib
from evojax_art.benchmark import plot, report
from evojax_art.benchmark.floors import measure_floors
from evojax_art.benchmark.machine import describe_machine, file_stem
from evojax_art.benchmark.measure import measure, without_compilation_cache
from evojax_art.benchmark.parts import BUILDERS, Subject, row_of, shares_of_generation
from evojax_art.benchmark.polishing import polishing
from evojax_art.benchmark.report import Results
from evojax_art.benchmark.sweeps import Axis, plans, run_plan
from evojax_art.language.formula import Expression
from evojax_art.language.program import Program, encode, take
from evojax_art.nets.base import Classifier
from evojax_art.nets.registry import DEFAULT
from evojax_art.nets.weights import load_net
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import check_writable, write_text
from evojax_art.runtime.plan import current_plan, implementation_names
from evojax_art.search.variation import GrowthConfig, grow


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure.

    Attributes:
        formulas: a file of formulas, repeated to make up the population; by default random ones.
        population: formulas measured at once; 0 is 2,048 on a CPU, else 16,384.
        max_length: capacity of their programs; longer formulas of the file are left out.
        size: height and width of the pictures.
        samples: n by n samples per pixel.
        repeats: timed runs per row and point, after one that compiles; the median counts.
        seed: of the random population.
        net: the network to measure.
        weights: its weights file; by default the one in this package or the cache.
        dtype: of the network's arithmetic.
        noise_gate: of the measured generation; 0 leaves the noise measure out of it.
        batch: pictures judged at a time; 0 chooses by device.
        implementations: interpreters to measure beside the one that is chosen by platform.
        rows: measure the parts; without them, only what is swept.
        polish: measure gradient ascent on the formulas' constants as well.
        sweep: what to sweep: population, size (of the pictures), length (of the programs).
        populations: points of the population's sweep, formulas.
        sizes: points of the size's sweep, pixels along a side.
        lengths: points of the length's sweep, nodes.
        max_seconds: for the timed runs of a row or point together, about; rows take fewer
            formulas, and points that would take longer are left out.
        json: write the figures to this file, as they come.
        plot: draw them into this PNG.
        keep: write both into this folder, under a name made of device and commit.
    """

    formulas: Path | None = None
    population: int = 0
    max_length: int = 128
    size: int = 32
    samples: int = 1
    repeats: int = 5
    seed: int = 0
    net: str = DEFAULT
    weights: Path | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    noise_gate: float = 0.05
    batch: int = 0
    implementations: tuple[str, ...] = ()
    rows: bool = True
    polish: bool = False
    sweep: tuple[Axis, ...] = ()
    populations: tuple[int, ...] = (256, 1024, 4096, 16384, 65536)
    sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    max_seconds: float = 20.0
    json: Path | None = None
    plot: Path | None = None
    keep: Path | None = None

    def __post_init__(self):
        for name in ("size", "samples", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("population", "batch", "noise_gate"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("populations", "sizes", "lengths"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InputError(f"{name} must be one or more numbers, each 1 or more")
        if not (self.rows or self.polish or self.sweep):
            raise InputError("nothing to measure: no rows, no polish, and no sweep")
        for name in self.implementations:
            if name not in implementation_names():
                known = ", ".join(implementation_names())
                raise InputError(f"implementations: unknown {name!r}; there are {known}")
        if self.max_length < 3:
            raise InputError(f"max_length must be 3 or more, got {self.max_length}")
        if not self.max_seconds > 0:
            raise InputError(f"max_seconds must be above 0, got {self.max_seconds}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")


def benchmark(config: BenchmarkConfig, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints tables, and returns the figures as they go into JSON.

    Args:
        config: what to measure.
        console: for progress; None is standard error. The tables go to standard output.

    Raises:
        InputError: a file or a place that cannot be used, known before anything is measured.
    """
    console = console or Console(stderr=True, highlight=False)
    expressions = _read(config)
    net = load_net(config.net, config.weights, dtype=jnp.dtype(config.dtype))
    machine = describe_machine()
    json_paths, plot_paths = _places(config, machine)
    count = config.population or (2048 if machine["platform"] == "cpu" else 16_384)
    subject = _subject(config, net, _population(config, expressions, count))
    results: Results | None = None
    with without_compilation_cache(), _Progress(console) as progress:
        for results in _measured(config, subject, expressions, machine, progress):
            for path in json_paths:  # each time, so that a benchmark that is stopped leaves its own
                write_text(path, json.dumps(results.figures(), indent=2) + "\n")
    if results is None:  # BenchmarkConfig asks for something to measure
        return {}
    report.print_report(Console(), results)
    for path in plot_paths:
        plot.write_plot(path, results)
    return results.figures()


def _measured(
    config: BenchmarkConfig,
    subject: Subject,
    expressions: list[Expression] | None,
    machine: dict[str, Any],
    progress: "_Progress",
) -> Iterator[Results]:
    """The results so far, after every part and every sweep."""
    started = time.monotonic()
    values: dict[Axis, tuple[int, ...]] = {
        "population": config.populations,
        "size": config.sizes,
        "length": config.lengths,
    }
    swept: dict[Axis, tuple[int, ...]] = {axis: values[axis] for axis in config.sweep}
    planned = list(plans(subject, swept, lambda count: _population(config, expressions, count)))
    builders = (*(BUILDERS if config.rows else ()), *((polishing,) if config.polish else ()))
    progress.expect(1 + len(builders) + sum(len(plan.values) for plan in planned))
    described, rows, sweeps = _described(config, subject), subject.rows, []

    progress.show("limits of the device")
    floors = measure_floors()

    def so_far() -> Results:
        return Results(
            machine=machine,
            subject=described,
            floors=floors,
            rows=list(rows.values()),
            shares=shares_of_generation(rows, config.noise_gate),
            sweeps=list(sweeps),
            seconds=time.monotonic() - started,
        )

    for builder in builders:
        progress.show(builder.__name__)
        for job in builder(subject):
            measured = measure(job, config.repeats, config.max_seconds)
            rows[job.part] = row_of(job, measured, floors)
        yield so_far()
    subject.forget_pictures()
    for plan in planned:
        sweeps.append(run_plan(plan, config.repeats, config.max_seconds, progress.show))
        yield so_far()


def _described(config: BenchmarkConfig, subject: Subject) -> dict[str, Any]:
    """The settings, with what was chosen by device and found in files."""
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
        if name not in ("json", "plot", "keep")
    }
    mean = float(np.mean(np.asarray(subject.population.length)))
    found = {"population": subject.count, "batch": subject.batch, "mean_nodes": round(mean, 2)}
    return plain | found


def _subject(config: BenchmarkConfig, net: Classifier, population: Program) -> Subject:
    plan = current_plan()
    return Subject(
        population=population,
        size=config.size,
        samples=config.samples,
        net=net,
        noise_gate=config.noise_gate,
        batch=config.batch or plan.batch(config.size),
        given_batch=config.batch,
        picture_bytes=1e9 if plan.platform == "cpu" else 4e9,
        implementations=config.implementations,
        seconds_per_run=config.max_seconds / config.repeats,
        key=jax.random.key(config.seed),
    )


def _read(config: BenchmarkConfig) -> list[Expression] | None:
    """The formulas of the file that fit; None where there is no file."""
    if config.formulas is None:
        return None
    read = read_formulas(config.formulas)
    fitting = [item for item in read if len(item) <= config.max_length]
    if not fitting:
        raise InputError(
            f"{config.formulas}: every formula is longer than max_length = {config.max_length}"
        )
    return fitting


def _population(
    config: BenchmarkConfig, expressions: list[Expression] | None, count: int
) -> Program:
    """That many formulas: of the file, over and over, or random ones."""
    if expressions is None:
        keys = jax.random.split(jax.random.key(config.seed), count)
        return jax.jit(jax.vmap(lambda key: grow(key, config.max_length, GrowthConfig())))(keys)
    distinct = encode(expressions[:count], max_length=config.max_length)
    return take(distinct, np.arange(count) % len(expressions[:count]))


def _places(config: BenchmarkConfig, machine: dict[str, Any]) -> tuple[list[Path], list[Path]]:
    """Where JSON and plots go, all known to be writable; makes the folder to keep them in."""
    json_paths, plot_paths = ([path] if path else [] for path in (config.json, config.plot))
    if config.plot and config.plot.suffix.lower() != ".png":
        raise InputError(f"plot {config.plot}: the name must end in .png")
    if config.plot or config.keep:
        check_matplotlib()
    for path in (*json_paths, *plot_paths):
        check_writable(path)
    if config.keep:
        try:
            config.keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write folder {config.keep}: {error.strerror}") from error
        stem = file_stem(machine)
        json_paths.append(config.keep / f"{stem}.json")
        plot_paths.append(config.keep / f"{stem}.png")
        check_writable(json_paths[-1])
    return json_paths, plot_paths


class _Progress:
    """A bar of what is being measured; without a terminal, a plain line for each."""

    def __init__(self, console: Console):
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bar = (
            Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> "_Progress":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, completed=-1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """How many things will be shown."""
        if self._bar:
            self._bar.update(self._task, total=total)

    def show(self, what: str) -> None:
        """The next thing is measured from here on."""
        if self._bar:
            self._bar.update(self._task, description=f"measuring {what}", advance=1)
        else:
            self._console.print(f"measuring {what} ...", markup=False, soft_wrap=True)
