"""Views: pictures seen otherwise, and pictures judged by how they are seen otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from evojax_art.objective.views import Views, ViewsConfig, draw_views, view
from evojax_art.runtime.errors import InputError

STILL = ViewsConfig(count=1, shift=0, scale=0, turn=0, blur=0, brightness=0, coarse=0)


def views(**changes) -> Views:
    """One view, which changes nothing else."""
    plain = jax.tree.map(jnp.zeros_like, draw_views(jax.random.key(0), STILL))
    return plain._replace(**{name: jnp.asarray([value]) for name, value in changes.items()})


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(0), (2, 12, 16, 3))


ALL = ViewsConfig(count=1)


def test_a_view_that_changes_nothing_is_the_picture(images):
    np.testing.assert_allclose(view(images, views(), ALL)[0], images, atol=1e-6)
    np.testing.assert_allclose(view(images, views(), STILL)[0], images, atol=1e-6)


def test_a_shift_by_pixels_moves_them_and_mirrors_beyond_the_edge(images):
    seen = view(images, views(shift=(1 / 12, 2 / 16)), ALL)[0]
    np.testing.assert_allclose(seen[:, 1:, 2:], images[:, :-1, :-2], atol=1e-5)
    np.testing.assert_allclose(seen[:, 0, 2:], images[:, 0, :-2], atol=1e-5)
    np.testing.assert_allclose(seen[:, 1:, 1], images[:, :-1, 0], atol=1e-5)
    np.testing.assert_allclose(seen[:, 1:, 0], images[:, :-1, 1], atol=1e-5)


def test_half_a_turn_and_a_quarter(images):
    seen = view(images, views(turn=np.pi), ALL)[0]
    np.testing.assert_allclose(seen, images[:, ::-1, ::-1], atol=1e-5)
    square = images[:, :, :12]
    quarter = np.asarray(view(square, views(turn=np.pi / 2), ALL)[0])
    turned = (np.rot90(square, n, axes=(1, 2)) for n in (1, 3))
    assert any(np.allclose(quarter, other, atol=1e-5) for other in turned)


def test_scale_makes_larger():
    y, x = np.mgrid[:40, :40] - 19.5
    disc = jnp.asarray(np.repeat(((x**2 + y**2) < 64)[..., None], 3, axis=-1), jnp.float32)[None]
    for log_scale in (-0.3, 0.3):
        seen = view(disc, views(log_scale=log_scale), ALL)[0]
        assert float(seen.sum() / disc.sum()) == pytest.approx(np.exp(2 * log_scale), rel=0.05)


@pytest.mark.parametrize("size", [(12, 16), (11, 15)])
def test_grains_are_renderings_of_half_the_size(size):
    images = jax.random.uniform(jax.random.key(0), (2, *size, 3))
    decimated = view(images, views(grain=1), ALL)[0]
    averaged = view(images, views(grain=2), ALL)[0]
    for row, column in ((0, 0), (4, 6), (5, 7)):
        corner = slice(row // 2 * 2, row // 2 * 2 + 2), slice(column // 2 * 2, column // 2 * 2 + 2)
        block = images[:, corner[0], corner[1]]
        np.testing.assert_allclose(decimated[:, row, column], block[:, 0, 0], atol=1e-6)
        np.testing.assert_allclose(averaged[:, row, column], block.mean((1, 2)), atol=1e-6)


def test_blur_is_gaussian():
    spot = jnp.zeros((1, 21, 21, 3)).at[0, 10, 10].set(1.0)
    seen = np.asarray(view(spot, views(blur=1.5), ViewsConfig(count=1, blur=3))[0, 0, :, :, 0])
    rows = seen.sum(axis=1)
    offsets = np.arange(21) - 10
    assert rows.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((rows * offsets**2).sum()) == pytest.approx(1.5, rel=0.01)
    np.testing.assert_allclose(seen, np.outer(rows, rows), atol=1e-6)


def test_brightness_stays_within_colours(images):
    seen = view(images, views(gain=0.5, offset=0.1), ALL)[0]
    np.testing.assert_allclose(seen, jnp.clip(1.5 * images + 0.1, 0, 1), atol=1e-5)


def test_random_views_keep_to_their_bounds():
    config = ViewsConfig(count=64, coarse=0.5)
    drawn = draw_views(jax.random.key(3), config)
    assert float(jnp.abs(drawn.shift).max()) <= config.shift
    assert float(jnp.abs(jnp.exp(drawn.log_scale) - 1).max()) <= config.scale + 1e-6
    assert float(jnp.abs(drawn.turn).max()) <= np.radians(config.turn) + 1e-6
    assert 0 <= float(drawn.blur.min()) <= float(drawn.blur.max()) <= config.blur
    assert float(jnp.abs(drawn.gain).max()) <= config.brightness
    counts = np.bincount(drawn.grain, minlength=3)
    assert counts[0] > 16
    assert min(counts[1:]) > 6
    again = draw_views(jax.random.key(3), config)
    assert all(map(np.array_equal, drawn, again))


def test_gradient_is_that_of_central_differences(images):
    drawn = draw_views(jax.random.key(1), ViewsConfig(count=3))
    inside = 0.25 + 0.5 * images  # clear of where brightness is cut off

    def seen(images):
        return view(jnp.asarray(images), drawn, ViewsConfig(count=3))

    check_grads(seen, (inside,), order=1, modes=["rev"], rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "wrong", [{"count": -1}, {"count": 65}, {"scale": 1.0}, {"turn": float("nan")}, {"coarse": 2.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=f"views.{next(iter(wrong))} must be 0 to"):
        ViewsConfig(**wrong)


@pytest.mark.parametrize("size", [15, 2049])
def test_other_sizes_out_of_range_are_refused(size):
    with pytest.raises(InputError, match=f"views.sizes must be 16 to 2048, got {size}"):
        ViewsConfig(sizes=(64, size))
