"""What somebody says in words, as a target for networks that read.

target = PromptTarget(clip, "a samurai crab", ("static", "a pattern"))
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evojax_art.nets.base import Network
from evojax_art.nets.clip import Clip
from evojax_art.nets.tokens import CONTEXT, END, encode
from evojax_art.objective.classes import class_measure
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Measure
from evojax_art.runtime.errors import InputError

AGAINST = ("an abstract pattern", "television static", "a blurry photo", "a photo of something")


def read_texts(
    network: Clip, texts: Sequence[str]
) -> tuple[Float[np.ndarray, "T D"], tuple[str, ...]]:
    """The directions of texts, and those of them that were too long and have been cut.

    Raises:
        InputError: an empty text; weights that are for other tokens, or of a scale that is none.
    """
    if not all(text.strip() for text in texts):
        raise InputError("prompt: a text is empty")
    if network.sizes.vocabulary != END + 1:
        raise InputError(
            f"prompt: the weights are for {network.sizes.vocabulary} tokens, not for {END + 1}"
        )
    if not jnp.isfinite(jnp.exp(network.log_scale[...])):
        raise InputError("prompt: the weights are damaged, their logit_scale is no number to use")
    tokens, cut = encode(texts)
    directions = np.asarray(network.text_embedding(tokens))
    return directions, tuple(text for text, is_cut in zip(texts, cut, strict=True) if is_cut)


class PromptTarget:
    """That a picture shows what a text says, and not what others say; the value is its log-odds.

    The probability is the softmax of how far the picture agrees with each text, scaled as the
    network was trained.

    Args:
        network: whose words they are.
        prompt: what to see.
        against: what else it might be; at least one text.
        net: name of the network; "" is the first.

    Raises:
        InputError: nothing said, or the same on both sides.
    """

    is_probability = True
    resizes = True
    sees_whole = False

    def __init__(self, network: Clip, prompt: str, against: Sequence[str] = AGAINST, net: str = ""):
        texts = [text.strip() for text in (prompt, *against)]
        self._directions, self.cut = read_texts(network, texts)
        if len(texts) < 2 or (self._directions[1:] == self._directions[0]).all(axis=1).any():
            raise InputError("against: say something else than the prompt, at least once")
        self.name = texts[0]
        self.against = tuple(texts[1:])
        self.net = net
        self._scale = float(jnp.exp(network.log_scale[...]))

    def measure(self, observed: Observed) -> Measure:
        """Score in [0, 1]; pictures are resized as the network expects."""
        return class_measure(self.log_probabilities(observed), (0,))

    def log_probabilities(self, observed: Observed) -> Float[Array, "P T"]:
        """Of the prompt, and of each text against it."""
        agreement = observed.image_embedding(self.net) @ self._directions.T
        return jax.nn.log_softmax(self._scale * agreement, axis=-1)

    def opinion(self, net: Network, images: Float[Array, "P H W 3"]) -> None:
        """None: these words are this network's."""
        del net, images

    def describe(self) -> list[str]:
        """The texts, and which were cut."""
        told = [f"prompt: {self.name}", *(f"against: {text}" for text in self.against)]
        return told + [f"cut to {CONTEXT} tokens: {text:.60} ..." for text in self.cut]

    def text(self, score: float) -> str:
        """In per cent."""
        return f"{100 * score:.4g} %"
