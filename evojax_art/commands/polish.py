"""`evojax-art polish`."""

import math
import statistics
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from evojax_art.bindings import Bound, bind_images
from evojax_art.commands.dream import read_start
from evojax_art.commands.inputs import Given, picture_size, read_given
from evojax_art.compilation import keep_compiled
from evojax_art.config import parse_flags
from evojax_art.errors import InputError
from evojax_art.formula import check_images
from evojax_art.goals import Goal, chosen_goal
from evojax_art.images import read_image
from evojax_art.judge import Judge
from evojax_art.large import render_large, to_bytes
from evojax_art.nets.base import Classifier
from evojax_art.nets.weights import DEFAULT, load_net
from evojax_art.objective import ObjectiveConfig
from evojax_art.picture import check_writable, write_png
from evojax_art.polish.formula import FormulaPolisher, PolishConfig, Polished
from evojax_art.polish.pixels import PixelPolisher, PixelsConfig
from evojax_art.progress import StatusLine, stop_on_interrupt
from evojax_art.scene import SceneConfig


@dataclass(frozen=True, kw_only=True)
class PolishCommand:
    """Move a formula's constants, or with --pixels the pixels of its picture, up the gradient.

    A formula's result is printed as text, never worse than the start, and drawn. A PNG of ours says
    what z, crunch and smoothing it wants; what it was bred for must be said again.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON; with
            --pixels also a photograph.
        out: the PNG, or a folder where there are several formulas; existing files are replaced.
        size: WIDTHxHEIGHT of the PNG, or one number; with --pixels of what is polished.
        target: what to climb: names of classes or superclasses, parts of names, or indices.
        layer: in place of a target, a layer of the network, NAME or NAME:CHANNEL.
        guide: with a layer, a picture whose activations there shall be matched.
        net: the network that judges, see `evojax-art nets`.
        weights: its weights file; by default the one of this package or in the cache.
        image: NAME=FILE, a photograph that formulas may read; NAME:whole=FILE fits it.
        seed: same seed, same result.
        lenient: read formulas as the 1995 program does.
        pixels: polish the picture's pixels, not the formula.
        polish: the settings for a formula.
        objective: how fitness is composed.
        scene: the pictures that are judged.
        pixel: the settings for pixels.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Path | None = None
    size: str = "448"
    target: tuple[str, ...] = ("crab",)
    layer: str = ""
    guide: Path | None = None
    net: str = DEFAULT
    weights: Path | None = None
    image: tuple[str, ...] = ()
    seed: int = 0
    lenient: bool = False
    pixels: bool = False
    polish: Annotated[PolishConfig, tyro.conf.arg(name="")] = field(default_factory=PolishConfig)
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(tv_weight=1.0))
    scene: SceneConfig = field(default_factory=SceneConfig)
    pixel: PixelsConfig = field(default_factory=PixelsConfig)

    def __post_init__(self):
        if not self.inputs:
            raise InputError("polish: give a formula or a file")
        if self.guide and not self.layer:
            raise InputError("guide: say with --layer which layer of the network shall match it")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")

    @property
    def wish(self) -> dict[str, str]:
        """What is climbed, as pictures carry it."""
        if not self.layer:
            return {"target": ", ".join(self.target), "net": self.net}
        guide = {"guide": str(self.guide)} if self.guide else {}
        return {"layer": self.layer, **guide, "net": self.net}


def polish(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(PolishCommand, flags, "evojax-art polish")
    keep_compiled()
    width, height = picture_size(command.size)
    out = command.out or Path("polished.png")
    console = Console(stderr=True, highlight=False)
    if command.pixels:
        if len(command.inputs) > 1:
            raise InputError("polish --pixels: give one formula or picture")
        _check_file(out)
        start = read_start(" ".join(command.inputs), command.size)
        net, goal = _wanted(command)
        _polish_pixels(command, start, net, goal, out, console)
        return
    bound = bind_images(command.image)
    jobs = [
        job
        for text in command.inputs
        for job in read_given(text, lenient=command.lenient, images=bound.names)
    ]
    several = len(jobs) > 1
    if several and command.out and command.out.suffix:
        raise InputError(
            f"polish: {len(jobs)} formulas cannot go into one file; give a folder with --out"
        )
    for job in jobs:
        check_images(job.expression, len(job.bound(bound).names))
    folder = command.out or Path("polished")
    if several:
        _make_folder(folder)
    else:
        _check_file(out)
    net, goal = _wanted(command)
    results = _Session(command, net, goal, bound, (width, height), console).all(
        jobs, folder if several else out
    )
    if several:
        gains = [result.value - result.start_value for result in results]
        steps = [1000 * result.seconds / max(1, result.steps) for result in results]
        console.print(
            f"{len(gains)} formulas: value {min(gains):+.3g} at least, "
            f"{statistics.median(gains):+.3g} median; {statistics.median(steps):.1f} ms a step of "
            f"{command.polish.restarts} pictures (median)"
        )
    print(folder if several else out)


def _wanted(command: PolishCommand) -> tuple[Classifier, Goal]:
    net = load_net(command.net, command.weights)
    guide = None if command.guide is None else read_image(command.guide) / np.float32(255)
    return net, chosen_goal(net, command.target, command.layer, guide)


class _Session:
    """Formulas one after the other; judges and what they compiled are kept by look."""

    def __init__(
        self,
        command: PolishCommand,
        net: Classifier,
        goal: Goal,
        bound: Bound,
        size: tuple[int, int],
        console: Console,
    ):
        self._command, self._net, self._goal, self._bound = command, net, goal, bound
        self._size, self._console = size, console
        self._polishers: dict[tuple, FormulaPolisher] = {}

    def all(self, jobs: list[Given], out: Path) -> list[Polished]:
        """Polishes and draws; fewer when somebody wants to stop."""
        command, several, results = self._command, len(jobs) > 1, []
        with stop_on_interrupt(self._console, "these steps") as interrupted:
            for number, job in enumerate(jobs, 1):
                bound = job.bound(self._bound)
                scene = self._scene(job)
                key = jax.random.fold_in(jax.random.key(command.seed), number)
                title = f"{number} of {len(jobs)}" if several else f"{len(job.expression)} nodes"
                with StatusLine(self._console, f"{title}: compiling ...") as status:

                    def progress(share: float, score: float, title=title, status=status) -> bool:
                        status.show(f"{title}: {100 * share:.0f} %, {self._goal.text(score)}")
                        return not interrupted.is_set()

                    try:
                        result = self._polisher(scene, bound)(job.expression, key, progress)
                    except InputError as error:
                        if not several:
                            raise
                        self._console.print(f"{title}: left out: {error}", markup=False)
                        continue
                self._tell(title, result)
                self._draw(job, result, scene, bound, out / f"{number:04d}.png" if several else out)
                print(result.expression)
                results.append(result)
                if interrupted.is_set():
                    break
        if not results:
            raise InputError("polish: none of these formulas has a constant; --lift adds some")
        return results

    def _scene(self, job: Given) -> SceneConfig:
        """How the formula is drawn and judged; its picture's look goes before the defaults."""
        scene = self._command.scene
        return replace(scene, **asdict(job.look)) if job.text else scene

    def _polisher(self, scene: SceneConfig, bound: Bound) -> FormulaPolisher:
        known = (scene, bound.sources)
        if known not in self._polishers:
            command = self._command
            judge = Judge(self._net, self._goal, command.objective, scene, images=bound.pyramids)
            self._polishers[known] = FormulaPolisher(judge, command.polish, bound.names)
        return self._polishers[known]

    def _tell(self, title: str, result: Polished) -> None:
        before, after = (self._goal.text(s) for s in (result.start_score, result.score))
        each = 1000 * result.seconds / max(1, result.steps)
        self._console.print(
            f"{title}: {before} -> {after} (value {result.start_value:.3f} -> {result.value:.3f}), "
            f"{result.num_constants} constants, compiling {result.compile_seconds:.1f} s, "
            f"{result.steps} steps, {each:.1f} ms each",
            markup=False,
            soft_wrap=True,
        )

    def _draw(
        self, job: Given, result: Polished, scene: SceneConfig, bound: Bound, path: Path
    ) -> None:
        width, height = self._size
        look = {"z": scene.z, "crunch": scene.crunch, "smooth": scene.smooth}
        picture = render_large(
            result.expression, height, width, **look, samples=2, images=bound.pyramids
        )
        fitted = scene.fitted_to(self._net)
        text = {
            "formula": result.expression,
            **bound.chunk(result.expression),
            "polished_from": job.expression,
            "score": f"{result.score:.6g}",
            **self._command.wish,
            "judged_size": fitted.size,
            "judged_samples": fitted.samples,
            **look,
            "Software": f"evojax_art {version('evojax-art')}",
        }
        write_png(path, np.asarray(picture, np.uint8), text)


