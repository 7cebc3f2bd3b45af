"""Measuring the engine: one row per part, compilation apart, medians of several runs.

Node-pixels count the nodes of the formulas as written, before any simplification, times pixels.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Table

from evojax_art.errors import InputError
from evojax_art.formula_files import read_formulas
from evojax_art.naturalness import tv_noise
from evojax_art.nets.weights import DEFAULT, load_net, weights_path
from evojax_art.picture import write_text
from evojax_art.program import Program, encode
from evojax_art.render import render
from evojax_art.tape import lower
from evojax_art.variation import GrowthConfig, VariationConfig, grow, vary


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure.

    Attributes:
        formulas: a file of formulas, repeated to make up the population; by default random ones.
        population: formulas measured at once.
        max_length: capacity of their programs; longer formulas of the file are left out.
        size: height and width of the pictures.
        repeats: timed runs per row, after one that compiles.
        seed: of the random population.
        net: the network to measure.
        weights: its weights file; by default the one in this package or the cache. The row is left
            out where there are none.
        json: write the figures to this file too.
    """

    formulas: Path | None = None
    population: int = 256
    max_length: int = 128
    size: int = 64
    repeats: int = 5
    seed: int = 0
    net: str = DEFAULT
    weights: Path | None = None
    json: Path | None = None

    def __post_init__(self):
        for name in ("population", "max_length", "size", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured part.

    Attributes:
        part: what was measured.
        seconds: of one run over the whole population, median.
        all_seconds: every run.
        compile_seconds: of the first run, beyond the median.
        formulas_per_second: formulas, or their pictures, per second.
        node_pixels_per_second: for parts that interpret formulas, else None.
    """

    part: str
    seconds: float
    all_seconds: list[float] = field(repr=False)
    compile_seconds: float
    formulas_per_second: float
    node_pixels_per_second: float | None


def benchmark(config: BenchmarkConfig, console: Console) -> dict[str, Any]:
    """Measures, prints a table, and returns the figures as they go into JSON.

    Raises:
        InputError: a file that cannot be used.
    """
    population = _population(config)
    mean_nodes = float(jnp.mean(population.length))
    node_pixels = float(jnp.sum(population.length)) * config.size**2
    count = config.population
    growth, variation = GrowthConfig(), VariationConfig()
    images = render(population, config.size, config.size)
    keys = jax.random.split(jax.random.key(config.seed), count)

    def children(keys, population):
        return jax.vmap(lambda key, a, b: vary(key, a, b, variation, growth))(
            keys, population, jax.tree.map(lambda field: field[::-1], population)
        )

    parts: list[tuple[str, Callable[..., Any], tuple, float | None]] = [
        ("lower", jax.jit(jax.vmap(lower)), (population,), None),
        (
            "lower, interpret and crunch",
            lambda programs: render(programs, config.size, config.size),
            (population,),
            node_pixels,
        ),
        ("TV noise", jax.jit(tv_noise), (images,), None),
        ("variation", jax.jit(children), (keys, population), None),
    ]
    judged = 0
    if config.weights is not None or weights_path(config.net).exists():
        net = load_net(config.net, config.weights)
        judged = min(count, 512 if net.size <= 64 else 64)  # activations must fit into memory
        graph, weights = nnx.split(net)
        judge = jax.jit(lambda weights, images: nnx.merge(graph, weights).logits(images))
        parts.append((f"network, {config.net}", judge, (weights, images[:judged]), None))
    rows = []
    with console.status("") as status:
        for part, run_fn, arguments, work in parts:
            status.update(f"measuring: {part} ...")
            pictures = judged if part.startswith("network") else count
            rows.append(_measure(part, run_fn, arguments, config.repeats, pictures, work))
    figures = {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
        "population": count,
        "size": config.size,
        "max_length": config.max_length,
        "mean_nodes": round(mean_nodes, 2),
        "rows": [asdict(row) for row in rows],
    }
    console.print(_table(rows, figures))
    if config.json is not None:
        write_text(config.json, json.dumps(figures, indent=2) + "\n")
    return figures


def _population(config: BenchmarkConfig) -> Program:
    if config.formulas is None:
        keys = jax.random.split(jax.random.key(config.seed), config.population)
        return jax.vmap(lambda key: grow(key, config.max_length, GrowthConfig()))(keys)
    read = read_formulas(config.formulas)
    fitting = [item for item in read if len(item) <= config.max_length]
    if not fitting:
        raise InputError(
            f"{config.formulas}: every formula is longer than max_length = {config.max_length}"
        )
    repeated = [fitting[index % len(fitting)] for index in range(config.population)]
    return encode(repeated, max_length=config.max_length)


def _measure(
    part: str,
    run_fn: Callable[..., Any],
    arguments: tuple,
    repeats: int,
    count: int,
    work: float | None,
) -> Row:
    def timed() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run_fn(*arguments))
        return time.perf_counter() - start

    jax.clear_caches()  # or the first run might find compiled what another part needed too
    first, *seconds = [timed() for _ in range(repeats + 1)]
    median = statistics.median(seconds)
    return Row(
        part=part,
        seconds=median,
        all_seconds=seconds,
        compile_seconds=first - median,
        formulas_per_second=count / median,
        node_pixels_per_second=work / median if work else None,
    )


def _table(rows: list[Row], figures: dict[str, Any]) -> Table:
    table = Table(
        title=f"{figures['population']} formulas of {figures['mean_nodes']:.1f} nodes, "
        f"{figures['size']}x{figures['size']}, {figures['device']} ({figures['cpus']} CPUs), "
        f"jax {figures['jax']}"
    )
    for heading in ("part", "seconds", "compile s", "formulas/s", "node-pixels/s"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for row in rows:
        work = row.node_pixels_per_second
        table.add_row(
            row.part,
            f"{row.seconds:.4f}",
            f"{row.compile_seconds:.2f}",
            f"{row.formulas_per_second:,.0f}",
            f"{work:.3g}" if work else "",
        )
    return table
