"""What commands are asked for: classes of some networks, or a layer of one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from evojax_art.artwork.beside import guide_beside
from evojax_art.artwork.provenance import Provenance
from evojax_art.language.bindings import checksum
from evojax_art.language.photographs import read_image
from evojax_art.nets.base import Classifier
from evojax_art.nets.registry import DEFAULT, REGISTRY, lookup
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.ensemble import Ensemble, Judge
from evojax_art.objective.layers import LayerTarget
from evojax_art.objective.terms import Target
from evojax_art.objective.views import ViewsConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan
from evojax_art.runtime.tables import REPEATABLE


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What is wanted, and of which networks; a part of commands' settings.

    Attributes:
        target: what to see: names of classes or superclasses, parts of names, or indices; several
            are summed.
        layer: in place of a target, a layer of the network, NAME or NAME:CHANNEL: the pictures
            shall excite it, as in DeepDream. A wrong name lists those there are.
        guide: with a layer, a picture: its activations there shall be matched.
        match: with a guide: "place" matches what is at the same place in it, "best" what is most
            alike anywhere in it, as the published DeepDream does.
        net: the network that judges, see `evojax-art nets`; or several, which must all see the
            target. Its classes are looked up in the first, and matched by meaning in the others.
        weights: a weights file, .safetensors, .pth or .caffemodel; NAME=FILE for one of several
            networks; by default the one in a package, or else the one in the cache.
        join: "mean" of the logarithms of the networks' scores, or the "least" of them.
        net_weight: a weight for each network's opinion in the mean; by default equal ones.
    """

    target: tuple[str, ...] = ("crab",)
    layer: str = ""
    guide: Path | None = None
    match: Literal["place", "best"] = "place"
    net: tuple[str, ...] = (DEFAULT,)
    weights: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    join: Literal["mean", "least"] = "mean"
    net_weight: tuple[float, ...] = ()

    def check(self) -> None:
        """For those who have nothing else to fill in what is missing.

        Raises:
            InputError: no target, or no network; a guide without a layer, a layer of several
                networks, or weights that belong to none.
        """
        if not self.target:
            raise InputError("target: name at least one class")
        if self.guide and not self.layer:
            raise InputError("guide: say with --layer which layer of the network shall match it")
        if not self.net:
            raise InputError("net: name at least one network")
        if len(set(self.net)) < len(self.net):
            raise InputError(f"net: {' '.join(self.net)} names a network twice")
        if self.layer and len(self.net) > 1:
            raise InputError(f"layer {self.layer} is one network's: name one with --net")
        if self.net_weight and len(self.net_weight) != len(self.net):
            raise InputError(f"net_weight: give one for each of {' '.join(self.net)}")
        if not all(0 < weight < math.inf for weight in self.net_weight):
            raise InputError("net_weight: weights must be above 0")
        if self.net_weight and self.join == "least":
            raise InputError("net_weight: the least of all opinions has no weights")
        self.weights_files  # noqa: B018  refuses what belongs to no network

    @property
    def weights_files(self) -> dict[str, Path]:
        """The weights file of each network for which one is named.

        Raises:
            InputError: a file that belongs to none of the networks, or nobody knows to which.
        """
        files = {}
        for given in self.weights:
            name, equals, file = given.partition("=")
            if not (equals and (name in self.net or name in REGISTRY)):
                if len(self.net) > 1:
                    raise InputError(
                        f"weights {given}: say whose they are, as in {next(iter(self.net))}={given}"
                    )
                name, file = next(iter(self.net)), given
            if name not in self.net:
                raise InputError(f"weights {given}: {name} is not among --net {' '.join(self.net)}")
            files[name] = Path(file).expanduser()
        return files

    @property
    def words(self) -> str:
        """What is wanted, in words."""
        if not self.layer:
            return " ".join(self.target)
        return f"layer {self.layer}" + (f" like {self.guide.name}" if self.guide else "")


