"""Gradient ascent on the constants of formulas, many at once, as compiled steps.

A formula's constants are all its constant leaves, named ones included (`program.free_constants`).
The optimiser sees offsets in units of a constant's own size, so that 0.01 and 100 move alike:

    constant = start + reach * offset,  reach = _REACH * (|start| + _LEAST), |start| its norm

unless a reach is given with the formula, as by `waves`; a constant whose reach is 0 stays.

What is climbed is the objective of evolution without its gate, on pictures drawn by `drawing`. What
is kept is decided elsewhere: after some steps each formula is drawn by `render` and judged by the
whole objective, exactly as evolution judges it, and the best so far, at first the start, stays.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from evojax_art.language.ops import CONSTANT
from evojax_art.language.program import Program, select, take
from evojax_art.language.quaternions import Coordinates
from evojax_art.objective.evaluation import Evaluation
from evojax_art.objective.evaluator import Evaluator, Params
from evojax_art.refine.drawing import draw, moved, raster_points
from evojax_art.render.look import Raster
from evojax_art.runtime.errors import InputError

_REACH, _LEAST = 0.3, 0.1
_WORST = 1e9  # loss of what is not finite, which a line search can compare


@dataclass(frozen=True, kw_only=True)
class AscentConfig:
    """How constants climb.

    Attributes:
        steps: of gradient ascent.
        optimizer: "adam", whose learning rate falls to 0 along a cosine, or "lbfgs", which measures
            its step along a line, holds the camera still and takes several evaluations a step.
        learning_rate: of Adam; 1 moves a constant by a third of its size.
        check_every: steps between two exact evaluations, the best of which is the result.
        coarse: share of the steps, at the start, on pictures of half the size.
        shift: standard deviation of the random camera's place, as a share of the picture.
        scale: of the logarithm of its distance.
        turn: of its angle, in degrees. The first of several copies keeps its camera still.
    """

    steps: int = 200
    optimizer: Literal["adam", "lbfgs"] = "adam"
    learning_rate: float = 0.1
    check_every: int = 5
    coarse: float = 0.25
    shift: float = 0.01
    scale: float = 0.02
    turn: float = 1.0

    def __post_init__(self):
        for name in ("steps", "check_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("shift", "scale", "turn"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be above 0, and finite, got {self.learning_rate}")
        if not 0 <= self.coarse <= 1:
            raise InputError(f"coarse must be 0 to 1, got {self.coarse}")

    @property
    def transform(self) -> optax.GradientTransformationExtraArgs:
        """The optimiser."""
        if self.optimizer == "lbfgs":
            return optax.lbfgs()
        return optax.with_extra_args_support(optax.scale_by_adam(b2=0.99))

    def rate(self, step: Int[Array, ""]) -> Array:
        """Adam's learning rate at a step."""
        return jnp.asarray(optax.cosine_decay_schedule(self.learning_rate, self.steps)(step))


class AscentState(NamedTuple):
    """P formulas on their way.

    Attributes:
        start: where they began.
        offset: from there, of every constant; zero elsewhere.
        reach: how far an offset of 1 moves each; zero elsewhere.
        optimizer: its state.
        best: the best seen of each by exact evaluation.
        evaluation: of those.
        step: steps taken.
    """

    start: Program
    offset: Float[Array, "P L 4"]
    reach: Float[Array, "P L 1"]
    optimizer: Any
    best: Program
    evaluation: Evaluation
    step: Int[Array, ""]

    @property
    def here(self) -> Program:
        """Where they are."""
        return displaced(self.start, self.offset, self.reach)


