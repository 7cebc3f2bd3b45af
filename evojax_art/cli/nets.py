"""`evojax-art nets`."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console

from evojax_art.cli.flags import parse_flags
from evojax_art.cli.inputs import read_given
from evojax_art.cli.start import is_photograph
from evojax_art.language.bindings import Bound
from evojax_art.language.formula import check_images
from evojax_art.language.photographs import read_image
from evojax_art.nets.base import Classifier, Network
from evojax_art.nets.clip import Clip
from evojax_art.nets.download import download
from evojax_art.nets.entry import Published
from evojax_art.nets.registry import (
    DEFAULT,
    REGISTRY,
    lookup,
    vocabulary_of,
    weights_path,
    whereabouts,
)
from evojax_art.nets.weights import load_net
from evojax_art.objective.prompts import read_texts
from evojax_art.objective.target import READER, TargetConfig
from evojax_art.render.large import render_picture
from evojax_art.render.look import Raster
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.progress import StatusLine
from evojax_art.runtime.tables import POSITIONAL, REPEATABLE

_BATCH, _CALLS = 8, 5  # of the pictures that a cost is measured with


@dataclass(frozen=True, kw_only=True)
class NetsCommand:
    """List the networks that can judge; with names, tell about these.

    Attributes:
        names: networks; without any, --show and --cost are about all whose weights are there.
        classes: list their classes.
        target: list the classes that this target means; with --show, how sure of them all networks
            are.
        show: pictures, of any size, or formulas: what the networks see in them.
        prompt: texts, of which networks that read say how well each describes a picture.
        top: classes to tell of each picture.
        cost: measure how many pictures they judge in a second on this machine, and of how many they
            find the gradient.
        download: fetch their published weights into the cache.
        weights: a weights file, as in `evolve`: NAME=FILE for one of several networks.
    """

    names: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    classes: bool = False
    target: str = ""
    show: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    top: int = 5
    cost: bool = False
    download: bool = False
    weights: tuple[str, ...] = field(default=(), metadata=REPEATABLE)

    def __post_init__(self):
        if self.top < 1:
            raise InputError(f"top must be 1 or more, got {self.top}")
        if not self.names and (self.classes or self.target or self.download or self.weights):
            raise InputError(
                "nets: give the name of a network too, as in `evojax-art nets cifar100`"
            )
        if self.prompt and not self.show:
            raise InputError("prompt: say with --show which pictures it may describe")


def nets(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(NetsCommand, flags, "evojax-art nets")
    for name in command.names:
        lookup(name)
    files = TargetConfig(net=command.names, weights=command.weights).weights_files()
    if command.download:
        for name in command.names:
            print(download(name, progress=True))
    if command.show or command.cost:
        keep_compiled()
        names = command.names or [name for name in REGISTRY if weights_path(name).exists()]
        if command.show and not command.prompt:  # then nothing is to be had of those that read
            for name in command.names:
                vocabulary_of(name)
            names = [name for name in names if lookup(name).vocabulary]
        if command.prompt and all(lookup(name).vocabulary for name in names):
            raise InputError(f"prompt: none of {' '.join(names)} reads; try {READER}")
        loaded = {name: load_net(name, files.get(name)) for name in names}
        if command.show:
            _show(loaded, command)
        if command.cost:
            _tell_costs(loaded)
    elif command.classes or command.target:
        for name in command.names:
            _tell_classes(name, command.target)
    elif not command.download:
        for name in command.names:
            _tell(name)
        if not command.names:
            _list()


def _list() -> None:
    for name, entry in REGISTRY.items():
        mark = " (default)" if name == DEFAULT else ""
        cost = f"{entry.multiply_adds:g} G multiply-adds a picture"
        print(f"{name}{mark}: {entry.summary}, {cost}; weights {whereabouts(name)}")


def _tell(name: str) -> None:
    entry = lookup(name)
    print(f"{name}: {entry.summary}\nweights: {weights_path(name)}, {whereabouts(name)}")
    if isinstance(entry.weights, Published):
        print(f"published at: {entry.weights.url}")
    if not isinstance(entry.weights, str):
        print(f"{entry.weights.checksum}: {entry.weights.digest}")
    print(f"multiply-adds a picture: {entry.multiply_adds:g} thousand million")
    if entry.unseen:
        print(f"unseen judges of what evolves for it: {', '.join(entry.unseen)}")


def _tell_classes(name: str, target: str) -> None:
    vocabulary = vocabulary_of(name)
    group_of = {
        index: f" ({group})" for group, members in vocabulary.groups.items() for index in members
    }
    for index in vocabulary.find(target) if target else range(len(vocabulary)):
        print(f"{index}: {vocabulary.names[index]}{group_of.get(index, '')}")


def _show(loaded: dict[str, Network], command: NetsCommand) -> None:
    meant = {}
    if command.target:
        known = [name for name in loaded if lookup(name).vocabulary]
        meant = {name: list(vocabulary_of(name).find(command.target)) for name in known}
    size = max(net.size for net in loaded.values())
    pictures = [shown for one in command.show for shown in _pictures(one, size)]
    with StatusLine(Console(stderr=True, highlight=False), "judging ...") as status:
        for title, picture in pictures:
            for name, net in loaded.items():
                status.show(f"{name} looks at {title:.60}")
                probabilities, texts = _opinion(net, picture, command.prompt)
                if not np.isfinite(probabilities).all():
                    raise InputError(f"{name}: damaged weights, what it sees is no number")
                order = np.argsort(-probabilities, kind="stable")[: command.top]
                seen = [f"{100 * probabilities[n]:5.1f} %  {texts[n]}" for n in order]
                if name in meant:
                    seen.insert(
                        0, f"{100 * probabilities[meant[name]].sum():.4g} % {command.target}"
                    )
                print(f"{title}, {name}:\n  " + "\n  ".join(seen))


def _opinion(
    net: Network, picture: Float[np.ndarray, "H W 3"], texts: tuple[str, ...]
) -> tuple[Float[np.ndarray, "N"], Sequence[str]]:
    """Probabilities, and what each is of: a class, or one of the texts."""
    if isinstance(net, Clip):
        directions = read_texts(net, texts)[0]
        agreement = net.image_embedding(picture[None]) @ directions.T
        return np.asarray(jax.nn.softmax(jnp.exp(net.log_scale[...]) * agreement)[0]), texts
    known = cast(Classifier, net)
    classes = [f"{number}: {name}" for number, name in enumerate(known.classes)]
    return np.asarray(known.probabilities(picture[None])[0]), classes


def _pictures(given: str, size: int) -> Iterator[tuple[str, Float[np.ndarray, "H W 3"]]]:
    """A picture file as it is; formulas as they are drawn for judges, each with its title."""
    if is_photograph(given):
        yield given, read_image(Path(given)) / np.float32(255)
        return
    raster = Raster(height=size, width=size, samples=2)
    jobs = read_given(given)
    for number, job in enumerate(jobs, 1):
        bound = job.bound(Bound())
        check_images(job.expression, len(bound.names))
        drawn = render_picture(job.expression, job.look, raster, images=bound.pyramids)
        title = f"{given} {number}" if len(jobs) > 1 else given
        yield title, np.asarray(drawn, np.uint8) / np.float32(255)


def _tell_costs(loaded: dict[str, Network]) -> None:
    device = jax.devices()[0].device_kind
    print(f"pictures a second on this machine ({device}), in batches of {_BATCH}, float32:")
    with StatusLine(Console(stderr=True, highlight=False), "measuring ...") as status:
        for name, net in loaded.items():
            status.show(f"measuring {name} ...")
            judged, climbed = _rates(net)
            print(f"  {name}: {judged:.3g} judged, {climbed:.3g} with the gradient in their pixels")


def _rates(net: Network) -> tuple[float, float]:
    """Pictures a second: seen, and seen with a gradient; medians."""
    graph, weights = nnx.split(net)
    images = jax.random.uniform(jax.random.key(0), (_BATCH, net.size, net.size, 3))

    def see(weights, images):
        merged: Any = nnx.merge(graph, weights)
        return merged.image_embedding(images) if isinstance(net, Clip) else merged.logits(images)

    def climb(weights, images):
        return jax.grad(lambda images: jnp.sum(see(weights, images)[:, 0]))(images)

    return _rate(see, weights, images), _rate(climb, weights, images)


def _rate(function: Callable, weights: Any, images: Array) -> float:
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(weights, images))
    seconds = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(weights, images))
        seconds.append(time.perf_counter() - began)
    return len(images) / statistics.median(seconds)
