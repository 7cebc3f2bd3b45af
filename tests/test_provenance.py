"""What PNGs say of themselves, and which files may be opened because they say so."""

import dataclasses
import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evojax_art.artwork.beside import bound_with, found_beside, guide_beside, keep
from evojax_art.artwork.formula_files import read_formulas
from evojax_art.artwork.picture import read_png_text, write_png
from evojax_art.artwork.provenance import Provenance, read_provenance
from evojax_art.cli.inputs import read_given
from evojax_art.cli.main import main
from evojax_art.cli.start import read_start
from evojax_art.language.bindings import Bound, Source
from evojax_art.objective.target import UNSAID, TargetConfig, provenance_of, recall_target
from evojax_art.render.look import Look, Raster
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import write_text

ROOT = Path(__file__).parent.parent
CASES = ROOT.parent / "shared" / "cases"
BLANK = np.zeros((2, 2, 3), np.uint8)
FULL = Provenance(
    formula="( exp cat )",
    photographs=(
        Source("cat", Path("a b.jpg"), True, "1" * 64),
        Source("dog", Path("/x/ä.png"), False, "2" * 64),
    ),
    look=Look(z=-1.5e-7, crunch="1995", smooth=True),
    raster=Raster(height=30, width=40, samples=3, jitter=True, crop=(1, 2, 3, 4)),
    adaptive=0.05,
    target=("crab", "king crab"),
    prompt="a samurai crab",
    against=("static", 'a "pattern"'),
    layer="stem:3",
    guide="guides/g.jpg",
    guide_sha256="3" * 64,
    net="cifar100",
    score=0.25,
    value=-3.5,
    judges={"cifar100": 0.5, "other": 0.125},
    unseen={"third": 1e-9},
    unseen_score=1e-9,
    noise=0.03125,
    judged_size=32,
    judged_samples=2,
    seed=0,
    generation=7,
    formulas=512,
    id="7.34",
    parents=("6.1", "2.12"),
    polished_from="( exp x )",
    pixels_polished_from="photo of\nmine.jpg",
    frame=0,
    drawn_by="( * 2 frame )",
    fps=12.5,
)


def test_every_entry_comes_back(tmp_path):
    assert all(getattr(FULL, f.name) not in ("", (), {}, None) for f in dataclasses.fields(FULL))
    write_png(tmp_path / "a.png", BLANK, FULL.to_text())
    assert read_provenance(tmp_path / "a.png") == FULL
    assert Provenance.from_text(Provenance().to_text()) == Provenance()
    assert Provenance().to_text().keys() == {"evojax_art", "Software"}


def test_the_docstring_tells_every_key():
    from evojax_art.artwork import provenance

    for key in FULL.to_text():
        assert key in provenance.__doc__, key


@pytest.mark.parametrize("judges", ['{"a": NaN}', '{"a": Infinity}', '{"a": 1%s}' % ("0" * 400)])
def test_scores_that_are_no_numbers_are_passed_over(judges):
    known = Provenance.from_text({"evojax_art": "1", "score": "nan", "judges": judges})
    assert known.score is None
    assert not known.judges


KEYS = st.sampled_from([*FULL.to_text(), "other"])


@given(st.dictionaries(KEYS, st.text() | st.sampled_from(["1", "nan", "-3", "1e999", "9" * 5000])))
def test_any_text_is_read_or_refused(text):
    with suppress(InputError):
        known = Provenance.from_text(text)
        Provenance.from_text(known.to_text())  # what is written is always read


