import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evojax_art as ea
from evojax_art.interpreter import reference
from evojax_art.language import ops
from evojax_art.language.formula import parse
from evojax_art.language.program import encode
from evojax_art.language.quaternions import Coordinates
from evojax_art.render.batch import render_population, smooth_plus
from evojax_art.render.large import render_picture, to_bytes
from evojax_art.render.look import Look, Raster
from evojax_art.render.pixels import Chunks
from evojax_art.runtime.errors import InputError
from evojax_art.search.variation import GrowthConfig, grow

WAVES = "( rolR ( isin ( * x_iy_jx_ky ( q 3 1 -2 0.5 ) ) ) )"
STEPS = "( floor ( * x_iy_jx_ky ( q 9 4 -7 2 ) ) )"
# Stays where the sigmoid is straight, so that its mean over a pixel is its value in the middle.
RAMP = "( rolL ( * x_iy_jx_ky ( q 0 0.1 0 0 ) ) )"
HEIGHT, WIDTH, Z = 5, 9, 0.125


def pictures(**settings) -> np.ndarray:
    """The three above, all of one shape, because compiling takes seconds."""
    return np.asarray(ea.render(encode([WAVES, STEPS, RAMP]), HEIGHT, WIDTH, Z, **settings))


def grid(height: int, width: int, right: float = 0, down: float = 0):
    """Coordinates [H, W] of the pixels, or of points some pixels to the right and below."""
    shorter = min(height, width)
    x = [[(column + right - width / 2) / shorter for column in range(width)] for _ in range(height)]
    y = [[(row + down - height / 2) / shorter] * width for row in range(height)]
    return np.array(x), np.array(y)


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize(("height", "width"), [(6, 10), (11, 7), (300, 1)])
def test_coordinates_of_any_aspect_ratio(height, width, implementation):
    formulas = encode(["x_iy", "x_k"])
    values = ea.evaluate(formulas, height, width, z=0.25, implementation=implementation)
    assert values.shape == (2, height, width, 4)
    x, y = grid(height, width)
    z, zero = np.full_like(x, 0.25), np.zeros_like(x)
    expected = [np.stack([x, y, z, z], axis=-1), np.stack([x, zero, zero, 1 + z], axis=-1)]
    np.testing.assert_allclose(values, expected, rtol=3e-7, atol=0)


def test_colours_are_the_crunched_last_three_components():
    formulas = encode([WAVES, "( q 9 -1 0 2 )", "( q 0 31 -31 30 )"])
    values = ea.evaluate(formulas, 8, 8)
    for crunch, beyond in (("sigmoid", 1), ("1995", 0)):
        colours = np.asarray(ea.render(formulas, 8, 8, crunch=crunch))
        np.testing.assert_allclose(colours, ops.crunch(jnp, values[..., 1:], crunch), atol=1e-6)
        np.testing.assert_allclose(colours[1, 0, 0], 1 / (1 + np.exp([1.0, 0, -2])), rtol=1e-6)
        np.testing.assert_allclose(colours[2, 0, 0], [beyond, 0, 1], atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_samples_are_the_mean_of_points_spread_over_the_pixel(samples):
    offsets = [(n - (samples - 1) / 2) / samples for n in range(samples)]
    mean = np.zeros((HEIGHT, WIDTH, 3))
    for right in offsets:
        for down in offsets:
            x, y = grid(HEIGHT, WIDTH, right, down)
            value = reference.evaluate(parse(WAVES), Coordinates(x, y, np.full_like(x, Z)))
            mean += ops.crunch(np, np.stack(value[1:], axis=-1), "sigmoid") / samples**2
    np.testing.assert_allclose(pictures(samples=samples)[0], mean, atol=2e-6)


@pytest.mark.parametrize("samples", [2, 3])
def test_samples_do_not_shift_the_picture(samples):
    single, several = pictures()[2], pictures(samples=samples)[2]
    slope = np.abs(np.diff(single, axis=1)).max()
    assert slope > 1e-3
    np.testing.assert_allclose(several, single, atol=slope / 1000)


def blurred(picture: np.ndarray) -> np.ndarray:
    height, width, _ = picture.shape
    centre, neighbour = (math.exp(-2 * (distance + 0.001) / 1.001) for distance in (0, 1))
    result = np.zeros_like(picture)
    for row in range(height):
        for column in range(width):
            total, weights = centre * picture[row, column], centre
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                if 0 <= row + down < height and 0 <= column + right < width:
                    total = total + neighbour * picture[row + down, column + right]
                    weights += neighbour
            result[row, column] = total / weights
    return result


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 4), (4, 1), (1, 1)])
def test_smoothing_ends_at_the_borders(height, width):
    noise = np.random.default_rng(0).random((2, height, width, 3))
    expected = [blurred(picture) for picture in noise]
    np.testing.assert_allclose(smooth_plus(jnp.float32(noise)), expected, atol=1e-6)


