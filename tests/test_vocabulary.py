import numpy as np
import pytest

from evojax_art.nets.vocabulary import Vocabulary, cifar100, imagenet
from evojax_art.runtime.errors import InputError

IMAGENET = imagenet()
CIFAR = cifar100()

# Classes by what a person calls them


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("crab", [118, 119, 120, 121, 125]),
        ("CRAB ", [118, 119, 120, 121, 125]),
        ("rock crab", [119]),
        ("Cancer irroratus", [119]),
        ("rock crab, Cancer irroratus", [119]),
        ("119", [119]),
        ("0", [0]),
        ("999", [999]),
        ("crane", [134, 517]),
        ("white shark", [2]),
        ("goldfis", [1]),
    ],
)
def test_classes_of_imagenet_are_found(query, expected):
    assert list(IMAGENET.find(query)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sea crab", [2]),  # a synonym before a word of other names
        ("crab", [2, 3]),  # a word before a part
        ("crabap", [0]),
        ("apple", [0]),  # the end of a word
        ("c++ (language)", [1]),
        ("+", [1]),
    ],
)
def test_the_first_reading_that_fits_counts(query, expected):
    names = ("Crabapple", "C++ (language)", "Sea Crab, ocean crab", "great sea crab")
    assert list(Vocabulary(names).find(query)) == expected


@pytest.mark.parametrize(
    ("query", "near"),
    [
        ("hermit crap", "hermit crab"),
        ("Daisi", "daisy"),
        ("goldfisch", "goldfish"),
        ("crap", "crab"),  # and no skyscraper
    ],
)
def test_unknown_classes_suggest_near_ones(query, near):
    with pytest.raises(
        InputError, match=f"{query!r}: no class of that name; did you mean .*{near}"
    ):
        IMAGENET.find(query)


@pytest.mark.parametrize("query", ["qqqqqqqq", "", "  ", "-1", "1.5"])
def test_hopeless_queries_point_to_the_list(query):
    with pytest.raises(InputError, match=r"no class of that name; "):
        IMAGENET.find(query)


def test_an_index_beyond_the_last_class_is_refused():
    with pytest.raises(InputError, match=r"target 1000: .* from 0 to 999"):
        IMAGENET.find("1000")


def test_an_index_of_many_digits_is_refused():
    with pytest.raises(InputError):
        IMAGENET.find("9" * 5000)


def test_imagenet_has_a_thousand_classes():
    names = IMAGENET.names
    assert len(names) == 1000
    assert len(set(names)) >= 998  # "crane" is a bird and a machine
    assert all(name and name == name.strip() for name in names)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("crab", ["crab"]),
        ("26", ["crab"]),
        ("Non-Insect Invertebrates", ["crab", "lobster", "snail", "spider", "worm"]),
        ("non-insect_invertebrates", ["crab", "lobster", "snail", "spider", "worm"]),
        ("invertebrates", ["crab", "lobster", "snail", "spider", "worm"]),
        ("maple_tree", ["maple tree"]),
        ("fish", ["aquarium fish", "flatfish", "ray", "shark", "trout"]),
        ("orange", ["orange"]),
        ("man", ["man"]),
    ],
)
def test_classes_of_cifar_are_found(query, expected):
    assert [CIFAR.names[index] for index in CIFAR.find(query)] == expected


def test_superclasses_part_the_classes_in_fives():
    members = [index for group in CIFAR.groups.values() for index in group]
    assert sorted(members) == list(range(100))
    assert {len(group) for group in CIFAR.groups.values()} == {5}


def test_names_are_those_of_the_data(cifar100):
    with np.load(cifar100 / "cifar100_labels.npz") as labels:
        fine = [name.replace("_", " ") for name in labels["fine_names"]]
        coarse = [name.replace("_", " ") for name in labels["coarse_names"]]
        group_of = labels["fine_to_coarse"]
    assert list(CIFAR.names) == fine
    for name, members in CIFAR.groups.items():
        assert all(coarse[group_of[index]] == name for index in members)


# Classes of another vocabulary that mean the same


