"""Dreams: moves, frames that follow from the last alone, folders to go on from."""

import json
import math
import re

import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.restoration import denoise_tv_chambolle

import evojax_art as ea
from evojax_art.artwork.picture import write_png
from evojax_art.cli.main import main
from evojax_art.cli.start import read_start
from evojax_art.language.photographs import pyramid
from evojax_art.objective.classes import ClassTarget
from evojax_art.refine.pixels import PixelsConfig
from evojax_art.runs import dream
from evojax_art.runtime.errors import InputError

QUICK = "--net tiny --size 48 --pixels.steps 2 --pixels.octaves 1 --video none --target 0".split()


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()[::4, ::4]).save(path)
    return path


@pytest.fixture
def dreamt(tiny_weights, tmp_path, photograph, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(out: str, *flags: str) -> list[np.ndarray]:
        given = [str(photograph), "--out", out, "--weights", str(tiny_weights), *QUICK, *flags]
        assert main(["dream", *given]) == 0
        paths = sorted((tmp_path / out / "frames").iterdir())
        assert [path.name for path in paths] == [f"{n:05d}.png" for n in range(len(paths))]
        return [np.asarray(Image.open(path)) for path in paths]

    return run


def smooth(height: int, width: int, zoom: float = 1, turn: float = 0) -> np.ndarray:
    """Waves at the points that a zoom and a clockwise turn bring to each pixel."""
    row, column = np.mgrid[:height, :width]
    x, y = column - (width - 1) / 2, row - (height - 1) / 2
    angle = math.radians(turn)
    # Where a pixel's colour was before: turned back, which is against the clock, and nearer.
    x, y = (
        (x * math.cos(angle) + y * math.sin(angle)) / zoom,
        (-x * math.sin(angle) + y * math.cos(angle)) / zoom,
    )
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 11 - y / 6), np.sin(x / 20) * np.cos(y / 7)]
    return 0.5 + 0.4 * np.stack(waves, axis=-1)


@pytest.mark.parametrize(("zoom", "turn"), [(1.25, 0), (1, 20), (1.1, -7), (0.8, 3)])
def test_pictures_are_zoomed_and_turned_about_their_middle(zoom, turn):
    for height, width in ((60, 90), (61, 40)):
        found = dream.moved(smooth(height, width), zoom, turn)
        inside = slice(height // 4, -height // 4), slice(width // 4, -width // 4)
        wanted = smooth(height, width, zoom, turn)
        np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-3)


def test_turning_is_clockwise_as_seen():
    picture = np.zeros((31, 31, 3))
    picture[15, 25] = 1  # right of the middle
    assert np.unravel_index(dream.moved(picture, 1, 90)[..., 0].argmax(), (31, 31)) == (25, 15)


def test_edges_come_in_from_beyond():
    picture = np.full((20, 20, 3), 0.25)
    picture[:, -1] = 1
    small = dream.moved(picture, 0.5, 0)
    np.testing.assert_allclose(small[:, 17:], 1, atol=0.05)
    np.testing.assert_allclose(small[:, :5], 0.25, atol=0.05)


def test_detail_outlives_a_hundred_turns():
    picture = skimage.data.astronaut()[64:192, 160:288] / 255
    turned = picture
    for _ in range(100):
        turned = dream.moved(turned, 1, 3.6)
    inside = slice(32, 96), slice(32, 96)
    detail = [np.abs(np.diff(p[inside], axis=1)).mean() for p in (picture, turned)]
    assert 0.6 < detail[1] / detail[0] < 1.1  # 0.25 by linear interpolation
    assert np.abs(picture[inside] - turned[inside]).mean() < 0.03


def test_frames_keep_within_the_gate_and_say_what_they_are(dreamt, tmp_path):
    frames = dreamt("out", "--frames", "4", "--pixels.learning-rate", "1", "--video", "gif")
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    for row, frame in zip(rows, frames, strict=True):
        colours = frame / np.float32(255)
        noise = np.abs(colours - denoise_tv_chambolle(colours, weight=0.2, channel_axis=-1)).mean()
        assert row["noise"] == pytest.approx(noise, abs=1e-4)
        assert row["frame"] == 0 or noise < 0.05
    scores = [row["score"] for row in rows]
    assert scores[-1] > scores[0]
    with Image.open(tmp_path / "out/dream.gif") as video:
        assert video.n_frames == 4  # pyright: ignore[reportAttributeAccessIssue]
    with Image.open(tmp_path / "out/frames.png") as sheet:
        assert sheet.width > 192


@pytest.mark.parametrize("extra", [[], ["--warp", "( subst ( * x_iy x_iy ) frame )"]])
def test_what_was_interrupted_goes_on_as_if_it_had_not_been(dreamt, extra):
    whole = dreamt("whole", "--frames", "4", *extra)
    assert len(dreamt("parts", "--frames", "2", *extra)) == 2
    parts = dreamt("parts", "--frames", "4", *extra)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(whole[1] - whole[2].astype(float)).mean() > 1
    assert len(dreamt("parts", "--frames", "3", *extra)) == 4  # nothing is lost


