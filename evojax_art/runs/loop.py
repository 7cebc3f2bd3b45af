"""The loop of a run: the device works, and now and then the host looks at what came of it."""

import json
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
from jaxtyping import Array, Int, Key
from rich.console import Console

from evojax_art.language.program import to_expressions
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.terms import Target
from evojax_art.runs.early import Grown
from evojax_art.runs.finish import finish
from evojax_art.runs.records import Record, Records
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.state import RunState
from evojax_art.runs.toml import config_text
from evojax_art.runtime.files import write_text
from evojax_art.runtime.progress import Flag, StatusLine, stop_on_interrupt
from evojax_art.search.generation import VISIT, Evolution, EvolutionState, Summary, Until
from evojax_art.search.protocol import best_first

_VISIT_SECONDS = 0.2  # that generations may pass without the host: nobody waits for Ctrl-C


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: where everything lies.
        target: what scores mean.
        records: the new bests that were drawn, the last the best of all; none where no formula was
            valid.
        formulas: scored.
        seconds: taken, without compilation.
        host_seconds: of those, the ones in which the device had nothing to do.
        reason: why it stopped.
    """

    folder: Path
    target: Target
    records: list[Record]
    formulas: int
    seconds: float
    host_seconds: float
    reason: str


class Loop:
    """Generations until a limit is reached, with all that is written of them.

    Args:
        config: of the run.
        evolution: what it does.
        records: its new bests.
        folder: of the run.
        images: names of the photographs that formulas read.
        console: for progress.
        judge: of what is wanted alone, as the best is finished by.
    """

    def __init__(
        self,
        config: RunConfig,
        evolution: Evolution,
        records: Records,
        folder: Path,
        images: tuple[str, ...],
        console: Console,
        judge: Evaluator,
    ):
        self._config = config
        self._evolution = evolution
        self._records = records
        self._folder = folder
        self._images = images
        self._console = console
        self._judge = judge
        self._clock = _Clock()
        self._enough = math.inf  # formulas, where the early part was interrupted

    def __call__(self, key: Key[Array, ""], grown: Grown) -> Outcome:
        """Runs, from formulas to start from or from nothing; consumes the key."""
        device = self._evolution.evaluator.plan.device_kind
        self._save_config()
        state = RunState(self._evolution.init(key, grown.seeds))
        self._enough = grown.enough
        reason = ""
        compiling = f"compiling for {device}, once ..."
        with (
            (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics,
            stop_on_interrupt(self._console, "these generations") as interrupted,
            StatusLine(self._console, compiling) as status,
        ):
            passed: list[_Numbered] = []
            while not reason:
                visit = self._hand_over(state)
                self._tell(state, passed, metrics, status)  # while the device works
                state, passed, reason = self._take_back(state, visit)
                reason = "interrupted" if interrupted.is_set() else reason
            self._tell(state, passed, metrics, status)
            state = self._draw_last(state)
            self._save_population(state.evolution)
            if self._config.finish.waves and state.drawn.count and not interrupted.is_set():
                state, reason = self._finish(state, reason, interrupted, status)
        return Outcome(
            folder=self._folder,
            target=self._evolution.target,
            records=self._records.drawn,
            formulas=state.formulas,
            seconds=state.seconds,
            host_seconds=state.host_seconds,
            reason=reason,
        )

    def _hand_over(self, state: RunState) -> "_Visit":
        """Lets generations pass; consumes what is on the device."""
        first = state.formulas == 0
        until = Until(
            generations=1 if first else self._generations(state),
            score=self._config.stop_score,
            drawn=state.drawn.value,
            step=self._config.record_step,
        )
        self._clock.device_starts()
        return _Visit(*self._evolution.advance(state.evolution, until))

    def _tell(
        self, state: RunState, passed: list["_Numbered"], metrics: TextIO, status: StatusLine
    ) -> None:
        """Writes down the generations that have passed, and says how the run stands."""
        if not passed:
            return
        metrics.writelines(_metrics_line(state, one, self._evolution) for one in passed)
        metrics.flush()
        status.show(self._status(state, passed[-1]))

    def _take_back(
        self, state: RunState, visit: "_Visit"
    ) -> tuple[RunState, list["_Numbered"], str]:
        """Waits until they have passed, and draws the best where it is worth it."""
        summaries, count = jax.device_get((visit.summaries, visit.count))
        self._clock.device_ends(int(count))
        if state.formulas == 0:  # compilation is over
            self._clock = _Clock()
        passed = [
            _Numbered(state.generation + 1 + n, Summary(*(field[n].item() for field in summaries)))
            for n in range(count)
        ]
        number, last = passed[-1]
        state = state._replace(
            evolution=visit.evolution,
            generation=number,
            formulas=self._evolution.scored(number),
            seconds=self._clock.seconds,
            host_seconds=self._clock.host_seconds,
        )
        reason = self._limit(state, last)
        apart = abs(last.best_value - state.drawn.value)
        if last.is_record and not apart < self._config.record_step:  # nothing is near to NaN
            drawn = self._records.draw(visit.evolution.best, state.formulas)
            state = state._replace(drawn=drawn)
        return state, passed, reason

    def _generations(self, state: RunState) -> int:
        """How many may pass: no more than are wanted, and than people like to wait for."""
        wanted, most = 1, min(self._enough, self._config.formulas)
        while (
            wanted < min(VISIT, _VISIT_SECONDS / self._clock.seconds_each)
            and self._evolution.scored(state.generation + wanted) < most
        ):
            wanted += 1
        return wanted

    def _limit(self, state: RunState, summary: Summary) -> str:
        config = self._config
        if summary.best_score >= config.stop_score:
            return f"score {config.stop_score} reached"
        if state.formulas >= self._enough:
            return "interrupted"
        if state.formulas >= config.formulas:
            return f"{state.formulas} formulas scored"
        if config.minutes and state.seconds >= 60 * config.minutes:
            return f"{config.minutes} minutes are over"
        return ""

    def _draw_last(self, state: RunState) -> RunState:
        """The best of all is always drawn, if one was valid."""
        best = state.evolution.best
        if not bool(best.evaluation.valid) or int(best.birth[0]) == state.drawn.generation:
            return state
        return state._replace(drawn=self._records.draw(best, state.formulas))

    def _finish(
        self, state: RunState, reason: str, interrupted: Flag, status: StatusLine
    ) -> tuple[RunState, str]:
        """The best under waves, unless it is good enough as it is; and why it ended."""
        config, text, bred = (
            self._config.finish,
            self._evolution.target.text,
            self._records.drawn[-1],
        )
        stop_score = self._config.stop_score
        if bred.score >= stop_score:
            return state, reason
        status.show(f"{text(bred.score)}, compiling what finishes it ...")

        def go_on(share: float, score: float) -> bool:
            status.show(f"finishing {text(bred.score)} -> {text(score)} · {100 * share:.0f} %")
            return score < stop_score and not interrupted.is_set()

        key = jax.random.fold_in(state.evolution.key, state.generation)
        made = finish(bred.formula, self._judge, config, self._images, key, go_on)
        state = state._replace(formulas=state.formulas + made.steps, seconds=self._clock.seconds)
        if made.best is made.start:
            return state, f"{reason}, finished without gain"
        drawn = self._records.draw_finished(made.best, state.evolution.best, state.formulas)
        reached = made.best.score >= stop_score
        because = f"score {stop_score} reached" if reached else reason
        gained = f"finished from {text(bred.score)} in {made.steps} steps"
        return state._replace(drawn=drawn), f"{because}, {gained}"

    def _save_config(self) -> None:
        """The settings, as they were resolved, and what the run depends on besides."""
        plan = self._evolution.evaluator.plan
        resolved = replace(self._config, batch=self._evolution.batch)
        described = (
            f"evojax_art {version('evojax-art')}, jax {jax.__version__}, {plan.device_kind}, "
            f"Python {platform.python_version()}\n"
            + "\n".join(f"plan: {name} = {value}" for name, value in asdict(plan).items())
        )
        write_text(self._folder / "config.toml", config_text(resolved, described))

    def _save_population(self, state: EvolutionState) -> None:
        survivors = self._evolution.algorithm.survivors(state.algorithm)
        formulas = to_expressions(best_first(survivors), self._images)
        write_text(self._folder / "population.txt", "".join(f"{item}\n" for item in formulas))

    def _status(self, state: RunState, last: "_Numbered") -> str:
        text, drawn, summary = self._evolution.target.text, state.drawn, last.summary
        parts = [f"generation {last.generation}"]
        if drawn.count:
            parts.append(f"best {text(float(summary.best_score))}")
            if drawn.unseen:
                unseen = ", ".join(f"{100 * score:.3g}" for score in drawn.unseen)
                parts.append(f"unseen {unseen} %")
            parts += [f"mean {text(float(summary.mean_score))}", f"noise {drawn.noise:.3f}"]
        else:
            parts.append("nothing valid yet")
        limit = "" if self._config.minutes else f"/{self._config.formulas}"
        parts.append(f"{state.formulas}{limit} formulas")
        timed = state.formulas - self._evolution.scored(1)
        if timed > 0:
            rate = timed / state.seconds
            left = max(0.0, (self._config.formulas - state.formulas) / rate)
            if self._config.minutes:
                left = min(left, max(0.0, 60 * self._config.minutes - state.seconds))
            parts += [f"{rate:.0f}/s", f"{int(left) // 60}:{int(left) % 60:02d} left"]
        return " · ".join(parts)


class _Numbered(NamedTuple):
    """A generation's number, from 1, and what is known of it."""

    generation: int
    summary: Summary


