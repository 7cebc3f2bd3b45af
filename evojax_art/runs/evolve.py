"""The run: from a configuration to a folder of pictures.

config.toml      the configuration, as `evolve --config` takes it
metrics.jsonl    a line per generation: scores, fitness, nodes, formulas, seconds
records/         the new bests: PNGs with formula, score, seed and generation inside
records.png      the records side by side
best.png         the last record
best.txt         its formula
population.txt   the surviving formulas, best first, as `evolve --seeds` takes them
"""

import json
import platform
import re
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from rich.console import Console

from evojax_art.artwork.formula_files import read_formulas
from evojax_art.artwork.picture import read_png_text
from evojax_art.language.bindings import Bound, bind_images, bound_with
from evojax_art.language.program import Program, encode, take, to_expressions
from evojax_art.nets.base import Classifier
from evojax_art.nets.registry import lookup
from evojax_art.nets.weights import load_net
from evojax_art.objective.goals import ClassGoal, Goal
from evojax_art.render.batch import render_population
from evojax_art.render.look import Look, Raster
from evojax_art.runs.config import RunConfig, config_text
from evojax_art.runs.records import Record, Records
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import write_text
from evojax_art.runtime.progress import StatusLine, stop_on_interrupt
from evojax_art.search.generation import Evolution, EvolutionState, Summary
from evojax_art.search.protocol import EMPTY
from evojax_art.search.start_from import leaf_name, variations


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: where everything lies.
        goal: what scores mean.
        records: the new bests that were drawn, the last the best of all.
        formulas: scored.
        seconds: taken, without compilation.
        reason: why it stopped.
    """

    folder: Path
    goal: Goal
    records: list[Record]
    formulas: int
    seconds: float
    reason: str


def run(config: RunConfig, console: Console | None = None) -> Outcome:
    """Evolves as configured; returns when a limit is reached or on Ctrl-C.

    Args:
        config: what to do.
        console: for progress; None is standard error.

    Raises:
        InputError: anything in the configuration that cannot be used; nothing is written then.
    """
    console = console or Console(stderr=True, highlight=False)
    net, goal = config.load(jnp.dtype(config.dtype))
    unseen_name = "" if config.layer else lookup(config.net).unseen
    unseen = load_net(unseen_name) if unseen_name else None
    bound, photograph = _bind(config)
    seeds = _seeds(config, bound.names, photograph)
    algorithm = config.chosen_algorithm
    growth = replace(algorithm.growth, images=len(bound.pyramids))
    evolution = Evolution(
        replace(algorithm, growth=growth),
        net,
        goal,
        config.objective,
        config.scene,
        max_length=config.max_length,
        batch=config.batch or None,
        images=bound.pyramids,
        reference=_reference(config.scene.look, config.scene.raster(net.size), bound, photograph),
        polish=config.polish,
    )
    folder = _make_folder(config)
    for line in _targets(goal, net, config.wanted):
        console.print(line, markup=False, soft_wrap=True)
    records = Records(folder, config, evolution, bound, unseen)
    return _Run(config, evolution, records, folder, bound.names, console).loop(seeds)


class _Run:
    """One run; holds what the loop would otherwise pass around."""

    def __init__(
        self,
        config: RunConfig,
        evolution: Evolution,
        records: Records,
        folder: Path,
        images: tuple[str, ...],
        console: Console,
    ):
        self._config = config
        self._evolution = evolution
        self._records = records
        self._folder = folder
        self._images = images  # names of the pictures that formulas read
        self._console = console
        self._formulas = 0
        self._started = time.monotonic()

    def loop(self, seeds: Program | None) -> Outcome:
        device = jax.devices()[0].device_kind
        described = (
            f"evojax_art {version('evojax-art')}, jax {jax.__version__}, {device}, "
            f"Python {platform.python_version()}"
        )
        write_text(self._folder / "config.toml", config_text(self._config, described))
        state = self._evolution.init(jax.random.key(self._config.seed), seeds)
        reason, generation, record_generation, first = "", 0, 0, 0
        compiling = f"compiling for {device}, once ..."
        with (
            (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics,
            stop_on_interrupt(self._console, "this generation") as interrupted,
            StatusLine(self._console, compiling) as status,
        ):
            while not reason:
                state, summary = self._evolution.step(state)
                summary = jax.device_get(summary)
                generation += 1
                self._formulas += self._config.scored_in(generation)
                if summary.is_record:
                    record_generation = generation
                    # Drawing and writing one can take longer than a generation.
                    if self._limit(summary) or self._records.is_step(summary.best_value):
                        self._records.draw(state, generation, self._formulas)
                if generation == 1:  # compilation is over, the clock starts
                    self._started, first = time.monotonic(), self._formulas
                metrics.write(self._metrics_line(generation, summary))
                metrics.flush()
                status.show(self._status(generation, summary, first))
                reason = "interrupted" if interrupted.is_set() else self._limit(summary)
        if self._records.drawn[-1].generation < record_generation:
            self._records.draw(state, record_generation, self._formulas)
        self._save_population(state)
        return Outcome(
            folder=self._folder,
            goal=self._evolution.goal,
            records=self._records.drawn,
            formulas=self._formulas,
            seconds=self._seconds(),
            reason=reason,
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _limit(self, summary: Summary) -> str:
        config = self._config
        if summary.best_score >= config.stop_score:
            return f"score {config.stop_score} reached"
        if self._formulas >= config.formulas:
            return f"{self._formulas} formulas scored"
        if config.minutes and self._seconds() >= 60 * config.minutes:
            return f"{config.minutes} minutes are over"
        return ""

    def _save_population(self, state: EvolutionState) -> None:
        order = np.argsort(-np.asarray(state.algorithm.fitness), kind="stable")
        held = order[np.asarray(state.algorithm.fitness)[order] > EMPTY]
        formulas = to_expressions(take(state.algorithm.population, held), self._images)
        write_text(self._folder / "population.txt", "".join(f"{item}\n" for item in formulas))

    def _metrics_line(self, generation: int, summary: Summary) -> str:
        row: dict[str, Any] = {"generation": generation, "formulas": self._formulas}
        row["seconds"] = round(self._seconds(), 3)
        row |= {name: np.asarray(value).item() for name, value in summary._asdict().items()}
        row["best_noise"] = round(self._records.drawn[-1].noise, 5)
        return json.dumps(row) + "\n"

    def _status(self, generation: int, summary: Summary, first: int) -> str:
        seconds, last, text = self._seconds(), self._records.drawn[-1], self._evolution.goal.text
        parts = [f"generation {generation}", f"best {text(float(summary.best_score))}"]
        if self._records.unseen:
            parts.append(f"unseen judge {100 * last.unseen:.3g} %")
        parts += [f"mean {text(float(summary.mean_score))}", f"noise {last.noise:.3f}"]
        limit = "" if self._config.minutes else f"/{self._config.formulas}"
        parts.append(f"{self._formulas}{limit} formulas")
        if self._formulas > first:
            rate = (self._formulas - first) / seconds
            left = max(0.0, (self._config.formulas - self._formulas) / rate)
            if self._config.minutes:
                left = min(left, max(0.0, 60 * self._config.minutes - seconds))
            parts += [f"{rate:.0f}/s", f"{int(left) // 60}:{int(left) % 60:02d} left"]
        return " · ".join(parts)


def _targets(goal: Goal, net: Classifier, wanted: str) -> list[str]:
    """What is bred for, a line each."""
    if isinstance(goal, ClassGoal):
        return [f"target {index}: {net.classes[index]}" for index in goal.targets]
    return [f"target: {wanted}"]


def _bind(config: RunConfig) -> tuple[Bound, str]:
    """All pictures that formulas may read, and the name of the one to start from, if any."""
    by_name = {re.split("[:=]", flag)[0].lower(): flag for flag in config.image}
    flags, name = list(by_name.values()), ""  # of one name the last: flags override a file's
    if config.start_from:
        name = leaf_name(config.start_from, bind_images(flags).names)
        flags.append(f"{name}:whole={config.start_from}")
    bound = bind_images(flags)
    if config.seeds and config.seeds.suffix.lower() == ".png":
        bound = bound_with(bound, read_png_text(config.seeds), config.seeds.parent)
    return bound, name


def _seeds(config: RunConfig, images: tuple[str, ...], photograph: str) -> Program | None:
    """Formulas to start from, as the configuration says."""
    if config.seeds is not None:
        expressions = read_formulas(config.seeds, images=images)
        for number, expression in enumerate(expressions, 1):
            if len(expression) > config.max_length:
                raise InputError(
                    f"{config.seeds}: formula {number} has {len(expression)} nodes, more than "
                    f"max_length = {config.max_length}; give --max-length {len(expression)} or more"
                )
    elif photograph:
        key = jax.random.fold_in(jax.random.key(config.seed), 1)  # the run splits the key itself
        count = max(1, config.genetic.population // 2)
        expressions = variations(key, photograph, count, config.max_length, images)
    else:
        return None
    return encode(expressions, max_length=config.max_length)


def _reference(look: Look, raster: Raster, bound: Bound, photograph: str) -> Array | None:
    """The photograph as formulas are drawn, [H, W, 3]."""
    if not photograph:
        return None
    leaf = encode([photograph], images=bound.names)
    return render_population(leaf, look, raster, images=bound.pyramids)[0]


def _make_folder(config: RunConfig) -> Path:
    name = re.sub(r"\W+", "-", config.wanted).strip("-")
    folder = config.out or _unused(Path("runs") / f"{name}-{config.seed}")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"run folder {folder} is not empty; give another one with --out")
        (folder / "records").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write run folder {folder}: {error.strerror}; give another one with --out"
        ) from error
    return folder


def _unused(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
