"""The folder of an illumination.

config.toml      the configuration, as `illuminate --config` takes it
metrics.jsonl    a line per generation: how the repertoire stands, formulas, seconds; `unseen` says,
                 where they were asked, of how many of the elites networks that had no say have the
                 class first (`top1`) and among the first five (`top5`), else null
elites.jsonl     a line per elite, in the order of classes; see below
lineage.jsonl    a line for every formula that ever held a niche; see below
curves.png       how sure of every class, and how that came about; where matplotlib is installed
elites.png       the elites that networks agree on most, side by side
elites.txt       the formulas of `elites.jsonl`, as `--seeds` takes them

A line of `elites.jsonl` has `class`, its index in the first network; `name`; `kind`, a number where
a class has several elites, else 0; `formula`; `confidence`, the joint probability by which it won;
`scores`, each judge's probability at the size that was judged; `unseen`, for each network that had
no say its `probability` and the `rank` of the class, from 0, of a picture of 224x224 pixels, 3x3
samples each; `length` in nodes; `id`; and `generation`. What is not known is null.

A line of `lineage.jsonl` has `id`, GENERATION.NUMBER; `parents`, ids of host and donor; `of`, the
classes whose elites these were then; `won`, the classes that it took; `formula`. All numbers are
decimal; further keys may come.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from evojax_art.language.formula import Expression, parse
from evojax_art.language.program import Program, take, to_expressions
from evojax_art.objective.niches import EveryClass
from evojax_art.runs.jury import Jury, Opinion
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import read_json_lines, write_text
from evojax_art.search.illumination import Passed
from evojax_art.search.map_elites import Repertoire
from evojax_art.search.protocol import NOBODY


@dataclass(frozen=True, kw_only=True)
class Elite:
    """Who holds a place, as a line of `elites.jsonl` says it."""

    class_: int
    name: str
    kind: int
    formula: str
    confidence: float
    scores: dict[str, float]
    unseen: dict[str, tuple[float | None, int | None]]
    length: int
    id: str
    generation: int

    def line(self) -> str:
        """In JSON."""
        unseen = {
            name: {"probability": probability, "rank": rank}
            for name, (probability, rank) in self.unseen.items()
        }
        row = {"class": self.class_} | {
            name: getattr(self, name)
            for name in ("name", "kind", "formula", "confidence", "scores")
        }
        rest = {"length": self.length, "id": self.id, "generation": self.generation}
        return json.dumps(row | {"unseen": unseen} | rest, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, row: Any) -> "Elite":
        """From a line's JSON.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            class_=index(row["class"]),
            name=_text(row["name"]),
            kind=index(row["kind"]),
            formula=_text(row["formula"]),
            confidence=_share(row["confidence"]),
            scores={name: _share(score) for name, score in row["scores"].items()},
            unseen={
                name: (
                    None if said["probability"] is None else _share(said["probability"]),
                    None if said["rank"] is None else index(said["rank"]),
                )
                for name, said in row["unseen"].items()
            },
            length=index(row["length"]),
            id=_text(row["id"]),
            generation=index(row["generation"]),
        )

    @property
    def caption(self) -> str:
        """The first of its class's names."""
        return self.name.split(",")[0]

    @property
    def agreement(self) -> float:
        """The mean of the logarithms of what all networks say, seen and unseen."""
        said = [*self.scores.values(), *(p for p, _ in self.unseen.values() if p is not None)]
        return float(np.mean([math.log(max(p, 1e-12)) for p in said or [self.confidence]]))