class _Visit(NamedTuple):
    """What `Evolution.advance` returns, not yet waited for."""

    evolution: EvolutionState
    summaries: Summary
    count: Int[Array, ""]


class _Clock:
    """How long a run has taken, and for how much of that the device waited for the host."""

    def __init__(self):
        self._started = self._device_ended = time.monotonic()
        self.host_seconds = 0.0
        self.seconds_each = math.inf  # of a generation, lately

    @property
    def seconds(self) -> float:
        """Since the first generation ended."""
        return time.monotonic() - self._started

    def device_starts(self) -> None:
        """The host has handed over."""
        self._device_started = time.monotonic()
        self.host_seconds += self._device_started - self._device_ended

    def device_ends(self, generations: int) -> None:
        """So many have passed."""
        self._device_ended = time.monotonic()
        self.seconds_each = (self._device_ended - self._device_started) / generations


def _metrics_line(state: RunState, last: _Numbered, evolution: Evolution) -> str:
    row: dict[str, Any] = {
        "generation": last.generation,
        "formulas": evolution.scored(last.generation),
        "seconds": round(state.seconds, 3),
    }
    row |= last.summary._asdict()
    row["best_noise"] = round(state.drawn.noise, 5)
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}  # JSON
    return json.dumps(row, allow_nan=False) + "\n"
