"""What commands are asked for: classes of some networks, or a layer of one."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from jaxtyping import Float

from evojax_art.artwork.beside import guide_beside
from evojax_art.artwork.provenance import Provenance
from evojax_art.language.bindings import checksum
from evojax_art.language.photographs import read_image
from evojax_art.nets.base import Classifier, Network
from evojax_art.nets.clip import Clip
from evojax_art.nets.registry import DEFAULT, REGISTRY, lookup, weights_path, whereabouts
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.ensemble import Ensemble, Judge
from evojax_art.objective.layers import LayerTarget
from evojax_art.objective.prompts import AGAINST, PromptTarget
from evojax_art.objective.terms import Target
from evojax_art.objective.views import ViewsConfig
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.runtime.plan import Plan
from evojax_art.runtime.tables import REPEATABLE


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What is wanted, and of which networks; a part of commands' settings.

    Attributes:
        target: what to see: names of classes or superclasses, parts of names, or indices; several
            are summed.
        prompt: what to see, in words, for networks that read (`clip_vit_b32`, which is then the
            default); others beside them are asked for the target.
        against: what else it might be, a text each; by default four texts such as "an abstract
            pattern".
        layer: in place of a target, a layer of the network, NAME or NAME:CHANNEL: the pictures
            shall excite it, as in DeepDream. A wrong name lists those there are.
        guide: with a layer, a picture: its activations there shall be matched.
        match: with a guide: "place" matches what is at the same place in it, "best" what is most
            alike anywhere in it, as the published DeepDream does.
        net: the network that judges, see `evojax-art nets`; or several, which must all see the
            target. Its classes are looked up in the first, and matched by meaning in the others.
        otherwise: a network that judges in place of `net` where the weights of that one are not
            there.
        weights: a weights file, .safetensors, .pth or .caffemodel; NAME=FILE for one of several
            networks; by default the one in a package, or else the one in the cache.
        join: "mean" of the logarithms of the networks' scores, or the "least" of them.
        net_weight: a weight for each network's opinion in the mean; by default equal ones.
        judged_size: height and width in pixels at which networks look, one for all or one for
            each; 0: its own. ImageNet networks are quicker, and less sure of themselves, where it
            is small; and what several are sure of at different sizes is less of the pixels' making.
    """

    target: tuple[str, ...] = ("crab",)
    prompt: str = ""
    against: tuple[str, ...] = ()
    layer: str = ""
    guide: Path | None = None
    match: Literal["place", "best"] = "place"
    net: tuple[str, ...] = (DEFAULT,)
    otherwise: str = ""
    weights: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    join: Literal["mean", "least"] = "mean"
    net_weight: tuple[float, ...] = ()
    judged_size: tuple[int, ...] = (0,)

    def check(self, others: Sequence[str] = ()) -> None:
        """For those who have nothing else to fill in what is missing.

        Args:
            others: networks that weights may be named for besides.

        Raises:
            InputError: no target, or no network; a guide without a layer, a layer of several
                networks, or weights that belong to none.
        """
        if not self.target:
            raise InputError("target: name at least one class")
        if self.against and not self.prompt:
            raise InputError("against: say with --prompt what to see instead")
        if self.prompt and self.layer:
            raise InputError("layer: give a prompt or a layer, not both")
        if self.prompt and not any(lookup(name).vocabulary is None for name in self.judges):
            raise InputError(f"prompt: none of {' '.join(self.judges)} reads; try --net {READER}")
        if self.guide and not self.layer:
            raise InputError("guide: say with --layer which layer of the network shall match it")
        if self.match == "best" and not self.guide:
            raise InputError("match best: say with --guide what shall be matched")
        if not self.net:
            raise InputError("net: name at least one network")
        if self.otherwise:
            lookup(self.otherwise)
        for text in (self.prompt, *self.against):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InputError(f"prompt: {text!r:.60} has bytes that are no text in UTF-8")
        if len(set(self.net)) < len(self.net):
            raise InputError(f"net: {' '.join(self.net)} names a network twice")
        if self.layer and len(self.net) > 1:
            raise InputError(f"layer {self.layer} is one network's: name one with --net")
        if self.net_weight and len(self.net_weight) != len(self.net):
            raise InputError(f"net_weight: give one for each of {' '.join(self.net)}")
        if not all(1e-6 <= weight <= 1e6 for weight in self.net_weight):
            told = " ".join(f"{weight:g}" for weight in self.net_weight)
            raise InputError(f"net_weight: weights must be from 1e-6 to 1e6, got {told}")
        if self.net_weight and self.join == "least":
            raise InputError("net_weight: the least of all opinions has no weights")
        for size in self.judged_size:
            if size and not 16 <= size <= 1024:
                raise InputError(f"judged_size must be 0, or 16 to 1024, got {size}")
        if len(self.judged_size) not in (1, len(self.net)):
            raise InputError(f"judged_size: give one, or one for each of {' '.join(self.net)}")
        self.weights_files(others)  # refuses what belongs to no network

    @property
    def judges(self) -> tuple[str, ...]:
        """The networks: those named, unless others take their place."""
        if self.is_replaced:
            return (self.otherwise,)
        return (READER,) if self.prompt and self.net == (DEFAULT,) else self.net

    @property
    def is_replaced(self) -> bool:
        """Whether `otherwise` judges."""
        if not self.otherwise or self.weights or len(self.net) != 1:
            return False
        return not weights_path(self.net[0]).exists()

    def weights_files(self, others: Sequence[str] = ()) -> dict[str, Path]:
        """The weights file of each network for which one is named.

        Args:
            others: networks besides the judges.

        Raises:
            InputError: a file that belongs to none of the networks, or nobody knows to which.
        """
        files = {}
        for given in self.weights:
            name, equals, file = given.partition("=")
            if not (equals and (name in self.judges or name in REGISTRY)):
                if len(self.judges) > 1:
                    near = suggest(name, self.judges) if equals else ""
                    whose = near or f", as in {self.judges[0]}={given or 'FILE'}"
                    raise InputError(f"weights {given!r}: say whose they are{whose}")
                name, file = next(iter(self.judges)), given
            if name not in (*self.judges, *others):
                among = " ".join(self.judges)
                raise InputError(f"weights {given}: {name} is not among --net {among}")
            if not file:
                raise InputError(f"weights {given!r}: name a file, as in {name}=FILE")
            if name in files:
                raise InputError(f"weights {given}: {name} has {files[name]} already")
            files[name] = Path(file).expanduser()
        return files

    @property
    def words(self) -> str:
        """What is wanted, in words."""
        if self.prompt:
            return f'"{self.prompt}"'
        if not self.layer:
            return " ".join(self.target)
        return f"layer {self.layer}" + (f" like {self.guide.name}" if self.guide else "")


