"""What commands are asked for: classes or a layer of some network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from evojax_art.language.photographs import read_image
from evojax_art.nets.base import Classifier
from evojax_art.nets.registry import DEFAULT
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.layers import LayerTarget
from evojax_art.objective.terms import Target
from evojax_art.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What is wanted, and of which network; commands' settings are built on it.

    Attributes:
        target: what to see: names of classes or superclasses, parts of names, or indices; several
            are summed.
        layer: in place of a target, a layer of the network, NAME or NAME:CHANNEL: the pictures
            shall excite it, as in DeepDream. A wrong name lists those there are.
        guide: with a layer, a picture: its activations there shall be matched.
        net: the network that judges, see `evojax-art nets`.
        weights: its weights file, .safetensors or .pth; by default the one that is part of this
            package, or else the one in the cache.
    """

    target: tuple[str, ...] = ("crab",)
    layer: str = ""
    guide: Path | None = None
    net: str = DEFAULT
    weights: Path | None = None

    def __post_init__(self):
        if not self.target:
            raise InputError("target: name at least one class")
        if self.guide and not self.layer:
            raise InputError("guide: say with --layer which layer of the network shall match it")

    @classmethod
    def recalled(
        cls,
        text: Mapping[str, str],
        *,
        target: tuple[str, ...] = (),
        layer: str = "",
        guide: Path | None = None,
        net: str = "",
        weights: Path | None = None,
    ) -> "TargetConfig":
        """What a picture was bred for, as its text says (`wish`, and `net`).

        Args:
            text: of the picture; what it does not say is as by default.
            target: in place of what it says, as the others, where there is any.
            layer: likewise.
            guide: likewise.
            net: likewise.
            weights: the network's.

        Raises:
            InputError: a guide without a layer.
        """
        if not (target or layer):
            layer, names = text.get("layer", ""), text.get("target", "")
            target = tuple(names.split(", ")) if names else ()
            guide = guide or (Path(text["guide"]) if layer and "guide" in text else None)
        default = cls()
        return cls(
            target=target or default.target,
            layer=layer,
            guide=guide,
            net=net or text.get("net", "") or default.net,
            weights=weights,
        )

    @property
    def wish(self) -> dict[str, str]:
        """What is wanted, as pictures carry it: `target`, or `layer` and perhaps `guide`."""
        if not self.layer:
            return {"target": ", ".join(self.target)}
        return {"layer": self.layer} | ({"guide": str(self.guide)} if self.guide else {})

    @property
    def wanted(self) -> str:
        """The same in words."""
        if not self.layer:
            return " ".join(self.target)
        return f"layer {self.layer}" + (f" like {self.guide.name}" if self.guide else "")

    def load(self, dtype: DTypeLike = jnp.float32) -> tuple[Classifier, Target]:
        """The network, in this arithmetic, and what is wanted of it.

        Raises:
            InputError: no such network, class or layer; a file that cannot be read.
        """
        net = load_net(self.net, self.weights, dtype=dtype)
        guide = None if self.guide is None else read_image(self.guide) / np.float32(255)
        return net, choose_target(net, self.target, self.layer, guide)


def choose_target(
    net: Classifier,
    names: Sequence[str],
    layer: str = "",
    guide: Float[np.ndarray, "h w 3"] | None = None,
) -> Target:
    """The target that a user's words mean.

    Args:
        net: the network.
        names: of classes, see `Vocabulary.find`; several are summed.
        layer: takes their place.
        guide: for the layer.

    Raises:
        InputError: no such class or layer; all classes at once.
    """
    if layer:
        return LayerTarget(net, layer, guide)
    return ClassTarget(net.vocabulary, classes_of(net, names))


def classes_of(net: Classifier, queries: Sequence[str]) -> tuple[int, ...]:
    """The classes that several queries mean together, ascending, each once.

    Raises:
        InputError: no such class.
    """
    found = {index for query in queries for index in net.vocabulary.find(query)}
    return tuple(sorted(found))
