"""What commands are asked for: classes or a layer of some network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from evojax_art.artwork.beside import guide_beside
from evojax_art.artwork.provenance import Provenance
from evojax_art.language.bindings import checksum
from evojax_art.language.photographs import read_image
from evojax_art.nets.base import Classifier
from evojax_art.nets.registry import DEFAULT
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.layers import LayerTarget
from evojax_art.objective.terms import Target
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What is wanted, and of which network; a part of commands' settings.

    Attributes:
        target: what to see: names of classes or superclasses, parts of names, or indices; several
            are summed.
        layer: in place of a target, a layer of the network, NAME or NAME:CHANNEL: the pictures
            shall excite it, as in DeepDream. A wrong name lists those there are.
        guide: with a layer, a picture: its activations there shall be matched.
        net: the network that judges, see `evojax-art nets`.
        weights: its weights file, .safetensors, .pth or .caffemodel; by default the one in this
            package, or else the one in the cache.
    """

    target: tuple[str, ...] = ("crab",)
    layer: str = ""
    guide: Path | None = None
    net: str = DEFAULT
    weights: Path | None = None

    def check(self) -> None:
        """For those who have nothing else to fill in what is missing.

        Raises:
            InputError: no target, or a guide without a layer.
        """
        if not self.target:
            raise InputError("target: name at least one class")
        if self.guide and not self.layer:
            raise InputError("guide: say with --layer which layer of the network shall match it")

    @property
    def words(self) -> str:
        """What is wanted, in words."""
        if not self.layer:
            return " ".join(self.target)
        return f"layer {self.layer}" + (f" like {self.guide.name}" if self.guide else "")


UNSAID = TargetConfig(target=(), net="")  # all is for `recall_target` to fill in


def recall_target(config: TargetConfig, provenance: Provenance, folder: Path) -> TargetConfig:
    """A target where what was not said is what a picture was bred for, else as by default.

    Args:
        config: what was said.
        provenance: of the picture.
        folder: of the picture, which its guide must be beside.

    Raises:
        InputError: a guide without a layer, or one that is not beside the picture.
    """
    target, layer, guide = config.target, config.layer, config.guide
    if not (target or layer):
        target, layer = provenance.target, provenance.layer
        if layer and provenance.guide and not guide:
            guide = guide_beside(provenance, folder)
    default = TargetConfig()
    recalled = TargetConfig(
        target=target or default.target,
        layer=layer,
        guide=guide,
        net=config.net or provenance.net or default.net,
        weights=config.weights,
    )
    recalled.check()
    return recalled


def provenance_of(config: TargetConfig) -> Provenance:
    """What pictures say of a target: its terms, or a layer and perhaps a guide; and the network.

    Raises:
        InputError: the guide cannot be read.
    """
    if not config.layer:
        return Provenance(target=config.target, net=config.net)
    if not config.guide:
        return Provenance(layer=config.layer, net=config.net)
    guide, sha256 = str(config.guide), checksum(config.guide)
    return Provenance(layer=config.layer, guide=guide, guide_sha256=sha256, net=config.net)


def load_target(config: TargetConfig, plan: Plan | None = None) -> tuple[Classifier, Target]:
    """The network, in the plan's arithmetic, and what is wanted of it.

    Raises:
        InputError: no such network, class or layer; a file that cannot be read.
    """
    net = load_net(config.net, config.weights, plan=plan)
    guide = None if config.guide is None else read_image(config.guide) / np.float32(255)
    return net, choose_target(net, config.target, config.layer, guide)


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