def test_smoothing_takes_rows_outside_for_no_neighbours():
    band = np.random.default_rng(0).random((1, 6, 4, 3))
    inside = np.array([False, True, True, True, False, False])
    smoothed = np.asarray(smooth_plus(jnp.float32(band), inside))
    np.testing.assert_allclose(smoothed[0, inside], blurred(band[0, inside]), atol=1e-6)


def test_render_smooths_what_it_would_show():
    rough, smooth = pictures()[1], pictures(smooth=True)[1]
    np.testing.assert_allclose(smooth, blurred(rough), atol=1e-6)
    assert np.abs(smooth - rough).max() > 0.01


def test_bytes_round_as_the_original():
    values = np.float32([0, 0.00195, 0.00197, 0.5, 0.99803, 0.99806, 1, 1.5, -1])
    assert to_bytes(values).tolist() == [0, 0, 1, 128, 254, 255, 255, 255, 0]


@pytest.mark.parametrize(
    ("samples", "smooth", "band_pixels", "batch_points"),
    [(1, False, 40, 64), (1, True, 1, 512), (2, True, 160, 300)],
)
def test_render_large_is_render_in_bytes(samples, smooth, band_pixels, batch_points):
    look = Look(z=0.1, crunch="1995", smooth=smooth)
    raster = Raster(height=19, width=13, samples=samples)
    chunks = Chunks(band_pixels=band_pixels, batch_points=batch_points, least_rows=1)
    shares = []
    large = render_picture(WAVES, look, raster, progress_fn=shares.append, chunks=chunks)
    small = to_bytes(render_population(encode([WAVES]), look, raster))[0]
    assert large.dtype == np.uint8
    if smooth:  # two compilations of the blur round apart, rarely across a grey level
        assert np.abs(large.astype(int) - small).max() <= 1
        assert (large != small).mean() < 0.01
    else:
        np.testing.assert_array_equal(large, small)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 1


def test_render_large_takes_an_expression_and_a_capacity():
    text = ea.render_large(WAVES, 4, 6)
    np.testing.assert_array_equal(ea.render_large(parse(WAVES), 4, 6, max_length=16), text)
    with pytest.raises(InputError, match="max_length = 3"):
        ea.render_large(WAVES, 4, 6, max_length=3)


EXTREME = [
    "( q 3e38 -3e38 3e38 -3e38 )",
    "( * ( q 3e38 3e38 3e38 3e38 ) ( q 3e38 -3e38 0 1 ) )",
    "( - ( * x_iy ( q 3e38 3e38 3e38 3e38 ) ) ( * ( q 3e38 3e38 3e38 3e38 ) ( q 9 9 9 9 ) ) )",
    "( exp ( exp ( exp ( exp ( exp ( * std ( q 30 30 30 30 ) ) ) ) ) ) )",
    "( inv ( q 1e-38 1e-45 0 0 ) )",
    "( mod ( q 1e38 1 1 1 ) ( q 1e-4 0 0 0 ) )",
    "( subst ( / ( q 3e38 3e38 3e38 0 ) ( q 1e-4 0 0 0 ) ) ( ilog std ) )",
    "( isin ( * ( q 3e38 0 0 0 ) ( q 3e38 3e38 0 0 ) ) )",
]


