"""Pixel polish: never worse, within the gate, the same by tiles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from flax import nnx
from PIL import Image
from skimage.restoration import denoise_tv_chambolle

import evojax_art as ea
from evojax_art.nets.squeezenet import SqueezeNet
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.layers import LayerTarget
from evojax_art.objective.terms import Measure
from evojax_art.refine import rules, views
from evojax_art.refine.pixels import PixelPolisher, PixelsConfig, polish_pixels
from evojax_art.runtime.errors import InputError

QUICK = PixelsConfig(octaves=2, steps=6, learning_rate=0.2)


def photograph(name: str = "astronaut", side: int = 96) -> np.ndarray:
    image = Image.fromarray(getattr(skimage.data, name)())
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), np.float32) / 255


def noise_of(picture: np.ndarray) -> float:
    denoised = denoise_tv_chambolle(picture, weight=0.2, channel_axis=-1)
    return float(np.abs(picture - denoised).mean())


@pytest.fixture(scope="module")
def net():
    return ea.load_net()


def test_the_plain_rule_steps_by_the_mean_gradient_of_shifted_pictures(net):
    """One step of one octave is the published rule, done by hand, wherever it was shifted to."""
    start = 0.25 + 0.5 * photograph("cat", 64)
    jitter, rate = 3, 1.5
    config = PixelsConfig(
        rule="plain",
        octaves=1,
        steps=1,
        learning_rate=rate,
        momentum=0.0,
        tv_weight=0.0,
        jitter=jitter,
        noise_gate=0.0,
    )
    target = LayerTarget(net, "block2")
    polisher = PixelPolisher(net, target, config, onward=True)
    step = (polisher(start, jax.random.key(0)).picture - start) * 255
    assert np.abs(step).mean() == pytest.approx(rate, rel=1e-3)

    def by_hand(shift):
        shifted = jnp.roll(jnp.asarray(start), shift, (0, 1))[None]
        energy = jax.grad(lambda x: (net.features(x, resize=False)["block2"] ** 2).sum())(shifted)
        gradient = jnp.roll(energy[0], (-shift[0], -shift[1]), (0, 1))
        return np.asarray(rate * gradient / jnp.abs(gradient).mean())

    shifts = itertools.product(range(-jitter, jitter + 1), repeat=2)
    assert min(np.abs(by_hand(shift) - step).max() for shift in shifts) < 0.05


def test_a_class_is_climbed_within_the_gate(net):
    crab = net.classes.index("crab")
    start, told = photograph("cat", 64), []
    outcome = polish_pixels(
        start,
        net,
        ClassTarget(net.vocabulary, (crab,)),
        QUICK,
        jax.random.key(0),
        lambda *t: told.append(t),
    )
    before, after = (
        float(net.probabilities(jnp.asarray(picture[None]))[0, crab])
        for picture in (start, outcome.picture)
    )
    assert before < 0.1 < 0.9 < after
    assert (outcome.start_score, outcome.score) == pytest.approx((before, after), abs=1e-4)
    assert outcome.value > outcome.start_value
    assert outcome.noise < 0.05
    assert outcome.noise == pytest.approx(noise_of(outcome.picture), abs=1e-4)
    assert outcome.picture.min() >= 0
    assert outcome.picture.max() <= 1
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_same_key_same_outcome(tiny_net):
    target = ClassTarget(tiny_net.vocabulary, (0,))
    outcomes = [
        polish_pixels(photograph(), tiny_net, target, QUICK, jax.random.key(n)).picture
        for n in (1, 1, 2)
    ]
    np.testing.assert_array_equal(outcomes[0], outcomes[1])
    assert np.abs(outcomes[0] - outcomes[2]).max() > 0.01


def test_layers_and_guides_are_climbed(tiny_net):
    start, guide = photograph("cat", 64), photograph("astronaut", 48)
    for target in (LayerTarget(tiny_net, "squares:1"), LayerTarget(tiny_net, "squares", guide)):
        outcome = polish_pixels(start, tiny_net, target, QUICK, jax.random.key(0))
        assert outcome.value > outcome.start_value + 0.1
    # What is made like the guide is nearer to it.
    like = np.asarray(Image.fromarray((guide * 255).astype(np.uint8)).resize((64, 64))) / 255
    squares = [(2 * (4 * (picture - 0.5) ** 2)) for picture in (start, outcome.picture, like)]
    assert ((squares[1] - squares[2]) ** 2).mean() < 0.9 * ((squares[0] - squares[2]) ** 2).mean()


def test_imagenets_network_is_climbed_as_well():
    """Its pooling had no gradient inside compiled loops; random weights tell as much."""
    net = SqueezeNet(rngs=nnx.Rngs(0))
    outcome = polish_pixels(
        photograph("cat", 64),
        net,
        LayerTarget(net, "features.6"),
        PixelsConfig(octaves=1, steps=4),
        jax.random.key(0),
    )
    assert outcome.value > outcome.start_value


class _Never(ClassTarget):
    """Steps uphill lead downhill: the gradient has the wrong sign."""

    def measure(self, observed):
        value, score, _ = super().measure(observed)
        return Measure(value - 2 * (value - jax.lax.stop_gradient(value)), score)


def test_what_only_gets_worse_is_not_kept(tiny_net):
    start = photograph()
    target = _Never(tiny_net.vocabulary, (0,))
    outcome = polish_pixels(start, tiny_net, target, QUICK, jax.random.key(0))
    assert outcome.value == outcome.start_value
    np.testing.assert_array_equal(outcome.picture, start)


@pytest.mark.parametrize("gate", [0.02, 0.0])
def test_the_gate_holds_where_steps_are_wild(tiny_net, gate):
    start = np.full((64, 64, 3), 0.5, np.float32)
    wild = PixelsConfig(
        octaves=1, steps=8, learning_rate=2, smoothness=0.2, tv_weight=0, noise_gate=gate
    )
    outcome = polish_pixels(
        start, tiny_net, _Rough(tiny_net.vocabulary, (0,)), wild, jax.random.key(0)
    )
    assert (noise_of(outcome.picture) < 0.02) == (gate > 0)
    assert outcome.value > outcome.start_value


class _Rough(ClassTarget):
    """Wants every other column bright."""

    def measure(self, observed):
        images = observed.images
        stripes = jnp.mean(
            images * jnp.where(jnp.arange(images.shape[2]) % 2, 1, -1)[:, None], (1, 2, 3)
        )
        return Measure(stripes, stripes)


def test_a_start_beyond_the_gate_ends_within_it(tiny_net):
    static = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    outcome = polish_pixels(
        static, tiny_net, ClassTarget(tiny_net.vocabulary, (0,)), QUICK, jax.random.key(0)
    )
    assert outcome.start_noise > 0.05 > outcome.noise
    assert outcome.value >= outcome.start_value


class _Linear(LayerTarget):
    """A layer's plain mean, so that a mean of tiles is that of the whole but for their seams."""

    def measure(self, observed):
        mean = jnp.mean(observed.activations()[self.layer], (1, 2, 3))
        return Measure(mean, mean)


