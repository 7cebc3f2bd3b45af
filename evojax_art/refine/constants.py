"""One formula polished: from an expression to a better one, which is still a line of text."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from evojax_art.language.formula import Expression, Node, constant_node
from evojax_art.language.ops import AT, BY_NAME, OPS
from evojax_art.language.program import Program, encode, free_constants, take, to_expressions
from evojax_art.objective.evaluation import Evaluation
from evojax_art.objective.evaluator import Evaluator
from evojax_art.refine.ascent import Ascent, AscentConfig, AscentState, scattered, usual_reach
from evojax_art.refine.waves import NODES, laid_over, reach_of_waves
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import formerly

_LEAST_CAPACITY = 32  # formulas of up to so many nodes share compiled code
_MOST_WAVES = 1000


@dataclass(frozen=True, kw_only=True)
class PolishConfig:
    """How a formula is polished.

    Attributes:
        restarts: copies that climb side by side, the first from where the formula is; after every
            exact evaluation those that are behind the best start again near it.
        spread: how far they are scattered, at most, in units in which 1 moves a constant by a third
            of its size.
        lift: put free affine coordinates and a free colour map around the formula first.
        waves: lay so many faint waves over the formula first, each of nine nodes; they climb in
            place of the formula's own constants.
        gradient: "reverse", which interprets any formula and compiles once for all of a size.
            "trace", which compiled each formula, was slower; who asks for it gets "reverse".
        ascent: how constants climb the gradient.
    """

    restarts: int = 8
    spread: float = 1.0
    lift: bool = False
    waves: int = 0
    gradient: Literal["reverse", "trace"] = "reverse"
    ascent: AscentConfig = field(default_factory=AscentConfig, metadata=formerly("climb"))

    def __post_init__(self):
        if self.restarts < 1:
            raise InputError(f"restarts must be 1 or more, got {self.restarts}")
        if not self.spread >= 0:
            raise InputError(f"spread must be 0 or more, got {self.spread}")
        if not 0 <= self.waves <= _MOST_WAVES:
            raise InputError(f"waves must be 0 to {_MOST_WAVES}, got {self.waves}")


class Scored(NamedTuple):
    """A formula and what it is worth, by exact evaluation.

    Attributes:
        expression: the formula.
        fitness: by the whole objective.
        value: the target's, for classes the log-odds of the score.
        score: the target's, for classes a probability.
        metrics: all that the evaluation says.
    """

    expression: Expression
    fitness: float
    value: float
    score: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Polished:
    """What polishing came to.

    Attributes:
        start: what it began with.
        best: the best found; the start itself where nothing was better.
        num_constants: that were free.
        steps: taken.
        compile_seconds: tracing and compiling, or reading what was compiled before.
        seconds: everything else.
    """

    start: Scored
    best: Scored
    num_constants: int
    steps: int
    compile_seconds: float
    seconds: float


class FormulaPolisher:
    """Polishes formulas one after the other; what they share is compiled once.

    Args:
        evaluator: by whom they are measured.
        config: how.
        images: names of the pictures that formulas read, as the evaluator has them.
    """

    def __init__(self, evaluator: Evaluator, config: PolishConfig, images: tuple[str, ...] = ()):
        if config.gradient == "trace":
            logging.getLogger("evojax_art").warning(
                "polish: gradient 'trace' was slower and is gone; taking 'reverse'"
            )
        self._evaluator = evaluator
        self._config = config
        self._images = images
        self._compiled: dict[Any, Any] = {}
        self._compile_seconds = 0.0
        self._params = evaluator.params

    def __call__(
        self,
        expression: Expression,
        key: Key[Array, ""],
        progress_fn: Callable[[float, float], bool] = lambda share, score: True,
    ) -> Polished:
        """Climbs from a formula.

        Args:
            expression: the formula.
            key: consumed.
            progress_fn: called with the share of the steps that are done and the best score; what
                has been found is returned early where it answers False.

        Raises:
            InputError: there is no constant in it.
        """
        began, self._compile_seconds = time.perf_counter(), 0.0
        if self._evaluator.has_views:
            key, view_key = jax.random.split(key)
            self._params = self._evaluator.seen_anew(self._params, view_key)
        key, wave_key = jax.random.split(key)
        free, reach = self._prepared(expression, wave_key)
        capacity = free.capacity
        num_constants = int(jnp.sum(reach > 0))
        if not num_constants:
            raise InputError(
                "this formula has no constants that could be polished; --lift and --waves add some"
            )
        # As many as climb, so that they share compiled code.
        originals = [expression] * self._config.restarts
        evaluation = self._evaluated(encode(originals, capacity, images=self._images))
        start = _scored(expression, evaluation, 0)
        state, steps = self._climbed(free, reach, key, start.score, progress_fn)
        winner = int(jnp.argmax(state.evaluation.fitness))
        best = start
        if float(state.evaluation.fitness[winner]) > start.fitness:
            polished = to_expressions(take(state.best, jnp.array([winner])), self._images)[0]
            best = _scored(polished, state.evaluation, winner)
        return Polished(
            start=start,
            best=best,
            num_constants=num_constants,
            steps=steps,
            compile_seconds=self._compile_seconds,
            seconds=time.perf_counter() - began - self._compile_seconds,
        )

    def _prepared(
        self, expression: Expression, key: Key[Array, ""]
    ) -> tuple[Program, Float[Array, "L 1"]]:
        """What climbs in place of a formula, its constants free, and their reach."""
        waves = self._config.waves
        if self._config.lift:
            expression = lifted(expression)
        nodes = len(expression) + NODES * waves
        capacity = max(_LEAST_CAPACITY, 1 << (nodes - 1).bit_length())
        program = take(encode([expression], capacity, images=self._images), jnp.int32(0))
        if waves:
            program = laid_over(key, program, waves)
            return program, reach_of_waves(program)
        program = free_constants(program)
        return program, usual_reach(program)

    def _climbed(
        self,
        free: Program,
        reach: Float[Array, "L 1"],
        key: Key[Array, ""],
        score: float,
        progress_fn: Callable[[float, float], bool],
    ) -> tuple[AscentState, int]:
        """Where copies of a formula got to, and the steps that it took."""
        config, params = self._config, self._params
        ascent = Ascent(self._evaluator, config.ascent)
        scatter_key, key = jax.random.split(key)
        reaches = jnp.broadcast_to(reach, (config.restarts, *reach.shape))
        copies = scattered(scatter_key, free, reaches, config.spread)
        state, steps = ascent.init(copies, self._evaluated(copies), reaches), 0
        for steps, coarse, count in _chunks(config.ascent):
            key, climb_key, restart_key = jax.random.split(key, 3)
            given = (state, params, climb_key)
            state = self._call("advance", ascent.advance, given, count, coarse)
            evaluation = self._evaluated(state.here)
            state = ascent.keep_best(state, evaluation)
            best_score = max(score, float(jnp.max(state.evaluation.metrics["score"])))
            if not progress_fn(steps / config.ascent.steps, best_score):
                break
            given = (state, evaluation, restart_key)
            state = self._call("restart", ascent.restart, given, config.spread)
        return state, steps

    def _evaluated(self, population: Program) -> Evaluation:
        given = (population, self._params)
        return self._call("evaluate", self._evaluator.evaluate, given)

    def _call(self, name: str, fn: Callable, given: tuple, *static: Any) -> Any:
        """The function's result; compiling it, where that is due, goes to its own account."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(given))
        known = (name, static, shapes)
        if known not in self._compiled:
            began = time.perf_counter()
            lowered = jax.jit(lambda *given: fn(*given, *static)).lower(*given)
            self._compiled[known] = lowered.compile()
            self._compile_seconds += time.perf_counter() - began
        return self._compiled[known](*given)


