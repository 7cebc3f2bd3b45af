"""A run of illumination: the best formula for every class, in a folder (see `repertoire`)."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from PIL import Image
from rich.console import Console

from evojax_art.artwork.plotting import has_matplotlib
from evojax_art.artwork.sheets import contact_sheet
from evojax_art.language.formula import parse
from evojax_art.nets.base import Network
from evojax_art.nets.registry import DEFAULT
from evojax_art.nets.weights import load_net
from evojax_art.objective.niches import EveryClass, niches_of
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.objective.target import TargetConfig, load_judges
from evojax_art.objective.views import ViewsConfig
from evojax_art.render.large import render_picture
from evojax_art.render.look import Raster, RasterConfig
from evojax_art.runs.curves import write_curves
from evojax_art.runs.early import EarlyConfig, Grown, elites_of, is_of_the_run
from evojax_art.runs.folder import make_folder
from evojax_art.runs.given import read_seeds, unseen_names
from evojax_art.runs.jury import Jury
from evojax_art.runs.repertoire import Book
from evojax_art.runs.toml import config_text
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import write_text, written_whole
from evojax_art.runtime.plan import Plan, make_plan
from evojax_art.runtime.progress import StatusLine, stop_on_interrupt
from evojax_art.runtime.tables import REPEATABLE, UNSAVED
from evojax_art.search.illumination import (
    GradientConfig,
    Illumination,
    IlluminationState,
    Measures,
    Passed,
)
from evojax_art.search.map_elites import MapElites

SEEN = Raster(height=224, width=224, samples=3)  # what networks that had no say are shown
_SHEET_PICTURES, _SHEET_CELL = 60, 160
_ALGORITHM = MapElites(surplus=0.5)
_OBJECTIVE = ObjectiveConfig(contrast_gate=0.1)  # what is almost one colour nobody recognises


@dataclass(frozen=True, kw_only=True)
class IlluminateConfig:
    """One illumination.

    Attributes:
        classes: the niches: names of classes or superclasses, parts of names, or indices; by
            default all that the networks have.
        net: the network that judges, see `evojax-art nets`; or several, whose classes are matched
            by meaning.
        weights: a weights file, NAME=FILE for one of several networks.
        join: "mean" of the logarithms of the networks' opinions, or the "least" of them.
        net_weight: a weight for each network's opinion in the mean.
        judged_size: height and width in pixels at which networks look, one for all or one for
            each; 0: its own. ImageNet networks are quicker, and less sure of themselves, where it
            is small; and what several are sure of at different sizes is less of the pixels' making.
        unseen: networks that have no say, whose opinion of the elites is written down; "none" for
            none. By default those that suit the judges, and whose weights are there.
        dtype: of the network's arithmetic.
        seed: same seed, same run (on the same device).
        formulas: how many to score before stopping.
        minutes: stop after this many minutes; 0 for no limit.
        max_length: longest formula, in nodes.
        seeds: formulas to start from, one a line; by default random ones.
        out: folder for the results, new or empty; by default runs/illuminate-SEED.
        look_every: minutes between two times that files are brought up to date, and unseen
            networks asked; 0: only at the end.
        gallery: pictures on a page, gallery.html, which the command makes of a run when it has
            ended: those that networks agree on most; 0: no page.
        batch: formulas rendered and judged at a time; 0 chooses by device.
        early: a part before the run on small pictures, whose elites are its seeds.
        raster: the pictures that are judged; their size is by default the largest `judged_size`.
        views: that they are judged in besides.
        objective: how fitness is composed.
        map_elites: settings of the algorithm.
        gradient: whether some children climb towards their own niche.
    """

    classes: tuple[str, ...] = ()
    net: tuple[str, ...] = (DEFAULT,)
    weights: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    join: Literal["mean", "least"] = "mean"
    net_weight: tuple[float, ...] = ()
    judged_size: tuple[int, ...] = (0,)
    unseen: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    formulas: int = 50_000
    minutes: float = 0.0
    max_length: int = 64
    seeds: Path | None = None
    out: Path | None = field(default=None, metadata=UNSAVED)
    look_every: float = 5.0
    gallery: int = 0
    batch: int = 0
    early: EarlyConfig = field(default_factory=EarlyConfig)
    raster: RasterConfig = field(default_factory=RasterConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    objective: ObjectiveConfig = _OBJECTIVE
    map_elites: MapElites = _ALGORITHM
    gradient: GradientConfig = field(default_factory=GradientConfig)

    def __post_init__(self):
        self.judges.check(self.unseen)
        if self.formulas < 1:
            raise InputError(f"formulas must be 1 or more, got {self.formulas}")
        if self.max_length < 3:
            raise InputError(f"max_length must be 3 or more, got {self.max_length}")
        for name in ("minutes", "batch", "gallery", "look_every"):
            if not getattr(self, name) >= 0:  # nor NaN
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")
        if self.objective.scale != "log_odds" or self.objective.class_weight != 1:
            raise InputError(
                "illuminate compares log-odds as they are: leave out objective.scale and "
                "objective.class_weight"
            )

    @property
    def judges(self) -> TargetConfig:
        """The networks, and how their opinions are joined."""
        return TargetConfig(
            net=self.net,
            weights=self.weights,
            join=self.join,
            net_weight=self.net_weight,
            judged_size=self.judged_size,
        )


@dataclass(frozen=True, kw_only=True)
class Illuminated:
    """What a run came to.

    Attributes:
        folder: where everything lies.
        measures: of the repertoire.
        agreed: share of the elites whose class is among the first 1 and 5 of each network that
            had no say.
        formulas: scored.
        seconds: taken, without compilation.
        reason: why it stopped.
    """

    folder: Path
    measures: Measures
    agreed: dict[str, tuple[float, float]]
    formulas: int
    seconds: float
    reason: str


def illuminate(config: IlluminateConfig, console: Console | None = None) -> Illuminated:
    """Illuminates as configured; returns when a limit is reached or on Ctrl-C.

    Args:
        config: what to do.
        console: for progress; None is standard error.

    Raises:
        InputError: anything in the configuration that cannot be used; nothing is written then.
    """
    console = console or Console(stderr=True, highlight=False)
    plan = make_plan(network_dtype=jnp.dtype(config.dtype))
    files = config.judges.weights_files(config.unseen)
    nets = load_judges(config.judges, plan, config.unseen)
    unseen: dict[str, Network] = {
        name: load_net(name, files.get(name), plan=plan)
        for name in unseen_names(config.net, config.unseen)
    }
    run, niches = _illumination(config, nets, plan)
    early = _early(config, run, nets, plan)
    seeds = read_seeds(config.seeds, config.max_length) if config.seeds else None
    folder = make_folder(config.out, f"illuminate-{config.seed}")
    look, raster = run.evaluator.look, run.evaluator.raster
    book = Book(
        folder=folder,
        niches=niches,
        judges=Jury(nets, niches, look, raster, plan),
        unseen=Jury(unseen, niches, look, SEEN, plan),
    )
    described = f"evojax_art {version('evojax-art')}, jax {jax.__version__}, {plan.device_kind}"
    write_text(folder / "config.toml", config_text(replace(config, batch=run.batch), described))
    console.print(niches.describe()[0])
    key = jax.random.key(config.seed)
    grown = Grown(seeds, is_interrupted=False)
    if early:
        early_key, key = jax.random.split(key)
        grown = elites_of(early, config.early, early_key, seeds, console)
    return _Loop(config, run, book, console)(key, grown)


def _illumination(
    config: IlluminateConfig, nets: Mapping[str, Network], plan: Plan
) -> tuple[Illumination, EveryClass]:
    """What will run, and its niches."""
    target, niches = niches_of(nets, config.judges, config.classes, config.views)
    illumination = Illumination(
        replace(config.map_elites, niches=len(niches.groups)),
        nets,
        target,
        build_objective(config.objective, target, niches=target),
        config.raster,
        max_length=config.max_length,
        batch=config.batch or None,
        views=config.views,
        gradient=config.gradient,
        plan=plan,
    )
    return illumination, niches


def _early(
    config: IlluminateConfig, proper: Illumination, nets: Mapping[str, Network], plan: Plan
) -> list[Illumination]:
    """What runs in the early part, size by size: breeding alone, which gets further at first."""
    found, breeds_alone = [], not config.gradient.every
    for raster in config.early.rasters(config.raster):
        same = is_of_the_run(raster, proper.evaluator.raster, nets.values(), config.views)
        if same and breeds_alone:
            found.append(proper)
            continue
        views = replace(config.views, sizes=())  # small pictures are there to be quick
        # A batch that was asked for fits the run proper.
        small = replace(
            config,
            judged_size=(raster.size,),
            raster=raster,
            views=views,
            batch=0,
            gradient=GradientConfig(),
        )
        found.append(_illumination(small, load_judges(small.judges, plan, config.unseen), plan)[0])
    return found


class _Loop:
    """Generations until a limit is reached; while the device works, the host writes the last."""

    def __init__(self, config: IlluminateConfig, run: Illumination, book: Book, console: Console):
        self._config, self._run, self._book, self._console = config, run, book, console
        self._agreed: dict[str, dict[str, float]] | None = None  # since the last line of metrics
        self._agreed_text = ""
        self._enough = math.inf  # formulas, where the early part was interrupted

    def __call__(self, key: Key[Array, ""], grown: Grown) -> Illuminated:
        config, run, book = self._config, self._run, self._book
        state = run.init(key, grown.seeds)
        self._enough = grown.enough
        device = run.evaluator.plan.device_kind
        number = 1
        with (
            (book.folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics,
            (book.folder / "lineage.jsonl").open("a", encoding="utf-8") as lineage,
            stop_on_interrupt(self._console, "this generation") as interrupted,
            StatusLine(self._console, f"compiling for {device}, once ...") as status,
        ):
            self._started = time.monotonic()
            state, last = jax.block_until_ready(run.step(state, number))
            self._started = looked = time.monotonic()  # compilation is over
            while not (reason := "interrupted" if interrupted.is_set() else self._limit(number)):
                state, passed = run.step(state, number + 1)
                self._tell(number, last, metrics, lineage, status)
                number, last = number + 1, jax.block_until_ready(passed)
                if config.look_every and time.monotonic() - looked > 60 * config.look_every:
                    self._look(state)
                    looked = time.monotonic()
            seconds = time.monotonic() - self._started
            status.show("asking every network about every elite ...")
            self._look(state)
            self._tell(number, last, metrics, lineage, status, seconds)
        self._write_sheet()
        if has_matplotlib():
            write_curves(book.folder, list(book.elites.values()))
        first, five = book.agreed(1), book.agreed(5)
        return Illuminated(
            folder=book.folder,
            measures=jax.device_get(last.measures),
            agreed={name: (first[name], five[name]) for name in first},
            formulas=run.scored(number),
            seconds=seconds,
            reason=reason,
        )

    def _limit(self, number: int) -> str:
        formulas = self._run.scored(number)
        if formulas >= self._enough:
            return "interrupted"
        if formulas >= self._config.formulas:
            return f"{formulas} formulas scored"
        minutes = self._config.minutes
        if minutes and time.monotonic() - self._started >= 60 * minutes:
            return f"{minutes} minutes are over"
        return ""

    def _tell(
        self,
        number: int,
        passed: Passed,
        metrics: Any,
        lineage: Any,
        status: StatusLine,
        seconds: float | None = None,
    ) -> None:
        """Writes down a generation that has passed, and says how the run stands."""
        found = jax.device_get(passed.measures)
        formulas = self._run.scored(number)
        seconds = time.monotonic() - self._started if seconds is None else seconds
        row: dict[str, Any] = {
            "generation": number,
            "formulas": formulas,
            "seconds": round(seconds, 3),
        }
        row |= {name: float(value) for name, value in found._asdict().items()}
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        row["unseen"], self._agreed = self._agreed, None
        metrics.write(json.dumps(row, allow_nan=False) + "\n")
        metrics.flush()
        self._book.keep_lineage(number, passed, lineage)
        lineage.flush()
        rate = formulas / seconds if seconds > 0 and number > 1 else 0
        status.show(
            f"generation {number} · {int(found.niches)} niches · median "
            f"{100 * float(found.median):.3g} % · {int(found.above_half)} above 50 %, "
            f"{int(found.above_99)} above 99 % · {int(found.takeovers)} takeovers"
            f"{self._agreed_text} · {formulas} formulas · {rate:.0f}/s"
        )

    def _look(self, state: IlluminationState) -> None:
        self._book.look(state.repertoire)
        first, five = self._book.agreed(1), self._book.agreed(5)
        self._agreed = {
            name: {"top1": first[name], "top5": five[name]}
            for name in first
            if math.isfinite(first[name])
        }
        self._agreed_text = "".join(
            f" · {name} {100 * first[name]:.1f} % first, {100 * five[name]:.1f} % among 5"
            for name in first
        )

    def _write_sheet(self) -> None:
        best = self._book.best(_SHEET_PICTURES)
        if not best:
            return
        raster = Raster(height=_SHEET_CELL, width=_SHEET_CELL, samples=3)
        look = self._run.evaluator.look
        pictures = [
            render_picture(parse(elite.formula), look, raster, max_length=self._config.max_length)
            for elite in best
        ]
        captions = [elite.caption for elite in best]
        sheet = contact_sheet(pictures, captions, cell=_SHEET_CELL)
        with written_whole(self._book.folder / "elites.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
