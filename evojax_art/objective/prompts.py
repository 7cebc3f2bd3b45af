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
from evojax_art.nets.tokens import encode
from evojax_art.objective.classes import class_measure
from evojax_art.objective.observed import Observed
from evojax_art.objective.terms import Measure
from evojax_art.runtime.errors import InputError

AGAINST = ("an abstract pattern", "television static", "a blurry photo", "a photo of something")


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
        if not all(texts):
            raise InputError("prompt: a text is empty")
        if len(texts) < 2 or texts[0] in texts[1:]:
            raise InputError("against: say something else than the prompt, at least once")
        tokens, cut = encode(texts)
        self.name = texts[0]
        self.against = tuple(texts[1:])
        self.net = net
        self.cut = tuple(text for text, is_cut in zip(texts, cut, strict=True) if is_cut)
        self._directions = np.asarray(network.text_embedding(tokens))
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
        return told + [f"cut to 77 tokens: {text:.60} ..." for text in self.cut]

    def text(self, score: float) -> str:
        """In per cent."""
        return f"{100 * score:.4g} %"
