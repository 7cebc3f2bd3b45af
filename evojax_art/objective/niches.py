"""Many targets at once: a niche for every class of a network, or for groups of them.

niches = EveryClass(net.vocabulary, [(index,) for index in range(1000)])

Illumination asks of every picture how well it would do in each niche, so measures have an axis K
of niches here. Several judges' are joined as of one target, see `ensemble`.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evojax_art.nets.base import Classifier, Network
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.ensemble import Ensemble
from evojax_art.objective.observed import Observed
from evojax_art.objective.target import TargetConfig, joined
from evojax_art.objective.terms import Measure, Target
from evojax_art.objective.views import ViewsConfig
from evojax_art.runtime.errors import InputError


class EveryClass:
    """K niches, each one class of a network or several together.

    Args:
        vocabulary: whose classes they are.
        groups: indices of each niche's classes, at least one and not all.
        net: name of the network; "" is the first.

    Raises:
        InputError: no niche, or one of no class or of all.
    """

    is_probability = True
    resizes = True
    sees_whole = False

    def __init__(self, vocabulary: Vocabulary, groups: Sequence[Sequence[int]], net: str = ""):
        self.vocabulary = vocabulary
        self.groups = tuple(tuple(sorted(set(group))) for group in groups)
        self.net = net
        if not self.groups:
            raise InputError("classes: name at least one")
        if not all(0 < len(group) < len(vocabulary) for group in self.groups):
            raise InputError("classes: each needs a class of the network, and one that it is not")
        self.names = tuple(
            "; ".join(vocabulary.names[index] for index in group) for group in self.groups
        )

    @property
    def name(self) -> str:
        """How many."""
        return f"{len(self.groups)} classes"

    def measure(self, observed: Observed) -> Measure:
        """Log-odds and probability of each niche, [P, K]."""
        return niches_measure(observed.log_probabilities(self.net), self.groups)

    def opinion(self, net: Network, images: Float[Array, "P H W 3"]) -> Float[Array, "P"] | None:
        """Nobody is asked for all at once, see `matched`."""
        del net, images

    def matched(self, net: Network) -> list[tuple[int, ...]] | None:
        """For each niche the classes of the same meaning; None where a network has no classes.

        A niche that it knows nothing of has no class.
        """
        if not isinstance(net, Classifier):
            return None
        if net.vocabulary is self.vocabulary:
            return list(self.groups)
        return [self.vocabulary.match(group, net.vocabulary).indices for group in self.groups]

    def describe(self) -> list[str]:
        """How many classes."""
        return [f"a niche for each of {self.name}"]

    def text(self, score: float) -> str:
        """In per cent."""
        return f"{100 * score:.4g} %"


def niches_measure(
    log_probabilities: Float[Array, "P C"], groups: Sequence[Sequence[int]]
) -> Measure:
    """The log-odds and the probability of each of K groups of classes, [P, K]."""
    member = np.zeros((log_probabilities.shape[1], len(groups)), bool)
    for niche, group in enumerate(groups):
        member[list(group), niche] = True
    log_score = _log_sum(log_probabilities, member)
    # What is not in a group is added up by itself: near certainty 1 - p would be rounding.
    log_odds = log_score - _log_sum(log_probabilities, ~member)
    return Measure(log_odds, jnp.minimum(jnp.exp(log_score), 1.0))


def _log_sum(logs: Float[Array, "P C"], member: np.ndarray) -> Float[Array, "P K"]:
    """The logarithm of the sum over each group's classes; never infinite where logs are finite."""
    most = jnp.max(logs, axis=-1, keepdims=True)
    total = jnp.exp(logs - most) @ jnp.asarray(member, logs.dtype)
    return jnp.log(jnp.maximum(total, jnp.finfo(logs.dtype).tiny)) + most


def niches_of(
    nets: Mapping[str, Network],
    config: TargetConfig,
    classes: Sequence[str],
    views: ViewsConfig,
    main: Target | None = None,
) -> tuple[Target, EveryClass]:
    """A niche for each class of the first network that all have, or for each of those named.

    Args:
        nets: the judges.
        config: how their opinions are joined.
        classes: as of targets; none for all.
        views: that pictures are judged in besides.
        main: a target of the same networks that gets a niche of its own, the last.

    Returns:
        What is wanted of all together, and of the first.

    Raises:
        InputError: a class that is named and that one of them does not have; a network without
            classes; no class that all have.
    """
    vocabularies: dict[str, Vocabulary] = {}
    for name, net in nets.items():
        if not isinstance(net, Classifier):
            raise InputError(f"net {name} has no classes that could be niches")
        vocabularies[name] = net.vocabulary
    ours = next(iter(vocabularies.values()))
    chosen = dict.fromkeys(index for query in classes for index in ours.find(query, "classes"))
    groups: dict[str, list[tuple[int, ...]]] = {name: [] for name in vocabularies}
    for index in chosen or range(len(ours)):
        same = {
            name: (index,) if theirs is ours else ours.match((index,), theirs).indices
            for name, theirs in vocabularies.items()
        }
        lacks = next((name for name, found in same.items() if not found), None)
        if lacks and chosen:
            raise InputError(f"classes: {lacks} has no class that means {ours.names[index]!r}")
        if not lacks:
            for name, found in same.items():
                groups[name].append(found)
    if not all(groups.values()):
        raise InputError(f"net: {' and '.join(nets)} have no class in common")
    for name, group in _groups(main).items() if main else ():
        groups[name].append(group)
    targets = {name: EveryClass(vocabularies[name], groups[name], name) for name in vocabularies}
    return joined(targets, config, views), next(iter(targets.values()))


def _groups(target: Target) -> dict[str, tuple[int, ...]]:
    """The classes that a target asks for, of each network."""
    if isinstance(target, Ensemble):
        return {judge.name: _groups(judge.target).popitem()[1] for judge in target.judges}
    return {target.net: target.indices} if isinstance(target, ClassTarget) else {}
