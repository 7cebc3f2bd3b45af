"""Pictures under names: flags, and PNGs that remember what their formulas read."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from evojax_art.artwork.picture import read_png_text, write_png
from evojax_art.artwork.provenance import Provenance
from evojax_art.cli.inputs import read_given
from evojax_art.cli.main import main
from evojax_art.language.bindings import bind_images
from evojax_art.language.formula import parse
from evojax_art.language.photographs import pyramid
from evojax_art.runtime.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with two photographs."""
    Image.fromarray(data.cat()[100:120, 100:130]).save(tmp_path / "photo.png")
    Image.fromarray(data.astronaut()[:16, :16]).save(tmp_path / "other.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags(folder):
    bound = bind_images(["cat=photo.png", "me:whole=other.png"])
    assert bound.names == ("cat", "me")
    pixels = data.cat()[100:120, 100:130] / np.float32(255)
    for made, expected in zip(bound.pyramids[0], pyramid(pixels), strict=True):
        np.testing.assert_array_equal(made, expected)
    assert [source.whole for source in bound.sources] == [False, True]
    assert [float(image.scale) for image in bound.pyramids] == [15, 16]
    assert bind_images([]).names == ()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["photo.png"], "give NAME=FILE"),
        (["cat="], "give NAME=FILE"),
        (["cat:half=photo.png"], "NAME:whole=FILE"),
        (["=photo.png"], "cannot be named ''"),
        (["exp=photo.png"], "there is an operator"),
        (["a=photo.png", "A=other.png"], "two pictures"),
        ([f"a{n}=photo.png" for n in range(5)], "at most 4"),
        (["cat=absent.png"], "cannot read picture absent.png: No such file"),
        (["cat=."], "Is a directory"),
    ],
)
def test_flags_of_no_use(folder, flags, message):
    with pytest.raises(InputError, match=message) as caught:
        bind_images(flags)
    assert len(str(caught.value).splitlines()) == 1


def drawn_with(folder, formula: str, *flags: str):
    """A PNG as `render` writes it."""
    bound = bind_images(flags)
    expression = parse(formula, images=bound.names)
    said = Provenance(formula=str(expression), photographs=bound.read_by(expression))
    write_png(folder / "drawn.png", np.zeros((2, 2, 3), np.uint8), said.to_text())
    return folder / "drawn.png"


def test_a_png_says_which_pictures_its_formula_reads(folder):
    drawn_with(folder, "( exp me )", "cat=photo.png", "me:whole=other.png")
    checksum = hashlib.sha256((folder / "other.png").read_bytes()).hexdigest()
    said = json.loads(read_png_text(folder / "drawn.png")["images"])
    assert said == {"me": {"file": "other.png", "whole": True, "sha256": checksum}}
    drawn_with(folder, "( exp x )", "cat=photo.png")
    assert "images" not in read_png_text(folder / "drawn.png")


def test_pictures_of_a_png_are_found_behind_those_of_flags(folder, monkeypatch):
    path = drawn_with(folder, "( + cat me )", "cat=photo.png", "me:whole=other.png")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")  # files are looked for beside the PNG, too
    (given,) = read_given(str(path))
    assert str(given.expression) == "( + cat me )"
    assert given.bound(bind_images([])).names == ("cat", "me")
    flagged = bind_images(["dog=../photo.png", "ME=../photo.png"])
    (given,) = read_given(str(path), images=flagged.names)
    assert str(given.expression) == "( + cat ME )"
    assert [node.op.image for node in given.expression.postfix[:2]] == [2, 1]
    bound = given.bound(flagged)
    assert bound.names == ("dog", "ME", "cat")
    assert [source.whole for source in bound.sources] == [False] * 3


def test_a_picture_that_is_not_what_it_was_is_refused(folder):
    (given,) = read_given(str(drawn_with(folder, "cat", "cat:whole=photo.png")))
    (folder / "photo.png").write_bytes((folder / "other.png").read_bytes())
    complaint = r"'photo\.png', is not beside it as it was; give it with --image cat:whole=FILE"
    with pytest.raises(InputError, match=complaint):
        given.bound(bind_images([]))
    given.bound(bind_images(["cat=photo.png"]))
    (folder / "photo.png").unlink()
    with pytest.raises(InputError, match=complaint):
        given.bound(bind_images([]))


@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        "[]",
        '{"cat": 1}',
        '{"cat": {"file": "a"}}',
        '{"ex p": {"file": "a", "whole": 1, "sha256": "b"}}',
    ],
)
def test_a_png_whose_text_is_damaged(said):
    with pytest.raises(InputError, match="pictures is damaged"):
        Provenance.from_text({"images": said})


def test_the_command(folder, capsys):
    command = ["render", "--size", "30x20", "--samples", "1", "--out"]
    assert main([*command, "a.png", "--image", "cat:whole=photo.png", "cat"]) == 0
    np.testing.assert_array_equal(Image.open("a.png"), Image.open("photo.png"))
    assert main([*command, "b.png", "a.png"]) == 0  # it finds the photograph by itself
    assert (folder / "b.png").read_bytes() == (folder / "a.png").read_bytes()
    capsys.readouterr()
    assert main([*command, "c.png", "image2", "--image", "cat=photo.png"]) == 2
    assert "'image2', which is not bound" in capsys.readouterr().err
    assert not (folder / "c.png").exists()