@pytest.mark.parametrize(("crunch", "smooth"), [("sigmoid", False), ("1995", True)])
def test_pictures_are_finite_colours_whatever_the_formula(crunch, smooth):
    keys = jax.random.split(jax.random.key(0), 200)
    growth = GrowthConfig(binary=0.45, unary=0.5)
    grown = jax.jit(jax.vmap(partial(grow, capacity=64, config=growth)))(keys)
    population = jax.tree.map(
        lambda *parts: jnp.concatenate(parts), grown, encode(EXTREME, max_length=64)
    )
    colours = np.asarray(ea.render(population, 16, 16, crunch=crunch, smooth=smooth))
    assert colours.shape == (208, 16, 16, 3)
    assert np.isfinite(colours).all()
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert (colours.std(axis=(1, 2, 3)) > 0.01).mean() > 0.5


# Brightness from " " for black to "@" for white. No pixel lies within 1e-3 of the next character.
BRIGHTNESS = " .:-=+*#@"
GOLDEN = {
    "( rolR ( isin ( * x_iy_jx_ky ( q 5 3 -4 2 ) ) ) )": """
|::--=++++==----=|
|---==++++==-----|
|---===+++==-----|
|===========-----|
|===---=====-----|
|==------========|
|==------========|
|==--::--==+++++=|
|==------=++++++=|
|==-----==++**++=|
|=========++++++=|
|=========++++++=|
|=+++++=====+++==|
|=+++++==========|
|=+++++==---===++|
|=+++++==----==++|
""",
    "( subst ( * x_iy_jx_ky ( q 1.3 0.7 0 0.4 ) ) "
    "( * ( exp ( A2 x_iy_jx_ky y_k ) ) ( q 2 1 -1 3 ) ) )": """
|*=--=+*#****##+=|
|=::-++#@#++*#*=-|
|-.::+*@@++***-::|
|:.:+*#@+++**+:.:|
|-::+*@=++++*=:.:|
|=-:*#==++*++=:.+|
|+--*====+*+++-:+|
|+=*+====++++++:*|
|+++++===+==++++*|
|*+=++++++===++#+|
|++==+++*++==++==|
|+===++**++++*+==|
|====+***+++#*+==|
|-===*#**++##+==-|
|:==+##**+*#*===-|
|:=+*@#*+***=-===|
""",
}


def test_golden_pictures():
    bright = np.asarray(ea.render(encode(list(GOLDEN)), 16, 16)).mean(axis=-1)
    levels = np.minimum(bright * len(BRIGHTNESS), len(BRIGHTNESS) - 1).astype(int)
    for formula, picture in zip(GOLDEN, levels, strict=True):
        lines = ["|" + "".join(BRIGHTNESS[level] for level in row) + "|" for row in picture]
        assert "\n".join(lines) == GOLDEN[formula].strip("\n"), formula


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "height must be 1 or more, got 0"),
        ({"width": -3}, "width must be 1 or more, got -3"),
        ({"samples": 0}, "samples must be 1 or more, got 0"),
        ({"crunch": "1996"}, "unknown crunch '1996'; there are sigmoid, 1995"),
        ({"implementation": "cuda"}, "unknown implementation 'cuda'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        ea.render(encode(["x"]), **settings)


@pytest.mark.usefixtures("unchecked")
def test_wrong_settings_of_evaluate_and_render_large():
    with pytest.raises(InputError, match="height must be"):
        ea.evaluate(encode(["x"]), height=0)
    with pytest.raises(InputError, match="unknown implementation"):
        ea.evaluate(encode(["x"]), implementation="numpy")
    with pytest.raises(InputError, match="samples must be"):
        ea.render_large("x", 4, 4, samples=0)
    with pytest.raises(InputError, match="missing operand"):
        ea.render_large("( exp )", 4, 4)


@pytest.mark.usefixtures("unchecked")
def test_render_large_refuses_an_unknown_crunch():
    with pytest.raises(InputError, match="unknown crunch"):
        ea.render_large("x", 4, 4, crunch="1996")