def parse_told(formula: str, place: str, images: Sequence[str] = ()) -> Expression:
    """A formula that a file names.

    Args:
        formula: the text.
        place: where it is said.
        images: names of photographs that it may read.

    Raises:
        InputError: it is none; in one line, which begins with the place.
    """
    try:
        return parse(formula, images=tuple(images))
    except InputError as error:
        raise InputError(f"{place}: {str(error).splitlines()[0]}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _share(value: Any) -> float:
    """A number from 0 to 1."""
    share = float(value)
    if not 0 <= share <= 1:  # nor NaN
        raise ValueError(value)
    return share


def read_elites(folder: Path) -> list[Elite]:
    """The elites of a run, in the order of the file.

    Raises:
        InputError: no folder of an illumination, or one whose elites are not written yet; a line
            that is none.
    """
    path = folder / "elites.jsonl"
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of a run")
    if not path.exists():
        if (folder / "config.toml").exists():
            raise InputError(f"{folder}: its elites are not written yet; wait, or end the run")
        raise InputError(f"{folder} is no folder of `evojax-art illuminate`: no elites.jsonl in it")
    elites = read_json_lines(path, Elite.read, "no line of elites")
    if not elites:
        raise InputError(f"{path} is empty: no formula was valid")
    return elites


@dataclass
class Book:
    """What the host knows of a repertoire, brought up to date now and then.

    Attributes:
        folder: of the run.
        niches: what places are for.
        judges: asked about pictures as they were judged.
        unseen: asked about pictures drawn well.
    """

    folder: Path
    niches: EveryClass
    judges: Jury
    unseen: Jury
    elites: dict[int, Elite] = field(default_factory=dict)

    def keep_lineage(self, number: int, passed: Passed, log: TextIO) -> None:
        """Writes down who took a niche in a generation."""
        passed = jax.device_get(passed)
        places = np.flatnonzero(passed.taken)
        if not len(places):
            return
        won: dict[int, list[int]] = {}
        for place in places:
            won.setdefault(int(passed.child[place]), []).append(self._class_of(int(place)))
        children = np.array(list(won))
        formulas = to_expressions(take(passed.programs, children))
        for child, formula in zip(won, formulas, strict=True):
            parents = [n for n in range(2) if passed.places[child][n] != NOBODY]
            row = {
                "id": f"{number}.{child}",
                "parents": [_name(passed.parents[child][n]) for n in parents],
                "of": [self._class_of(int(passed.places[child][n])) for n in parents],
                "won": won[child],
                "formula": str(formula),
            }
            log.write(json.dumps(row) + "\n")

    def look(self, repertoire: Repertoire) -> None:
        """Asks all networks about the elites that are new, and writes the files anew."""
        held = jax.device_get(repertoire.held)
        value = jax.device_get(repertoire.value)
        fresh = [
            place
            for place in np.flatnonzero(np.isfinite(held.fitness)).tolist()
            if place not in self.elites or self.elites[place].id != _name(held.birth[place])
        ]
        if fresh:
            self._examine(np.array(fresh), held.programs, held.birth, value)
        ordered = sorted(self.elites.items(), key=lambda item: (item[1].class_, item[1].kind))
        write_text(self.folder / "elites.jsonl", "".join(elite.line() for _, elite in ordered))
        write_text(
            self.folder / "elites.txt", "".join(f"{elite.formula}\n" for _, elite in ordered)
        )

    def agreed(self, most: int) -> dict[str, float]:
        """Share of the elites whose class is among the first so many of each unseen network."""
        ranks: dict[str, list[int]] = {name: [] for name in self.unseen.names}
        for elite in self.elites.values():
            for name, (_, rank) in elite.unseen.items():
                if rank is not None:
                    ranks[name].append(rank)
        return {
            name: float(np.mean([rank < most for rank in found])) if found else math.nan
            for name, found in ranks.items()
        }

    def best(self, count: int) -> list[Elite]:
        """Those that networks agree on most, one of each formula."""
        ordered = sorted(self.elites.values(), key=lambda elite: -elite.agreement)
        return list({elite.formula: elite for elite in reversed(ordered)}.values())[::-1][:count]

    def _examine(
        self, places: np.ndarray, programs: Program, birth: np.ndarray, value: np.ndarray
    ) -> None:
        niche = places % len(self.niches.groups)
        chosen = take(programs, places)
        formulas: Sequence[Expression] = to_expressions(chosen)
        judged, seen = (jury(chosen, niche) for jury in (self.judges, self.unseen))
        for n, place in enumerate(places.tolist()):
            self.elites[place] = Elite(
                class_=self._class_of(place),
                name=self.niches.names[niche[n]],
                kind=place // len(self.niches.groups),
                formula=str(formulas[n]),
                confidence=1 / (1 + math.exp(-float(value[place]))),
                scores={name: p or 0.0 for name, (p, _) in _told(judged, n)},
                unseen=dict(_told(seen, n)),
                length=int(chosen.length[n]),
                id=_name(birth[place]),
                generation=int(birth[place][0]),
            )

    def _class_of(self, place: int) -> int:
        return self.niches.groups[place % len(self.niches.groups)][0]


def _told(
    opinions: dict[str, Opinion], n: int
) -> Iterator[tuple[str, tuple[float | None, int | None]]]:
    for name, opinion in opinions.items():
        is_known = opinion.rank[n] >= 0
        probability = float(opinion.probability[n])
        yield name, (probability if is_known else None, int(opinion.rank[n]) if is_known else None)


def _name(birth: Any) -> str:
    return f"{int(birth[0])}.{int(birth[1])}"
