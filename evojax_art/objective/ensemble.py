"""The opinions of several judges, and of each in several views, as one target.

What is wanted is asked of each network in its own words, see `ClassTarget`, of the picture as it is
and of every view of it (`views`). Opinions are probabilities p, and joined by their logarithms,
which are 0 at most:

    mean     the mean of log p, weighted; low where anyone is not convinced
    least    the lowest

So those that are known bound what all come to. That is the *short cut*: judges are asked in the
order of what they cost, and each sees just the pictures that can still matter.

Of what a judge sees at several sizes the lowest counts. Other sizes are drawn last: the first
bounds the whole, and where there is a niche for every class few children win one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evojax_art.nets.base import Network
from evojax_art.objective.needed import where_needed
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Measure, Target
from evojax_art.runtime.plan import current_plan

Join = Literal["mean", "least"]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One whose opinion counts.

    Attributes:
        name: of the network.
        target: what is wanted of it.
        weight: of its opinion, beside the others'; above 0.
        cost: of asking it, in any unit.
    """

    name: str
    target: Target
    weight: float = 1.0
    cost: float = 1.0


class Ensemble:
    """Several judges as a target.

    Args:
        judges: at least one. The first says what is wanted where others are asked for their
            opinion. Of several, all are asked for probabilities.
        join: how their opinions become one.
        views_join: how those of one judge do.

    Raises:
        ValueError: other targets than probabilities for several judges.
    """

    def __init__(self, judges: Sequence[Judge], join: Join = "mean", views_join: Join = "mean"):
        self._first = judges[0].target
        self.is_probability = self._first.is_probability
        if len(judges) > 1 and not all(judge.target.is_probability for judge in judges):
            raise ValueError("only probabilities can be joined")
        self.judges = tuple(sorted(judges, key=lambda judge: judge.cost))
        total = sum(judge.weight for judge in self.judges)
        self._shares = tuple(judge.weight / total for judge in self.judges)
        self._join, self._views_join = join, views_join
        self.name = self._first.name
        self.resizes = self._first.resizes
        self.sees_whole = self._first.sees_whole

    def measure(self, observed: Observed) -> Measure:
        """All opinions as one; traceable, and differentiable."""
        seen = [_seen(judge, observed) for judge in self.judges]
        for number in range(len(observed.sizes)):
            again = self._at_size(observed, number)
            seen = [_together(*looks) for looks in zip(seen, again, strict=True)]
        return self._joined(seen, len(observed.sizes))

    def measure_above(self, observed: Observed, least: Float[Array, "P *K"]) -> Measure:
        """The same where the value is at least so much; elsewhere any value that is less.

        Of measures in K niches a picture is seen by all judges if it matters in one of them.

        Args:
            observed: the pictures.
            least: what matters, as the measures are.

        Returns:
            As `measure`. Opinions of judges that did not see a picture are NaN.
        """
        count, views, sizes = observed.images.shape[0], observed.num_views, len(observed.sizes)
        plan = observed.plan or current_plan(observed.images)

        def unseen(looks: int) -> Measure:  # until somebody is asked
            certain = jnp.full((looks, *plain.value.shape[1:]), jnp.inf)
            return Measure(certain, certain)

        def matters() -> Bool[Array, "P"]:
            above = self._joined(seen, sizes).value >= least
            return jnp.any(above.reshape(count, -1), axis=1)

        first = self.judges[0]
        plain = _stacked(first.target.measure(observed))
        seen = [_together(plain, unseen(views + sizes))]
        seen += [unseen(1 + views + sizes) for _ in self.judges[1:]]
        groups = [plan.judged_group(count, observed.net(judge.name).size) for judge in self.judges]
        for number, judge in enumerate(self.judges):
            if number == 0 and not views:
                continue
            only_views, nothing = number == 0, unseen(views + (number > 0))

            def look(places: Array, judge=judge, only_views=only_views) -> Measure:
                return _seen(judge, observed.some(places), only_views=only_views)

            found = where_needed(look, matters(), groups[number], nothing, axis=1)
            seen[number] = _with_looks(seen[number], int(only_views), found)
        for number in range(sizes):

            def draw(places: Array, number=number) -> list[Measure]:
                return self._at_size(observed.some(places), number)

            nothing = [unseen(1) for _ in self.judges]
            found = where_needed(draw, matters(), min(groups), nothing, axis=1)
            seen = [
                _with_looks(looks, 1 + views + number, again)
                for looks, again in zip(seen, found, strict=True)
            ]
        return self._joined(seen, sizes)

    def _at_size(self, observed: Observed, number: int) -> list[Measure]:
        """What each judge sees at one of the other sizes, [1, P]."""
        drawn = observed.at_size(number)
        return [_stacked(judge.target.measure(drawn)) for judge in self.judges]

    def opinion(self, net: Network, images: Float[Array, "P H W 3"]) -> Float[Array, "P"] | None:
        """Of a network that is no judge, by what is wanted of the first that it understands."""
        opinions = (judge.target.opinion(net, images) for judge in self.judges)
        return next((opinion for opinion in opinions if opinion is not None), None)

    def describe(self) -> list[str]:
        """Each judge's, once where they are the same."""
        told = {judge.name: tuple(judge.target.describe()) for judge in self.judges}
        if len(set(told.values())) == 1:
            return list(self._first.describe())
        return [f"{name}: {line}" for name, lines in told.items() for line in lines]

    def text(self, score: float) -> str:
        """As of the first judge's target."""
        return self._first.text(score)

    def _joined(self, seen: Sequence[Measure], sizes: int) -> Measure:
        """What each judge sees in V looks, [V, P], as one; the last of these at other sizes."""

        def over_looks(looks: Float[Array, "V P *K"]) -> Float[Array, "P *K"]:
            over_views = jnp.min if self._views_join == "least" else jnp.mean
            views = len(looks) - sizes
            return jnp.min(jnp.stack([over_views(looks[:views], axis=0), *looks[views:]]), axis=0)

        if not self.is_probability:
            (only,) = seen
            return Measure(over_looks(only.value), over_looks(only.score))
        logs = [jax.nn.log_sigmoid(one.value) for one in seen]
        each = [over_looks(log) for log in logs]
        if self._join == "least":
            together = jnp.min(jnp.stack(each), axis=0)
        else:
            together = jnp.stack(
                [share * log for share, log in zip(self._shares, each, strict=True)]
            ).sum(axis=0)
        # Certainty itself would be worth infinity, and nothing could be better.
        together = jnp.minimum(together, -jnp.finfo(together.dtype).tiny)
        opinions = {
            judge.name: jnp.where(jnp.all(jnp.isfinite(one.value), axis=0), jnp.exp(log), jnp.nan)
            for judge, one, log in zip(self.judges, seen, each, strict=True)
        }
        value = together - jnp.log(-jnp.expm1(together))
        return Measure(value, jnp.exp(together), opinions)


def _seen(judge: Judge, observed: Observed, *, only_views: bool = False) -> Measure:
    """What a judge sees in pictures as they are, then in every view of them, [V, P]."""
    plain = [] if only_views else [_stacked(judge.target.measure(observed))]
    if not observed.num_views:
        return plain[0]
    views = judge.target.measure(observed.viewed)
    value, score = (t.reshape(observed.num_views, -1, *t.shape[1:]) for t in views[:2])
    return _together(*plain, Measure(value, score))


def _stacked(measure: Measure) -> Measure:
    return Measure(measure.value[None], measure.score[None])


def _together(*measures: Measure) -> Measure:
    """Looks, one after the other."""
    return Measure(
        jnp.concatenate([measure.value for measure in measures]),
        jnp.concatenate([measure.score for measure in measures]),
    )


def _with_looks(seen: Measure, first: int, found: Measure) -> Measure:
    """With some looks, from the first on, as they were found."""
    return Measure(
        seen.value.at[first : first + len(found.value)].set(found.value),
        seen.score.at[first : first + len(found.score)].set(found.score),
    )
