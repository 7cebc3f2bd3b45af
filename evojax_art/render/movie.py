"""Movies: z as time, cross-fades from formula to formula, morphs of constants.

A clip of N frames shows one formula while z runs evenly from -T to +T. The next clip begins with
the formula before it, which goes on past its end in z and is faded out linearly in colour over a
share of the clip's first half. (The original's movies; the share was a tenth.) A morph shows
formulas that differ in their constants alone: these go from one to the next, slowly at both ends.

Programs, z and weights of all frames are arrays, and frames are drawn in batches on the device by
code that is compiled once for all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from evojax_art.language.bindings import Bound
from evojax_art.language.formula import Expression, check_images
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program, encode, free_constants, take, to_expressions
from evojax_art.render.batch import render_population
from evojax_art.render.large import render_bands, to_bytes
from evojax_art.render.look import Look, Raster
from evojax_art.render.schedule import MovieConfig, morph_schedule, schedule
from evojax_art.runtime.errors import InputError


@dataclass(frozen=True)
class Actor:
    """A formula in a movie.

    Attributes:
        expression: the formula.
        look: how it is drawn; z is what it runs around.
        bound: the pictures that it reads.

    Raises:
        InputError: it reads a picture that is not bound.
    """

    expression: Expression
    look: Look = field(default_factory=Look)
    bound: Bound = field(default_factory=Bound)

    def __post_init__(self):
        check_images(self.expression, len(self.bound.names))


@dataclass(frozen=True, kw_only=True)
class FrameChunks:
    """How the drawing of frames is cut up; nothing of it shows in them.

    Attributes:
        batch_points: drawn by one call of compiled code, unless one frame has more.
        frame_points: a frame with more is drawn in bands.
    """

    batch_points: int = 1 << 22
    frame_points: int = 1 << 23


class Movie(NamedTuple):
    """What is to be written.

    Attributes:
        num_frames: how many there are.
        frames: bytes [H, W, 3], drawn as they are taken.
        shown_fn: from a frame's number, 0 the first, the formula that it shows, z its own. Of one
            that is being faded out nothing.
    """

    num_frames: int
    frames: Iterator[UInt8[np.ndarray, "H W 3"]]
    shown_fn: Callable[[int], Actor]


def film(
    config: MovieConfig,
    actors: Sequence[Actor],
    chunks: FrameChunks = FrameChunks(),
) -> Movie:
    """Formulas that follow each other, as `schedule` says.

    Args:
        config: how the movie goes.
        actors: the formulas.
        chunks: how the work is cut up.
    """
    plan = schedule(config, len(actors))
    programs = _encode([actor.expression for actor in actors])

    def draw(which: Int[np.ndarray, "B"], z: Float[np.ndarray, "B"]) -> Float[Array, "B H W 3"]:
        actor = actors[which[0]]
        return _draw(config.raster, actor, take(programs, which), z + actor.look.z, chunks)

    def colours_fn(index: Int[np.ndarray, "B"]) -> Float[Array, "B H W 3"]:
        drawn = draw(plan.formula[index], plan.z[index])
        weight = jnp.asarray(plan.weight_before[index], jnp.float32)[:, None, None, None]
        if not plan.weight_before[index].any():
            return drawn
        before = (plan.formula[index] - 1) % len(actors)
        return weight * draw(before, plan.z_before[index]) + (1 - weight) * drawn

    def shown(number: int) -> Actor:
        actor = actors[plan.formula[number]]
        return _at(actor, plan.z[number] + actor.look.z)

    kinds = plan.formula * 2 + (plan.weight_before > 0)
    batches = _batches(config, kinds, chunks.batch_points)
    return Movie(len(plan.z), _frames(batches, colours_fn), shown)


def morph(
    config: MovieConfig,
    actors: Sequence[Actor],
    chunks: FrameChunks = FrameChunks(),
) -> Movie:
    """Formulas of one build, each turning into the next: their constants are interpolated.

    Args:
        config: how the movie goes.
        actors: the formulas.
        chunks: how the work is cut up.

    Raises:
        InputError: fewer than two formulas, or formulas that differ in more than constants, or in
            how they are drawn.
    """
    if len(actors) < 2:
        raise InputError("morph: give two formulas or more, which differ in their constants alone")
    for number, actor in enumerate(actors[1:], 2):
        _check_match(actors[0], actor, number)
    place, z = morph_schedule(config, len(actors))
    left = np.minimum(np.floor(place).astype(int), len(actors) - (1 if config.loop else 2))
    right, share = (left + 1) % len(actors), (place - left)[:, None, None]
    given = free_constants(_encode([actor.expression for actor in actors]))
    constant = np.asarray(given.constant)
    between = (1 - share) * constant[left] + share * constant[right]  # exact at both ends
    population = take(given, left)._replace(constant=jnp.asarray(between, jnp.float32))
    middle = np.array([actor.look.z for actor in actors])
    z = z + (1 - share[:, 0, 0]) * middle[left] + share[:, 0, 0] * middle[right]

    def colours_fn(index: Int[np.ndarray, "B"]) -> Float[Array, "B H W 3"]:
        return _draw(config.raster, actors[0], take(population, index), z[index], chunks)

    def shown(number: int) -> Actor:
        (expression,) = _expressions(actors[0], take(population, np.array([number])))
        return _at(replace(actors[0], expression=expression), z[number])

    batches = _batches(config, np.zeros(len(z)), chunks.batch_points)
    return Movie(len(z), _frames(batches, colours_fn), shown)


def _encode(expressions: Sequence[Expression]) -> Program:
    longest = max(map(len, expressions))
    # Powers of two, so that movies of many formulas share compiled code.
    return encode(expressions, max_length=max(16, 1 << (longest - 1).bit_length()))


def _check_match(first: Actor, other: Actor, number: int) -> None:
    looks = [(actor.look.crunch, actor.look.smooth) for actor in (first, other)]
    if looks[0] != looks[1]:
        raise InputError(
            f"morph: formulas 1 and {number} have different colours; say which with --crunch "
            "and --smooth"
        )
    if first.bound.sources != other.bound.sources:
        raise InputError(
            f"morph: formulas 1 and {number} read different pictures; bind them with --image"
        )
    free = [free_constants(_encode([one.expression])) for one in (first, other)]
    builds = [[op for op, _ in to_expressions(one)[0].postfix] for one in free]
    if builds[0] == builds[1]:
        return
    ours, theirs = next(
        ((a.name, b.name) for a, b in zip(*builds, strict=False) if a != b),
        tuple(f"{len(build)} nodes" for build in builds),
    )
    raise InputError(
        f"morph: formulas 1 and {number} differ in more than constants: {ours} there, {theirs} "
        "here; leave out --morph to cross-fade them"
    )


def _at(actor: Actor, z: float) -> Actor:
    return replace(actor, look=replace(actor.look, z=float(z)))


def _expressions(actor: Actor, population: Program) -> list[Expression]:
    return to_expressions(population, actor.bound.names)


def _batches(
    config: MovieConfig, kind: np.ndarray, batch_points: int
) -> Iterator[tuple[Int[np.ndarray, "B"], int]]:
    """Numbers of frames of one kind that follow each other, and how many; the last fills up."""
    size = max(1, min(batch_points // _frame_points(config.raster), config.clip_frames))
    for run in np.split(np.arange(len(kind)), np.flatnonzero(np.diff(kind)) + 1):
        for start in range(0, len(run), size):
            part = run[start : start + size]
            yield np.pad(part, (0, size - len(part)), mode="edge"), len(part)


def _frames(
    batches: Iterator[tuple[Int[np.ndarray, "B"], int]],
    colours_fn: Callable[[Int[np.ndarray, "B"]], Array],
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames one by one; the device draws the next batch meanwhile."""
    ahead, count = None, 0
    for index, next_count in batches:
        drawing = colours_fn(index)
        if ahead is not None:
            yield from to_bytes(ahead[:count])
        ahead, count = drawing, next_count
    if ahead is not None:
        yield from to_bytes(ahead[:count])


