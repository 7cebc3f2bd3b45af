"""Photographs as leaves: what they read where, against independent computations."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

import evojax_art as ea
from evojax_art.interpreter import reference
from evojax_art.language import ops
from evojax_art.language import photographs as images
from evojax_art.language.formula import Expression, Node, check_images, parse
from evojax_art.language.ops import BY_NAME, IMAGES
from evojax_art.language.photographs import (
    leaf_value,
    pyramid,
    read_image,
    sample,
    softened,
    spacing,
)
from evojax_art.language.program import decode, encode, to_expressions
from evojax_art.language.quaternions import Coordinates
from evojax_art.render.batch import pixel_coordinates
from evojax_art.render.large import render_bands, to_bytes
from evojax_art.render.look import Look, Raster
from evojax_art.render.pixels import Chunks
from evojax_art.runtime.errors import InputError
from evojax_art.search import variation
from evojax_art.search.splicing import draw
from evojax_art.search.variation import GrowthConfig, VariationConfig

TWIRL = "( subst ( * x_iy ( exp x_iy ) ) cat )"


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    """300 by 451 pixels in [0, 1], one side odd."""
    return data.cat() / np.float32(255)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut() / np.float32(255)


def points(count: int, reach: float = 1.0, seed: int = 0) -> Coordinates:
    return Coordinates(*np.random.default_rng(seed).uniform(-reach, reach, (3, count)))


def in_float64(image: images.Pyramid) -> images.Pyramid:
    fields = map(np.asarray, image)
    return images.Pyramid(*(f.astype(float) if f.dtype.kind == "f" else f for f in fields))


def colours(image, at, distance=0.0) -> np.ndarray:
    """RGB [points, 3] of a leaf."""
    value = sample(np, in_float64(image), at, np.full_like(at.x, distance))
    assert np.all(value.e == 1)
    return ops.crunch(np, np.stack(value[1:], axis=-1), "sigmoid")


@pytest.mark.parametrize("shape", [(300, 451), (1, 1), (1, 6), (5, 1), (7, 4), (16, 32)])
def test_a_whole_picture_is_drawn_as_it_is(shape, cat):
    picture = cat[: shape[0], : shape[1]]
    image, population = pyramid(picture, whole=True), encode(["cat"], images=["cat"])
    value = ea.evaluate(population, *shape, implementation="reference", images=(image,))
    drawn = ops.crunch(np, value[0, ..., 1:], "sigmoid")
    np.testing.assert_array_equal(to_bytes(drawn), to_bytes(picture))
    if shape[0] == 300:  # rows of odd length on the device: no pixel's neighbour is in another row
        drawn = ea.render(population, *shape, images=(image,))[0]
        np.testing.assert_array_equal(to_bytes(drawn), to_bytes(picture))


def test_the_convention_of_the_original(cat):
    kernel = np.array([[2**-1.414, 0.5, 2**-1.414], [0.5, 1, 0.5], [2**-1.414, 0.5, 2**-1.414]])
    inside = ndimage.correlate(np.ones(cat.shape[:2]), kernel, mode="constant")
    channels = [cat[..., channel].astype(float) for channel in range(3)]
    soft = [ndimage.correlate(c, kernel, mode="constant") / inside for c in channels]
    np.testing.assert_allclose(softened(cat), np.stack(soft, axis=-1), rtol=1e-5)
    height, width, _ = cat.shape
    at = points(500, reach=0.8)  # the corners lie outside
    where = [height / 2 + at.y * width / 2, width / 2 + at.x * width / 2]
    expected = [ndimage.map_coordinates(c, where, order=1, mode="nearest") for c in soft]
    np.testing.assert_allclose(colours(pyramid(cat), at), np.stack(expected, axis=-1), atol=1e-6)


def test_a_level_is_the_mean_of_squares_as_far_as_they_are_inside():
    picture = np.random.default_rng(1).random((11, 6, 3), np.float32)
    image = pyramid(picture, whole=True)
    assert image.sizes.tolist() == [[11, 6], [6, 3], [3, 2], [2, 1], [1, 1]]
    np.testing.assert_allclose(image.texels[-1], picture.mean(axis=(0, 1)), rtol=1e-6)
    for level, ((height, width), offset) in enumerate(zip(image.sizes, image.offsets, strict=True)):
        texels = np.asarray(image.texels)[offset : offset + height * width]
        side = 2**level
        for row, column in np.ndindex(int(height), int(width)):
            square = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
            expected = square.mean(axis=(0, 1))
            np.testing.assert_allclose(texels[row * width + column], expected, rtol=1e-5)


def test_a_pyramid_can_be_made_on_the_device(cat):
    on_device = jax.jit(partial(pyramid, whole=False))(jnp.asarray(cat[:31, :20]))
    for made, expected in zip(on_device, pyramid(cat[:31, :20]), strict=True):
        np.testing.assert_allclose(made, expected, rtol=1e-5)


def test_a_texel_is_centred_on_its_square():
    ramp = np.broadcast_to(np.linspace(0.1, 0.9, 64)[None, :, None], (64, 64, 3))
    image = pyramid(ramp, whole=True)
    at = Coordinates(np.linspace(-0.3, 0.3, 50), np.zeros(50), np.zeros(50))
    for level in (0, 1, 2.5, 3):
        of_ramp = 0.1 + 0.8 * (32 + 64 * at.x) / 63
        np.testing.assert_allclose(
            colours(image, at, 2**level / 64), np.stack([of_ramp] * 3, axis=-1), atol=1e-6
        )


def test_a_small_picture_of_a_large_one_is_its_average(astronaut):
    image = pyramid(astronaut, whole=True)
    first_level = image._replace(sizes=image.sizes[:1], offsets=image.offsets[:1])
    population = encode(["me"], images=["me"])
    with_levels, without = (
        np.asarray(ea.render(population, 32, 32, samples=2, images=(picture,))[0])
        for picture in (image, first_level)
    )
    means = ndimage.uniform_filter(astronaut.astype(float), (16, 16, 0), mode="nearest")
    average = means[::16, ::16]  # around the pixels that the points lie on
    assert np.abs(with_levels - average).mean() < 0.01
    assert np.abs(with_levels - average).mean() < np.abs(without - average).mean() / 3


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_renders_are_as_specified(samples, cat, astronaut):
    """The mean of samples, each read as the specification reads it, on all devices."""
    pictures = (pyramid(cat), pyramid(astronaut[:77, :51], whole=True))
    texts = ["image1", "( * image2 ( rolL image1 ) )", "( subst ( * x_iy ( exp x_iy ) ) image2 )"]
    height, width = 18, 30
    drawn = np.asarray(ea.render(encode(texts), height, width, samples=samples, images=pictures))
    rows, columns = np.mgrid[:height, :width].reshape(2, 1, 1, -1)
    raster = Raster(height=height, width=width, samples=samples)
    at = pixel_coordinates(jnp.asarray(columns), jnp.asarray(rows), jnp.float32(0), raster)
    at = Coordinates(*(np.asarray(t, float)[0] for t in at))
    for text, picture in zip(texts, drawn, strict=True):
        value = reference.evaluate(parse(text), at, pictures, samples**2)
        by_sample = ops.crunch(np, np.stack(value[1:], axis=-1), "sigmoid")
        expected = by_sample.reshape(samples**2, height, width, 3).mean(axis=0)
        wrong = np.abs(picture - expected).max(axis=-1) > 1e-5
        assert wrong.mean() < 0.01  # but at a seam


def test_distances_are_those_of_pairs():
    x = np.array([0, 3, 3, 3, 10, 10.0, 1])
    y = np.array([0, 4, 0, 1, 5, 5.0, 1])
    at = Coordinates(x, y, y)
    assert spacing(np, at, 1).tolist() == [5, 5, 1, 1, 0, 0, np.hypot(9, 4)]
    assert spacing(np, at, 4)[0] == 2.5
    assert spacing(np, Coordinates(x[:1], y[:1], y[:1])).tolist() == [0]
    stacked = Coordinates(*(np.stack([t[:6], 2 * t[:6]]) for t in at))
    assert spacing(np, stacked)[:, 0].tolist() == [5, 10]


def test_a_seam_of_wrapping_does_not_blur(cat):
    image = pyramid(cat[:64, :64], whole=True)
    population = encode(["( subst ( + x_iy ( q 0.015625 0 0 0 ) ) image1 )"])  # a pixel to the left
    value = ea.evaluate(population, 64, 64, implementation="reference", images=(image,))
    drawn = ops.crunch(np, value[0, ..., 1:], "sigmoid")
    np.testing.assert_allclose(drawn, np.roll(cat[:64, :64], -1, axis=1), atol=1e-6)


def test_the_gradient_is_that_of_the_colours(cat):
    image = pyramid(cat)
    at = points(64, reach=0.6, seed=3)
    for distance in (0.0, 0.02):

        def total(x, y, weights, distance=distance):
            here = Coordinates(x, y, x)
            value = sample(jnp, image, here, jnp.full_like(x, distance))
            return jnp.sum(weights * jnp.stack(value))

        weights = np.random.default_rng(4).normal(size=(4, 64)).astype(np.float32)
        found = jax.grad(total, (0, 1))(jnp.float32(at.x), jnp.float32(at.y), weights)
        exact, step = in_float64(image), 1e-7
        rounded = Coordinates(*(np.float32(t).astype(float) for t in at))
        for axis, gradient in zip("xy", found, strict=True):
            ends = []
            for sign in (1, -1):
                moved = rounded._replace(**{axis: getattr(rounded, axis) + sign * step})
                value = sample(np, exact, moved, np.full(64, distance))
                ends.append((weights * np.stack(value)).sum(axis=0))
            expected = (ends[0] - ends[1]) / (2 * step)
            near = np.isclose(gradient, expected, rtol=2e-2, atol=0.05 * np.abs(expected).mean())
            assert near.mean() > 0.95  # but where a point lies on an edge between two pixels
            assert np.abs(expected).mean() > 0.1


def test_what_is_no_number_is_finite(cat):
    strange = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0])
    x, y = (t.ravel().astype(np.float32) for t in np.meshgrid(strange, strange))
    at = Coordinates(x, y, y)
    leaf = IMAGES[0]
    for xp in (np, jnp):
        image = pyramid(cat) if xp is jnp else in_float64(pyramid(cat))
        here = Coordinates(*map(xp.asarray, at))
        with np.errstate(all="ignore"):
            value = leaf_value(xp, leaf, (image,), here, here, 1)
        assert np.isfinite(np.stack(value)).all()
    centre, of_nan = (
        np.stack(sample(np, in_float64(pyramid(cat)), Coordinates(*([t] * 3)), np.zeros(1)))
        for t in (np.zeros(1), np.full(1, np.nan))
    )
    np.testing.assert_array_equal(centre, of_nan)


def test_black_and_white_have_finite_values():
    picture = np.zeros((2, 4, 3), np.float32)
    picture[:, 2:] = 1
    at = Coordinates(np.linspace(-1, 1, 41), np.zeros(41), np.zeros(41))
    value = sample(np, in_float64(pyramid(picture, whole=True)), at, np.zeros(41))
    assert value.i.min() == -30
    assert value.i.max() == 30


def test_large_pictures_need_what_their_formula_reads(cat):
    with pytest.raises(InputError, match=r"reads picture 2, 'image2', which is not bound.*--image"):
        render_bands("( + x image2 )", Look(), Raster(height=8, width=8), images=(pyramid(cat),))
    check_images(parse("( + x image2 )"), 2)


def test_interpreters_that_cannot_read_pictures_say_so(cat):
    with pytest.raises(InputError, match=r"'pallas' cannot read pictures.*'xla'"):
        ea.render(encode(["image1"]), 8, 8, implementation="pallas", images=(pyramid(cat),))


def drawn(images, look=Look(), crop=None, **settings) -> np.ndarray:
    raster = Raster(height=37, width=53, samples=3, jitter=True, crop=crop)
    bands = render_bands(parse(TWIRL, images=["cat"]), look, raster, images=images, **settings)
    return np.concatenate(list(bands))


def test_a_part_of_a_picture_is_that_of_the_whole(cat):
    image, look = (pyramid(cat),), Look(smooth=True)
    whole = drawn(image, look, adaptive=0.05, chunks=Chunks(batch_points=1, due_points=1))
    chunks = Chunks(batch_points=1, due_points=1, band_pixels=60)
    part = drawn(image, look, crop=(11, 5, 20, 13), adaptive=0.05, chunks=chunks)
    np.testing.assert_allclose(part, whole[5:18, 11:31], atol=1e-5)


def test_large_pictures_are_as_specified(cat):
    image = (pyramid(cat),)
    population = encode([TWIRL], images=["cat"])
    value = ea.evaluate(population, 37, 53, implementation="reference", images=image)[0]
    expected = ops.crunch(np, value[..., 1:], "sigmoid")
    raster = Raster(height=37, width=53, crop=(11, 5, 20, 13))
    bands = render_bands(parse(TWIRL, images=["cat"]), Look(), raster, images=image)
    part = np.concatenate(list(bands))
    wrong = np.abs(part - expected[5:18, 11:31]).max(axis=-1) > 1 / 255
    assert wrong.mean() < 0.02  # but at a seam, where a point may fall on either side


def test_names_in_formulas():
    names = ("Cat", "my_dog")
    formula = parse("( + CAT ( * my+dog image3 ) )", images=names)
    assert str(formula) == "( + Cat ( * my_dog image3 ) )"
    assert parse(str(formula), images=names) == formula
    assert parse("( + image1 ( * image2 image3 ) )", images=names) == formula
    assert parse("( + cat x )", lenient=True) == parse("( + x_iy x )")
    assert str(parse("( + cat x )", lenient=True, images=names)) == "( + Cat x )"
    population = encode([formula, "( exp cat )"], 16, names)
    assert decode(population, names) == [str(formula), "( exp Cat )"]
    assert to_expressions(population, names)[0] == formula
    assert decode(population) == ["( + image1 ( * image2 image3 ) )", "( exp image1 )"]
    assert parse("image1") == Expression((Node(BY_NAME["image1"]),))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1cat"], "cannot be named '1cat'"),
        (["my cat"], "cannot be named 'my cat'"),
        ([""], "cannot be named ''"),
        (["Exp"], "there is an operator"),
        (["image2"], "there is an operator"),
        (["cat", "CAT"], "two pictures"),
        (list("abcde"), "at most 4 pictures"),
    ],
)
def test_names_that_pictures_cannot_have(names, message):
    with pytest.raises(InputError, match=message):
        parse("x", images=names)


def test_an_unknown_name_may_be_that_of_a_picture():
    with pytest.raises(InputError, match=r"unknown operator 'cat'.*--image cat=FILE"):
        parse("( exp cat )")
    with pytest.raises(InputError) as caught:
        parse("( exp %% )")
    assert "--image" not in str(caught.value)


def grown(growth: GrowthConfig) -> Counter:
    keys = jax.random.split(jax.random.key(7), 1024)
    made = jax.jit(jax.vmap(lambda key: variation.grow(key, 32, growth)))(keys)
    return Counter(" ".join(decode(made)).split())


def test_growth_draws_pictures_where_there_are_any():
    without, counts = grown(GrowthConfig()), grown(GrowthConfig(images=2))
    assert not any(without[op.name] for op in IMAGES)
    leaves = [op.name for op in ops.OPS if op.arity == 0 and op.sampled]
    ordinary = np.mean([counts[name] for name in leaves])
    for name in ("image1", "image2"):
        assert 2.4 < counts[name] / ordinary < 3.6
    assert counts["image3"] == counts["image4"] == 0
    with pytest.raises(InputError, match=r"growth\.images must be 0 to 4, got 5"):
        GrowthConfig(images=5)


@pytest.mark.parametrize("way", ["point", "insert", "constant"])
def test_mutations_draw_pictures(way):
    weights = dict.fromkeys(VariationConfig().weights, 0.0) | {way: 1.0}
    settings = VariationConfig(**weights), GrowthConfig(images=1)
    host = jax.tree.map(lambda field: field[0], encode(["( + x y )"], 8))
    vary_fn = jax.jit(jax.vmap(lambda draws: variation.vary(draws, host, host, *settings)))
    made = " ".join(decode(vary_fn(draw(jax.random.key(0), 200, 8))))
    assert "image1" in made
    assert "image2" not in made


def test_files_of_pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for suffix in (".png", ".bmp", ".tif", ".ppm"):
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), pixels)
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was turned
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(pixels, -1))


def test_transparency_lies_on_white(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0], pixels[0, :, 3] = 255, [0, 128, 255]  # red
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = [[255, 255, 255], [255, 127, 127], [255, 0, 0]]
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0], expected, atol=1)


def test_grey_of_sixteen_bits_keeps_its_range(tmp_path):
    grey = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[t] * 3 for t in (0, 1, 128, 255)]


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(InputError, match=r"a\.jpg: not a picture"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "b.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "c.png")
    whole = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot read picture") as caught:
        read_image(tmp_path / "c.png")
    assert len(str(caught.value).splitlines()) == 1
    Image.new("1", (1 << 14, (1 << 12) + 1)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"16384x4097 is a picture of more than 67,108,864"):
        read_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)  # as if it were a bomb
    with pytest.raises(InputError, match="of more than 67,108,864"):
        read_image(tmp_path / "large.png")
