"""Large pictures: what is drawn of them, with which samples, and the files they go to."""

import itertools
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import png
import pytest
from PIL import Image

import evojax_art as ea
from evojax_art.artwork.picture import png_writer, read_png_text, write_png
from evojax_art.cli.main import main
from evojax_art.interpreter import reference
from evojax_art.language import ops
from evojax_art.language.formula import parse
from evojax_art.language.quaternions import Coordinates
from evojax_art.render.batch import sample_points
from evojax_art.render.large import render_bands, to_bytes
from evojax_art.render.look import Look, Raster
from evojax_art.render.pixels import Chunks
from evojax_art.runtime.errors import InputError

# Even colours with sharp edges, so that few pixels need more than the first samples.
PLATES = "( floor ( * x_iy_jx_ky ( q 2.3 1.1 -1.7 0.5 ) ) )"
WAVES = "( rolR ( isin ( * x_iy_jx_ky ( q 3 1 -2 0.5 ) ) ) )"
HEIGHT, WIDTH = 37, 53


# Bands of two rows, cut into batches of sixteen pixels.
SMALL = Chunks(band_pixels=1, least_rows=2, batch_points=256, due_points=256)


def drawn(
    formula=PLATES,
    height=HEIGHT,
    width=WIDTH,
    adaptive=0.0,
    chunks=Chunks(),
    **settings,
) -> np.ndarray:
    names = {"z", "crunch", "smooth"} & settings.keys()
    look = Look(**{name: settings.pop(name) for name in names})
    raster = Raster(height=height, width=width, **settings)
    bands = render_bands(formula, look, raster, adaptive=adaptive, chunks=chunks)
    return np.concatenate(list(bands))


COMBINATIONS = [
    {"samples": 3, "jitter": jitter, "adaptive": adaptive, "smooth": smooth}
    for jitter, adaptive, smooth in itertools.product((False, True), (0.0, 0.05), (False, True))
]


@pytest.mark.parametrize("settings", COMBINATIONS, ids=str)
def test_a_part_is_the_same_part_of_the_whole(settings):
    whole = drawn(**settings, crunch="1995", z=0.1)
    assert whole.shape == (HEIGHT, WIDTH, 3)
    assert whole.std() > 0.05
    chunks = Chunks(band_pixels=60)  # other bands, and the same colours
    for left, top, width, height in ((11, 5, 20, 13), (0, 0, 1, 1), (33, 30, 20, 7)):
        crop = (left, top, width, height)
        part = drawn(**settings, crunch="1995", z=0.1, crop=crop, chunks=chunks)
        # Only the blur is compiled anew for another shape, and may round apart.
        np.testing.assert_allclose(
            part, whole[top : top + height, left : left + width], atol=2e-7 * settings["smooth"]
        )


@pytest.mark.parametrize("settings", COMBINATIONS[-2:], ids=str)
def test_bands_do_not_show(settings):
    np.testing.assert_allclose(drawn(**settings, chunks=SMALL), drawn(**settings), atol=2e-7)


def test_jittered_samples_are_where_they_are_said_to_be():
    """One in each cell of a pixel, anywhere in it, the picture their mean."""
    columns, rows = np.meshgrid(np.arange(5, 5 + WIDTH), np.arange(3, 3 + HEIGHT))
    flat = [jnp.asarray(field.reshape(1, 1, -1)) for field in (columns, rows)]
    across, down = (
        np.asarray(field, np.float64).reshape(3, 3, HEIGHT, WIDTH)
        for field in sample_points(*flat, 3, jitter=True)
    )
    for place, pixel, axis in ((across, columns, 1), (down, rows, 0)):
        cell = (place / 2 - pixel + 0.5) * 3  # of the pixel, which is centred on its number
        expected = np.arange(3).reshape((1, 3, 1, 1) if axis else (3, 1, 1, 1))
        inside = cell - expected
        assert inside.min() >= -1e-4
        assert inside.max() <= 1 + 1e-4
        # Evenly spread, and none like its neighbours: samples, rows or columns.
        assert np.abs(np.histogram(inside, 8, (0, 1))[0] / inside.size - 1 / 8).max() < 0.01
        for along in range(4):
            before, after = (
                np.take(inside, range(start, inside.shape[along] + start - 1), along).ravel()
                for start in (0, 1)
            )
            assert abs(np.corrcoef(before, after)[0, 1]) < 0.03
    shorter = min(HEIGHT + 9, WIDTH + 9)
    x, y = (across / 2 - (WIDTH + 9) / 2) / shorter, (down / 2 - (HEIGHT + 9) / 2) / shorter
    values = reference.evaluate(parse(WAVES), Coordinates(x, y, np.zeros_like(x)))
    colours = ops.crunch(np, np.stack(values[1:], axis=-1), "sigmoid").mean(axis=(0, 1))
    crop = (5, 3, WIDTH, HEIGHT)
    picture = drawn(WAVES, HEIGHT + 9, WIDTH + 9, samples=3, jitter=True, crop=crop)
    np.testing.assert_allclose(picture, colours, atol=2e-6)