UNSAID = TargetConfig(target=(), net=())  # all is for `recall_target` to fill in


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
    recalled = replace(
        config,
        target=target or default.target,
        layer=layer,
        guide=guide,
        net=config.net or tuple(provenance.net.split()) or default.net,
    )
    recalled.check()
    return recalled


def provenance_of(config: TargetConfig) -> Provenance:
    """What pictures say of a target: its terms, or a layer and perhaps a guide; and the network.

    Raises:
        InputError: the guide cannot be read.
    """
    net = " ".join(config.net)
    if not config.layer:
        return Provenance(target=config.target, net=net)
    if not config.guide:
        return Provenance(layer=config.layer, net=net)
    guide, sha256 = str(config.guide), checksum(config.guide)
    return Provenance(layer=config.layer, guide=guide, guide_sha256=sha256, net=net)


def load_target(
    config: TargetConfig, views: ViewsConfig | None = None, plan: Plan | None = None
) -> tuple[dict[str, Classifier], Target]:
    """The networks, in the plan's arithmetic, and what is wanted of them.

    Args:
        config: what is wanted.
        views: that pictures will be judged in besides.
        plan: where it will run.

    Raises:
        InputError: no such network, class or layer; a file that cannot be read.
    """
    config.check()
    files = config.weights_files
    nets = {name: load_net(name, files.get(name), plan=plan) for name in config.net}
    guide = None if config.guide is None else read_image(config.guide) / np.float32(255)
    return nets, target_of(nets, config, guide, views or ViewsConfig())


def target_of(
    nets: Mapping[str, Classifier],
    config: TargetConfig,
    guide: Float[np.ndarray, "h w 3"] | None,
    views: ViewsConfig,
) -> Target:
    """What is wanted of networks: of the one, or of all together.

    Raises:
        InputError: a class or layer that they do not have.
    """
    (first, net), *_ = nets.items()
    target = choose_target(net, config.target, config.layer, guide, first, match=config.match)
    if len(nets) == 1 and not views.count:
        return target
    judges = [
        Judge(
            name=name,
            target=target if name == first else _likewise(net, config.target, nets, name),
            weight=weight,
            cost=lookup(name).multiply_adds,
        )
        for name, weight in zip(nets, config.net_weight or [1.0] * len(nets), strict=True)
    ]
    return Ensemble(judges, config.join, views.join)


def _likewise(
    first: Classifier, queries: Sequence[str], nets: Mapping[str, Classifier], name: str
) -> ClassTarget:
    """The classes of another network that mean what queries mean to the first."""
    vocabulary, found = nets[name].vocabulary, set()
    for query in queries:
        same = first.vocabulary.match(first.vocabulary.find(query), vocabulary).indices
        if not same:
            raise InputError(
                f"target {query!r}: {name} has no class of that meaning; judges must all have one"
            )
        found.update(same)
    return ClassTarget(vocabulary, tuple(found), name)


def choose_target(
    net: Classifier,
    names: Sequence[str],
    layer: str = "",
    guide: Float[np.ndarray, "h w 3"] | None = None,
    name: str = "",
    *,
    match: Literal["place", "best"] = "place",
) -> Target:
    """The target that a user's words mean.

    Args:
        net: the network.
        names: of classes, see `Vocabulary.find`; several are summed.
        layer: takes their place.
        guide: for the layer.
        match: of the guide.
        name: of the network, where there are several.

    Raises:
        InputError: no such class or layer; all classes at once.
    """
    if layer:
        return LayerTarget(net, layer, guide, name, match=match)
    return ClassTarget(net.vocabulary, classes_of(net, names), name)


def classes_of(net: Classifier, queries: Sequence[str]) -> tuple[int, ...]:
    """The classes that several queries mean together, ascending, each once.

    Raises:
        InputError: no such class.
    """
    found = {index for query in queries for index in net.vocabulary.find(query)}
    return tuple(sorted(found))
