import json

import numpy as np
import pytest
from PIL import Image

from evojax_art.artwork.formula_files import read_formulas
from evojax_art.artwork.picture import read_png_text, write_png
from evojax_art.language.formula import FormulaError, parse
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import write_text, written_whole

LONG = str(parse("( + ( exp x ) " * 333 + "y" + " )" * 333))  # 1,000 nodes
PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize("formula", ["x", "( exp ( q 0.5 -0 1e-20 3 ) )", LONG])
def test_png_carries_pixels_and_text(tmp_path, formula):
    path = tmp_path / "picture.png"
    write_png(path, PICTURE, {"formula": formula, "z": 0.25, "title": "Krebs ä"})
    text = read_png_text(path)
    assert text == {"formula": formula, "z": "0.25", "title": "Krebs ä"}
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), PICTURE)
    assert read_formulas(path) == [parse(formula)]


def test_formulas_of_a_text_file(tmp_path):
    path = tmp_path / "formulas.txt"
    write_text(path, "# two\n\n( exp x )\n   # indented\n  EXP y  \n")
    assert list(map(str, read_formulas(path))) == ["( exp x )", "( exp y )"]


@pytest.mark.parametrize(
    ("content", "formulas"),
    [
        (["x", "( exp y )"], ["x", "( exp y )"]),
        ([{"formula": "x", "score": 1}, "y"], ["x", "y"]),
        ({"formula": "( exp x )"}, ["( exp x )"]),
        ("( + x y )", ["( + x y )"]),
    ],
)
def test_formulas_of_a_json_file(tmp_path, content, formulas):
    path = tmp_path / "formulas.json"
    path.write_text(json.dumps(content))
    assert list(map(str, read_formulas(path))) == formulas


def test_lenient_reading(tmp_path):
    path = tmp_path / "formulas.txt"
    path.write_text("( exp unknown\n")
    assert list(map(str, read_formulas(path, lenient=True))) == ["( exp x_iy )"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "", "holds no formulas"),
        ("comments.txt", "# nothing\n\n", "holds no formulas"),
        ("bad.txt", "x\n\n( exp why )", "bad.txt, line 3 of the file: formula, line 1, column 7"),
        ("binary.txt", b"\xff\xfe\x00", "nor a text file"),
        ("empty.json", "[]", "holds no formulas"),
        ("broken.json", '["x"', "not valid JSON"),
        ("number.json", '["x", 3]', "number.json, item 2: expected a formula"),
        ("other.json", '[{"score": 1}]', "item 1: expected a formula"),
        ("bad.json", '["x", "( exp x"]', "bad.json, item 2: formula, line 1, column 1"),
        ("text.png", "x", "not a PNG picture"),
        ("empty.png", "", "not a PNG picture"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_formulas(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["missing.txt", "missing.json", "missing.png"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}.*No such file"):
        read_formulas(tmp_path / name)


def test_a_folder_is_no_file_of_formulas(tmp_path):
    for name in ("folder.txt", "folder.png"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=name):
            read_formulas(tmp_path / name)


def test_a_png_without_formula(tmp_path):
    path = tmp_path / "plain.png"
    Image.fromarray(PICTURE).save(path)
    with pytest.raises(InputError, match="carries no formula"):
        read_formulas(path)


def test_a_png_with_a_bad_formula(tmp_path):
    path = tmp_path / "bad.png"
    write_png(path, PICTURE, {"formula": "( exp )"})
    with pytest.raises(FormulaError, match=r"bad\.png: formula, line 1, column 7") as caught:
        read_formulas(path)
    assert caught.value.excerpt == "( exp )\n      ^"


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_cut_png_is_refused(tmp_path, kept):
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_png(path, noise, {"formula": "x"})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"cut\.png"):
        read_formulas(path)


def test_written_whole_replaces_at_the_end(tmp_path):
    path = tmp_path / "state.txt"
    path.write_text("old")
    with written_whole(path) as temporary:
        assert temporary.parent == path.parent  # a rename across file systems is not atomic
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path):
    with written_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_written_whole_leaves_nothing_behind_when_the_block_raises(tmp_path):
    path = tmp_path / "state.txt"
    for old in (None, "old"):
        if old is not None:
            path.write_text(old)
        with pytest.raises(KeyboardInterrupt):
            write_half(path)
        assert [file.read_text() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_written_files_have_usual_permissions(tmp_path):
    usual, written = tmp_path / "usual", tmp_path / "written"
    usual.write_text("")
    write_text(written, "")
    assert written.stat().st_mode == usual.stat().st_mode


def test_an_unwritable_place_is_an_input_error(tmp_path):
    for path in (tmp_path / "missing" / "file.txt", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=f"cannot write .*{path.name}"):
            write_text(path, "text")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(InputError, match="cannot write"):
        write_png(tmp_path / "missing" / "picture.png", PICTURE, {"formula": "x"})
