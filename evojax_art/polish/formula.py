"""One formula polished: from an expression to a better one, which is still a line of text."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from evojax_art.errors import InputError
from evojax_art.formula import Expression, Node, constant_node
from evojax_art.interpreter import reverse
from evojax_art.judge import Judge
from evojax_art.ops import BY_NAME, CONSTANT
from evojax_art.polish.climb import ClimbConfig, Climber, Judged, displaced, scattered
from evojax_art.polish.drawing import traced
from evojax_art.program import Program, encode, free_constants, take, to_expressions

_LEAST_CAPACITY = 32  # formulas of up to so many nodes share compiled code


@dataclass(frozen=True, kw_only=True)
class PolishConfig:
    """How a formula is polished.

    Attributes:
        restarts: copies that climb side by side, the first from where the formula is.
        spread: how far the others are scattered at first, in units in which 1 moves a constant by a
            third of its size.
        lift: put free affine coordinates and a free colour map around the formula first; what
            leaves the square comes in again on the other side, as `subst` has it.
        gradient: "reverse" interprets any formula and compiles once for all of a size; "trace"
            compiles this one, which takes its time and then up to half the time per step.
        climb: the ascent.
    """

    restarts: int = 4
    spread: float = 0.3
    lift: bool = False
    gradient: Literal["reverse", "trace"] = "reverse"
    climb: ClimbConfig = field(default_factory=ClimbConfig)

    def __post_init__(self):
        if self.restarts < 1:
            raise InputError(f"restarts must be 1 or more, got {self.restarts}")
        if not self.spread >= 0:
            raise InputError(f"spread must be 0 or more, got {self.spread}")


@dataclass(frozen=True, kw_only=True)
class Polished:
    """What polishing came to; values and scores by exact evaluation.

    Attributes:
        expression: the best found; the start itself where nothing was better.
        start_fitness: by the whole objective.
        fitness: likewise, never lower.
        start_value: the goal's, for classes the log-odds of the score.
        value: likewise.
        start_score: the goal's, for classes a probability.
        score: likewise.
        num_constants: that were free.
        steps: taken.
        compile_seconds: tracing and compiling, or reading what was compiled before.
        seconds: everything else.
    """

    expression: Expression
    start_fitness: float
    fitness: float
    start_value: float
    value: float
    start_score: float
    score: float
    num_constants: int
    steps: int
    compile_seconds: float
    seconds: float


class FormulaPolisher:
    """Polishes formulas one after the other; what they share is compiled once.

    Args:
        judge: by whom they are measured.
        config: how.
        images: names of the pictures that formulas read, as the judge has them.
    """

    def __init__(self, judge: Judge, config: PolishConfig, images: tuple[str, ...] = ()):
        self._judge = judge
        self._config = config
        self._images = images
        self._compiled: dict[Any, Any] = {}
        self._compile_seconds = 0.0

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
        config, judge = self._config, self._judge
        began, self._compile_seconds = time.perf_counter(), 0.0
        start = expression
        if config.lift:
            expression = lifted(expression)
        capacity = max(_LEAST_CAPACITY, 1 << (len(expression) - 1).bit_length())
        free = free_constants(encode([expression], capacity, images=self._images))
        num_constants = int(jnp.sum(free.opcode == CONSTANT))
        if not num_constants:
            raise InputError(
                "this formula has no constants that could be polished; --lift adds some around it"
            )
        scatter_key, climb_key = jax.random.split(key)
        copies = scattered(scatter_key, take(free, jnp.int32(0)), config.restarts, config.spread)
        value_fn = reverse.interpret
        if config.gradient == "trace":
            (with_free,) = to_expressions(free, self._images)
            value_fn = traced(with_free)
        climber = Climber(judge, config.climb, value_fn)
        which = expression if config.gradient == "trace" else None

        def judged(population: Program) -> Judged:
            return self._call("judge", climber.judge, (population, judge.fixed), None)

        original = encode([start] * config.restarts, capacity, images=self._images)
        first_fitness, first = jax.device_get(judged(original))
        state = climber.init(copies, judged(copies))
        steps = 0
        for steps, coarse, count in _chunks(config.climb):
            climb_key, key = jax.random.split(climb_key)
            given = (state, judge.fixed, key)
            state = self._call("climb", climber.climb, given, which, count, coarse)
            state = climber.keep_best(state, judged(displaced(state.start, state.offset)))
            score = max(float(first.score[0]), float(jnp.max(state.metrics.score)))
            if not progress_fn(steps / config.climb.steps, score):
                break
        winner = int(jnp.argmax(state.fitness))
        improved = float(state.fitness[winner]) > float(first_fitness[0])
        best = jax.tree.map(lambda t: t[winner][None], state.best)
        (polished,) = to_expressions(best, self._images)
        fitness, metrics = jax.device_get((state.fitness[winner], state.metrics))
        end = jax.tree.map(lambda t: t[winner], metrics) if improved else None
        return Polished(
            expression=polished if improved else start,
            start_fitness=float(first_fitness[0]),
            fitness=float(fitness) if improved else float(first_fitness[0]),
            start_value=float(first.value[0]),
            value=float(end.value if end else first.value[0]),
            start_score=float(first.score[0]),
            score=float(end.score if end else first.score[0]),
            num_constants=num_constants,
            steps=steps,
            compile_seconds=self._compile_seconds,
            seconds=time.perf_counter() - began - self._compile_seconds,
        )

    def _call(self, name: str, fn: Callable, given: tuple, which: Any, *static: Any) -> Any:
        """The function's result; compiling it, where that is due, goes to its own account."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(given))
        known = (name, which, static, shapes)
        if known not in self._compiled:
            began = time.perf_counter()
            lowered = jax.jit(lambda *given: fn(*given, *static)).lower(*given)
            self._compiled[known] = lowered.compile()
            self._compile_seconds += time.perf_counter() - began
        return self._compiled[known](*given)


def _chunks(config: ClimbConfig):
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

    With f(G) for `( + ( q 0 0 0 0 ) ( * ( q 1 0 0 0 ) G ) )` it is `f(( subst f(x_iy) FORMULA ))`:
    a quaternion turns and stretches the plane as a complex number does, and colours likewise.
    """

    def within(inside: tuple[Node, ...]) -> tuple[Node, ...]:
        turned = (constant_node((1, 0, 0, 0)), *inside, Node(BY_NAME["*"]))
        return (constant_node((0, 0, 0, 0)), *turned, Node(BY_NAME["+"]))

    frame = within((Node(BY_NAME["x_iy"]),))
    return Expression(within((*frame, *expression.postfix, Node(BY_NAME["subst"]))))