def test_tiles_climb_like_the_whole(net):
    """Away from seams and edges; block2's cells see 40 pixels around."""
    picture = photograph(side=256)
    logits, middle = rules.log_odds(jnp.asarray(picture)), jnp.full((2, 2), 0.5)
    key = jax.random.key(0)
    gradients = []
    for tile in (128, 256):
        config = PixelsConfig(tile=tile, tv_weight=0)
        polisher = PixelPolisher(net, _Linear(net, "block1"), config)
        gradients.append(np.asarray(polisher._gradient({"": net}, logits, middle, key)[1]))
    whole = views.cut_sides(jnp.asarray(picture), 256, 8, 0)
    assert [cut.count for cut in whole] == [1, 1]
    for rows in (slice(40, 88), slice(168, 216)):
        for columns in (slice(40, 88), slice(168, 216)):
            tiled, untiled = (gradient[rows, columns] for gradient in gradients)
            np.testing.assert_allclose(tiled, untiled, atol=1e-4 * np.abs(untiled).max())
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-3 * np.abs(gradients[1]).max()  # seams


@pytest.mark.parametrize("size", [(96, 200), (97, 131), (16, 16)])
def test_tiles_hold_the_picture(size):
    picture = jnp.asarray(np.random.default_rng(0).random((*size, 3)), jnp.float32)
    cuts = views.cut_sides(picture, 64, 8, 5)
    for place in (0.0, 0.5, 0.999):
        corner = views.corner_at(jnp.full(2, place), cuts)
        tiles = np.asarray(views.cut_up(picture, cuts, corner))
        assert tiles.shape[1] % 8 == tiles.shape[2] % 8 == 0
        assert max(tiles.shape[1:3]) <= 64
        rows = tiles.reshape(cuts[0].count, cuts[1].count, *tiles.shape[1:])
        joined = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        top, left = (int(c.jitter - at) for c, at in zip(cuts, corner, strict=True))
        for row, column in ((0, 0), (size[0] // 2, size[1] // 3)):
            if 0 <= row + top < joined.shape[0] and 0 <= column + left < joined.shape[1]:
                np.testing.assert_array_equal(
                    joined[row + top, column + left], picture[row, column]
                )


def test_bands_have_the_lengths_that_smoothness_says():
    """A coarse wave under static a million times as strong is brought out as far as asked."""
    wave = np.sin(2 * np.pi * np.arange(64) / 64)[:, None] * [1, 0, 0]
    static = np.random.default_rng(0).normal(size=(64, 64, 3))
    gradient = jnp.asarray(static + 1e-6 * wave, jnp.float32)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    fine = []
    for smoothness in (0.3, 1.0, 3.0):
        bands = np.asarray(views.by_bands(gradient, smoothness))
        assert np.sqrt((bands**2).mean()) == pytest.approx(1, rel=1e-5)
        spectrum = np.abs(np.fft.fft2(bands, axes=(0, 1))) ** 2
        fine.append(spectrum[frequency > 0.25].sum() / spectrum.sum())
    assert fine[0] > 0.8
    assert fine[0] > 1.5 * fine[1] > 3 * fine[2]
    np.testing.assert_array_equal(views.by_bands(jnp.zeros((40, 33, 3)), 1.5), 0)


def test_colours_and_log_odds_are_inverse():
    ramp = jnp.linspace(0, 1, 257)
    np.testing.assert_allclose(rules.colours(rules.log_odds(ramp)), ramp, atol=1e-6)


def test_octaves_grow_to_the_picture():
    assert views.octave_sizes(300, 400, 3, 2.0, 64) == [(75, 100), (150, 200), (300, 400)]
    assert views.octave_sizes(300, 400, 5, 2.0, 64)[0] == (75, 100)
    assert views.octave_sizes(20, 30, 4, 1.5, 64) == [(20, 30)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("octaves", 0), ("steps", -1), ("learning_rate", float("nan")), ("tile", 1), ("whole", 2)],
)
def test_settings_are_checked(name, value):
    with pytest.raises(InputError, match=name):
        PixelsConfig(**{name: value})


def test_pictures_are_checked(tiny_net):
    target = ClassTarget(tiny_net.vocabulary, (0,))
    for picture in (np.zeros((8, 64, 3)), np.full((64, 64, 3), np.nan)):
        with pytest.raises(InputError, match="16x16"):
            polish_pixels(picture, tiny_net, target, QUICK, jax.random.key(0))
