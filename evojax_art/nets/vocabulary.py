"""Names and meanings of a classifier's classes, apart from any network.

Two vocabularies are matched by meaning, because two networks need not have the same classes, nor
the same order of them. What a class means is said by its WordNet synset where it has one, else by
its names.

A synset is an id of WordNet 3.0, `n` and eight digits, as ImageNet labels its photographs with.
Those of ImageNet's 1000 classes (`imagenet_synsets.txt`, line i + 1 is class i) are from the synset
list of github.com/chaosmail/caffejs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import NamedTuple

from evojax_art.runtime.errors import InputError, suggest


class Match(NamedTuple):
    """What classes of one vocabulary are in another.

    Attributes:
        indices: of the other's classes that mean the same, ascending, each once.
        missing: our classes that have no counterpart there, ascending.
    """

    indices: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Vocabulary:
    """The K classes of a classifier, in the order of its logits.

    Attributes:
        names: a class each; a comma separates synonyms, the most usual one first.
        synsets: a WordNet id each, empty for a class that has none; None where no class has one.
        groups: names that stand for several classes, and their indices.

    Raises:
        ValueError: not as many synsets as names.
    """

    names: tuple[str, ...]
    synsets: tuple[str, ...] | None = field(default=None, hash=False)
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        if self.synsets is not None and len(self.synsets) != len(self.names):
            raise ValueError(f"{len(self.synsets)} synsets for {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.names)

    def find(self, query: str, what: str = "target") -> tuple[int, ...]:
        """The classes that a user means by `query`.

        Args:
            query: an index, a name or synonym, a group, a word of names ("crab" is in five), or
                what a word of names or groups begins or ends with ("fish" is in "goldfish"); the
                first reading that fits counts. Neither case nor `_` for a space matters.
            what: the setting that has it, for messages.

        Returns:
            Indices in ascending order, at least one.

        Raises:
            InputError: nothing fits; names the nearest.
        """
        wanted = query.strip().lower().replace("_", " ")
        if wanted.isdecimal():
            return (self._index(wanted, what),)
        lowered = [name.lower() for name in self.names]
        synonyms = [[name, *(part.strip() for part in name.split(","))] for name in lowered]
        word = re.compile(rf"\b{re.escape(wanted)}\b")
        part = re.compile(rf"(?<!\w){re.escape(wanted)}|{re.escape(wanted)}(?!\w)")
        readings = (
            [index for index, names in enumerate(synonyms) if wanted in names],
            self.groups.get(wanted, ()),
            [index for index, name in enumerate(lowered) if word.search(name)],
            [index for index, name in enumerate(lowered) if part.search(name)],
            [
                index
                for name, members in self.groups.items()
                if part.search(name)
                for index in members
            ],
        )
        for found in readings:
            if wanted and found:
                return tuple(sorted(set(found)))
        words = {word for names in synonyms for name in names for word in (name, *name.split())}
        near = suggest(wanted, sorted(words | self.groups.keys()))
        raise InputError(
            f"{what} {query!r}: no class of that name"
            f"{near or '; `evojax-art nets NAME --classes` lists all'}"
        )

    def match(self, indices: Iterable[int], other: "Vocabulary") -> Match:
        """Which classes of another vocabulary mean the same as some of ours.

        Two classes mean the same if

        - both have a synset and it is the same; if both have one and it differs, they do not,
          whatever their names: `mouse` is an animal here and a device there;
        - else, if they have a name in common, after normalisation of case, `_`, `-` and spaces;
        - else, if one is a kind of the other by its name: the usual name of the one ends in a whole
          name of the other, as `hermit crab` in `crab`. This counts only where neither has a
          counterpart by the rules above, so that `sea lion` is no `lion` where there are lions.

        Nothing else is guessed: `maple tree` has no counterpart in ImageNet, and neither has
        `house`, though `restaurant` is an `eating house` there by a later synonym. The relation is
        symmetric. Homonyms without synsets are not told apart.

        Args:
            indices: of our classes.
            other: whose classes are looked for.
        """
        counterparts = _counterparts(self, other)
        chosen = sorted(set(indices))
        found = {theirs for ours in chosen for theirs in counterparts[ours]}
        missing = tuple(ours for ours in chosen if not counterparts[ours])
        return Match(tuple(sorted(found)), missing)

    def synset(self, index: int) -> str:
        """The WordNet id of a class; empty where it has none."""
        return self.synsets[index] if self.synsets else ""

    def _index(self, digits: str, what: str) -> int:
        digits = digits.lstrip("0") or "0"
        if len(digits) <= len(str(len(self))) and int(digits) < len(self):
            return int(digits)
        raise InputError(
            f"{what} {digits:.20}: there is no class of that index, "
            f"they go from 0 to {len(self) - 1}"
        )


@cache
def imagenet() -> Vocabulary:
    """ImageNet's 1000 classes, with synonyms and synsets."""
    return Vocabulary(_lines("imagenet_classes.txt"), _lines("imagenet_synsets.txt"))