def _frame_points(raster: Raster) -> int:
    return raster.height * raster.width * raster.samples**2


def _draw(
    raster: Raster,
    actor: Actor,
    population: Program,
    z: Float[np.ndarray, "B"],
    chunks: FrameChunks,
) -> Float[Array, "B H W 3"]:
    """Frames of programs that stand for an actor, each at its own z."""
    look, images = actor.look, actor.bound.pyramids
    if raster.crop is None and _frame_points(raster) <= chunks.frame_points:
        looks = replace(look, z=jnp.asarray(z, jnp.float32))
        return _draw_batch(population, looks, images, raster)
    frames = []
    for expression, at in zip(_expressions(actor, population), z, strict=True):
        bands = render_bands(expression, replace(look, z=float(at)), raster, images=images)
        frames.append(np.concatenate(list(bands)))
    return jnp.asarray(np.stack(frames))


@partial(jax.jit, static_argnames="raster")
def _draw_batch(
    population: Program, looks: Look, images: tuple[Pyramid, ...], raster: Raster
) -> Float[Array, "B H W 3"]:
    """A frame of each program, with the look of the same place."""

    def draw(one: tuple[Program, Look]) -> Float[Array, "H W 3"]:
        program, look = one
        alone = jax.tree.map(lambda field: field[None], program)
        return render_population(alone, look, raster, images=images)[0]

    return jax.lax.map(draw, (population, looks))
