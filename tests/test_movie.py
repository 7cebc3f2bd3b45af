"""Movies: what is in which frame, and what is in the files."""

import json
import stat
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import evojax_art as ea
from evojax_art.artwork.picture import read_png_text, write_png
from evojax_art.artwork.video import check_video, write_video
from evojax_art.cli.main import main
from evojax_art.language.bindings import Bound, bind_images
from evojax_art.language.formula import parse
from evojax_art.language.ops import OPS
from evojax_art.language.ops import crunch as crunch_of
from evojax_art.render import movie as movie_module
from evojax_art.render.large import render_large
from evojax_art.render.look import Look, Raster
from evojax_art.render.movie import Actor, FrameChunks, film, morph
from evojax_art.render.schedule import MovieConfig, depends_on_z, morph_schedule, schedule
from evojax_art.runtime.errors import InputError

MOVING = "( exp ( * x_iy_jx_ky j ) )"
OTHER = "( isin ( + x_iy y_k ) )"


def config(**settings):
    # Mostly 10 frames of one size, so that one compilation serves all.
    given = {"raster": Raster(height=9, width=12), "seconds": 1.0, "fps": 10.0, **settings}
    return MovieConfig(**given)


def actors(*formulas):
    return [Actor(parse(formula)) for formula in formulas]


def picture(formula, z, crunch="sigmoid", smooth=False, bound=Bound()):
    """Colours by the reference interpreter, with a blur of our own: [9, 12, 3] float64."""
    population = ea.encode([formula], images=bound.names)
    value = ea.evaluate(population, 9, 12, z, implementation="reference", images=bound.pyramids)[0]
    colours = crunch_of(np, value[..., 1:], crunch)
    if not smooth:
        return colours
    padded = np.pad(np.concatenate([colours, np.ones((9, 12, 1))], -1), ((1, 1), (1, 1), (0, 0)))
    centre, edge = np.exp(-2 * (np.array([0, 1]) + 0.001) / 1.001)
    beside = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    total = centre * padded[1:-1, 1:-1] + edge * beside
    return total[..., :3] / total[..., 3:]


def assert_shows(frame, colours):
    """A frame in bytes against colours in [0, 1], with a little for float32."""
    assert np.abs(frame - 255.0 * colours).max() < 0.52


def frames(count=5, height=6, width=8):
    rows, columns = np.mgrid[:height, :width]
    for number in range(count):
        field = np.stack([9 * rows, 9 * columns, 9 * rows + 9 * columns], -1)
        yield (field + 20 * number).astype(np.uint8)