def _scored(expression: Expression, evaluation: Evaluation, index: int) -> Scored:
    one = jax.device_get(take(evaluation, jnp.int32(index)))
    metrics = {name: float(value) for name, value in one.metrics.items()}
    value, score = metrics["value"], metrics["score"]
    return Scored(expression, float(one.fitness), value, score, metrics)


def _chunks(config: AscentConfig):
    """The steps done at the end of each stretch, whether it is coarse, and its steps."""
    done = 0
    while done < config.steps:
        coarse = done < round(config.coarse * config.steps)
        end = round(config.coarse * config.steps) if coarse else config.steps
        count = min(config.check_every, end - done)
        done += count
        yield done, coarse, count


def lifted(expression: Expression) -> Expression:
    """The formula within free coordinates and free colours, all of which change nothing yet.

    With f(G) for `( + ( q 0 0 0 0 ) ( * ( q 1 0 0 0 ) G ) )` it is `f(( at f(x_iy) FORMULA ))`:
    a quaternion turns and stretches the plane as a complex number does, and colours likewise.
    """

    def within(inside: tuple[Node, ...]) -> tuple[Node, ...]:
        turned = (constant_node((1, 0, 0, 0)), *inside, Node(BY_NAME["*"]))
        return (constant_node((0, 0, 0, 0)), *turned, Node(BY_NAME["+"]))

    frame = within((Node(BY_NAME["x_iy"]),))
    return Expression(within((*frame, *expression.postfix, Node(OPS[AT]))))
