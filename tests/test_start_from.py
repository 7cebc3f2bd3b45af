import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.language.formula import parse
from evojax_art.language.photographs import pyramid
from evojax_art.language.program import decode, encode, is_valid
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.nearness import distance
from evojax_art.objective.observed import Observed
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.render.batch import render
from evojax_art.search.start_from import leaf_name, variations

IMAGES = ("sky", "cat")


@pytest.fixture(scope="module")
def seeds():
    return variations(jax.random.key(0), "cat", 200, 64, IMAGES)


def test_variations_begin_with_the_bare_leaf(seeds):
    assert str(seeds[0]) == "cat"
    assert len(seeds) == 200
    assert len(set(map(str, seeds))) > 190


def test_variations_read_the_photograph_and_keep_their_place(seeds):
    slots = [{op.image for op, _ in seed.postfix} - {None} for seed in seeds]
    assert slots == [{1}] * 200
    assert max(map(len, seeds)) <= 64
    population = encode(seeds, max_length=64)
    assert bool(jnp.all(jax.jit(jax.vmap(is_valid))(population)))
    assert [str(parse(text, images=IMAGES)) for text in decode(population, IMAGES)] == [
        str(seed) for seed in seeds
    ]


def test_variations_are_those_of_their_key(seeds):
    assert variations(jax.random.key(0), "cat", 200, 64, IMAGES) == seeds
    assert variations(jax.random.key(1), "cat", 200, 64, IMAGES)[1:] != seeds[1:]


def test_where_there_is_no_room_there_are_fewer():
    assert list(map(str, variations(jax.random.key(0), "cat", 50, 2, IMAGES))) == ["cat"]
    short = variations(jax.random.key(0), "cat", 50, 8, IMAGES)
    assert 10 < len(short) <= 50
    assert max(map(len, short)) <= 8


def test_detailed_variations_have_no_steps_of_their_own(seeds):
    # Those that take a random formula along, which may have steps in it, keep it within `isin`.
    mosaic = re.compile(r"\( floor \( \* \( q ")
    assert any(mosaic.search(str(seed)) for seed in seeds)
    detailed = variations(jax.random.key(0), "cat", 200, 64, IMAGES, detailed=True)
    assert len(detailed) == 200
    assert not any(mosaic.search(str(seed)) for seed in detailed)


def test_variations_look_like_the_photograph(seeds):
    """Most are nearer to it than it is to itself turned round; all are finite, few are equal."""
    rows, columns = np.mgrid[:24, :24] / 24
    colours = [columns, 0.2 + 0.6 * (np.hypot(rows - 0.4, columns - 0.3) < 0.2), rows * columns]
    photograph = np.stack(colours, axis=-1).astype(np.float32)
    slots = (pyramid(np.zeros((1, 1, 3), np.float32)), pyramid(photograph, whole=True))
    pictures = np.asarray(render(encode(seeds), 24, 24, images=slots))
    assert np.isfinite(pictures).all()
    np.testing.assert_allclose(pictures[0], photograph, atol=1e-4)
    apart = ((pictures - photograph) ** 2).mean((1, 2, 3))
    turned = ((photograph - photograph[::-1, ::-1]) ** 2).mean()
    assert (apart[1:] > 1e-7).mean() > 0.9
    assert (apart < turned / 2).mean() > 0.75


@pytest.mark.parametrize(
    ("file", "taken", "name"),
    [
        ("my/Cat.png", (), "Cat"),
        ("cat.png", ("sky",), "cat"),
        ("cat.png", ("cat",), "photo"),
        ("cat.png", ("cat", "photo"), "photo1"),
        ("exp.png", (), "photo"),  # an operator
        ("2 cats.jpg", (), "photo"),
        ("IMG-1.jpg", (), "photo"),
        ("image1.png", (), "image1"),
        ("image2.png", (), "photo"),  # another picture's leaf
    ],
)
def test_leaves_are_named_after_files(file, taken, name):
    assert leaf_name(Path(file), taken) == name


def judged(net, images, near, reference, **rest):
    target, config = ClassTarget(net.vocabulary, (0,)), ObjectiveConfig(near=near, **rest)
    objective = build_objective(config, target)
    fitness_fn = jax.jit(lambda x, wanted: objective(Observed(x, net, wanted)).fitness)
    return np.asarray(fitness_fn(images, reference))


def test_fitness_falls_with_the_distance(tiny_net):
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3))
    reference = jax.random.uniform(jax.random.key(1), (8, 8, 3))
    free = judged(tiny_net, images, 0, reference)
    np.testing.assert_array_equal(free, judged(tiny_net, images, 5, None))
    pixels, wanted = np.asarray(images, np.float64), np.asarray(reference, np.float64)
    variance = sum(wanted[..., channel].var() for channel in range(3)) / 3 + 0.001
    expected = free - 5 * ((pixels - wanted) ** 2).mean((1, 2, 3)) / variance
    np.testing.assert_allclose(judged(tiny_net, images, 5, reference), expected, rtol=1e-4)


def test_composition_counts_and_detail_does_not():
    halves = jnp.where(jnp.arange(32) < 16, 0.2, 0.8)[None, :, None] * jnp.ones((32, 1, 3))
    fine = (jnp.indices((32, 32)).sum(0) % 2).astype(jnp.float32)[..., None]
    pictures = jnp.stack(
        [
            halves,
            halves + 0.2 * (fine - 0.5),
            jnp.full((32, 32, 3), 0.5),
            jnp.roll(halves, 16, axis=1),
            halves.swapaxes(0, 1),
        ]
    )
    apart = np.asarray(distance(pictures, jnp.repeat(halves, 2, axis=0)))
    np.testing.assert_allclose(apart, [0, 0, 1, 4, 2], atol=0.1)


def test_the_term_has_a_gradient(tiny_net):
    images = jax.random.uniform(jax.random.key(0), (3, 16, 16, 3))
    reference = images[-1]
    target, config = ClassTarget(tiny_net.vocabulary, (0,)), ObjectiveConfig(near=1e4)
    objective = build_objective(config, target)

    @jax.jit
    def fitness_and_slope(x):
        def total(x):
            fitness = objective(Observed(x, tiny_net, reference)).fitness
            return fitness.sum(), fitness

        (_, fitness), slope = jax.value_and_grad(total, has_aux=True)(x)
        return fitness, slope

    before, slope = fitness_and_slope(images)
    assert np.isfinite(slope).all()  # of the reference itself too
    after, _ = fitness_and_slope(images + 1e-4 * slope)
    assert (after > before)[:-1].all()


def test_a_rejected_picture_never_wins_against_a_distant_one(tiny_net):
    images = jnp.stack([jnp.full((8, 8, 3), np.nan), jnp.ones((8, 8, 3))])
    fitness = judged(tiny_net, images, 1000, jnp.zeros((8, 8, 3)), scale="probability")
    assert fitness[0] < fitness[1] < 0
