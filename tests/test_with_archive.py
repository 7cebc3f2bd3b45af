"""The genetic algorithm beside an archive: children, places and seeds of both."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from test_illumination import told

from evojax_art.cli.main import main
from evojax_art.language.formula import parse
from evojax_art.language.program import encode, take, to_expressions
from evojax_art.objective.evaluation import Evaluation
from evojax_art.search.genetic import Genetic
from evojax_art.search.map_elites import MapElites
from evojax_art.search.protocol import NOBODY
from evojax_art.search.with_archive import GeneticWithArchive

BOTH = GeneticWithArchive(
    genetic=Genetic(population=4, offspring=3),
    archive=MapElites(niches=3, main=2, offspring=5, starters=4),
)
SCORES = [[3, 0, 1], [1, 5, 0.5], [0, 0, 4]]


def bred(seeds=None):
    """The state after three children of one, two and three nodes, of which the last is fittest."""
    state = BOTH.init(jax.random.key(0), 8, seeds)
    return told(BOTH, state, SCORES, [1, 2, 3])


def test_every_child_is_a_candidate_for_both():
    state = bred()
    np.testing.assert_array_equal(np.sort(state.genetic.held.fitness)[1:], [0.5, 1, 4])
    np.testing.assert_array_equal(state.archive.held.fitness, [3, 5, 4])
    survivors = BOTH.survivors(state)
    np.testing.assert_array_equal(survivors.fitness[4:], [1, 0.5, 4])  # in the main niche
    assert survivors.fitness.shape == (7,)
    threshold = BOTH.threshold(state)
    np.testing.assert_array_equal(threshold[:2], BOTH.archive.threshold(state.archive)[:2])
    assert threshold[2] == BOTH.genetic.threshold(state.genetic), "a place is free there"


def test_children_of_each_name_the_places_of_their_own():
    state = bred()
    state = state._replace(
        genetic=state.genetic._replace(asked=jnp.int32(99)),
        archive=state.archive._replace(asked=jnp.int32(99)),
    )
    offspring = BOTH.ask(jax.random.key(1), state)
    assert offspring.parents.shape == (BOTH.num_offspring, 2) == (8, 2)
    ours = offspring.parents[:, 0] < 4
    assert int(ours.sum()) == 3
    assert (offspring.parents[ours] < 4).all()
    assert (offspring.parents[~ours] >= 4).all()
    assert (offspring.parents[~ours] < 7).all()
    children = told(BOTH, state, [[-9.0] * 3] * 8, [1] * 8)
    np.testing.assert_array_equal(children.archive.curiosity, state.archive.curiosity)


def test_of_a_surplus_as_many_of_each_come_first_as_were_asked_for():
    state = bred()
    state = state._replace(
        genetic=state.genetic._replace(asked=jnp.int32(99)),
        archive=state.archive._replace(asked=jnp.int32(99)),
    )
    offspring = replace(BOTH, surplus=1.0).ask(jax.random.key(1), state)
    ours = offspring.parents[:, 0] < 4
    assert [int(ours.sum()), int(ours[: BOTH.num_offspring].sum())] == [6, 3]
    assert len(ours) == 2 * BOTH.num_offspring


def test_curiosity_is_about_the_archives_children_alone():
    state = bred()
    offspring = BOTH.ask(jax.random.key(1), state)._replace(
        parents=jnp.array([[0, 0]] * 3 + [[4, 4]] * 5, jnp.int32)
    )
    alone = take(offspring, jnp.arange(3, 8))._replace(parents=jnp.zeros((5, 2), jnp.int32))
    lost = told_nothing(8)
    after = BOTH.tell(jax.random.key(2), state, offspring, lost).archive
    expected = BOTH.archive.tell(jax.random.key(2), state.archive, alone, told_nothing(5))
    np.testing.assert_array_equal(after.curiosity, expected.curiosity)
    assert after.curiosity[0] < 1


def told_nothing(count):
    """Evaluations that win no place."""
    return Evaluation(
        fitness=jnp.full(count, -9.0),
        valid=jnp.ones(count, bool),
        metrics={"besides": jnp.zeros(count)},
        appearance=jnp.zeros((count, 48)),
        scores=jnp.full((count, 3), -9.0),
    )


def test_each_hands_out_every_second_seed():
    texts = ["x", "y", "i", "j", "k"]
    seeds = encode([parse(text) for text in texts], 8)
    state = BOTH.init(jax.random.key(0), 8, seeds)
    queues = [
        [str(text) for text in to_expressions(queue)]
        for queue in (state.genetic.queue, state.archive.queue)
    ]
    assert [queues[0][:3], queues[1][:2]] == [["x", "i", "k"], ["y", "j"]]
    first = BOTH.ask(jax.random.key(1), state)
    assert int((first.parents[:, 0] == NOBODY).sum()) == 3 + 4
    one = BOTH.init(jax.random.key(0), 8, take(seeds, jnp.arange(1)))
    assert len(one.archive.queue.length) == 4


def test_who_was_polished_is_put_where_they_were():
    state = bred()
    before = BOTH.survivors(state)
    place = int(jnp.argmax(before.fitness[:4]))
    changed = before._replace(
        fitness=before.fitness.at[place].set(7.0),
        birth=before.birth.at[place].set(jnp.array([9, 7])),
    )
    after = BOTH.put(state, changed)
    assert after.genetic.held.birth[place].tolist() == [9, 7]
    assert after.genetic.held.fitness[place] == 7
    np.testing.assert_array_equal(after.archive.held.birth, state.archive.held.birth)


def test_a_run_breeds_with_both(tmp_path, capsys):
    flags = (
        "--algorithm genetic_with_archive --raster.size 16 --record-size 16 --unseen none "
        "--max-length 24 --genetic.population 16 --genetic.offspring 8 --map-elites.offspring 8 "
        "--map-elites.starters 16 --early.formulas 32 --early.size 16 --formulas 64 "
        "--memetic.every 2 --memetic.steps 2"
    ).split()
    populations = []
    for name in ("one", "two"):
        assert main(["evolve", *flags, "--out", str(tmp_path / name)]) == 0
        populations.append((tmp_path / name / "population.txt").read_text())
    assert populations[0] == populations[1]
    assert len(populations[0].splitlines()) > 16, "the population and the elites"
    assert main(["evolve", *flags, "--layer", "stem", "--out", str(tmp_path / "three")]) == 2
    message = "algorithm genetic_with_archive breeds for classes: give a target alone"
    assert message in capsys.readouterr().err