def read_mp4(path):
    """Frames [F, H, W, 3] as ffmpeg decodes them, and what it prints of the file."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    result = subprocess.run(command, capture_output=True, check=True)
    printed = result.stderr.decode()
    size = printed.split("yuv420p")[1].split("x")
    width, height = int(size[0].split()[-1]), int(size[1].split()[0].strip(","))
    return np.frombuffer(result.stdout, np.uint8).reshape(-1, height, width, 3), printed


@pytest.fixture
def photograph(tmp_path):
    rows, columns = np.mgrid[:40, :60]
    field = 128 + 120 * np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin(rows / 5)], -1)
    path = tmp_path / "photograph.png"
    Image.fromarray(field.astype(np.uint8)).save(path)
    return path


# --- what is in which frame


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("fade", [0.0, 0.1, 0.5, 2.0])
def test_schedule_against_a_frame_by_frame_account(fade, loop):
    reach, length, count = 1.5, 40, 3
    plan = schedule(config(seconds=4.0, reach=reach, fade=fade, loop=loop), count)
    step = Fraction(2) * Fraction(reach) / (length - 1)
    number = 0
    for formula in range(count):
        for frame in range(length):
            assert plan.formula[number] == formula
            assert plan.z[number] == pytest.approx(float(-Fraction(reach) + frame * step))
            # The one before has gone on at the same pace since its own first frame.
            z_before = -Fraction(reach) + (length + frame) * step
            assert plan.z_before[number] == pytest.approx(float(z_before))
            fading = frame < fade * (length / 2) and (formula > 0 or loop)
            weight = 1 - frame / (fade * length / 2) if fading else 0.0
            assert plan.weight_before[number] == pytest.approx(weight)
            number += 1
    assert number == len(plan.formula)


def test_clip_runs_from_one_end_of_z_to_the_other():
    plan = schedule(config(seconds=2.0, reach=0.7), 2)
    assert plan.z[0] == plan.z[20] == -0.7
    assert plan.z[19] == plan.z[39] == 0.7
    assert plan.z_before[20] > 0.7


def test_swing_comes_back():
    plan = schedule(config(seconds=2.0, reach=0.7, swing=True), 1)
    np.testing.assert_allclose(plan.z[[0, 5, 10, 15]], [-0.7, 0, 0.7, 0], atol=1e-12)
    np.testing.assert_allclose(plan.z_before, plan.z, atol=1e-12)


def test_frames_are_renders_at_their_z():
    shown = list(film(config(reach=0.5), actors(MOVING)).frames)
    np.testing.assert_array_equal(shown[0], render_large(MOVING, 9, 12, -0.5))
    for frame, z in zip(shown, np.linspace(-0.5, 0.5, 10), strict=True):
        assert_shows(frame, picture(MOVING, z))
    assert np.abs(shown[0].astype(int) - shown[-1]).max() > 10


def test_cross_fade_mixes_colours_with_the_formula_before_past_its_end():
    shown = list(film(config(fade=1.0, reach=0.9), actors(MOVING, OTHER)).frames)
    step = 0.2  # of z
    for frame in range(5):
        weight = 1 - frame / 5
        before = picture(MOVING, 0.9 + step * (frame + 1))
        here = picture(OTHER, -0.9 + step * frame)
        assert_shows(shown[10 + frame], weight * before + (1 - weight) * here)
    assert_shows(shown[15], picture(OTHER, -0.9 + 5 * step))


def test_loop_fades_the_last_formula_out_over_the_first():
    settings = {"fade": 1.0, "reach": 0.9}
    plain = list(film(config(**settings), actors(MOVING, OTHER)).frames)
    looped = list(film(config(**settings, loop=True), actors(MOVING, OTHER)).frames)
    assert_shows(looped[0], picture(OTHER, 1.1))
    np.testing.assert_array_equal(looped[5:], plain[5:])


def test_batches_and_bands_do_not_show():
    given = config(fade=1.0), actors(MOVING, OTHER)
    whole = np.stack(list(film(*given).frames))
    batched = film(*given, FrameChunks(batch_points=9 * 12 * 3))
    np.testing.assert_array_equal(np.stack(list(batched.frames)), whole)
    banded = np.stack(list(film(*given, FrameChunks(frame_points=50)).frames))
    assert np.abs(banded.astype(int) - whole).max() <= 1


def test_morph_begins_and_ends_with_the_formulas():
    first, last = "( exp ( * x_iy ( q 0 1 0 0.5 ) ) )", "( exp ( * x_iy golden ) )"
    made = morph(config(reach=0.0), actors(first, last))
    shown = list(made.frames)
    assert len(shown) == made.num_frames == 10
    assert_shows(shown[0], picture(first, 0.0))
    assert_shows(shown[-1], picture(last, 0.0))
    t = 3 / 9
    share = 3 * t**2 - 2 * t**3
    between = (1 - share) * np.array([0, 1, 0, 0.5]) + share * np.array([1.61803398875, 0, 0, 0])
    text = f"( exp ( * x_iy ( q {' '.join(map(str, between))} ) ) )"
    assert_shows(shown[3], picture(text, 0.0))
    assert_shows(shown[3], picture(str(made.shown_fn(3).expression), 0.0))


def test_morph_goes_through_all_formulas():
    place, z = morph_schedule(config(reach=0.5), 3)
    assert len(place) == 20
    assert (place[0], place[-1]) == (0, 2)
    assert (z[0], z[-1]) == (-0.5, 0.5)
    assert np.all(np.diff(place) > 0)


def test_morph_goes_round():
    place, z = morph_schedule(config(reach=0.5, loop=True), 3)
    np.testing.assert_allclose(place[[0, 10, 20]], [0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(z[[0, 15]], [-0.5, 0.5], atol=1e-12)
    assert 2.9 < place[-1] < 3
    shown = list(morph(config(reach=0.0, loop=True), actors("( + x i )", "( + x j )")).frames)
    assert_shows(shown[10], picture("( + x j )", 0.0))
    np.testing.assert_array_equal(shown[15], shown[5])  # halfway there and halfway back


def test_morph_moves_from_middle_to_middle():
    pair = [Actor(parse(MOVING), Look(z=middle)) for middle in (0.25, -0.5)]
    made = morph(config(reach=0.0), pair)
    described = [made.shown_fn(number).look.z for number in range(10)]
    assert (described[0], described[-1]) == (0.25, -0.5)
    assert_shows(list(made.frames)[-1], picture(MOVING, -0.5))


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        ("( + x i )", "( * x i )", r"formulas 1 and 2 differ in more than constants: \+ there, \*"),
        ("( + x i )", "( + x y )", "q there, y here"),
        ("x", "( exp x )", "1 nodes there, 2 nodes here; leave out --morph"),
    ],
)
def test_morph_needs_formulas_of_one_build(first, other, message):
    with pytest.raises(InputError, match=message):
        morph(config(), actors(first, other))


def test_morph_needs_two_formulas_of_one_look():
    with pytest.raises(InputError, match="give two formulas"):
        morph(config(), actors("x"))
    pair = [Actor(parse("i")), Actor(parse("j"), Look(crunch="1995"))]
    with pytest.raises(InputError, match="1 and 2 have different colours"):
        morph(config(), pair)


def test_morph_needs_formulas_that_read_the_same_pictures(photograph):
    bound = [bind_images([f"cat={photograph}"]), bind_images([f"cat:whole={photograph}"])]
    pair = [Actor(parse("cat", images=["cat"]), bound=one) for one in bound]
    with pytest.raises(InputError, match="1 and 2 read different pictures"):
        morph(config(), pair)


def test_which_leaves_depend_on_z():
    named = {op.name for op in OPS if op.reads_coordinates and depends_on_z(parse(op.name))}
    assert named >= {"x_k", "y_k", "x_iy", "x_iy_jx_ky", "std"}
    assert not named & {"x", "y"}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("( exp x )", False),
        ("( + x x_k )", True),
        ("( subst x x_iy )", False),  # z is replaced by what does not depend on it
        ("( subst x_iy x_iy )", True),
        ("( subst x_iy j )", False),
        ("( at x x_iy )", False),
        ("( at x_iy x_iy )", True),
        ("( + x_k ( subst x x_iy ) )", True),
    ],
)
def test_dependence_on_z_passes_through_frames(formula, expected):
    assert depends_on_z(parse(formula)) == expected
    moves = not np.array_equal(picture(formula, -0.3), picture(formula, 0.4))
    assert moves == expected


# --- what is in the files


def test_mp4_holds_the_frames_and_the_formula(tmp_path):
    path, text = tmp_path / "a.mp4", {"formula": "( = ; # \\ \n 'x' )", "number": 3}
    write_video(path, frames(), fps=12.5, text=text)
    assert imageio_ffmpeg.count_frames_and_secs(path) == (5, 0.4)
    read, printed = read_mp4(path)
    expected = np.stack(list(frames()))
    assert np.abs(read.astype(int) - expected).mean() < 4  # H.264 halves the colours' resolution
    assert "h264" in printed
    assert "bt709" in printed
    assert json.dumps(text) in printed


def test_mp4_of_odd_size_grows_by_its_last_row_and_column(tmp_path):
    odd = [np.full((5, 7, 3), (200, 90, 40), np.uint8)] * 3
    write_video(tmp_path / "a.mp4", odd)
    read, _ = read_mp4(tmp_path / "a.mp4")
    assert read.shape == (3, 6, 8, 3)
    assert np.abs(read.astype(int) - (200, 90, 40)).max() <= 4


def test_gif_keeps_time_loops_and_says_its_formula(tmp_path):
    path = tmp_path / "a.gif"
    write_video(path, frames(7), fps=30, text={"formula": "x"})
    with Image.open(path) as image:
        assert image.n_frames == 7
        assert image.info["loop"] == 0
        assert json.loads(image.info["comment"]) == {"formula": "x"}
        durations = []
        for number, expected in enumerate(frames(7)):
            image.seek(number)
            durations.append(image.info["duration"])
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - expected).max() <= 2
    assert set(durations) == {30, 40}
    assert sum(durations) == 230  # 7/30 s


def test_gif_palettes_are_good_enough_for_gradients(tmp_path):
    rows, columns = np.mgrid[:96, :128] / 128
    field = np.stack([rows, columns, 0.5 + 0.5 * np.sin(9 * rows * columns)], -1)
    frame = (255 * field).astype(np.uint8)
    write_video(tmp_path / "a.gif", [frame])
    with Image.open(tmp_path / "a.gif") as image:
        read = np.asarray(image.convert("RGB")).astype(float)

    def blurred(values):
        return values.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))

    assert np.abs(blurred(read) - blurred(frame)).mean() < 4


def test_folder_holds_numbered_frames_with_their_text(tmp_path):
    folder = tmp_path / "frames"
    write_video(folder, frames(), fps=5, text={"a": 1}, frame_text_fn=lambda n: {"z": n / 2})
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"{number:06d}.png" for number in range(1, 6)
    ]
    for number, (path, expected) in enumerate(zip(sorted(folder.iterdir()), frames(), strict=True)):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
        assert read_png_text(path) == {"z": str(number / 2)}
    usual = tmp_path / "usual"
    usual.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interruption_leaves_nothing(tmp_path, name, error):
    def interrupted():
        yield from frames(3)
        raise error

    with pytest.raises(error):
        write_video(tmp_path / name, interrupted())
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_what_was_there(tmp_path):
    (tmp_path / "a.mp4").write_text("before")

    def interrupted():
        yield next(frames())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", interrupted())
    assert (tmp_path / "a.mp4").read_text() == "before"


@pytest.mark.usefixtures("unchecked")
def test_frames_must_fit_together(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.gif", [])
    with pytest.raises(ValueError, match="several sizes"):
        write_video(tmp_path / "a.mp4", [*frames(2), *frames(1, height=4)])
    with pytest.raises(ValueError, match="bytes"):
        write_video(tmp_path / "b", [np.zeros((2, 2, 3))])
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_that_fails_on_the_way_is_no_success(tmp_path, monkeypatch):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nhead -c 10 >/dev/null\necho no space left >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
    many = (np.zeros((64, 64, 3), np.uint8) for _ in range(50))
    with pytest.raises(InputError, match=r"cannot write .*a\.mp4: ffmpeg: no space left"):
        write_video(tmp_path / "a.mp4", many)
    assert list(tmp_path.iterdir()) == [script]


def absent(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", fail)


def broken(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "false")


def missing(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("state", [absent, broken, missing])
def test_without_ffmpeg_gif_and_frames_are_offered(tmp_path, monkeypatch, state, capsys):
    state(monkeypatch, tmp_path)
    monkeypatch.setattr(movie_module, "render_population", None)  # nothing is drawn
    assert main(["movie", MOVING, "--out", str(tmp_path / "a.mp4")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert ".gif or a folder for PNG frames" in message
    assert list(tmp_path.iterdir()) == []
    check_video(tmp_path / "a.gif")
    check_video(tmp_path / "frames")


# --- the command

FLAGS = "--size 12x9 --samples 1 --seconds 1 --fps 10".split()


MISTAKES = {
    "": "movie",
    "x --seconds 0": "seconds must be above 0",
    "x --seconds nan": "seconds must be above 0",
    "x --seconds 1e9": "at most 8000 at 25 fps",
    "x --fps 0": "fps must be 0.01 to 1000, got 0",
    "x --fps 60 --out a.gif": "at most 50 frames per second, not 60",
    "x --fade 3": "fade must be 0 to 2",
    "x --z inf": "z must be a finite number",
    "x --size 0": "--size 0",
    "x --samples 0": "samples must be 1 or more",
    "x --out a.avi": "unknown kind of video .avi; give .mp4, .gif, or a folder",
    "x --out full": "folder full is not empty",
    "x --out absent/a.gif": "cannot write absent/a.gif",
    "x --out absent/frames": "cannot write folder absent/frames",
    "x --out plain": "cannot write frames into plain: it is a file",
    "absent.png": "absent.png",
    "image1": "reads picture 1",
    "x --image cat=absent.jpg": "cannot read picture absent.jpg",
    "x --image absent.jpg": "NAME=FILE",
    "x --morph": "give two formulas",
    "( exp x ) ( isin x ) --morph": "differ in more than constants: exp there, isin here",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_known_before_the_work(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("dear")
    (tmp_path / "plain").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    given = arguments.replace("( exp x ) ( isin x )", "exp_x isin_x").split()
    given = [{"exp_x": "( exp x )", "isin_x": "( isin x )"}.get(word, word) for word in given]
    assert main(["movie", *given]) == 2
    printed = capsys.readouterr()
    assert MISTAKES[arguments] in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_command_keeps_the_look_of_a_png(tmp_path, capsys):
    source, folder = tmp_path / "a.png", tmp_path / "frames"
    look = {"formula": MOVING, "z": 0.25, "crunch": "1995", "smooth": True}
    write_png(source, np.zeros((2, 2, 3), np.uint8), look)
    assert main(["movie", str(source), *FLAGS, "--z", "0.5", "--out", str(folder)]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"{folder}\n", "")
    first, *_, last = sorted(folder.iterdir())
    for path, z in ((first, -0.25), (last, 0.75)):
        with Image.open(path) as image:
            assert_shows(np.asarray(image), picture(MOVING, z, crunch="1995", smooth=True))
        text = read_png_text(path)  # from which any frame can be drawn again by itself
        assert float(text["z"]) == z
        assert (text["formula"], text["crunch"], text["smooth"]) == (MOVING, "1995", "True")


def test_formulas_may_read_photographs(tmp_path, photograph):
    formula, folder, flag = "( + cat x_iy )", tmp_path / "frames", f"cat={photograph}"
    assert main(["movie", formula, "--image", flag, *FLAGS, "--out", str(folder)]) == 0
    first, *_, last = sorted(folder.iterdir())
    for path, z in ((first, -0.5), (last, 0.5)):
        with Image.open(path) as image:
            assert_shows(np.asarray(image), picture(formula, z, bound=bind_images([flag])))
        assert json.loads(read_png_text(path)["images"])["cat"]["file"] == str(photograph)


def test_stills_are_written_and_said_so(tmp_path, capsys):
    path = tmp_path / "a.mp4"
    assert main(["movie", MOVING, "( exp x )", *FLAGS, "--out", str(path)]) == 0
    assert capsys.readouterr().err == "movie: formula 2 of 2 does not depend on z: a still\n"
    assert imageio_ffmpeg.count_frames_and_secs(path)[0] == 20
    assert main(["movie", MOVING, "--z", "0", *FLAGS, "--out", str(path)]) == 0
    assert "every clip is a still" in capsys.readouterr().err