def test_jitter_differs_from_the_grid_by_grain_alone():
    grid, grain = drawn(WAVES, samples=2), drawn(WAVES, samples=2, jitter=True)
    assert 1e-4 < np.abs(grid - grain).max() < 0.05
    assert abs((grid - grain).mean()) < 1e-4


@pytest.mark.parametrize("jitter", [False, True])
def test_adaptive_pixels_have_all_samples_or_the_first(jitter):
    threshold = 0.03
    first = drawn(samples=2, jitter=jitter)
    full = drawn(samples=3, jitter=jitter)
    adaptive = drawn(samples=3, jitter=jitter, adaptive=threshold)
    # What is due, from points drawn one by one.
    rows, columns = np.indices((HEIGHT, WIDTH))
    fields = sample_points(*(jnp.asarray(f.reshape(1, 1, -1)) for f in (columns, rows)), 2, jitter)
    x, y = (
        (np.asarray(field, np.float64).reshape(4, HEIGHT, WIDTH) - size) / (2 * HEIGHT)
        for field, size in zip(fields, (WIDTH, HEIGHT), strict=True)
    )
    values = reference.evaluate(parse(PLATES), Coordinates(x, y, np.zeros_like(x)))
    samples = ops.crunch(np, np.stack(values[1:], axis=-1), "sigmoid")
    due = np.ptp(samples, axis=0).max(axis=-1) > threshold
    mean = np.pad(samples.mean(axis=0), ((1, 1), (1, 1), (0, 0)), mode="edge")
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        there = mean[down : down + HEIGHT, right : right + WIDTH]
        due |= np.abs(there - mean[1:-1, 1:-1]).max(axis=-1) > threshold
    assert 0.1 < due.mean() < 0.8
    np.testing.assert_array_equal(adaptive[due], full[due])
    np.testing.assert_array_equal(adaptive[~due], first[~due])


def test_adaptive_sampling_draws_less(monkeypatch):
    """Fewer points go through the interpreter, in batches of few sizes."""
    drawn_points = []
    from evojax_art.render import pixels

    original = pixels.render_pixels

    def counting(tapes, look, raster, columns, *rest):
        drawn_points.append((len(columns), raster.samples))
        return original(tapes, look, raster, columns, *rest)

    monkeypatch.setattr(pixels, "render_pixels", counting)
    drawn(samples=8, adaptive=0.05, chunks=Chunks(due_points=1 << 10))
    adaptive = sum(count * samples**2 for count, samples in drawn_points)
    assert adaptive < 0.7 * HEIGHT * WIDTH * 64
    assert len(set(drawn_points)) == 2


def test_nothing_due_and_everything_due():
    even = "( q 0 1 2 3 )"
    np.testing.assert_allclose(
        drawn(even, samples=3, adaptive=0.01), drawn(even, samples=3), atol=1e-7
    )
    noisy = "( isin ( * x_iy_jx_ky ( q 900 1e5 -7e4 3e5 ) ) )"
    np.testing.assert_array_equal(drawn(noisy, samples=3, adaptive=0.001), drawn(noisy, samples=3))