@pytest.mark.parametrize("number", ["2", "0", "-1", "one", "1.0", "9" * 5000])
def test_an_unknown_format_is_refused(tmp_path, number):
    path = tmp_path / "a.png"
    write_png(path, BLANK, {"formula": "x", "evojax_art": number})
    with pytest.raises(InputError, match=r"a\.png: .* in format .* reads 1 and older") as caught:
        read_formulas(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_old_pictures_stay_readable(number):
    path = ROOT / "scripts" / "results" / f"demo-{number}.png"
    known = read_provenance(path)
    assert (known.target, known.net, known.seed) == (("crab",), "cifar100", number)
    assert (known.judged_size, known.judged_samples, known.look) == (32, 2, Look())
    assert known.score > 0.99
    assert known.generation > 200
    assert (known.id, known.parents, known.raster) == ("", (), None)
    (formula,) = read_formulas(path)
    assert str(formula) == known.formula


def test_loose_keys_of_old_pictures(tmp_path):
    text = {"formula": "x_iy", "z": "0.25", "crunch": "1995", "smooth": "True", "samples": "2"}
    assert Provenance.from_text(text).look == Look(z=0.25, crunch="1995", smooth=True)
    frame = {"frame": "3", "value": "-1.5", "score": "0.25", "noise": "0.01", "drawn_by": "( x )"}
    known = Provenance.from_text(frame)
    assert (known.frame, known.value, known.noise, known.drawn_by) == (3, -1.5, 0.01, "( x )")


def test_another_programs_formula_is_none_of_ours(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((40, 40), 50).convert("RGB").save(path)
    write_png(path, np.asarray(Image.open(path)), {"formula": "E = m c^2", "z": "3"})
    assert read_provenance(path) == Provenance()
    with pytest.raises(InputError, match="carries no formula"):
        read_formulas(path)
    np.testing.assert_array_equal(read_start(str(path), "40"), Image.open(path))


def test_another_programs_picture_of_the_cases():
    path = CASES / "foreign_formula.png"
    if not path.exists():
        pytest.skip(f"{CASES} is not there")
    assert read_provenance(path) == Provenance()
    assert read_start(str(path), "64").shape == (48, 64, 3)
    assert read_provenance(CASES / "itxt.png") == Provenance()


def test_a_picture_drawn_anew_keeps_where_it_came_from(tmp_path):
    said = replace(FULL, formula="( exp x )", photographs=(), fps=None)
    write_png(tmp_path / "a.png", BLANK, said.to_text())
    flags = ["--size", "8x6", "--samples", "1", "--out", str(tmp_path / "b.png")]
    assert main(["render", str(tmp_path / "a.png"), *flags]) == 0
    raster = Raster(height=6, width=8)
    expected = replace(said, raster=raster, adaptive=0.0)
    assert read_provenance(tmp_path / "b.png") == expected
    assert main(["render", str(tmp_path / "a.png"), *flags, "--z", "1"]) == 0
    other = read_provenance(tmp_path / "b.png")
    assert (other.id, other.parents, other.target) == (said.id, said.parents, said.target)
    assert (other.score, other.value, other.noise) == (None, None, None)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a photograph, and a folder `in` for pictures."""
    Image.effect_noise((20, 16), 50).convert("RGB").save(tmp_path / "cat.png")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checksum(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("named", "lies"),
    [
        ("cat.png", "in/cat.png"),
        ("deep/cat.png", "in/deep/cat.png"),
        ("elsewhere/cat.png", "in/cat.png"),
        ("/home/somebody/cat.png", "in/cat.png"),
        ("../../cat.png", "in/cat.png"),
    ],
)
def test_files_beside_a_picture_are_found(place, named, lies):
    sha256 = checksum(place / "cat.png")
    assert found_beside(Path(named), sha256, place / "in") is None
    shutil.copyfile(place / "cat.png", place / lies)
    found = found_beside(Path(named), sha256, Path("in"))
    assert found is not None
    assert found.samefile(lies)
    assert found_beside(Path(named), "0" * 64, Path("in")) is None
    assert found_beside(Path(named), "", Path("in")) is None


@pytest.mark.parametrize("named", ["cat.png", "../cat.png", "in/../cat.png", "{place}/cat.png"])
def test_nothing_else_is_opened_nor_looked_for(place, named, monkeypatch):
    """Not from the working folder, not by whole paths, not through links."""
    sha256 = checksum(place / "cat.png")
    named = Path(named.format(place=place))
    opened = []
    monkeypatch.setattr("evojax_art.artwork.beside.checksum", opened.append)
    assert found_beside(named, sha256, Path("in")) is None
    (place / "in" / "cat.png").symlink_to(place / "cat.png")
    assert found_beside(named, sha256, Path("in")) is None
    assert opened == []


HOSTILE = ["", ".", "..", "/", "a" * 5000, "a\0b", "~/x", "deep", "//server/share/x.png"]


@pytest.mark.parametrize("named", HOSTILE)
def test_names_that_are_none(place, named):
    for sha256 in ("0" * 64, "../" * 21 + "a", "\0"):
        assert found_beside(Path(named), sha256, Path("in")) is None


@pytest.mark.parametrize("command", ["render", "movie", "polish", "dream"])
def test_a_strangers_picture_does_not_tell_what_is_there(place, command, capsys):
    """The same words whether what it names is there, is another file, or is not there."""
    said = []
    for number, exists in enumerate((True, True, False)):
        secret = place / "secret.png"
        if exists:
            shutil.copyfile("cat.png", secret)
        sha256 = checksum(place / "cat.png") if number == 0 else "0" * 64
        photograph = Source("cat", secret, False, sha256)
        given = Provenance(formula="( exp cat )", photographs=(photograph,), target=("crab",))
        write_png(place / "in" / "a.png", BLANK, given.to_text())
        secret.unlink(missing_ok=True) if not exists else None
        assert main([command, "in/a.png"]) == 2
        said.append(capsys.readouterr())
    assert said[0] == said[1] == said[2]
    assert said[0].err.count("\n") == 1
    assert "give it with --image cat=FILE" in said[0].err
    assert str(place) not in said[0].err


def test_a_guide_is_opened_beside_the_picture_and_as_it_was(place):
    config = TargetConfig(layer="stem", guide=Path("cat.png"))
    known = provenance_of(config)
    assert (known.guide, known.guide_sha256) == ("cat.png", checksum(place / "cat.png"))
    with pytest.raises(InputError, match=r"'cat\.png', is not beside it as it was.*--guide FILE"):
        guide_beside(known, Path("in"))
    unsaid = UNSAID
    with pytest.raises(InputError, match="--guide FILE"):
        recall_target(unsaid, known, Path("in"))
    flagged = replace(unsaid, guide=Path("x.png"))
    assert recall_target(flagged, known, Path("in")).guide == Path("x.png")
    assert not recall_target(replace(unsaid, target=("crab",)), known, Path("in")).guide
    old = Provenance.from_text({"layer": "stem", "guide": "cat.png"})
    with pytest.raises(InputError, match="--guide FILE"):
        recall_target(unsaid, old, Path())  # nobody knows whether it is the same
    recalled = recall_target(unsaid, known, Path())
    assert recalled.guide is not None
    assert recalled.guide.samefile("cat.png")
    assert recalled.layer == "stem"


def test_what_is_kept_is_found_from_a_run_and_its_records(place):
    sha256 = checksum(place / "cat.png")
    (place / "in" / "records").mkdir()
    keep(place / "cat.png", sha256, Path("in"))
    (place / "in").rename(place / "moved")
    source = Source("cat", Path("photos/cat.png"), False, sha256)
    for folder in (Path("moved"), Path("moved/records"), place / "moved" / "records"):
        assert bound_with(Bound(), [source], folder).names == ("cat",)
    (place / "moved" / "deep" / "other").mkdir()
    assert found_beside(source.file, sha256, Path("moved/deep")) is None
    os.chdir("moved/records")
    assert bound_with(Bound(), [source], Path()).names == ("cat",)
    with pytest.raises(InputError, match="--image"):
        bound_with(Bound(), [replace(source, sha256="0" * 64)], Path())


def test_a_photograph_of_a_flag_goes_before_the_pictures(place):
    source = Source("cat", Path("absent.png"), False, "0" * 64)
    write_png(
        place / "in" / "a.png",
        BLANK,
        Provenance(formula="( exp cat )", photographs=(source,)).to_text(),
    )
    flags = ["--image", "cat=cat.png", "--size", "8", "--out", "in/b.png"]
    assert main(["render", "in/a.png", *flags]) == 0
    said = read_png_text(place / "in" / "b.png")
    assert checksum(place / "cat.png") in said["images"]
    (one,) = read_given("in/b.png")
    assert one.provenance.photographs[0].file == Path("cat.png")


def test_writing_leaves_the_permissions_of_the_process_alone(tmp_path, monkeypatch):
    def refuse(mask):
        raise AssertionError(f"umask({mask}): every thread's new files would have it")

    usual = tmp_path / "usual"
    usual.write_text("")
    monkeypatch.setattr(os, "umask", refuse)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").stat().st_mode == usual.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "usual"]
