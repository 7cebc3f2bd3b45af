"""The probability of classes, as a target.

target = ClassTarget(net.vocabulary, (crab,))    # what evolution climbs by default
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evojax_art.nets.base import Classifier, Network
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Measure
from evojax_art.runtime.errors import InputError


class ClassTarget:
    """The probability of some classes together; the value is its log-odds.

    Args:
        vocabulary: whose classes they are.
        indices: of the classes, at least one and not all.
        net: name of the network; "" is the first.

    Raises:
        InputError: all classes, or none.
    """

    is_probability = True
    resizes = True
    sees_whole = False

    def __init__(self, vocabulary: Vocabulary, indices: Sequence[int], net: str = ""):
        self.vocabulary = vocabulary
        self.indices = tuple(sorted(set(indices)))
        self.net = net
        if not self.indices:
            raise InputError("target: name at least one class")
        if len(self.indices) == len(vocabulary.names):
            raise InputError("the targets are all classes of the network; name fewer")
        self.name = "; ".join(vocabulary.names[index] for index in self.indices)

    def measure(self, observed: Observed) -> Measure:
        """Score in [0, 1]; pictures are resized as the network expects."""
        return class_measure(observed.log_probabilities(self.net), self.indices)

    def opinion(self, net: Network, images: Float[Array, "P H W 3"]) -> Float[Array, "P"] | None:
        """The probability of the classes of the same meaning; None where it has none of them."""
        if not isinstance(net, Classifier):
            return None
        found = self.vocabulary.match(self.indices, net.vocabulary).indices
        return net.probabilities(images)[:, jnp.array(found)].sum(axis=1) if found else None

    def describe(self) -> list[str]:
        """Each class with its index."""
        return [f"target {index}: {self.vocabulary.names[index]}" for index in self.indices]

    def text(self, score: float) -> str:
        """In per cent."""
        return f"{100 * score:.4g} %"


def class_measure(log_probabilities: Float[Array, "P K"], indices: Sequence[int]) -> Measure:
    """The log-odds and the probability of some classes together."""
    chosen = jnp.array(indices)
    log_score = jax.nn.logsumexp(log_probabilities[:, chosen], axis=-1)
    others = jnp.delete(log_probabilities, chosen, axis=1, assume_unique_indices=True)
    log_odds = log_score - jax.nn.logsumexp(others, axis=-1)
    return Measure(log_odds, jnp.minimum(jnp.exp(log_score), 1.0))
