"""The networks that there are, by name."""

from pathlib import Path

from evojax_art.nets import cifar, googlenet, squeezenet
from evojax_art.nets.entry import NetEntry
from evojax_art.runtime.cache import cache_folder
from evojax_art.runtime.errors import InputError, suggest

DEFAULT = "cifar100"
REGISTRY: dict[str, NetEntry] = {**cifar.NETS, **squeezenet.NETS, **googlenet.NETS}

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


def weights_path(name: str) -> Path:
    """Where the weights of a network are expected: in this package, or in the cache."""
    weights = lookup(name).weights
    return _PACKAGE / weights if isinstance(weights, str) else cache_folder() / weights.file_name


def missing_weights(name: str) -> InputError:
    """The complaint that the weights of a network are not where they are expected."""
    weights = lookup(name).weights
    if isinstance(weights, str):
        hint = "they are part of the package: install evojax-art again"
    else:
        hint = (
            f"run `evojax-art nets {name} --download`, or place {weights.file_name} there "
            f"(from {weights.url}), or give a file with --weights"
        )
    return InputError(f"no weights at {weights_path(name)}; {hint}")