def _polish_pixels(
    command: PolishCommand, start, net: Classifier, goal: Goal, out: Path, console: Console
) -> None:
    polisher = PixelPolisher(net, goal, command.pixel)
    with StatusLine(console, "compiling, once for each octave ...") as status:

        def progress(share: float, value: float) -> None:
            shown = "" if math.isnan(value) else f", value {value:.3f}"
            status.show(f"{100 * share:.0f} %{shown}")

        key = jax.random.key(command.seed)
        result = polisher(jnp.asarray(start, jnp.float32) / 255, key, progress)
    text = {
        "pixels_polished_from": " ".join(command.inputs),
        "score": f"{result.score:.6g}",
        **command.wish,
        "noise": f"{result.noise:.4g}",
        "seed": command.seed,
        "Software": f"evojax_art {version('evojax-art')}",
    }
    write_png(out, to_bytes(result.picture), text)
    console.print(
        f"{goal.text(result.start_score)} -> {goal.text(result.score)} (value "
        f"{result.start_value:.3f} -> {result.value:.3f}), noise {result.start_noise:.3f} -> "
        f"{result.noise:.3f}, compiling {result.compile_seconds:.1f} s, {result.seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    print(out)


def _check_file(path: Path) -> None:
    """Known before the work, not after it."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    check_writable(path)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write folder {folder}: {error.strerror}") from error