@cache
def cifar100() -> Vocabulary:
    """CIFAR-100's fine classes, in the order of its labels, and twenty coarse ones of five each.

    Synsets where the name alone would mislead: the animal and not the device, the fruit of the
    apple tree and not the custard apple.
    """
    names = _lines("cifar100_classes.txt")
    senses = {"apple": "n07739125", "mouse": "n02330245"}
    lines = (line.split(": ") for line in _lines("cifar100_superclasses.txt"))
    groups = {
        group: tuple(names.index(member) for member in members.split(", "))
        for group, members in lines
    }
    return Vocabulary(names, tuple(senses.get(name, "") for name in names), groups)


def _lines(file: str) -> tuple[str, ...]:
    """The lines of a data file of this package."""
    text = resources.files("evojax_art.nets").joinpath(file).read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _counterparts(ours: Vocabulary, theirs: Vocabulary) -> list[set[int]]:
    """For each of our classes those of theirs that mean the same, see `Vocabulary.match`."""

    def may_be_same(our: int, their: int) -> bool:
        synsets = ours.synset(our), theirs.synset(their)
        return "" in synsets or synsets[0] == synsets[1]

    our_names, their_names = _names(ours), _names(theirs)
    ours_named, theirs_named = _where(our_names), _where(their_names)
    with_synset = _where([[synset] for synset in theirs.synsets or ()])
    with_synset.pop("", None)
    found: list[set[int]] = []
    for our, names in enumerate(our_names):
        named = {their for name in names for their in theirs_named.get(name, ())}
        same = {their for their in named if may_be_same(our, their)}
        found.append(same | with_synset.get(ours.synset(our), set()))
    taken = set().union(*found)
    alone = {our for our, same in enumerate(found) if not same}
    kinds = [(our, their) for our in alone for their in _kind_of(our_names[our], theirs_named)]
    for their in set(range(len(theirs))) - taken:
        kinds += [(our, their) for our in _kind_of(their_names[their], ours_named)]
    for our, their in kinds:
        if our in alone and their not in taken and may_be_same(our, their):
            found[our].add(their)
    return found


def _names(vocabulary: Vocabulary) -> list[list[str]]:
    """The synonyms of each class, normalised."""
    return [
        [" ".join(re.split(r"[\s_-]+", part.strip().casefold())) for part in name.split(",")]
        for name in vocabulary.names
    ]


def _where(held: Iterable[Iterable[str]]) -> dict[str, set[int]]:
    """For each key the places that hold it."""
    places: dict[str, set[int]] = {}
    for place, keys in enumerate(held):
        for key in keys:
            places.setdefault(key, set()).add(place)
    return places


def _kind_of(names: list[str], named: dict[str, set[int]]) -> set[int]:
    """The classes of which a class is a kind: the first of its names ends in one of theirs."""
    words = names[0].split()
    ends = (" ".join(words[start:]) for start in range(1, len(words)))
    return {place for end in ends for place in named.get(end, ())}
