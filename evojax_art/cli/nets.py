"""`evojax-art nets`."""

from dataclasses import dataclass, field

from evojax_art.cli.flags import parse_flags
from evojax_art.nets.download import download
from evojax_art.nets.entry import Published
from evojax_art.nets.registry import DEFAULT, REGISTRY, lookup, weights_path
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import POSITIONAL


@dataclass(frozen=True, kw_only=True)
class NetsCommand:
    """List the networks that can judge; with a name, tell about one.

    Attributes:
        name: a network.
        classes: list its classes.
        target: list the classes that this target means.
        download: fetch its published weights into the cache.
    """

    name: str = field(default="", metadata=POSITIONAL)
    classes: bool = False
    target: str = ""
    download: bool = False


def nets(flags: list[str]) -> None:
    """The command."""
    command = parse_flags(NetsCommand, flags, "evojax-art nets")
    if not command.name:
        if command.classes or command.target or command.download:
            raise InputError(
                "nets: give the name of a network too, as in `evojax-art nets cifar100`"
            )
        for name, entry in REGISTRY.items():
            found = weights_path(name).exists()
            fetched = isinstance(entry.weights, Published)
            missing = "not downloaded" if fetched else "missing; install again"
            there = "in the cache" if fetched else "in this package"
            mark = " (default)" if name == DEFAULT else ""
            print(f"{name}{mark}: {entry.summary}; {there if found else missing}")
        return
    entry = lookup(command.name)
    if command.download:
        print(download(command.name, progress=True))
        return
    vocabulary = entry.vocabulary()
    if command.classes or command.target:
        everything = range(len(vocabulary))
        chosen = vocabulary.find(command.target) if command.target else everything
        group_of = {
            index: f" ({name})" for name, members in vocabulary.groups.items() for index in members
        }
        for index in chosen:
            print(f"{index}: {vocabulary.names[index]}{group_of.get(index, '')}")
        return
    print(f"{command.name}: {entry.summary}\nweights: {weights_path(command.name)}")
    if isinstance(entry.weights, Published):
        print(
            f"published at: {entry.weights.url}\n{entry.weights.checksum}: {entry.weights.digest}"
        )
    if entry.unseen:
        print(f"unseen judges of what evolves for it: {', '.join(entry.unseen)}")