def test_formulas_draw_frames_from_the_last_alone(tiny_net, photograph):
    start = read_start(str(photograph), "48")
    config = dream.DreamConfig(
        formulas=True,
        breed=dream.BreedConfig(population=8, generations=1, max_length=24),
        pixels=PixelsConfig(noise_gate=0),
    )
    dreamer = dream.Dreamer(config, tiny_net, ClassTarget(tiny_net.vocabulary, (0,)))
    one = dreamer.next(start, 1)
    two = dreamer.next(one.picture, 2, one.formula)
    for last, frame in ((start, one), (one.picture, two)):
        moved = dream.moved(last / np.float32(255), 1.03, 0.5)
        population = ea.encode([frame.formula], 24, images=("frame",))
        drawn = ea.render(population, 48, 48, samples=2, images=[pyramid(moved, whole=True)])[0]
        np.testing.assert_allclose(frame.picture / 255, drawn, atol=0.51 / 255)
    assert one.value > dreamer.first(start).value
    again = dreamer.next(one.picture, 2, one.formula)
    assert again.formula == two.formula
    np.testing.assert_array_equal(again.picture, two.picture)


def test_starts_are_photographs_pngs_of_ours_and_formulas(photograph, tmp_path):
    assert read_start(str(photograph), "64").shape == (64, 64, 3)
    wide = tmp_path / "wide.jpg"
    Image.fromarray(skimage.data.astronaut()[100:300]).save(wide)
    assert read_start(str(wide), "64").shape == (32, 64, 3)
    middle = read_start(str(wide), "64x64").astype(float)
    wanted = Image.open(wide).crop((156, 0, 356, 200)).resize((64, 64), Image.Resampling.LANCZOS)
    inside = slice(None), slice(4, -4)  # at the sides one kernel sees what the other was cut
    np.testing.assert_allclose(middle[inside], np.asarray(wanted, float)[inside], atol=1)
    formula = "( exp ( * x_iy ( q 0 1 0 0.5 ) ) )"
    ours = tmp_path / "ours.png"
    write_png(ours, np.zeros((8, 8, 3), np.uint8), {"formula": formula})
    drawn = [read_start(given, "40x32") for given in (formula, str(ours))]
    np.testing.assert_array_equal(*drawn)
    image = ea.render(ea.encode([formula]), 32, 40, samples=3)[0]
    np.testing.assert_allclose(drawn[0] / 255, image, atol=0.51 / 255)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--zoom", "9"], "zoom must be 0.25 to 4"),
        (["--turn", "nan"], "turn must be"),
        (["--frames", "0"], "frames must be 1 to"),
        (["--size", "8"], "frames have 32 to 4096 pixels"),
        (["--target", "unicorn"], "unicorn"),
        (["--layer", "block9"], "no layer 'block9'"),
        (["--guide", "cat.png"], "say with --layer"),
        (["--warp", "( exp x_iy )"], "does not read the leaf frame"),
        (["--warp", "( exp farme )"], "did you mean frame"),
        (["--pixels.steps", "0"], "steps must be 1 to"),
        (["--breed.population", "1"], "breed.population must be 2 or more"),
        (["--video", "gif", "--fps", "99"], "at most 50 frames per second"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    flags, complaint, photograph, tiny_weights, tmp_path, capsys
):
    out = tmp_path / "out"
    given = [str(photograph), "--out", str(out), "--weights", str(tiny_weights), *QUICK, *flags]
    assert main(["dream", *given]) == 2
    error = capsys.readouterr().err
    assert re.search(complaint, error)
    assert error.startswith("evojax-art: error: ")
    assert not out.exists()


def test_starts_that_are_none(tmp_path):
    two = tmp_path / "two.txt"
    two.write_text("x\ny\n")
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    for given, complaint in (
        (str(two), "one formula to start from, not 2"),
        (str(text), "not a picture"),
        (str(tmp_path / "none.jpg"), "no such file"),
        ("( exp frame )", "unknown operator"),
        ("( exp image1 )", "bound"),
    ):
        with pytest.raises(InputError, match=complaint):
            read_start(given, "64")


def test_folders_of_something_else_are_left_alone(dreamt, tmp_path, photograph, capsys):
    dreamt("out", "--frames", "1")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    given = [str(photograph), "--out", str(tmp_path / "out"), *QUICK]
    weights = ["--weights", str(tmp_path / "tiny.safetensors")]
    assert main(["dream", *given, *weights, "--zoom", "1.1"]) == 2
    assert "zoom = 1.03, not 1.1" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    assert main(["dream", str(photograph), "--out", str(tmp_path / "full"), *QUICK, *weights]) == 2
    assert "not empty" in capsys.readouterr().err
