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
import math
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image
from rich.console import Console
from rich.live import Live
from rich.text import Text

from evojax_art.algorithms.base import EMPTY
from evojax_art.config import RunConfig, config_text
from evojax_art.errors import InputError
from evojax_art.evolution import Evolution, EvolutionState, Summary
from evojax_art.formula import Expression
from evojax_art.formula_files import read_formulas
from evojax_art.gallery import contact_sheet, spread, thumbnail
from evojax_art.large import render_large
from evojax_art.naturalness import tv_noise
from evojax_art.nets.base import Classifier, find_classes
from evojax_art.nets.weights import load_net, lookup
from evojax_art.picture import write_png, write_text, written_whole
from evojax_art.program import Program, encode, take, to_expressions

_SHEET_CELLS = 24  # records on the contact sheet
_SHEET_CELL = 192  # pixels
_PLAIN_LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal


@dataclass(frozen=True)
class Record:
    """A new best.

    Attributes:
        path: of its picture.
        score: probability of the targets, in [0, 1].
        unseen: the same from a network that nothing was bred for; NaN where there is none.
        noise: the 2015 measure of its picture.
        generation: that found it.
        formula: what draws it.
    """

    path: Path
    score: float
    unseen: float
    noise: float
    generation: int
    formula: Expression


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: where everything lies.
        records: the new bests that were drawn, the last the best of all.
        formulas: scored.
        seconds: taken, without compilation.
        reason: why it stopped.
    """

    folder: Path
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
    net = load_net(config.net, config.weights, dtype=jnp.dtype(config.dtype))
    unseen_name = lookup(config.net).unseen
    unseen = load_net(unseen_name) if unseen_name else None
    targets = targets_of(net, config.target)
    seeds = _read_seeds(config)
    folder = _make_folder(config)
    for index in targets:
        console.print(f"target {index}: {net.classes[index]}", markup=False, soft_wrap=True)
    evolution = Evolution(
        config.chosen_algorithm,
        net,
        targets,
        config.objective,
        config.scene,
        max_length=config.max_length,
        batch=config.batch or None,
    )
    return _Run(config, evolution, unseen, folder, console).loop(seeds)


def targets_of(net: Classifier, queries: tuple[str, ...]) -> tuple[int, ...]:
    """The classes that several queries mean together, ascending, each once."""
    found = {index for query in queries for index in find_classes(net.classes, query, net.groups)}
    if len(found) == len(net.classes):
        raise InputError("the targets are all classes of the network; name fewer")
    return tuple(sorted(found))


class _Run:
    """One run; holds what the loop would otherwise pass around."""

    def __init__(
        self,
        config: RunConfig,
        evolution: Evolution,
        unseen: Classifier | None,
        folder: Path,
        console: Console,
    ):
        self._config = config
        self._evolution = evolution
        self._unseen = unseen
        self._folder = folder
        self._console = console
        self._records: list[Record] = []
        self._thumbnails: list[np.ndarray] = []  # of the records
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
        reason, generation, record_generation = "", 0, 0
        compiling = f"compiling for {device}, once ..."
        with (
            (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics,
            _stop_on_interrupt(self._console) as interrupted,
            _Progress(self._console, compiling) as progress,
        ):
            while not reason:
                state, summary = self._evolution.step(state)
                summary = jax.device_get(summary)
                generation += 1
                self._formulas += self._config.chosen_algorithm.num_offspring
                if summary.is_record:
                    record_generation = generation
                    if self._is_worth_drawing(summary):
                        self._save_record(state, summary, generation)
                if generation == 1:  # compilation is over, the clock starts
                    self._started, first = time.monotonic(), self._formulas
                metrics.write(self._metrics_line(generation, summary))
                metrics.flush()
                progress.show(self._status(generation, summary, first))
                reason = "interrupted" if interrupted.is_set() else self._limit(summary)
        if self._records[-1].generation < record_generation:
            self._save_record(state, summary, record_generation)
        self._save_population(state)
        return Outcome(self._folder, self._records, self._formulas, self._seconds(), reason)

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

    def _is_worth_drawing(self, summary: Summary) -> bool:
        """Drawing and writing a record can take longer than a generation."""
        if not self._records or self._limit(summary):
            return True
        gained = _log_odds(float(summary.best_score)) - _log_odds(self._records[-1].score)
        return gained >= self._config.record_step

    def _save_record(self, state: EvolutionState, summary: Summary, generation: int) -> None:
        config, scene = self._config, self._evolution.scene
        (formula,) = to_expressions(jax.tree.map(lambda field: field[None], state.best))
        look = {"z": scene.z, "crunch": scene.crunch, "smooth": scene.smooth}
        capacity = config.max_length
        judged = render_large(
            formula, scene.size, scene.size, **look, samples=scene.samples, max_length=capacity
        )
        judged = jnp.asarray(judged[None], jnp.float32) / 255
        noise = float(tv_noise(judged)[0])
        score, unseen = float(summary.best_score), self._unseen_score(judged)
        path = self._folder / "records" / f"{len(self._records) + 1:03d}-{100 * score:06.3f}.png"
        size = config.record_size
        picture = render_large(
            formula, size, size, **look, samples=config.record_samples, max_length=capacity
        )
        text = {
            "formula": formula,
            "score": f"{score:.6g}",
            "target": ", ".join(config.target),
            "net": config.net,
            "unseen_score": f"{unseen:.6g}",
            "noise": f"{noise:.4g}",
            "seed": config.seed,
            "generation": generation,
            "formulas": self._formulas,
            "judged_size": scene.size,
            "judged_samples": scene.samples,
            **look,
            "Software": f"evojax_art {version('evojax-art')}",
        }
        write_png(path, picture, text)
        with written_whole(self._folder / "best.png") as temporary:
            shutil.copyfile(path, temporary)
        write_text(self._folder / "best.txt", f"{formula}\n")
        self._records.append(Record(path, score, unseen, noise, generation, formula))
        self._thumbnails.append(thumbnail(picture, _SHEET_CELL))
        self._write_sheet()

    def _unseen_score(self, judged: Float[Array, "1 H W 3"]) -> float:
        if self._unseen is None:
            return math.nan
        probabilities = np.asarray(self._unseen.probabilities(judged)[0])
        return float(probabilities[list(self._evolution.targets)].sum())

    def _write_sheet(self) -> None:
        shown = spread(len(self._records), _SHEET_CELLS)
        records = [self._records[index] for index in shown]
        captions = [self._caption(record) for record in records]
        sheet = contact_sheet([self._thumbnails[n] for n in shown], captions, cell=_SHEET_CELL)
        with written_whole(self._folder / "records.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")

    def _caption(self, record: Record) -> str:
        score = f"{100 * record.score:.4g} %"
        if self._unseen is None:
            return f"{score}  gen {record.generation}"
        return f"{score}  unseen {100 * record.unseen:.3g} %"

    def _save_population(self, state: EvolutionState) -> None:
        order = np.argsort(-np.asarray(state.algorithm.fitness), kind="stable")
        held = order[np.asarray(state.algorithm.fitness)[order] > EMPTY]
        formulas = to_expressions(take(state.algorithm.population, held))
        write_text(self._folder / "population.txt", "".join(f"{item}\n" for item in formulas))

    def _metrics_line(self, generation: int, summary: Summary) -> str:
        row: dict[str, Any] = {"generation": generation, "formulas": self._formulas}
        row["seconds"] = round(self._seconds(), 3)
        row |= {name: np.asarray(value).item() for name, value in summary._asdict().items()}
        if self._records:
            row["best_noise"] = round(self._records[-1].noise, 5)
        return json.dumps(row) + "\n"

    def _status(self, generation: int, summary: Summary, first: int) -> str:
        seconds = self._seconds()
        parts = [
            f"generation {generation}",
            f"best {100 * summary.best_score:.4g} %",
            f"mean {100 * summary.mean_score:.3g} %",
        ]
        if self._records:
            last = self._records[-1]
            parts.append(f"noise {last.noise:.3f}")
            if self._unseen:
                parts.insert(2, f"unseen judge {100 * last.unseen:.3g} %")
        limit = "" if self._config.minutes else f"/{self._config.formulas}"
        parts.append(f"{self._formulas}{limit} formulas")
        if self._formulas > first:
            rate = (self._formulas - first) / seconds
            left = max(0.0, (self._config.formulas - self._formulas) / rate)
            if self._config.minutes:
                left = min(left, max(0.0, 60 * self._config.minutes - seconds))
            parts += [f"{rate:.0f}/s", f"{int(left) // 60}:{int(left) % 60:02d} left"]
        return " · ".join(parts)


def _log_odds(score: float) -> float:
    score = min(max(score, 1e-30), 1 - 1e-7)
    return math.log(score / (1 - score))


class _Progress:
    """One line that is kept up to date; without a terminal, a plain line now and then."""

    def __init__(self, console: Console, first: str):
        self._console = console
        self._live = Live(Text(first), console=console) if console.is_terminal else None
        self._printed = -_PLAIN_LINE_EVERY
        self._line = first

    def __enter__(self) -> "_Progress":
        if self._live:
            self._live.start()
        else:
            self._console.print(self._line, markup=False)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()
        elif exception == (None, None, None):
            self._console.print(self._line, markup=False, soft_wrap=True)

    def show(self, line: str) -> None:
        self._line = line
        if self._live:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif time.monotonic() - self._printed >= _PLAIN_LINE_EVERY:
            self._console.print(line, markup=False, soft_wrap=True)
            self._printed = time.monotonic()


class _Flag(Protocol):
    def is_set(self) -> bool: ...


@contextmanager
def _stop_on_interrupt(console: Console) -> Iterator[_Flag]:
    """Ctrl-C or SIGTERM sets the flag, so that the generation ends; a second one interrupts."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals are the main thread's
        return

    def stop(number: int, frame: object) -> None:
        del frame
        flag.set()
        signal.signal(number, signal.default_int_handler)
        console.print("stopping after this generation ...")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _read_seeds(config: RunConfig) -> Program | None:
    if config.seeds is None:
        return None
    expressions = read_formulas(config.seeds)
    for number, expression in enumerate(expressions, 1):
        if len(expression) > config.max_length:
            raise InputError(
                f"{config.seeds}: formula {number} has {len(expression)} nodes, more than "
                f"max_length = {config.max_length}; give --max-length {len(expression)} or more"
            )
    return encode(expressions, max_length=config.max_length)


def _make_folder(config: RunConfig) -> Path:
    name = re.sub(r"\W+", "-", " ".join(config.target)).strip("-")
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