MISTAKES = [
    ({"samples": 65}, "samples must be at most 64, got 65"),
    ({"samples": 4, "adaptive": 1.0}, "adaptive must be at least 0 and below 1, got 1.0"),
    ({"samples": 4, "adaptive": float("nan")}, "adaptive must be at least 0 and below 1"),
    ({"samples": 2, "adaptive": 0.1}, "samples must be 3 or more, got 2"),
    ({"z": float("inf")}, "z must be finite, got inf"),
    ({"crop": (0, 0, 0, 1)}, "crop 0,0,0,1: left and top must be 0 or more, width and height 1"),
    ({"crop": (-1, 0, 1, 1)}, "crop -1,0,1,1: left and top must be 0 or more"),
    ({"crop": (50, 0, 4, 1)}, "crop 50,0,4,1 reaches beyond the picture's 53x37"),
    ({"crop": (0, 37, 1, 1)}, "reaches beyond the picture's 53x37"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_pictures_that_cannot_be_drawn(settings, message):
    with pytest.raises(InputError) as caught:
        ea.render_large(PLATES, HEIGHT, WIDTH, **settings)
    assert message in str(caught.value)


def read_16_bits(path) -> np.ndarray:
    """By a reader that shares no code with the writer."""
    with path.open("rb") as file:
        width, height, rows, about = png.Reader(file=file).asDirect()
        assert about["bitdepth"] == 16
        return np.vstack(list(rows)).reshape(height, width, 3)


def test_16_bits_hold_the_colours_to_a_65535th(tmp_path):
    path = tmp_path / "a.png"
    settings = ["--samples", "3", "--jitter", "--size", f"{WIDTH}x{HEIGHT}", "--bits", "16"]
    assert main(["render", WAVES, *settings, "--z", "0.25", "--out", str(path)]) == 0
    colours = drawn(WAVES, samples=3, jitter=True, z=0.25)
    read = read_16_bits(path)
    assert len(np.unique(read)) > 3000  # more than 8 bits can tell apart
    assert np.abs(read / 65535 - colours).max() <= 0.51 / 65535
    with Image.open(path) as image:  # in Pillow's way: the upper half of every channel
        np.testing.assert_array_equal(np.asarray(image), read >> 8)
    text = read_png_text(path)
    assert text.pop("Software").startswith("evojax_art ")
    assert text == {
        "evojax_art": "1",
        "formula": WAVES,
        "z": "0.25",
        "crunch": "sigmoid",
        "smooth": "False",
        "size": f"{WIDTH}x{HEIGHT}",
        "samples": "3",
        "jitter": "True",
    }


def test_render_draws_a_part_adaptively(tmp_path):
    path = tmp_path / "part.png"
    flags = "--size 53x37 --samples 3 --adaptive 0.05 --crop 11,5,20,13 --smooth --crunch 1995"
    assert main(["render", PLATES, *flags.split(), "--out", str(path)]) == 0
    settings = {"samples": 3, "adaptive": 0.05, "smooth": True, "crunch": "1995"}
    whole = to_bytes(drawn(**settings)).astype(int)
    with Image.open(path) as image:
        assert np.abs(np.asarray(image) - whole[5:18, 11:31]).max() <= 1
    text = read_png_text(path)
    assert text["crop"] == "11,5,20,13 of 53x37"
    assert text["adaptive"] == "0.05"


PICTURES = {
    "noise": np.random.default_rng(0).integers(0, 1 << 16, (70, 33, 3), np.uint16),
    "slope": (np.indices((70, 33)).sum(axis=0)[..., None] * [401, 77, 613]).astype(np.uint16),
    "black": np.zeros((1, 1, 3), np.uint16),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("step", [1, 13, 100])
def test_rows_written_in_parts_come_back(tmp_path, name, bits, step):
    picture = PICTURES[name] if bits == 16 else (PICTURES[name] >> 8).astype(np.uint8)
    path = tmp_path / "a.png"
    height, width, _ = picture.shape
    text = {"formula": "x", "title": "Krebs ä"}
    with png_writer(path, width, height, text, piece_bytes=500) as write_fn:
        for start in range(0, height, step):
            rows = picture[start : start + step].copy()
            write_fn(rows)
            rows[:] = 7  # the writer's are its own
    assert read_png_text(path) == {"formula": "x", "title": "Krebs ä"}
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), picture >> (bits - 8))
    with Image.open(path) as image:
        image.verify()  # checksums
    if bits == 16:
        np.testing.assert_array_equal(read_16_bits(path), picture)


def test_compression_is_worth_it(tmp_path):
    picture = to_bytes(drawn(WAVES, 128, 128))
    write_png(tmp_path / "a.png", picture, {})
    Image.fromarray(picture).save(tmp_path / "pillow.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("a.png", "pillow.png")]
    assert sizes[0] < 1.1 * sizes[1]


def written(path, parts) -> None:
    with png_writer(path, 4, 3, {}) as write_fn:
        for rows in parts:
            write_fn(rows)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((3, 4, 3), np.uint8),  # of three, one too many
        np.zeros((1, 5, 3), np.uint8),
        np.zeros((1, 4), np.uint8),
        np.zeros((1, 4, 3), np.float32),
        np.zeros((1, 4, 3), np.uint16),  # after one of 8 bits
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="rows"):
        written(tmp_path / "a.png", [np.zeros((1, 4, 3), np.uint8), rows])
    assert list(tmp_path.iterdir()) == []


def test_missing_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 rows are missing"):
        written(tmp_path / "a.png", [np.zeros((1, 4, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
    )  # fmt: skip


def test_text_is_read_without_the_pixels(tmp_path):
    """Of a picture that would not fit into memory, before and behind its pixels."""
    path = tmp_path / "huge.png"
    header = struct.pack(">IIBBBBB", 1 << 16, 1 << 16, 8, 2, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"tEXt", b"formula\0x"),
        chunk(b"IDAT", b"\0" * 99),
        chunk(b"tEXt", b"z\x000.5"),
        chunk(b"IEND", b""),
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert read_png_text(path) == {"formula": "x", "z": "0.5"}
    content = path.read_bytes()
    path.write_bytes(content.replace(b"formula\0x", b"formula\0y"))
    with pytest.raises(InputError, match=r"huge\.png: this PNG is damaged"):
        read_png_text(path)
