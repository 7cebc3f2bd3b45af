"""A genetic algorithm beside an archive of the elites of all classes.

A population whose best breed gets far, but only with the family of formulas that was first; elites
of many classes (`MapElites`) hold many families, but only one formula of each class. Together they
are steady and quick: some children are the population's, some the archive's, and every child is a
candidate for the places of both.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from evojax_art.language.program import Program, take
from evojax_art.objective.evaluation import Evaluation
from evojax_art.search.genetic import Genetic, State
from evojax_art.search.map_elites import MapElites, Repertoire
from evojax_art.search.protocol import NOBODY, Offspring, Survivors, concatenate


@dataclass(frozen=True, kw_only=True)
class GeneticWithArchive:
    """Both algorithms, each with its settings.

    Places are the population's P, then the archive's N.

    Attributes:
        genetic: the population.
        archive: with a main niche.
        surplus: of both, in place of their own, see `sieve`.
    """

    compares_probabilities: ClassVar[bool] = False

    genetic: Genetic
    archive: MapElites
    surplus: float = 0.0

    @property
    def num_offspring(self) -> int:
        """Those of both."""
        return self.genetic.num_offspring + self.archive.num_offspring

    def init(self, key: Key[Array, ""], capacity: int, seeds: Program | None) -> "Both":
        """Nobody evaluated yet; each hands out every second seed."""
        genetic_key, archive_key = jax.random.split(key)
        halves = [None, None]
        if seeds is not None:
            count = seeds.length.shape[0]
            halves = [take(seeds, jnp.arange(first, count, 2)) for first in (0, 1)]
        return Both(
            self.genetic.init(genetic_key, capacity, halves[0]),
            self.archive.init(archive_key, capacity, halves[1]),
        )

    def ask(self, key: Key[Array, ""], state: "Both") -> Offspring:
        """The population's children and the archive's, mixed evenly: the first count most."""
        genetic_key, archive_key = jax.random.split(key)
        genetic = replace(self.genetic, surplus=self.surplus)
        archive = replace(self.archive, surplus=self.surplus)
        of_population = genetic.ask(genetic_key, state.genetic)
        of_archive = archive.ask(archive_key, state.archive)
        places = of_archive.parents
        shifted = jnp.where(places == NOBODY, NOBODY, places + self.genetic.population)
        everyone = concatenate(of_population, of_archive._replace(parents=shifted))
        # Whatever share of them is evaluated has as many of each as was asked for.
        counts = len(of_population.parents), len(places)
        rank = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        return take(everyone, np.argsort(rank, kind="stable"))

    def threshold(self, state: "Both") -> Float[Array, "K"]:
        """The archive's; in the main niche the population's, if that is lower."""
        least = self.archive.threshold(state.archive)
        return least.at[self.archive.main].min(self.genetic.threshold(state.genetic))

    def tell(
        self, key: Key[Array, ""], state: "Both", offspring: Offspring, evaluation: Evaluation
    ) -> "Both":
        """Every child is a candidate for both."""
        genetic_key, archive_key = jax.random.split(key)
        places = offspring.parents - self.genetic.population
        theirs = offspring._replace(parents=jnp.where(places >= 0, places, NOBODY))
        return Both(
            self.genetic.tell(genetic_key, state.genetic, offspring, evaluation),
            self.archive.tell(archive_key, state.archive, theirs, evaluation),
        )

    def survivors(self, state: "Both") -> Survivors:
        """The population, then the elites by how fit they are in the main niche."""
        return concatenate(
            self.genetic.survivors(state.genetic), self.archive.survivors(state.archive)
        )

    def put(self, state: "Both", survivors: Survivors) -> "Both":
        """Each where they are."""
        count = self.genetic.population
        ours, theirs = (
            jax.tree.map(lambda leaf, part=part: leaf[part], survivors)
            for part in (slice(count), slice(count, None))
        )
        return Both(self.genetic.put(state.genetic, ours), self.archive.put(state.archive, theirs))


class Both(NamedTuple):
    """The states of both.

    Attributes:
        genetic: the population's.
        archive: the elites'.
    """

    genetic: State
    archive: Repertoire
