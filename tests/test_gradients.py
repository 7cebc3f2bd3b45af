"""Gradients in a formula's constants: every way to them gives the same, and it is the right one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from evojax_art.interpreter.reverse import api as reverse
from evojax_art.interpreter.reverse.pullback import pullback
from evojax_art.language.ops import BY_NAME, CONSTANT, OPS
from evojax_art.language.photographs import Pyramid, pyramid, sample
from evojax_art.language.program import encode, free_constants, take
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.nets.weights import load_net
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.refine.drawing import draw, raster_points
from evojax_art.render.batch import render
from evojax_art.render.look import Look, Raster, RasterConfig
from evojax_art.runtime.plan import make_plan
from evojax_art.search.variation import GrowthConfig, grow

DIFFERENTIABLE = [op for op in OPS if not op.structural and (op.arity or op.reads_coordinates)]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_pullbacks_are_those_of_jax(op):
    """JAX differentiates the same functions by its own means."""
    random = np.random.default_rng(op.opcode)
    kind = Quaternion if op.arity else Coordinates
    size = 3.0 if op.arity else 0.45
    operands = tuple(
        kind(*random.uniform(-size, size, (len(kind._fields), 200)))
        for _ in range(max(1, op.arity))
    )
    cotangent = Quaternion(*random.normal(size=(4, 200)))
    ours = pullback(np, op.fn, operands, cotangent)
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, operands)
        _, pull = jax.vjp(lambda *operands: op.fn(jnp, *operands), *given)
        theirs = pull(jax.tree.map(jnp.asarray, cotangent))
    for mine, wanted in zip(ours, theirs, strict=True):
        for part, exact in zip(mine, wanted, strict=True):
            np.testing.assert_allclose(0 if part is None else part, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("distance", [0.0, 0.07, np.nan])
def test_the_pullback_of_a_picture_is_that_of_jax(distance):
    random = np.random.default_rng(8)
    image = pyramid(random.uniform(0, 1, (21, 34, 3)).astype(np.float32))
    fields = map(np.asarray, image)
    exact = Pyramid(*(t.astype(float) if t.dtype.kind == "f" else t for t in fields))  # type: ignore
    at = Coordinates(*random.uniform(-0.7, 0.7, (3, 200)))  # some lie beyond the edge
    spacing = np.full(200, distance)
    cotangent = Quaternion(*random.normal(size=(4, 200)))
    (ours,) = pullback(np, lambda xp, at: sample(xp, exact, at, spacing), (at,), cotangent)
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, (exact, at, spacing))
        _, pull = jax.vjp(lambda at: sample(jnp, given[0], at, given[2]), given[1])
        (theirs,) = pull(jax.tree.map(jnp.asarray, cotangent))
    assert ours.z is None
    for part, wanted in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-9, atol=1e-9)
    assert (np.abs(ours.x) > 0.1).any() != np.isnan(distance)  # the last level is one colour


FORMULAS = [
    "( exp ( * x_iy_jx_ky ( q 0.7 0.2 -0.4 0.5 ) ) )",
    "( subst ( * x_iy ( q 1.5 1 0 0 ) ) ( isin ( / ( q 0 1 0 0.5 ) ( + x_k ( q 0.3 1 0 0 ) ) ) ) )",
    "( + ( orth1 ( q 0.1 1 2 3 ) std ) ( subst ( + y ( q 2 0 0 0 ) ) ( A2 x_iy ( q 0 1 1 0 ) ) ) )",
    "( subst x_iy ( subst ( exp ( * x ( q 1 2 0 0 ) ) ) ( mod std ( q 1 0 2 0 ) ) ) )",
    "( subst ( * x ( q 3 1 0 0 ) ) ( at ( + x_iy ( q 1.5 1 0 0 ) ) ( isin ( * x_iy j ) ) ) )",
]  # fmt: skip


IN_JAX = make_plan(gradient_implementation="xla")  # of any float dtype


def points(size=16, samples=1):
    return raster_points(Raster(height=size, width=size, samples=samples), 0.0)


def reverse_gradient(population, at, cotangent, images=(), samples=1, plan=None):
    everywhere = Coordinates(*(jnp.broadcast_to(t, (len(population.length), t.size)) for t in at))

    def value(constant):
        population_then = population._replace(constant=constant)
        return reverse.interpret(population_then, everywhere, images, samples, plan)

    @jax.jit
    def value_and_gradient(constant):
        found, pull = jax.vjp(value, constant)
        return found, pull(cotangent)[0]

    return value_and_gradient(population.constant)


PICTURES = tuple(
    pyramid(np.random.default_rng(size).random((size, 29, 3), np.float32), whole=size > 20)
    for size in (16, 33)
)
PICTURE_FORMULAS = [
    "( subst ( * ( q 0.9 0.2 0 0 ) x_iy ) image1 )",
    "( * image2 ( q 1 0.2 0.3 0.1 ) )",
    "( subst ( * x_iy ( q 1.3 0.5 0 0 ) ) ( + image3 ( * image1 ( isin image2 ) ) ) )",
    "( subst ( * ( q 0.02 0.01 0 0.03 ) image2 ) ( subst ( * x_iy ( q 9 1 0 0 ) ) image1 ) )",
]


@pytest.mark.parametrize(("texts", "images"), [(FORMULAS, ()), (PICTURE_FORMULAS, PICTURES)])
def test_native_and_jax_reverse_mode_agree(texts, images):
    population = free_constants(encode(texts, 32))
    at = points(size=10, samples=2)  # 400 points: the last tile is not full
    cotangent = jax.random.normal(jax.random.key(0), (len(texts), 4, 400))
    native = reverse_gradient(population, at, cotangent, images, 4)
    plain = reverse_gradient(population, at, cotangent, images, 4, IN_JAX)
    assert all(np.abs(part).max(axis=(1, 2)).min() > 0.1 for part in plain)
    for ours, theirs in zip(native, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_pictures_are_those_of_render():
    population = encode(FORMULAS, 32)
    for smooth in (False, True):
        look, raster = Look(z=0.25, smooth=smooth), Raster(height=16, width=16, samples=2)
        at = raster_points(raster, look.z)
        ours = jax.jit(draw, static_argnums=2)(population, look, raster, at)
        theirs = render(population, 16, 16, 0.25, smooth=smooth, samples=2)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_formula_that_reads_a_picture():
    """Native code and plain JAX agree, and pictures with those of `render`."""
    photograph = np.random.default_rng(0).uniform(0.2, 0.8, (64, 64, 3)).astype(np.float32)
    images = (pyramid(photograph, whole=True),)
    population = encode(["( subst ( * ( q 0.9 0.2 0 0 ) x_iy ) image1 )"])
    look, raster = Look(), Raster(height=16, width=16)
    at = raster_points(raster, look.z)
    weights = jax.random.normal(jax.random.key(2), (1, 16, 16, 3))

    def total(constant, plan=None):
        pictures = draw(population._replace(constant=constant), look, raster, at, images, plan)
        return jnp.sum(pictures * weights)

    constant = population.constant
    native = jax.jit(jax.grad(total))(constant)
    plain = jax.jit(jax.grad(partial(total, plan=IN_JAX)))(constant)
    np.testing.assert_allclose(native, plain, rtol=1e-3, atol=1e-4)
    assert float(jnp.abs(native).max()) > 0.1
    exact = jax.lax.stop_gradient(render(population, 16, 16, images=images))
    drawn = jax.jit(draw, static_argnums=2)(population, look, raster, at, images)
    np.testing.assert_allclose(drawn, exact, atol=1e-4)


def test_gradient_of_the_objective_against_central_differences(optimised):
    """50 random formulas in float64, along a random direction in all their constants."""
    growth = GrowthConfig(max_depth=6)
    keys = jax.random.split(jax.random.key(5), 400)
    population = jax.jit(jax.vmap(lambda key: grow(key, 32, growth)))(keys)
    opcode = np.asarray(free_constants(population).opcode)
    unsmooth = [BY_NAME[name].opcode for name in ("floor", "mod")]
    usable = (opcode == CONSTANT).any(1) & ~np.isin(opcode, unsmooth).any(1)
    usable &= np.asarray(population.length) >= 5
    chosen = np.flatnonzero(usable)[:50]
    assert len(chosen) == 50
    with jax.enable_x64(True):
        net = load_net()
        for _, part in nnx.iter_graph(net):
            if isinstance(part, nnx.Module) and hasattr(part, "dtype"):
                part.dtype = jnp.float64  # type: ignore[attr-defined]
        evaluator = Evaluator(net, (26,), ObjectiveConfig(tv_weight=1.0), RasterConfig(samples=1))
        at = Coordinates(*(t.astype(jnp.float64) for t in raster_points(evaluator.raster, 0.0)))
        free = take(free_constants(population), chosen)
        is_free = (free.opcode == CONSTANT)[..., None]
        constants = free.constant.astype(jnp.float64)
        along = jax.random.normal(jax.random.key(6), constants.shape, jnp.float64) * is_free

        @jax.jit
        def values(constants):
            programs = free._replace(constant=constants)
            pictures = draw(programs, evaluator.look, evaluator.raster, at, plan=IN_JAX)
            return evaluator.smooth_fitness(pictures, evaluator.params)

        gradient = jax.jit(jax.grad(lambda constants: values(constants).sum()))(constants)
        ours = np.asarray((gradient * along).sum((1, 2)))
        here, steps = values(constants), (1e-6, 5e-7)
        ahead = [np.asarray(values(constants + h * along) - here) / h for h in steps]
        behind = [np.asarray(here - values(constants - h * along)) / h for h in steps]
    first, second = ((a + b) / 2 for a, b in zip(ahead, behind, strict=True))
    size = np.abs(second) + 1e-6
    # No kink between the points (two steps agree), nor at one (both sides agree).
    smooth = np.abs(first - second) < 1e-5 * size
    smooth &= np.abs(ahead[1] - behind[1]) < 1e-2 * size
    error = (np.abs(ours - second) / size)[smooth]
    print(f"{smooth.sum()} of 50 smooth there; relative error {error.max():.1e} at most")
    assert smooth.sum() >= 30
    assert error.max() < 1e-4


def test_gradients_are_finite_whatever_a_formula_does():
    """Overflow, poles and points where an op has no derivative."""
    texts = [
        "( / ( q 1 0 0 0 ) ( * x ( q 0 0 0 0 ) ) )",
        "( * ( * ( q 1e30 0 0 0 ) ( q 1e30 1 1 1 ) ) ( exp ( * x_iy ( q 1e20 0 0 0 ) ) ) )",
        "( normalize ( * ( q 0 0 0 0 ) x_iy ) )",
        "( ilog ( * ( q 0 0 0 0 ) x ) )",
        "( normp ( floor ( mod ( * x_iy ( q 3 0 0 0 ) ) ( q 0 0 0 0 ) ) ) )",
        "( exp ( exp ( exp ( exp ( exp ( * x_iy ( q 9 9 9 9 ) ) ) ) ) ) )",
        "( imax ( q 0.5 0 0 0 ) ( q 0.5 0 0 0 ) )",
    ]
    population = encode(texts, 16)
    raster = Raster(height=16, width=16)
    at = raster_points(raster, 0.0)
    weights = jax.random.normal(jax.random.key(3), (16, 16, 3))

    def total(constant):
        pictures = draw(population._replace(constant=constant), Look(), raster, at)
        return jnp.sum(pictures * weights)

    assert bool(jnp.all(jnp.isfinite(jax.jit(jax.grad(total))(population.constant))))
