"""`evojax-art polish`."""

import math
import statistics
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from rich.console import Console

from evojax_art.artwork.picture import write_png
from evojax_art.artwork.provenance import Provenance, read_provenance
from evojax_art.cli.flags import parse_flags
from evojax_art.cli.inputs import Given, output_paths, picture_size, read_all
from evojax_art.cli.outputs import print_formula
from evojax_art.cli.start import read_start
from evojax_art.language.bindings import Bound, bind_images
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.target import (
    UNSAID,
    TargetConfig,
    load_target,
    provenance_of,
    recall_target,
)
from evojax_art.objective.views import ViewsConfig
from evojax_art.refine.constants import FormulaPolisher, PolishConfig, Polished
from evojax_art.refine.pixels import PixelPolisher, PixelsConfig
from evojax_art.render.large import render_picture, to_bytes
from evojax_art.render.look import Raster, RasterConfig
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.progress import Flag, StatusLine, stop_on_interrupt
from evojax_art.runtime.tables import INLINE, POSITIONAL, REPEATABLE, formerly


@dataclass(frozen=True, kw_only=True)
class PolishCommand:
    """Move a formula's constants, or with --pixels the pixels of its picture, up the gradient.

    A formula's result is printed as text, never worse than the start, and drawn. A PNG of ours says
    how it wants to be drawn, and what it was bred for (else it is a crab, for this package's
    network); flags override it.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON; with
            --pixels also a photograph.
        target: what to see, and which network says so; by default what the PNG was bred for.
        out: the PNG, or a folder where there are several formulas; existing files are replaced.
        size: WIDTHxHEIGHT of the PNG, or one number; with --pixels of what is polished.
        image: NAME=FILE, a photograph that formulas may read; NAME:whole=FILE fits it.
        seed: same seed, same result.
        lenient: read formulas as the 1995 program does.
        pixels: polish the picture's pixels, not the formula.
        polish: the settings for a formula.
        objective: how fitness is composed.
        raster: the pictures that are judged.
        views: that they are judged in besides.
        pixel: the settings for pixels.
    """

    inputs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    target: TargetConfig = field(default=UNSAID, metadata=INLINE)
    out: Path | None = None
    size: str = "448"
    image: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    seed: int = 0
    lenient: bool = False
    pixels: bool = False
    polish: PolishConfig = field(default_factory=PolishConfig, metadata=INLINE)
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(tv_weight=1.0))
    raster: RasterConfig = field(default_factory=RasterConfig, metadata=formerly("scene"))
    views: ViewsConfig = field(default_factory=ViewsConfig)
    pixel: PixelsConfig = field(default_factory=PixelsConfig)

    def __post_init__(self):
        if not self.inputs:
            raise InputError("polish: give a formula or a file")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")
        if not any(Path(given).suffix.lower() == ".png" for given in self.inputs):
            # Refuses what makes no sense, whatever the formulas.
            recall_target(self.target, Provenance(), Path())


