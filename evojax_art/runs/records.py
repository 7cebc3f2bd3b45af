"""The new bests of a run: their pictures, one sheet of them all, and the last on its own."""

import math
import re
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from evojax_art.artwork.picture import write_png
from evojax_art.artwork.sheets import contact_sheet, spread, thumbnail
from evojax_art.language.bindings import Bound
from evojax_art.language.formula import Expression
from evojax_art.language.program import to_expressions
from evojax_art.nets.base import Classifier
from evojax_art.objective.goals import ClassGoal
from evojax_art.objective.tv import tv_noise
from evojax_art.render.large import render_picture
from evojax_art.render.look import Raster
from evojax_art.runs.config import RunConfig
from evojax_art.runtime.files import write_text, written_whole
from evojax_art.search.generation import Evolution, EvolutionState

_SHEET_CELLS = 24  # records on the contact sheet
_SHEET_CELL = 192  # pixels


@dataclass(frozen=True, kw_only=True)
class Record:
    """A new best.

    Attributes:
        path: of its picture.
        score: the goal's, for classes their probability.
        value: the same on the goal's own scale, for classes log-odds.
        unseen: probability of the same classes, by meaning, to a network that nothing was bred for;
            NaN where there is none.
        noise: the 2015 measure of its picture.
        generation: that found it.
        formula: what draws it.
    """

    path: Path
    score: float
    value: float
    unseen: float
    noise: float
    generation: int
    formula: Expression


class Records:
    """The new bests that were drawn, oldest first, and their files.

    Args:
        folder: the run's, with a folder `records` in it.
        config: the run's.
        evolution: whose bests they are.
        bound: pictures that its formulas read.
        unseen: a network that nothing is bred for; asked for those of its classes that mean what
            the goal's do, and not asked where none does.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        evolution: Evolution,
        bound: Bound,
        unseen: Classifier | None,
    ):
        self.drawn: list[Record] = []
        goal, self._unseen_targets = evolution.goal, ()
        if unseen is not None and isinstance(goal, ClassGoal):
            self._unseen_targets = goal.vocabulary.match(goal.targets, unseen.vocabulary).indices
        self.unseen = unseen if self._unseen_targets else None
        self._folder = folder
        self._config = config
        self._evolution = evolution
        self._bound = bound
        self._thumbnails: list[np.ndarray] = []

    def is_step(self, value: float) -> bool:
        """Whether a best of that value differs enough from the last one drawn."""
        return not self.drawn or abs(value - self.drawn[-1].value) >= self._config.record_step

    def draw(self, state: EvolutionState, generation: int, formulas: int) -> None:
        """Draws the state's best and writes all files anew.

        Args:
            state: whose best it is.
            generation: that found it.
            formulas: scored until then.
        """
        config, look, raster = self._config, self._evolution.look, self._evolution.raster
        best = jax.tree.map(lambda field: field[None], state.best)
        (formula,) = to_expressions(best, self._bound.names)
        metrics = jax.device_get(state.best_metrics)
        score, value = float(metrics.score), float(metrics.value)
        rest = {"max_length": config.max_length, "images": self._bound.pyramids}
        judged = render_picture(formula, look, raster, **rest)
        judged = jnp.asarray(judged[None], jnp.float32) / 255
        noise, unseen = float(tv_noise(judged)[0]), self._unseen_score(judged)
        size = config.record_size
        large = Raster(height=size, width=size, samples=config.record_samples)
        picture = render_picture(formula, look, large, **rest)
        text = {
            "formula": formula,
            **self._bound.chunk(formula),
            "score": f"{score:.6g}",
            **config.wish,
            "net": config.net,
            "unseen_score": f"{unseen:.6g}",
            "noise": f"{noise:.4g}",
            "seed": config.seed,
            "generation": generation,
            "formulas": formulas,
            "judged_size": raster.height,
            "judged_samples": raster.samples,
            **asdict(look),
            "Software": f"evojax_art {version('evojax-art')}",
        }
        named = re.sub(r"[^\w.+-]", "", self._evolution.goal.text(score))
        path = self._folder / "records" / f"{len(self.drawn) + 1:03d}-{named}.png"
        write_png(path, picture, text)
        with written_whole(self._folder / "best.png") as temporary:
            shutil.copyfile(path, temporary)
        write_text(self._folder / "best.txt", f"{formula}\n")
        self.drawn.append(
            Record(
                path=path,
                score=score,
                value=value,
                unseen=unseen,
                noise=noise,
                generation=generation,
                formula=formula,
            )
        )
        self._thumbnails.append(thumbnail(picture, _SHEET_CELL))
        self._write_sheet()

    def _unseen_score(self, judged: Float[Array, "1 H W 3"]) -> float:
        if self.unseen is None:
            return math.nan
        probabilities = np.asarray(self.unseen.probabilities(judged)[0])
        return float(probabilities[list(self._unseen_targets)].sum())

    def _write_sheet(self) -> None:
        shown = spread(len(self.drawn), _SHEET_CELLS)
        captions = [self._caption(self.drawn[index]) for index in shown]
        sheet = contact_sheet([self._thumbnails[n] for n in shown], captions, cell=_SHEET_CELL)
        with written_whole(self._folder / "records.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")

    def _caption(self, record: Record) -> str:
        score = self._evolution.goal.text(record.score)
        if self.unseen is None:
            return f"{score}  gen {record.generation}"
        return f"{score}  unseen {100 * record.unseen:.3g} %"
