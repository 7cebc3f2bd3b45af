"""The new bests of a run: their pictures, one sheet of them all, and the last on its own."""

import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from PIL import Image

from evojax_art.artwork.beside import keep
from evojax_art.artwork.picture import write_png
from evojax_art.artwork.provenance import Provenance
from evojax_art.artwork.sheets import contact_sheet, spread, thumbnail
from evojax_art.language.bindings import Bound
from evojax_art.language.formula import Expression, parse
from evojax_art.language.program import to_expressions
from evojax_art.nets.base import Classifier
from evojax_art.objective.target import provenance_of
from evojax_art.objective.terms import judged_by
from evojax_art.objective.tv import tv_noise
from evojax_art.refine.constants import Scored
from evojax_art.render.large import render_bands, render_picture
from evojax_art.render.look import Raster
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.state import Drawn
from evojax_art.runtime.files import write_text, written_whole
from evojax_art.search.generation import Evolution, Individual

_SHEET_CELLS = 24  # records on the contact sheet
_SHEET_CELL = 192  # pixels


@dataclass(frozen=True, kw_only=True)
class Record:
    """A new best.

    Attributes:
        path: of its picture.
        score: the target's, for classes their probability.
        value: the same on the target's own scale, for classes log-odds.
        judges: each judge's score, where there are several.
        unseen: the score by each network that nothing was bred for.
        noise: the 2015 measure of its picture.
        generation: that found it.
        formula: what draws it.
    """

    path: Path
    score: float
    value: float
    judges: dict[str, float]
    unseen: dict[str, float]
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
        unseen: networks that nothing is bred for, by name; asked for those of their classes that
            mean what the target's do, and not asked where none does.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        evolution: Evolution,
        bound: Bound,
        unseen: Mapping[str, Classifier],
    ):
        self.drawn: list[Record] = []
        self.unseen = unseen
        self._folder = folder
        self._config = config
        self._evolution = evolution
        self._bound = bound
        self._wanted = provenance_of(config.target)
        self._keep_photographs()
        self._thumbnails: list[np.ndarray] = []
        size, samples = config.record_size, config.record_samples
        self._large = Raster(height=size, width=size, samples=samples)
        plan = evolution.evaluator.plan
        longest = config.max_length + config.finish.nodes
        self._rest = {"max_length": longest, "images": bound.pyramids, "plan": plan}
        # What draws records is compiled beside the generation, which takes longer.
        beside = ThreadPoolExecutor(1)
        self._compiled = beside.submit(self._compile)
        beside.shutdown(wait=False)

    def _keep_photographs(self) -> None:
        """Copies of what the pictures will name, so that they can be drawn anew."""
        for source in self._bound.sources:
            keep(source.place, source.sha256, self._folder)
        if self._config.target.guide:
            keep(self._config.target.guide, self._wanted.guide_sha256, self._folder)

    def draw(self, best: Individual, formulas: int) -> Drawn:
        """Draws a new best and writes all files anew.

        Args:
            best: the individual.
            formulas: scored until now.
        """
        (formula,) = to_expressions(
            jax.tree.map(lambda field: field[None], best.program), self._bound.names
        )
        best = jax.device_get(best)
        metrics = {name: float(value) for name, value in best.evaluation.metrics.items()}
        said = replace(
            self._wanted,
            generation=int(best.birth[0]),
            formulas=formulas,
            id=_name(best.birth),
            parents=tuple(_name(birth) for birth in best.parents if birth[0] > 0),
        )
        return self._draw(formula, metrics, said)

    def draw_finished(self, finished: Scored, bred: Individual, formulas: int) -> Drawn:
        """Draws what the gradient made of the last best, likewise.

        Args:
            finished: the formula.
            bred: what it was made of.
            formulas: scored until now.
        """
        bred = jax.device_get(bred)
        said = replace(
            self._wanted,
            generation=int(bred.birth[0]),
            formulas=formulas,
            parents=(_name(bred.birth),),
            polished_from=str(self.drawn[-1].formula),
        )
        return self._draw(finished.expression, finished.metrics, said)

    def _draw(self, formula: Expression, metrics: Mapping[str, float], said: Provenance) -> Drawn:
        config, raster = self._config, self._evolution.raster
        score, value = metrics["score"], metrics["value"]
        judges = {
            name: metrics[judged_by(name)]
            for name in config.target.judges
            if judged_by(name) in metrics
        }
        self._compiled.result()
        noise, unseen = self._judge(formula)
        picture = render_picture(formula, self._evolution.look, self._large, **self._rest)
        provenance = replace(
            said,
            formula=str(formula),
            photographs=self._bound.read_by(formula),
            look=self._evolution.look,
            raster=self._large,
            score=score,
            value=value,
            judges=judges,
            unseen=unseen,
            noise=noise,
            judged_size=raster.height,
            judged_samples=raster.samples,
            seed=config.seed,
        )
        named = re.sub(r"[^\w.+-]", "", self._evolution.target.text(score))
        path = self._folder / "records" / f"{len(self.drawn) + 1:03d}-{named}.png"
        write_png(path, picture, provenance.to_text())
        with written_whole(self._folder / "best.png") as temporary:
            shutil.copyfile(path, temporary)
        write_text(self._folder / "best.txt", f"{formula}\n")
        generation = said.generation or 0
        self.drawn.append(
            Record(
                path=path,
                score=score,
                value=value,
                judges=judges,
                unseen=unseen,
                noise=noise,
                generation=generation,
                formula=formula,
            )
        )
        self._thumbnails.append(thumbnail(picture, _SHEET_CELL))
        self._write_sheet()
        return Drawn(len(self.drawn), generation, value, noise, tuple(unseen.values()))

    def _compile(self) -> None:
        """Does with some formula what is done with a record, of its picture the first rows."""
        formula = parse("x_iy")
        self._judge(formula)
        next(render_bands(formula, self._evolution.look, self._large, **self._rest))

    def _judge(self, formula: Expression) -> tuple[float, dict[str, float]]:
        """Noise of the picture that is judged, and the unseen networks' scores of it."""
        look, raster = self._evolution.look, self._evolution.raster
        judged = render_picture(formula, look, raster, **self._rest)
        judged = jnp.asarray(judged[None], jnp.float32) / 255
        target = self._evolution.target
        opinions = {name: target.opinion(net, judged) for name, net in self.unseen.items()}
        unseen = {name: float(score[0]) for name, score in opinions.items() if score is not None}
        return float(tv_noise(judged)[0]), unseen

    def _write_sheet(self) -> None:
        shown = spread(len(self.drawn), _SHEET_CELLS)
        captions = [self._caption(self.drawn[index]) for index in shown]
        sheet = contact_sheet([self._thumbnails[n] for n in shown], captions, cell=_SHEET_CELL)
        with written_whole(self._folder / "records.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")

    def _caption(self, record: Record) -> str:
        score = self._evolution.target.text(record.score)
        if not record.unseen:
            return f"{score}  gen {record.generation}"
        unseen = " ".join(f"{100 * score:.3g}" for score in record.unseen.values())
        return f"{score}  unseen {unseen} %"


def _name(birth: Int[Array | np.ndarray, "2"]) -> str:
    """An individual's name in its run: its generation and its number in that."""
    return f"{birth[0]}.{birth[1]}"