def polish(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(PolishCommand, flags, "evojax-art polish")
    keep_compiled()
    size = picture_size(command.size)
    console = Console(stderr=True, highlight=False)
    if command.pixels:
        _polish_pixels(command, console)
        return
    flagged = bind_images(command.image)
    session = _Session(command, size, console)
    given = read_all(command.inputs, flagged, "polish", lenient=command.lenient)
    jobs = [session.job(one, bound) for one, bound in given]
    paths = output_paths(command.out, len(jobs), "polish", "polished.png", "polished")
    results = session.all(jobs, paths)
    if len(jobs) > 1:
        gains = [result.best.value - result.start.value for result in results]
        steps = [1000 * result.seconds / max(1, result.steps) for result in results]
        console.print(
            f"{len(gains)} formulas: value {min(gains):+.3g} at least, "
            f"{statistics.median(gains):+.3g} median; {statistics.median(steps):.1f} ms a step of "
            f"{command.polish.restarts} pictures (median)",
            soft_wrap=True,
        )
    print(paths[0].parent if len(jobs) > 1 else paths[0])


class _Job(NamedTuple):
    """A formula to polish.

    Attributes:
        given: the formula.
        bound: pictures that it reads.
        wanted: what is wanted of it.
        said: what pictures say of that.
        raster: how it is drawn and judged.
    """

    given: Given
    bound: Bound
    wanted: TargetConfig
    said: Provenance
    raster: RasterConfig


class _Session:
    """Formulas one after the other; what they share is loaded and compiled once."""

    def __init__(self, command: PolishCommand, size: tuple[int, int], console: Console):
        self._command, self._size, self._console = command, size, console
        self._loaded = cache(load_target)
        self._polishers: dict[tuple, FormulaPolisher] = {}

    def job(self, given: Given, bound: Bound) -> _Job:
        """As flags say, else as its picture does; that network and target are there."""
        raster, default = self._command.raster, RasterConfig()
        look = asdict(given.look)
        unsaid = {name for name in look if getattr(raster, name) == getattr(default, name)}
        raster = replace(raster, **{name: look[name] for name in unsaid})
        wanted = recall_target(self._command.target, given.provenance, given.folder)
        self._loaded(wanted, self._command.views)
        return _Job(given, bound, wanted, provenance_of(wanted), raster)

    def all(self, jobs: list[_Job], paths: list[Path]) -> list[Polished]:
        """Polishes and draws; fewer when somebody wants to stop."""
        results, several = [], len(jobs) > 1
        with stop_on_interrupt(self._console, "these steps") as interrupted:
            for number, (job, path) in enumerate(zip(jobs, paths, strict=True), 1):
                size = f"{len(job.given.expression)} nodes"
                title = f"{number} of {len(jobs)}" if several else size
                key = jax.random.fold_in(jax.random.key(self._command.seed), number)
                try:
                    result = self._polished(title, job, key, interrupted)
                except InputError as error:
                    if not several:
                        raise
                    self._console.print(f"{title}: left out: {error}", markup=False)
                    continue
                self._tell(title, job, result)
                self._draw(job, result, path)
                print_formula(result.best.expression)
                results.append(result)
                if interrupted.is_set():
                    break
        if not results:
            raise InputError("polish: none of these formulas has a constant; --lift adds some")
        return results

    def _polished(self, title: str, job: _Job, key: Key[Array, ""], interrupted: Flag) -> Polished:
        _, target = self._loaded(job.wanted, self._command.views)
        polisher = self._polisher(job)
        with StatusLine(self._console, f"{title}: compiling ...") as status:

            def progress(share: float, score: float) -> bool:
                status.show(
                    f"{title}: {100 * share:.0f} %, {target.text(score)} {job.wanted.words}"
                )
                return not interrupted.is_set()

            return polisher(job.given.expression, key, progress)

    def _polisher(self, job: _Job) -> FormulaPolisher:
        known = (job.wanted, job.raster, job.bound.sources)
        if known not in self._polishers:
            command = self._command
            nets, target = self._loaded(job.wanted, command.views)
            evaluator = Evaluator(
                nets,
                target,
                command.objective,
                job.raster,
                photographs=job.bound.pyramids,
                views=command.views,
            )
            self._polishers[known] = FormulaPolisher(evaluator, command.polish, job.bound.names)
        return self._polishers[known]

    def _tell(self, title: str, job: _Job, result: Polished) -> None:
        start, best = result.start, result.best
        _, target = self._loaded(job.wanted, self._command.views)
        each = 1000 * result.seconds / max(1, result.steps)
        self._console.print(
            f"{title}: {target.text(start.score)} -> {target.text(best.score)} {job.wanted.words} "
            f"(value {start.value:.3f} -> {best.value:.3f}), {result.num_constants} constants, "
            f"compiling {result.compile_seconds:.1f} s, {result.steps} steps, {each:.1f} ms each",
            markup=False,
            soft_wrap=True,
        )

    def _draw(self, job: _Job, result: Polished, path: Path) -> None:
        width, height = self._size
        bound, formula, look = job.bound, result.best.expression, job.raster.look
        raster = Raster(height=height, width=width, samples=2)
        picture = render_picture(formula, look, raster, images=bound.pyramids)
        nets, _ = self._loaded(job.wanted, self._command.views)
        judged = job.raster.raster(max(net.size for net in nets.values()))
        provenance = replace(
            job.said,
            formula=str(formula),
            photographs=bound.read_by(formula),
            parents=(job.given.provenance.id,) if job.given.provenance.id else (),
            polished_from=str(result.start.expression),
            score=result.best.score,
            value=result.best.value,
            judged_size=judged.height,
            judged_samples=judged.samples,
            seed=self._command.seed,
            look=look,
            raster=raster,
        )
        write_png(path, np.asarray(picture, np.uint8), provenance.to_text())


def _polish_pixels(command: PolishCommand, console: Console) -> None:
    """The picture of one formula, or a photograph."""
    if len(command.inputs) > 1:
        raise InputError("polish --pixels: give one formula or picture")
    (out,) = output_paths(command.out, 1, "polish", "polished.png", "")
    given = " ".join(command.inputs)
    start = read_start(given, command.size)
    is_png = Path(given).suffix.lower() == ".png"
    came = read_provenance(Path(given)) if is_png else Provenance()
    wanted = recall_target(command.target, came, Path(given).parent)
    nets, target = load_target(wanted, command.views)
    polisher = PixelPolisher(nets, target, command.pixel, views=command.views)
    with StatusLine(console, "compiling, once for each octave ...") as status:

        def progress(share: float, value: float) -> None:
            shown = "" if math.isnan(value) else f", value {value:.3f}"
            status.show(f"{100 * share:.0f} %{shown}")

        key = jax.random.key(command.seed)
        result = polisher(jnp.asarray(start, jnp.float32) / 255, key, progress)
    provenance = replace(
        provenance_of(wanted),
        pixels_polished_from=given,
        score=result.score,
        value=result.value,
        noise=result.noise,
        seed=command.seed,
    )
    write_png(out, to_bytes(result.picture), provenance.to_text())
    console.print(
        f"{target.text(result.start_score)} -> {target.text(result.score)} {wanted.words} (value "
        f"{result.start_value:.3f} -> {result.value:.3f}), noise {result.start_noise:.3f} -> "
        f"{result.noise:.3f}, compiling {result.compile_seconds:.1f} s, {result.seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    print(out)
