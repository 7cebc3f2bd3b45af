"""What an objective is put together from.

A *term* reads what was observed of pictures and adds to their fitness; a *constraint* says which of
them are out of the running. Each is a small object in a file of its own, and none knows another:

    fitness, metrics = term(observed)
    valid, metrics = constraint(observed, matters)  # asked only where the answer matters

A term that has no gradient may have one to climb by, as its attribute `smooth`. One that takes long
may have a function `above`, which is told what fitness matters and need not be exact below.

What a network is asked for is a *target*, classes or a layer; `TargetTerm` makes a term of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evojax_art.nets.base import Network
from evojax_art.objective.observed import Observed

Metrics = dict[str, Float[Array, "P *K"]]


class Contribution(NamedTuple):
    """What a term makes of pictures.

    Attributes:
        fitness: added to that of the other terms; higher is better.
        metrics: what else it found out, by names that no other term uses.
    """

    fitness: Float[Array, "P *K"]
    metrics: Metrics


Term = Callable[[Observed], Contribution]
Constraint = Callable[[Observed, Bool[Array, "P"]], tuple[Bool[Array, "P"], Metrics]]


class Measure(NamedTuple):
    """How well pictures do; higher is better, and both are differentiable.

    Of one target the axis K is left out; of many, see `niches`, it is there.

    Attributes:
        value: what is climbed: the score on a logarithmic scale, so that a step means as much
            wherever it starts, and can be weighed against other terms.
        score: the same as people read it.
        opinions: of several judges each one's score; NaN where it was not asked; None of one.
    """

    value: Float[Array, "P *K"]
    score: Float[Array, "P *K"]
    opinions: Mapping[str, Float[Array, "P *K"]] | None = None


@runtime_checkable
class Target(Protocol):
    """What is wanted of a network. Holds names and pictures, not weights."""

    @property
    def name(self) -> str:
        """What is wanted, for people."""
        ...

    @property
    def is_probability(self) -> bool:
        """Whether scores are probabilities, and values their log-odds."""
        ...

    @property
    def resizes(self) -> bool:
        """Whether pictures are resized to what the network expects, or seen at their own size."""
        ...

    @property
    def sees_whole(self) -> bool:
        """Whether pictures must be seen whole; else parts of a large one may be seen apart."""
        ...

    def measure(self, observed: Observed) -> Measure:
        """How well pictures do; traceable."""
        ...

    def opinion(self, net: Network, images: Float[Array, "P H W 3"]) -> Float[Array, "P"] | None:
        """The score by a network that had no say; None where it cannot be asked for this."""
        ...

    def describe(self) -> Sequence[str]:
        """What is bred for, a line each."""
        ...

    def text(self, score: float) -> str:
        """A score as people read it, in a few letters."""
        ...


@dataclass(frozen=True)
class TargetTerm:
    """A target as a term; its metrics are `score` and `value`.

    Attributes:
        target: what is wanted.
        weight: factor of the scaled score.
        scale: "log_odds" takes the target's value, "probability" its score.
    """

    target: Target
    weight: float = 1.0
    scale: Literal["log_odds", "probability"] = "log_odds"

    @property
    def smooth(self) -> "TargetTerm":
        """On the logarithmic scale, where a step means as much wherever it starts."""
        return replace(self, scale="log_odds")

    def __call__(self, observed: Observed) -> Contribution:
        """Traceable, and differentiable."""
        return self._contribution(self.target.measure(observed))

    def above(self, observed: Observed, least: Float[Array, "P *K"]) -> Contribution:
        """The same where the fitness is at least so much; elsewhere any fitness that is less.

        Saves time where the target knows how, see `Ensemble`.
        """
        measure_above = getattr(self.target, "measure_above", None)
        if measure_above is None or self.weight <= 0:
            return self(observed)
        least = least / self.weight
        if self.scale == "probability":
            least = jax.scipy.special.logit(jnp.clip(least, 0, 1))
            least -= 1e-5 * (1 + jnp.abs(least))  # for rounding
        return self._contribution(measure_above(observed, least))

    def _contribution(self, measure: Measure) -> Contribution:
        fitness = self.weight * (measure.value if self.scale == "log_odds" else measure.score)
        opinions = {judged_by(name): by for name, by in (measure.opinions or {}).items()}
        metrics = {"score": measure.score, "value": measure.value, **opinions}
        return Contribution(fitness, metrics)


def judged_by(name: str) -> str:
    """The metric that is one judge's score."""
    return f"score by {name}"
