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
from evojax_art.objective.terms import Constraint, Contribution, TargetTerm, Term

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
            variation, `noise` the measure of 2015, NaN where nobody needed it; `besides`, where
            there are niches, what is added to the fitness in each.
        appearance: the pictures' mean colours in 4 by 4 fields; those of equal pictures are equal
            but for rounding.
        descriptors: where in a space of D behaviours a picture lies; None where nobody asked.
        scores: fitness in each of K niches, -inf in all where not valid; None where there are none.
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
        terms: at least one, or niches; their metrics must differ in name.
        constraints: asked one after the other, each only where its answer matters.
        descriptor_fn: where pictures lie in a space of behaviours.
        niches: what is wanted in each of K niches, added to the terms there (`EveryClass`); None
            for none. Its metrics are those of the main niche.
        main: the niche whose fitness is a picture's; None: that in which it is fittest.
        short_cut: whether terms save time where a fitness does not matter.
    """

    terms: Sequence[Term]
    constraints: Sequence[Constraint] = ()
    descriptor_fn: Callable[[Observed], Float[Array, "P D"]] | None = None
    niches: TargetTerm | None = None
    main: int | None = None
    short_cut: bool = True

    def __call__(
        self, observed: Observed, threshold: Float[Array, "*K"] | float = -jnp.inf
    ) -> Evaluation:
        """Evaluates pictures; traceable, and differentiable as far as its parts are.

        Args:
            observed: the pictures.
            threshold: below it a fitness does not matter: there it need not be exact, only below,
                and constraints are not asked.
        """
        contributions, in_niches = self._contributions(observed, threshold)
        scores = jnp.asarray(sum(contribution.fitness for contribution in contributions))
        scores = jnp.broadcast_to(scores, observed.images.shape[:1])[:, None]  # or K, as one niche
        metrics = [contribution.metrics for contribution in contributions]
        if in_niches is not None:
            metrics.append({"besides": scores[:, 0]})
            scores = scores + in_niches.fitness
        valid = jnp.all(jnp.isfinite(scores), axis=1)
        for constraint in self.constraints:
            matters = valid & jnp.any(scores >= threshold, axis=1)
            allowed, found = constraint(observed, matters)
            valid &= allowed | ~matters
            metrics.append(found)
        scores = jnp.where(valid[:, None], scores, -jnp.inf)
        fitness = scores[:, 0]
        if in_niches is not None:
            main = jnp.argmax(scores, axis=1) if self.main is None else self.main
            place = jnp.arange(len(scores)), main
            fitness = scores[place]
            metrics.append({name: found[place] for name, found in in_niches.metrics.items()})
        return Evaluation(
            fitness=fitness,
            valid=valid,
            metrics=_joined(metrics),
            appearance=appearance(observed.pictures),
            descriptors=None if self.descriptor_fn is None else self.descriptor_fn(observed),
            scores=None if in_niches is None else scores,
        )

    def _contributions(
        self, observed: Observed, threshold: Float[Array, "*K"] | float
    ) -> tuple[list[Contribution], Contribution | None]:
        """Of every term, and of the niches; those that need only know what matters come last."""
        everything = isinstance(threshold, float) and threshold == -jnp.inf
        late = [] if everything else [term for term in self.terms if hasattr(term, "above")]
        found = {id(term): term(observed) for term in self.terms if term not in late}
        others = jnp.asarray(sum(contribution.fitness for contribution in found.values()))
        least = jnp.atleast_1d(jnp.asarray(threshold if self.short_cut else -jnp.inf))
        # Fitness is added up in another order here, and rounded otherwise.
        least = jnp.broadcast_to(least - others[..., None], (len(observed.images), len(least)))
        least -= _ROUNDING * (1 + jnp.abs(least))
        for term in late:
            found[id(term)] = cast(Any, term).above(observed, least[:, 0])
        in_niches = None
        if self.niches is not None:
            in_niches = self.niches(observed) if everything else self.niches.above(observed, least)
        return [found[id(term)] for term in self.terms], in_niches

    def smooth(self) -> "Objective":
        """The same as far as it has a gradient: without constraints, of terms that have one."""
        terms = tuple(getattr(term, "smooth", term) for term in self.terms)
        niches = self.niches and self.niches.smooth
        return replace(self, terms=terms, niches=niches, constraints=(), descriptor_fn=None)


def appearance(images: Float[Array, "P H W 3"]) -> Float[Array, "P 48"]:
    """See `Evaluation`."""
    shape = (images.shape[0], _COARSE, _COARSE, 3)
    return jax.image.resize(images, shape, "linear", antialias=True).reshape(shape[0], -1)


def _joined(metrics: Sequence[dict[str, Array]]) -> dict[str, Array]:
    names = [name for found in metrics for name in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two parts of an objective have a metric of the same name: {names}")
    return {name: value for found in metrics for name, value in found.items()}