READER = "clip_vit_b32"  # the network that reads prompts, where none is named
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
    prompt, against = config.prompt, config.against
    if not (target or layer or prompt):
        target, layer = provenance.target, provenance.layer
        prompt, against = provenance.prompt, against or provenance.against
        if layer and provenance.guide and not guide:
            guide = guide_beside(provenance, folder)
    default = TargetConfig()
    recalled = replace(
        config,
        target=target or default.target,
        prompt=prompt,
        against=against,
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
    net = " ".join(config.judges)
    if not config.layer:
        said = {"prompt": config.prompt, "against": config.against} if config.prompt else {}
        return Provenance(target=config.target, net=net, **said)
    if not config.guide:
        return Provenance(layer=config.layer, net=net)
    guide, sha256 = str(config.guide), checksum(config.guide)
    return Provenance(layer=config.layer, guide=guide, guide_sha256=sha256, net=net)


def load_target(
    config: TargetConfig,
    views: ViewsConfig | None = None,
    plan: Plan | None = None,
    others: Sequence[str] = (),
) -> tuple[dict[str, Network], Target]:
    """The networks, in the plan's arithmetic, and what is wanted of them.

    Args:
        config: what is wanted.
        views: that pictures will be judged in besides.
        plan: where it will run.
        others: networks that weights are named for besides.

    Raises:
        InputError: no such network, class or layer; a file that cannot be read.
    """
    nets = load_judges(config, plan, others)
    guide = None if config.guide is None else read_image(config.guide) / np.float32(255)
    return nets, target_of(nets, config, guide, views or ViewsConfig())


def load_judges(
    config: TargetConfig, plan: Plan | None = None, others: Sequence[str] = ()
) -> dict[str, Network]:
    """The networks alone, see `load_target`."""
    config.check(others)
    files = config.weights_files(others)
    if config.is_replaced:
        (name,) = config.net
        logging.getLogger("evojax_art").warning(
            "%s judges: the weights of %s are %s", config.otherwise, name, whereabouts(name)
        )
    elif config.judges != config.net:
        logging.getLogger("evojax_art").warning(
            "%s judges: %s reads no prompts", READER, " ".join(config.net)
        )
    nets: dict[str, Network] = {
        name: load_net(name, files.get(name), plan=plan) for name in config.judges
    }
    sizes = config.judged_size * (len(nets) if len(config.judged_size) == 1 else 1)
    for (name, net), size in zip(nets.items(), sizes, strict=True):
        if size and (isinstance(net, Clip) or size % net.multiple or size < net.least):
            raise InputError(f"judged_size {size}: {name} cannot look at that size")
        net.size = size or net.size
    return nets


def target_of(
    nets: Mapping[str, Network],
    config: TargetConfig,
    guide: Float[np.ndarray, "h w 3"] | None,
    views: ViewsConfig,
) -> Target:
    """What is wanted of networks: of the one, or of all together.

    Raises:
        InputError: a class or layer that they do not have.
    """
    if config.layer:
        ((name, net),) = nets.items()
        targets: dict[str, Target] = {
            name: LayerTarget(net, config.layer, guide, name, match=config.match)
        }
    else:
        targets = _in_own_words(nets, config)
    if len(nets) == 1 and not views.are_more:
        return next(iter(targets.values()))
    return joined(targets, config, views)


def joined(targets: Mapping[str, Target], config: TargetConfig, views: ViewsConfig) -> Ensemble:
    """What is wanted of each of the networks as one, as the settings say."""
    judges = [
        Judge(name=name, target=target, weight=weight, cost=lookup(name).multiply_adds)
        for (name, target), weight in zip(
            targets.items(), config.net_weight or [1.0] * len(targets), strict=True
        )
    ]
    return Ensemble(judges, config.join, views.join)


def _in_own_words(nets: Mapping[str, Network], config: TargetConfig) -> dict[str, Target]:
    """What is wanted of each network: a prompt of one that reads, classes of others.

    Queries are read in the first vocabulary, and matched by meaning in the others.
    """
    found: dict[str, Target] = {}
    first: Vocabulary | None = None
    for name, net in nets.items():
        if isinstance(net, Clip):
            if not config.prompt:
                raise InputError(f"{name} has no classes: say with --prompt what it shall see")
            found[name] = PromptTarget(net, config.prompt, config.against or AGAINST, name)
            continue
        vocabulary = cast(Classifier, net).vocabulary
        first = first or vocabulary
        indices: set[int] = set()
        for query in config.target:
            ours = first.find(query)
            same = ours if vocabulary is first else first.match(ours, vocabulary).indices
            if not same:
                raise InputError(
                    f"target {query!r}: {name} has no class of that meaning; judges must all "
                    "have one"
                )
            indices.update(same)
        found[name] = ClassTarget(vocabulary, tuple(indices), name)
    return found
