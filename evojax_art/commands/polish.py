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
from jaxtyping import Array, Key
from rich.console import Console

from evojax_art.bindings import Bound, bind_images
from evojax_art.commands.inputs import Given, output_paths, picture_size, read_all
from evojax_art.commands.start import read_start
from evojax_art.compilation import keep_compiled
from evojax_art.config import parse_flags
from evojax_art.errors import InputError
from evojax_art.judge import Judge
from evojax_art.large import render_large, to_bytes
from evojax_art.objective import ObjectiveConfig
from evojax_art.picture import write_png
from evojax_art.polish.formula import FormulaPolisher, PolishConfig, Polished
from evojax_art.polish.pixels import PixelPolisher, PixelsConfig
from evojax_art.progress import Flag, StatusLine, stop_on_interrupt
from evojax_art.scene import SceneConfig
from evojax_art.wish import WishConfig


@dataclass(frozen=True, kw_only=True)
class PolishCommand(WishConfig):
    """Move a formula's constants, or with --pixels the pixels of its picture, up the gradient.

    A formula's result is printed as text, never worse than the start, and drawn. A PNG of ours says
    what z, crunch and smoothing it wants; what it was bred for must be said again.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON; with
            --pixels also a photograph.
        out: the PNG, or a folder where there are several formulas; existing files are replaced.
        size: WIDTHxHEIGHT of the PNG, or one number; with --pixels of what is polished.
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
    image: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
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
        super().__post_init__()
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")


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
    jobs = read_all(command.inputs, flagged, "polish", lenient=command.lenient)
    paths = output_paths(command.out, len(jobs), "polish", "polished.png", "polished")
    results = _Session(command, size, console).all(jobs, paths)
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


class _Session:
    """Formulas one after the other; judges and what they compiled are kept by look."""

    def __init__(self, command: PolishCommand, size: tuple[int, int], console: Console):
        self._command, self._size, self._console = command, size, console
        self._net, self._goal = command.load()
        self._polishers: dict[tuple, FormulaPolisher] = {}

    def all(self, jobs: list[tuple[Given, Bound]], paths: list[Path]) -> list[Polished]:
        """Polishes and draws; fewer when somebody wants to stop."""
        results, several = [], len(jobs) > 1
        with stop_on_interrupt(self._console, "these steps") as interrupted:
            for number, ((given, bound), path) in enumerate(zip(jobs, paths, strict=True), 1):
                title = f"{number} of {len(jobs)}" if several else f"{len(given.expression)} nodes"
                key = jax.random.fold_in(jax.random.key(self._command.seed), number)
                try:
                    result = self._polished(title, given, bound, key, interrupted)
                except InputError as error:
                    if not several:
                        raise
                    self._console.print(f"{title}: left out: {error}", markup=False)
                    continue
                self._tell(title, result)
                self._draw(result, self._scene(given), bound, path)
                print(result.best.expression)
                results.append(result)
                if interrupted.is_set():
                    break
        if not results:
            raise InputError("polish: none of these formulas has a constant; --lift adds some")
        return results

    def _polished(
        self, title: str, given: Given, bound: Bound, key: Key[Array, ""], interrupted: Flag
    ) -> Polished:
        polisher = self._polisher(self._scene(given), bound)
        with StatusLine(self._console, f"{title}: compiling ...") as status:

            def progress(share: float, score: float) -> bool:
                status.show(f"{title}: {100 * share:.0f} %, {self._goal.text(score)}")
                return not interrupted.is_set()

            return polisher(given.expression, key, progress)

    def _scene(self, given: Given) -> SceneConfig:
        """How the formula is drawn and judged: as flags say, else as its picture was."""
        scene, default = self._command.scene, SceneConfig()
        look = asdict(given.look)
        unsaid = {name for name in look if getattr(scene, name) == getattr(default, name)}
        return replace(scene, **{name: look[name] for name in unsaid})

    def _polisher(self, scene: SceneConfig, bound: Bound) -> FormulaPolisher:
        known = (scene, bound.sources)
        if known not in self._polishers:
            command = self._command
            judge = Judge(self._net, self._goal, command.objective, scene, images=bound.pyramids)
            self._polishers[known] = FormulaPolisher(judge, command.polish, bound.names)
        return self._polishers[known]

    def _tell(self, title: str, result: Polished) -> None:
        start, best = result.start, result.best
        each = 1000 * result.seconds / max(1, result.steps)
        self._console.print(
            f"{title}: {self._goal.text(start.score)} -> {self._goal.text(best.score)} (value "
            f"{start.value:.3f} -> {best.value:.3f}), {result.num_constants} constants, compiling "
            f"{result.compile_seconds:.1f} s, {result.steps} steps, {each:.1f} ms each",
            markup=False,
            soft_wrap=True,
        )

    def _draw(self, result: Polished, scene: SceneConfig, bound: Bound, path: Path) -> None:
        width, height = self._size
        look = {"z": scene.z, "crunch": scene.crunch, "smooth": scene.smooth}
        formula = result.best.expression
        picture = render_large(formula, height, width, **look, samples=2, images=bound.pyramids)
        text = {
            "formula": formula,
            **bound.chunk(formula),
            "polished_from": result.start.expression,
            "score": f"{result.best.score:.6g}",
            **self._command.wish,
            "net": self._command.net,
            "judged_size": scene.fitted_to(self._net).size,
            "judged_samples": scene.samples,
            **look,
            "Software": f"evojax_art {version('evojax-art')}",
        }
        write_png(path, np.asarray(picture, np.uint8), text)


def _polish_pixels(command: PolishCommand, console: Console) -> None:
    """The picture of one formula, or a photograph."""
    if len(command.inputs) > 1:
        raise InputError("polish --pixels: give one formula or picture")
    (out,) = output_paths(command.out, 1, "polish", "polished.png", "")
    given = " ".join(command.inputs)
    start = read_start(given, command.size)
    net, goal = command.load()
    polisher = PixelPolisher(net, goal, command.pixel)
    with StatusLine(console, "compiling, once for each octave ...") as status:

        def progress(share: float, value: float) -> None:
            shown = "" if math.isnan(value) else f", value {value:.3f}"
            status.show(f"{100 * share:.0f} %{shown}")

        key = jax.random.key(command.seed)
        result = polisher(jnp.asarray(start, jnp.float32) / 255, key, progress)
    text = {
        "pixels_polished_from": given,
        "score": f"{result.score:.6g}",
        **command.wish,
        "net": command.net,
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