class Ascent:
    """The functions of an ascent, traceable.

    Args:
        evaluator: of the formulas.
        config: how to climb.
    """

    def __init__(self, evaluator: Evaluator, config: AscentConfig):
        self._evaluator = evaluator
        self._config = config

    def init(
        self,
        population: Program,
        evaluation: Evaluation,
        reach: Float[Array, "P L 1"] | None = None,
    ) -> AscentState:
        """The state before the first step.

        Args:
            population: where they begin; constants must be free.
            evaluation: of that.
            reach: of their constants; None: `usual_reach`.
        """
        offset = jnp.zeros_like(population.constant)
        return AscentState(
            start=population,
            offset=offset,
            reach=usual_reach(population) if reach is None else reach,
            optimizer=jax.vmap(self._config.transform.init)(offset),
            best=population,
            evaluation=evaluation,
            step=jnp.int32(0),
        )

    def advance(
        self, state: AscentState, params: Params, key: Key[Array, ""], num_steps: int, coarse: bool
    ) -> AscentState:
        """Some steps; what they led to is kept by `keep_best`.

        Args:
            state: consumed.
            params: of the evaluator.
            key: of the cameras.
            num_steps: steps.
            coarse: whether on pictures of half the size.
        """
        config, look, raster = self._config, self._evaluator.look, self._evaluator.raster
        if coarse:
            raster = replace(raster, height=-(-raster.height // 2), width=-(-raster.width // 2))
        at = raster_points(raster, look.z)
        advance_fn = self._lbfgs if config.optimizer == "lbfgs" else self._adam

        def step(state: AscentState, key: Key[Array, ""]):
            calm = 0.0 if config.optimizer == "lbfgs" else 1 - state.step / config.steps
            spans = (config.shift * calm, config.scale * calm, config.turn * calm)
            here = moved(key, at, state.offset.shape[0], *spans)
            offset, optimizer = advance_fn(state, params, raster, here)
            return state._replace(offset=offset, optimizer=optimizer, step=state.step + 1), None

        return jax.lax.scan(step, state, jax.random.split(key, num_steps))[0]

    def keep_best(self, state: AscentState, evaluation: Evaluation) -> AscentState:
        """The best so far, given the evaluation of where the formulas are (`AscentState.here`)."""
        better = evaluation.fitness > state.evaluation.fitness
        before = (state.best, state.evaluation)
        best, evaluation = select(better, (state.here, evaluation), before)
        return state._replace(best=best, evaluation=evaluation)

    def restart(
        self, state: AscentState, evaluation: Evaluation, key: Key[Array, ""], spread: float
    ) -> AscentState:
        """Copies of one formula that are behind the best seen start again near it (`scattered`).

        So polish finds its way where the gradient is blind, past `floor` and from hill to hill.

        Args:
            state: consumed.
            evaluation: of where the copies are.
            key: consumed.
            spread: see `scattered`.
        """
        best = take(state.best, jnp.argmax(state.evaluation.fitness))
        behind = evaluation.fitness < jnp.max(state.evaluation.fitness)
        nowhere = jnp.zeros_like(state.offset)
        fresh = scattered(key, best, state.reach, spread)
        start, offset, optimizer = select(
            behind,
            (fresh, nowhere, jax.vmap(self._config.transform.init)(nowhere)),
            (state.start, state.offset, state.optimizer),
        )
        return state._replace(start=start, offset=offset, optimizer=optimizer)

    def _losses(
        self, formulas: Program, params: Params, raster: Raster, at: Coordinates
    ) -> Float[Array, "P"]:
        """Minus the fitness of each, as far as it has a gradient."""
        look = self._evaluator.look
        images = draw(formulas, look, raster, at, params.photographs, self._evaluator.plan)
        fitness = self._evaluator.smooth_fitness(images, params)
        return jnp.where(jnp.isfinite(fitness), -fitness, _WORST)

    def _adam(self, state: AscentState, params: Params, raster: Raster, at: Coordinates):
        def total(offset):
            return jnp.sum(self._losses(state._replace(offset=offset).here, params, raster, at))

        gradient = jax.grad(total)(state.offset)
        updates: Any
        updates, optimizer = jax.vmap(self._config.transform.update)(gradient, state.optimizer)
        return state.offset - self._config.rate(state.step) * updates, optimizer

    def _lbfgs(self, state: AscentState, params: Params, raster: Raster, at: Coordinates):
        """Formula by formula: each has a line to search."""
        transform = self._config.transform

        def one(row):
            start, offset, reach, optimizer, at = row

            def loss(offset):
                here = displaced(start, offset, reach)
                alone, there = jax.tree.map(lambda t: t[None], (here, at))
                return self._losses(alone, params, raster, there)[0]

            value, gradient = optax.value_and_grad_from_state(loss)(offset, state=optimizer)
            updates: Any
            updates, optimizer = transform.update(
                gradient, optimizer, offset, value=value, grad=gradient, value_fn=loss
            )
            sound = jnp.all(jnp.isfinite(updates))
            return offset + jnp.where(sound, updates, 0), optimizer

        return jax.lax.map(one, (state.start, state.offset, state.reach, state.optimizer, at))


def usual_reach(program: Program) -> Float[Array, "*P L 1"]:
    """How far an offset of 1 moves each constant, see the module's docstring; 0 elsewhere."""
    is_constant = (program.opcode == CONSTANT)[..., None]
    size = jnp.linalg.norm(program.constant, axis=-1, keepdims=True)
    return jnp.where(is_constant, _REACH * (size + _LEAST), 0)


def displaced(
    start: Program, offset: Float[Array, "*P L 4"], reach: Float[Array, "*P L 1"]
) -> Program:
    """The programs with their constants moved by an offset, see the module's docstring."""
    return start._replace(constant=start.constant + reach * offset)


def scattered(
    key: Key[Array, ""], program: Program, reach: Float[Array, "P L 1"], spread: float
) -> Program:
    """Copies of one program, the first as it is, the constants of the others moved at random.

    Args:
        key: consumed.
        program: without a leading axis.
        reach: of the constants of each copy.
        spread: largest standard deviation of the offsets; each copy has its own, drawn
            log-uniformly from a hundredth of that, since nobody knows how rugged a formula is.
    """
    size_key, key = jax.random.split(key)
    count = len(reach)
    copies = jax.tree.map(lambda t: jnp.broadcast_to(t, (count, *t.shape)), program)
    size = spread * 10 ** jax.random.uniform(size_key, (count, 1, 1), minval=-2.0, maxval=0.0)
    offset = size * jax.random.normal(key, copies.constant.shape)
    return displaced(copies, offset * (jnp.arange(count) > 0)[:, None, None], reach)
