"""What an evaluation finds out, and the objective that composes it of terms.

One rule for what may not win: an individual that is not `valid` has fitness -inf, so it loses every
comparison. Not valid is one whose fitness would not be finite, and one that a constraint refuses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Constraint, Contribution, Term

_ROUNDING = 1e-5
_COARSE = 4  # fields to a side of an appearance,
APPEARANCE = 3 * _COARSE**2  # which is so many numbers


class Evaluation(NamedTuple):
    """What is known of P individuals; without the axis P, of one.

    Attributes:
        fitness: higher is better; -inf where not valid, else finite.
        valid: whether it may win.
        metrics: what terms and constraints found out, by name. Classes and layers give `score`, as
            people read it, and `value`, the same on a logarithmic scale; `tv` is the total
            variation, `noise` the measure of 2015, NaN where nobody needed it.
        appearance: the pictures' mean colours in 4 by 4 fields; those of equal pictures are equal
            but for rounding.
        descriptors: where in a space of D behaviours a picture lies; None where nobody asked.
        scores: log-probabilities of K classes; None where nobody asked.
    """

    fitness: Float[Array, "*P"]
    valid: Bool[Array, "*P"]
    metrics: dict[str, Float[Array, "*P"]]
    appearance: Float[Array, "*P 48"]
    descriptors: Float[Array, "*P D"] | None = None
    scores: Float[Array, "*P K"] | None = None


@dataclass(frozen=True)
class Objective:
    """Terms that add up to a fitness, and constraints on who may have one.

    Attributes:
        terms: at least one; their metrics must differ in name.
        constraints: asked one after the other, each only where its answer matters.
        descriptor_fn: where pictures lie in a space of behaviours.
        scores_of: the network whose opinion of every class is wanted, "" for the first; None for
            none.
        short_cut: whether terms save time where a fitness does not matter.
    """

    terms: Sequence[Term]
    constraints: Sequence[Constraint] = ()
    descriptor_fn: Callable[[Observed], Float[Array, "P D"]] | None = None
    scores_of: str | None = None
    short_cut: bool = True

    def __call__(
        self, observed: Observed, threshold: Float[Array, ""] | float = -jnp.inf
    ) -> Evaluation:
        """Evaluates pictures; traceable, and differentiable as far as its parts are.

        Args:
            observed: the pictures.
            threshold: below it a fitness does not matter: there it need not be exact, only below,
                and constraints are not asked.
        """
        contributions = self._contributions(observed, threshold)
        fitness = jnp.asarray(sum(contribution.fitness for contribution in contributions))
        metrics = [contribution.metrics for contribution in contributions]
        valid = jnp.isfinite(fitness)
        for constraint in self.constraints:
            matters = valid & (fitness >= threshold)
            allowed, found = constraint(observed, matters)
            valid &= allowed | ~matters
            metrics.append(found)
        return Evaluation(
            fitness=jnp.where(valid, fitness, -jnp.inf),
            valid=valid,
            metrics=_joined(metrics),
            appearance=appearance(observed.pictures),
            descriptors=None if self.descriptor_fn is None else self.descriptor_fn(observed),
            scores=None if self.scores_of is None else observed.log_probabilities(self.scores_of),
        )

    def _contributions(
        self, observed: Observed, threshold: Float[Array, ""] | float
    ) -> list[Contribution]:
        """Of every term; those that need only know what matters come last."""
        everything = isinstance(threshold, float) and threshold == -jnp.inf
        late = [] if everything else [term for term in self.terms if hasattr(term, "above")]
        found = {id(term): term(observed) for term in self.terms if term not in late}
        least = threshold if self.short_cut else -jnp.inf
        others = sum(contribution.fitness for contribution in found.values())
        # Fitness is added up in another order here, and rounded otherwise.
        least = jnp.broadcast_to(least - others, observed.images.shape[:1])
        least -= _ROUNDING * (1 + jnp.abs(least))
        for term in late:
            found[id(term)] = cast(Any, term).above(observed, least)
        return [found[id(term)] for term in self.terms]

    def smooth(self) -> "Objective":
        """The same as far as it has a gradient: without constraints, of terms that have one."""
        terms = tuple(getattr(term, "smooth", term) for term in self.terms)
        return replace(self, terms=terms, constraints=(), descriptor_fn=None, scores_of=None)


def appearance(images: Float[Array, "P H W 3"]) -> Float[Array, "P 48"]:
    """See `Evaluation`."""
    shape = (images.shape[0], _COARSE, _COARSE, 3)
    return jax.image.resize(images, shape, "linear", antialias=True).reshape(shape[0], -1)


def _joined(metrics: Sequence[dict[str, Array]]) -> dict[str, Array]:
    names = [name for found in metrics for name in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two parts of an objective have a metric of the same name: {names}")
    return {name: value for found in metrics for name, value in found.items()}
