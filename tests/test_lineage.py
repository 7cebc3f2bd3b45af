"""The lineage of an illumination: chains of hosts, and the command that draws one."""

import json

import pytest
from PIL import Image

from evojax_art.cli.main import main
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.lineage import hosts, read_lineage
from evojax_art.runs.toml import config_text
from evojax_art.runtime.errors import InputError

ROWS = [
    {"id": "1.4", "parents": [], "of": [], "won": [0, 2], "formula": "x_iy"},
    {"id": "2.0", "parents": ["1.4", "1.4"], "of": [2, 0], "won": [1], "formula": "( conj x_iy )"},
    {"id": "5.1", "parents": ["2.0"], "of": [1], "won": [0], "formula": "( conj ( conj x_iy ) )"},
]
NAMES = ("apple, red one", "crab apple", "worm")
IDS = {0: "5.1", 1: "2.0", 2: "1.4"}


def elite(index: int) -> dict:
    (formula,) = (row["formula"] for row in ROWS if row["id"] == IDS[index])
    return {
        "class": index,
        "name": NAMES[index],
        "kind": 0,
        "formula": formula,
        "confidence": 0.5,
        "scores": {"tiny": 0.5},
        "unseen": {},
        "length": 1,
        "id": IDS[index],
        "generation": 1,
    }


@pytest.fixture
def folder(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "lineage.jsonl").write_text(lines)
    (tmp_path / "elites.jsonl").write_text("".join(json.dumps(elite(n)) + "\n" for n in range(3)))
    (tmp_path / "config.toml").write_text(config_text(IlluminateConfig(max_length=8), "a run"))
    return tmp_path


def test_chains_lead_from_the_eldest(folder):
    chain = hosts(read_lineage(folder), "5.1")
    assert [one.id for one in chain] == ["1.4", "2.0", "5.1"]
    assert [one.of for one in chain] == [None, 2, 1]
    with pytest.raises(InputError, match=r"nobody of id 9\.9"):
        hosts(read_lineage(folder), "9.9")


def test_a_chain_that_goes_round_ends(folder):
    rows = [{**ROWS[1], "parents": ["5.1"]}, ROWS[2]]
    (folder / "lineage.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.id for one in hosts(read_lineage(folder), "5.1")] == ["2.0", "5.1"]


@pytest.mark.parametrize("query", ["0", "red one", "APPLE"])
def test_the_chain_of_a_class_is_drawn(folder, query, capsys):
    assert main(["lineage", str(folder), query, "--cell", "32"]) == 0
    assert "3 ancestors, 3 shown" in capsys.readouterr().out
    with Image.open(folder / "lineage-apple.png") as sheet:
        assert sheet.width == 3 * (32 + 8) + 8


@pytest.mark.parametrize(
    ("change", "query", "message"),
    [
        (None, "wurm", "class 'wurm' has no elite here; did you mean worm?"),
        (None, "", "class '' has no elite here"),
        ("lineage.jsonl", "worm", "lineage.jsonl: line 1 is no line of a lineage"),
        ("elites.jsonl", "worm", "elites.jsonl: line 1 is no line of elites"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, change, query, message, capsys):
    if change:
        (folder / change).write_text('{"id": 3}\n')
    assert main(["lineage", str(folder), query]) == 2
    assert message in capsys.readouterr().err


def test_classes_of_one_name_are_told_apart(folder, capsys):
    twins = [elite(n) | {"name": f"crane, number {n}"} for n in range(2)]
    (folder / "elites.jsonl").write_text("".join(json.dumps(row) + "\n" for row in twins))
    assert main(["lineage", str(folder), "crane"]) == 2
    assert "may be one of: 0 crane, 1 crane; give its number" in capsys.readouterr().err
    for index in (0, 1):
        assert main(["lineage", str(folder), str(index)]) == 0
        assert (folder / f"lineage-crane-{index}.png").exists()


def test_a_formula_that_is_none_is_told_in_one_line(folder, capsys):
    rows = [row | {"formula": "( frobnicate x )"} for row in ROWS]
    (folder / "lineage.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["lineage", str(folder), "worm"]) == 2
    told = capsys.readouterr().err
    assert "lineage.jsonl: id 1.4: " in told
    assert told.count("\n") == 1


def test_a_run_that_is_none_or_unfinished_is_refused(folder, tmp_path, capsys):
    assert main(["lineage", str(folder)]) == 2
    assert main(["lineage", str(tmp_path / "none"), "worm"]) == 2
    assert "none is no folder of a run" in capsys.readouterr().err
    (folder / "elites.jsonl").unlink()  # the run is still going on
    assert main(["lineage", str(folder), "worm"]) == 2
    assert "its elites are not written yet" in capsys.readouterr().err
    (folder / "config.toml").unlink()
    assert main(["lineage", str(folder), "worm"]) == 2
    assert "no elites.jsonl in it" in capsys.readouterr().err
