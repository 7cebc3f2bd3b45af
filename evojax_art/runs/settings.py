"""A run's settings, checked; `runs.toml` reads and writes them, `cli.flags` makes flags of them."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.target import TargetConfig
from evojax_art.objective.views import ViewsConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runs.early import EarlyConfig
from evojax_art.runs.finish import FinishConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import INLINE, REPEATABLE, UNSAVED, formerly
from evojax_art.search.genetic import Genetic
from evojax_art.search.map_elites import MapElites
from evojax_art.search.memetic import MemeticConfig
from evojax_art.search.mount2015 import Mount2015
from evojax_art.search.with_archive import GeneticWithArchive


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One evolution.

    Attributes:
        target: what to see, and which networks say so.
        unseen: networks that have no say, whose opinion of new bests is written down; "none" for
            none. By default those that suit the judges, and whose weights are there.
        dtype: of the network's arithmetic.
        seed: same seed, same run (on the same device).
        formulas: how many to score before stopping.
        minutes: stop after this many minutes; 0 for no limit.
        stop_score: stop when a formula reaches this score, for classes a probability; inf for
            never.
        max_length: longest formula, in nodes.
        seeds: formulas to start from: a text file (one a line) or JSON; by default random ones.
        start_from: a photograph to start from: formulas may read it, half of the first ones are
            variations of it (unless there are seeds), and `objective.near` keeps near it.
        image: NAME=FILE: a photograph that formulas may read as the leaf NAME, NAME:whole=FILE for
            all of it within the picture; up to four such flags.
        out: folder for the results, new or empty; by default runs/TARGET-SEED.
        record_size: height and width of the pictures of new bests.
        record_samples: n by n samples per pixel of those pictures.
        record_step: a new best is drawn when its log-odds (of a layer's score, its logarithm) are
            this far from those of the last one drawn; 0 draws all. The last best is always drawn.
        batch: formulas rendered and judged at a time; 0 chooses by device.
        early: whether small pictures are bred first, whose survivors are the seeds.
        finish: what is done by gradient with the best of all, at the end.
        algorithm: which one; its settings are in the table of its name. "genetic_with_archive" is
            the genetic one and MAP-Elites together, with the settings of both, but one surplus,
            `map_elites.surplus`.
        raster: the pictures that are judged.
        views: that they are judged in besides.
        objective: how fitness is composed.
        genetic: settings of the genetic algorithm.
        map_elites: settings of MAP-Elites: the target is bred among elites of all other classes.
        mount2015: settings of the 2015 experiment.
        memetic: whether the best are polished by gradient now and then (memetic search).
    """

    target: TargetConfig = field(default_factory=TargetConfig, metadata=INLINE)
    unseen: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    formulas: int = 50_000
    minutes: float = 0.0
    stop_score: float = math.inf
    max_length: int = 128
    seeds: Path | None = None
    start_from: Path | None = None
    image: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    out: Path | None = field(default=None, metadata=UNSAVED)
    record_size: int = 448
    record_samples: int = 2
    record_step: float = 0.2
    batch: int = 0
    early: EarlyConfig = field(default_factory=EarlyConfig)
    finish: FinishConfig = field(default_factory=FinishConfig)
    algorithm: Literal["genetic", "map_elites", "genetic_with_archive", "mount2015"] = "genetic"
    raster: RasterConfig = field(default_factory=RasterConfig, metadata=formerly("scene"))
    views: ViewsConfig = field(default_factory=ViewsConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    genetic: Genetic = field(default_factory=Genetic)
    map_elites: MapElites = field(default_factory=lambda: MapElites(surplus=0.5))
    mount2015: Mount2015 = field(default_factory=Mount2015)
    memetic: MemeticConfig = field(default_factory=MemeticConfig, metadata=formerly("polish"))

    def __post_init__(self):
        self.target.check(self.unseen)
        for name in ("formulas", "record_size", "record_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name, most in (("record_size", 16_384), ("record_samples", 64)):
            if getattr(self, name) > most:
                raise InputError(f"{name} must be {most} or less, got {getattr(self, name)}")
        if self.max_length < 3:
            raise InputError(f"max_length must be 3 or more, got {self.max_length}")
        for name in ("minutes", "batch", "record_step"):
            if not getattr(self, name) >= 0:  # nor NaN
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if math.isnan(self.stop_score):
            raise InputError("stop_score must be a number, or inf for none, got nan")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")
        if self.has_niches and (self.target.layer or self.target.prompt):
            raise InputError(f"algorithm {self.algorithm} breeds for classes: give a target alone")
        if self.chosen_algorithm.compares_probabilities:
            self._check_probabilities()

    @property
    def chosen_algorithm(self) -> Genetic | MapElites | GeneticWithArchive | Mount2015:
        """The settings of the algorithm that `algorithm` names."""
        if self.algorithm == "genetic_with_archive":
            return GeneticWithArchive(
                genetic=self.genetic, archive=self.map_elites, surplus=self.map_elites.surplus
            )
        return getattr(self, self.algorithm)

    @property
    def has_niches(self) -> bool:
        """Whether elites of all classes are kept."""
        return self.algorithm in ("map_elites", "genetic_with_archive")

    def _check_probabilities(self) -> None:
        name = f"algorithm {self.algorithm}"
        if self.objective.scale != "probability":
            raise InputError(f"{name} compares plain scores: set objective.scale to probability")
        if self.target.layer:
            raise InputError(f"{name} compares probabilities: give a target, no layer")
        if self.start_from:
            raise InputError(f"{name} cannot keep near a picture: leave out start_from")
