from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.restoration
from skimage.transform import resize

from evojax_art.objective.naturalness import ContrastGate, Spectrum, coarse_contrast, spectral_slope
from evojax_art.objective.observed import Observed
from evojax_art.objective.tv import GATE_WEIGHT, denoise_tv_chambolle, total_variation, tv_noise
from evojax_art.runtime.plan import make_plan

SHAPE = (96, 128)
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")  # all come inside scikit-image


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Four photos, a grey one in three strengths, noise, and a ramp; float32 in [0, 1]."""
    photos = [resize(getattr(skimage.data, name)(), SHAPE, anti_aliasing=True) for name in PHOTOS]
    grey = resize(skimage.data.camera(), SHAPE, anti_aliasing=True)
    noise = np.random.default_rng(0).random((*SHAPE, 3))
    down, right = (np.linspace(0, 1, size) for size in SHAPE)
    ramp = np.broadcast_arrays(down[:, None], 1 - right, down[:, None] * right)
    made = [np.stack([grey, 0.7 * grey, 0.3 * grey], -1), noise, np.stack(ramp, -1)]
    return np.stack(photos + made).astype(np.float32)


def scikit_image(images: np.ndarray, *arguments, **options) -> np.ndarray:
    function = skimage.restoration.denoise_tv_chambolle
    denoised = [
        function(image.astype(np.float64), *arguments, channel_axis=-1, **options)
        for image in images
    ]
    return np.stack(denoised)


# Where the stopping rule is met by a hair, one iteration more or less moves a picture this far.
ONE_ITERATION = 2e-3


@pytest.mark.parametrize("weight", [0.1, 0.2, 0.5])
def test_denoising_is_that_of_scikit_image(images, weight):
    denoised = np.asarray(denoise_tv_chambolle(images, weight))
    expected = scikit_image(images, weight)
    noise, expected_noise = (np.abs(x - images).mean((1, 2, 3)) for x in (denoised, expected))
    largest, largest_noise = np.abs(denoised - expected).max(), np.abs(noise - expected_noise).max()
    print(f"weight {weight}: largest difference {largest:.1e}, of the noise {largest_noise:.1e}")
    np.testing.assert_allclose(denoised, expected, rtol=0, atol=ONE_ITERATION)
    np.testing.assert_allclose(noise, expected_noise, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 1e-2},
        {"eps": 1e-5},
        {"max_num_iter": 1},
        {"max_num_iter": 2},
        {"max_num_iter": 7, "eps": 0.0},
    ],
)
def test_stopping_is_that_of_scikit_image(images, options):
    denoised = denoise_tv_chambolle(images[:2], 0.2, **options)
    expected = scikit_image(images[:2], 0.2, **options)
    np.testing.assert_allclose(denoised, expected, rtol=0, atol=ONE_ITERATION)


def test_the_weight_defaults_to_that_of_scikit_image(images):
    expected = scikit_image(images[:1])
    np.testing.assert_allclose(denoise_tv_chambolle(images[:1]), expected, atol=ONE_ITERATION)


def test_the_noise_measure_is_that_of_2015(images):
    assert GATE_WEIGHT == 0.2
    expected = np.abs(scikit_image(images, 0.2) - images).mean((1, 2, 3))
    np.testing.assert_allclose(tv_noise(images), expected, rtol=0, atol=1e-4)
    assert expected.min() < 0.05 < expected.max()  # both sides of the gate are among them


def test_every_picture_stops_by_itself(images):
    flat = np.full_like(images[:1], 0.3)
    batch = np.concatenate([flat, images[5:6], images[:1], flat + 0.5, images[6:]])
    together = denoise_tv_chambolle(batch, 0.2)
    for image, denoised in zip(batch, together, strict=True):
        alone = denoise_tv_chambolle(image[None], 0.2)[0]
        # The order of sums depends on the batch's size, so not to the bit.
        np.testing.assert_allclose(denoised, alone, rtol=0, atol=1e-5)


def test_every_channel_stops_by_itself(images):
    channels = (images[5, ..., 0], images[0, ..., 1], np.zeros(SHAPE, np.float32))
    together = denoise_tv_chambolle(np.stack(channels, -1)[None], 0.2)[0]
    for number, channel in enumerate(channels):
        alone = denoise_tv_chambolle(channel[None, :, :, None], 0.2)[0, :, :, 0]
        np.testing.assert_allclose(together[..., number], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 255.0])
def test_flat_pictures_stay_as_they_are(value):
    flat = np.full((2, 8, 9, 3), value, np.float32)
    np.testing.assert_array_equal(denoise_tv_chambolle(flat, 0.2), flat)
    np.testing.assert_array_equal(tv_noise(flat), 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_small_pictures_are_denoised(shape):
    images = np.random.default_rng(0).random((2, *shape, 3), np.float32)
    expected = scikit_image(images, 0.2)
    np.testing.assert_allclose(denoise_tv_chambolle(images, 0.2), expected, atol=ONE_ITERATION)


def test_a_broken_picture_spoils_no_other(images):
    broken = np.full_like(images[:1], np.nan)
    noise = tv_noise(np.concatenate([broken, images[:1]]))
    assert np.isnan(noise[0])
    np.testing.assert_allclose(noise[1], tv_noise(images[:1])[0], atol=1e-5)


def test_the_noise_measure_works_under_jit_and_vmap(images):
    expected = tv_noise(images)
    np.testing.assert_allclose(jax.jit(tv_noise)(images), expected, atol=1e-6)
    mapped = jax.vmap(lambda image: tv_noise(image[None])[0])(images)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


def test_total_variation_is_the_mean_gradient_length(images):
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 1), (0, 1), (0, 0)), "edge")
    down = np.diff(padded, axis=1)[:, :, :-1]
    right = np.diff(padded, axis=2)[:, :-1]
    expected = np.hypot(down, right).mean((1, 2, 3))
    variation = total_variation(images)
    np.testing.assert_allclose(variation, expected, rtol=1e-4)
    assert np.argmax(variation) == 5  # the noise


def test_the_gradient_of_total_variation_is_that_of_differences():
    images = jax.random.uniform(jax.random.key(0), (2, 5, 6, 3))
    gradient = jax.grad(lambda x: total_variation(x).sum())(images)
    step = 2e-3
    for place in [(0, 0, 0, 0), (0, 2, 3, 1), (1, 4, 5, 2), (1, 4, 0, 0), (1, 0, 5, 1)]:
        ends = [total_variation(images.at[place].add(by)).sum() for by in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(gradient[place], slope, rtol=0.02, atol=3e-4)


def test_the_gradient_of_total_variation_is_finite_everywhere(images):
    gradient = jax.grad(lambda x: total_variation(x).sum())
    step = jnp.zeros((1, 8, 8, 3)).at[:, :, 4:].set(1)  # flat, an edge, flat
    for x in (jnp.asarray(images), step, step.at[:].set(1e6 * step)):
        assert np.isfinite(gradient(x)).all()
    for value in (0.0, 0.3, 1.0):
        flat = jnp.full((2, 5, 6, 3), value)
        np.testing.assert_array_equal(gradient(flat), 0)
        np.testing.assert_allclose(total_variation(flat), 0, atol=1e-5)


@pytest.mark.parametrize("pixels", [1, 64, 150, 1 << 22])
def test_noise_of_those_that_need_it(pixels):
    """Whether they are denoised one by one, as on a CPU, in twos, or all at once."""
    plan = replace(make_plan(), denoised_pixels=pixels)
    images = jax.random.uniform(jax.random.key(0), (5, 8, 8, 3))
    needed = jnp.array([False, True, False, True, True])
    noise = np.asarray(jax.jit(partial(tv_noise, plan=plan))(images, needed))
    np.testing.assert_array_equal(np.isnan(noise), ~np.asarray(needed))
    np.testing.assert_allclose(noise[needed], np.asarray(tv_noise(images))[needed], rtol=1e-6)
    assert np.isnan(tv_noise(images, jnp.zeros(5, bool), plan)).all()


def test_contrast_is_of_large_parts_alone():
    flat = np.full((64, 64, 3), 0.3)
    halves = np.where(np.arange(64) < 32, 0.0, 1.0)[:, None, None] * np.ones((64, 64, 3))
    grain = np.indices((64, 64)).sum(axis=0)[..., None] % 2 * np.ones(3)
    found = coarse_contrast(jnp.asarray(np.stack([flat, halves, grain]), jnp.float32))
    np.testing.assert_allclose(found, (0, 0.5, 0), atol=0.03)


def test_pictures_of_almost_one_colour_are_out():
    images = jnp.stack([jnp.full((16, 16, 3), 0.5), jnp.eye(16)[..., None].repeat(3, -1)])
    allowed, metrics = ContrastGate(0.1)(Observed(images, {}), jnp.ones(2, bool))
    np.testing.assert_array_equal(allowed, [False, True])
    np.testing.assert_allclose(metrics["contrast"], coarse_contrast(images))


def test_slopes_are_those_of_made_spectra():
    random = np.random.default_rng(0)
    waves = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128) * 128] * 2))
    for slope in (0.0, -1.0, -2.0):
        amplitude = np.maximum(waves, 1) ** (slope / 2)
        phases = np.fft.fft2(random.normal(size=(48, 128, 128)))
        grey = np.fft.ifft2(phases * amplitude).real
        grey = 0.5 + 0.1 * grey / grey.std(axis=(1, 2), keepdims=True)
        pictures = jnp.asarray(np.repeat(grey[..., None], 3, axis=-1), jnp.float32)
        assert abs(float(np.mean(spectral_slope(pictures))) - slope) < 0.35
    assert float(spectral_slope(jnp.full((1, 32, 32, 3), 0.3))[0]) == pytest.approx(0, abs=1e-3)


def test_an_unnatural_spectrum_costs_its_weight():
    pictures = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 64, 64, 3)), jnp.float32)
    fitness, metrics = Spectrum(0.5)(Observed(pictures, {}))
    np.testing.assert_allclose(fitness, -0.5 * np.abs(metrics["slope"] + 2), rtol=1e-6)
    assert np.all(fitness < -0.5), "noise is far from natural"