def counterparts(query: str, ours: Vocabulary, theirs: Vocabulary) -> list[str]:
    """The usual names of what `query` finds, in another vocabulary."""
    found = ours.match(ours.find(query), theirs)
    return [theirs.names[index].partition(",")[0] for index in found.indices]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("crab", ["Dungeness crab", "rock crab", "fiddler crab", "king crab", "hermit crab"]),
        ("leopard", ["leopard"]),  # not the snow leopard, which is another class
        ("lion", ["lion"]),  # not the sea lion
        ("pickup truck", ["pickup"]),  # by its second name
        ("lawn mower", ["lawn mower"]),
        ("bear", ["brown bear", "American black bear", "ice bear", "sloth bear"]),  # no koala bear
        ("house", []),  # no eating house
        ("maple tree", []),
        ("mouse", []),  # theirs is a device
        ("apple", []),  # theirs is a custard apple
    ],
)
def test_classes_of_cifar_in_imagenet(query, expected):
    assert counterparts(query, CIFAR, IMAGENET) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("crab", ["crab"]),
        ("hermit crab", ["crab"]),
        ("lion, king of beasts, Panthera leo", ["lion"]),
        ("sea lion", []),
        ("computer mouse", []),
        ("hen", []),
    ],
)
def test_classes_of_imagenet_in_cifar(query, expected):
    assert counterparts(query, IMAGENET, CIFAR) == expected


def test_classes_without_a_counterpart_are_named():
    crab, maple = CIFAR.find("crab") + CIFAR.find("maple tree")
    match = CIFAR.match((maple, crab, crab), IMAGENET)
    assert match.indices == (118, 119, 120, 121, 125)
    assert match.missing == (maple,)


def test_meaning_the_same_is_symmetric():
    pairs = {(ours, theirs) for ours in range(100) for theirs in CIFAR.match([ours], IMAGENET)[0]}
    back = {(ours, theirs) for theirs in range(1000) for ours in IMAGENET.match([theirs], CIFAR)[0]}
    assert pairs == back
    assert len(pairs) > 90


@pytest.mark.parametrize("vocabulary", [IMAGENET, CIFAR])
def test_every_class_means_itself_and_nothing_else(vocabulary):
    for index in range(len(vocabulary)):
        assert vocabulary.match([index], vocabulary) == ((index,), ())


def test_synsets_decide_over_names_and_order():
    names, synsets = np.array(IMAGENET.names), np.array(IMAGENET.synsets)
    order = np.random.default_rng(0).permutation(1000)
    renamed = np.char.add("class ", np.arange(1000).astype(str))
    other = Vocabulary(tuple(renamed), tuple(synsets[order]))
    for wanted in (134, 517, 3):
        (found,) = IMAGENET.match([wanted], other).indices
        assert order[found] == wanted
    cranes = np.flatnonzero(names == "crane").tolist()
    assert len(cranes) == 2
    assert IMAGENET.match(cranes[:1], IMAGENET).indices == (cranes[0],)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("maple_tree", "Maple-Tree", True),
        ("a, b", "c, B", True),
        ("tree", "maple tree", True),
        ("maple tree", "tree", True),
        ("tree", "treetop", False),
        ("tree", "tree house", False),
        ("ape", "man, naked ape", False),  # a kind is told by its usual name
        ("naked ape, man", "ape", True),
    ],
)
def test_names_without_synsets(ours, theirs, same):
    match = Vocabulary((ours,)).match([0], Vocabulary((theirs,)))
    assert match == (((0,), ()) if same else ((), (0,)))


def test_as_many_synsets_as_names():
    with pytest.raises(ValueError, match="1 synsets for 2 names"):
        Vocabulary(("a", "b"), ("n00000001",))


def test_data_are_those_of_the_weights(shared_weights):
    for file, data in (("classes", IMAGENET.names), ("synsets", IMAGENET.synsets)):
        lines = (shared_weights / f"imagenet_{file}.txt").read_text(encoding="utf-8").splitlines()
        assert data == tuple(lines)
    assert len(set(IMAGENET.synsets)) == 1000
