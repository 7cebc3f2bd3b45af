from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.nets.base import Classifier
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.evaluation import Objective
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.niches import EveryClass
from evojax_art.objective.observed import Observed
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.objective.terms import Contribution, TargetTerm
from evojax_art.objective.tv import total_variation, tv_noise
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.errors import InputError

SCALES = ("probability", "log_odds")


class MeanColour(Classifier):
    """Logits are multiples of the mean red, green and blue, and of their mean.

    Attributes:
        factor: of the logits.
        too_red: pictures with more red than this get logits of `beyond`.
        beyond: what a network that overflowed might give.
    """

    def __init__(self, factor=4.0, too_red=2.0, beyond=np.nan):
        self.vocabulary = Vocabulary(("red", "green", "blue", "grey"))
        self.size = 8
        self.mean, self.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.dtype = jnp.float32
        self.factor, self.too_red, self.beyond = factor, too_red, beyond

    def logits_from_input(self, x):
        colours = x.mean((1, 2))
        logits = self.factor * jnp.concatenate([colours, colours.mean(1, keepdims=True)], axis=1)
        return jnp.where(colours[:, :1] > self.too_red, self.beyond, logits)


def flat(*colours) -> jnp.ndarray:
    """One flat 8x8 picture per colour."""
    return jnp.broadcast_to(jnp.asarray(colours)[:, None, None, :], (len(colours), 8, 8, 3))


@pytest.fixture
def images() -> jnp.ndarray:
    return jax.random.uniform(jax.random.key(0), (5, 8, 8, 3)) ** jnp.arange(1, 4)


def judged(images, net, targets, config, **rest):
    """Fitness and metrics by these classes."""
    objective = build_objective(config, ClassTarget(net.vocabulary, targets))
    evaluation = objective(Observed(images, net), **rest)
    return evaluation.fitness, evaluation.metrics


def probabilities(images) -> np.ndarray:
    """What `MeanColour` gives, by NumPy."""
    colours = np.asarray(images, np.float64).mean((1, 2))
    exponentials = np.exp(4 * np.concatenate([colours, colours.mean(1, keepdims=True)], axis=1))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("targets", [(0,), (2,), (0, 2), (1, 2, 3)])
def test_both_scales_are_those_of_the_summed_probabilities(images, targets):
    score = probabilities(images)[:, list(targets)].sum(1)
    expected = {"probability": score, "log_odds": np.log(score / (1 - score))}
    for scale in SCALES:
        fitness, metrics = judged(images, MeanColour(), targets, ObjectiveConfig(scale=scale))
        np.testing.assert_allclose(fitness, expected[scale], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["score"], score, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_terms_are_weighted(images, scale):
    net = MeanColour()
    plain, metrics = judged(images, net, (1,), ObjectiveConfig(scale=scale))
    config = ObjectiveConfig(scale=scale, class_weight=3.0, tv_weight=0.5)
    fitness, _ = judged(images, net, (1,), config)
    np.testing.assert_allclose(metrics["tv"], total_variation(images), rtol=1e-6)
    np.testing.assert_allclose(fitness, 3 * plain - 0.5 * metrics["tv"], rtol=1e-5)


def test_log_odds_spread_both_ends():
    images = flat((1.0, 0.0, 0.0), (0.0, 1.0, 1.0))
    for factor in (10.0, 50.0, 300.0):
        fitness, metrics = judged(images, MeanColour(factor), (0,), ObjectiveConfig())
        others = np.logaddexp.reduce(factor * np.array([[0, 0, 1 / 3], [1, 1, 2 / 3]]), axis=1)
        expected = factor * np.array([1, 0]) - others
        np.testing.assert_allclose(fitness, expected, rtol=1e-5)
        assert (metrics["score"] >= 0).all()
        assert (metrics["score"] <= 1).all()


@pytest.mark.parametrize("scale", SCALES)
def test_pictures_beyond_the_gate_are_not_valid(scale):
    noise = jax.random.bernoulli(jax.random.key(0), 0.5, (1, 8, 8, 3)).astype(jnp.float32)
    images = jnp.concatenate([flat((0.9, 0.1, 0.1)), noise])
    net = MeanColour()
    open_fitness, open_metrics = judged(images, net, (0,), ObjectiveConfig(scale=scale))
    fitness, metrics = judged(images, net, (0,), ObjectiveConfig(scale=scale, noise_gate=0.05))
    np.testing.assert_allclose(fitness, [open_fitness[0], -np.inf])
    np.testing.assert_allclose(metrics["noise"], tv_noise(images), atol=1e-6)
    assert "noise" not in open_metrics  # nobody asked
    np.testing.assert_array_equal(metrics["score"], open_metrics["score"])


def test_noise_equal_to_the_gate_is_beyond(images):
    _, measured = judged(images[:1], MeanColour(), (0,), ObjectiveConfig(noise_gate=1.0))
    noise = measured["noise"][0]  # by the same code: another's last bit may differ
    above = np.nextafter(noise, np.float32(1))
    for gate, rejected in ((noise, True), (above, False)):
        config = ObjectiveConfig(noise_gate=float(gate))
        assert (judged(images[:1], MeanColour(), (0,), config)[0][0] == -np.inf) == rejected


@pytest.mark.parametrize("gate", [0.0, 0.05])
@pytest.mark.parametrize("beyond", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", SCALES)
def test_logits_that_are_not_finite_never_win(scale, beyond, gate):
    net = MeanColour(too_red=0.8, beyond=beyond)
    images = flat((1.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 1.0, 1.0))
    config = ObjectiveConfig(scale=scale, noise_gate=gate)
    fitness, _ = judged(images, net, (0,), config)
    assert fitness[0] == -np.inf
    assert fitness[0] < fitness[2] < fitness[1]


@pytest.mark.parametrize("gate", [0.0, 0.05])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scale", SCALES)
def test_pictures_that_are_not_finite_never_win(scale, value, gate):
    images = flat((0.0, 1.0, 1.0), (0.5, 0.0, 0.0)).at[0, 0, 0, 0].set(value)
    config = ObjectiveConfig(scale=scale, noise_gate=gate)
    fitness, _ = judged(images, MeanColour(), (0,), config)
    assert np.isfinite(fitness[1])
    assert fitness[0] == -np.inf


def test_a_rejected_picture_never_wins_against_a_penalty(images):
    config = ObjectiveConfig(scale="probability", tv_weight=10.0)
    broken = images.at[0].set(np.nan)
    fitness, _ = judged(broken, MeanColour(), (0,), config)
    assert (fitness[0] < fitness[1:]).all()


@pytest.mark.parametrize("factor", [4.0, 300.0])
@pytest.mark.parametrize("scale", SCALES)
def test_gradients_are_finite(images, scale, factor):
    config = ObjectiveConfig(scale=scale, tv_weight=0.1)
    batch = jnp.concatenate([images, flat((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0))])
    for targets in ((0,), (0, 1, 2)):
        gradient = jax.grad(lambda x, t=targets: judged(x, MeanColour(factor), t, config)[0].sum())(
            batch
        )
        assert np.isfinite(gradient).all()


def test_the_gradient_climbs(images):
    net, config = MeanColour(), ObjectiveConfig(tv_weight=0.1)
    gradient = jax.grad(lambda x: judged(x, net, (1,), config)[0].sum())(images)
    before, after = (judged(x, net, (1,), config)[0] for x in (images, images + 0.1 * gradient))
    assert (after > before).all()
    assert (gradient[..., 1].mean((1, 2)) > 0).all()  # greener is better
    assert (gradient[..., 0].mean((1, 2)) < 0).all()


def test_assessment_is_traceable(images):
    net, config = MeanColour(), ObjectiveConfig(tv_weight=0.1, noise_gate=0.3)
    expected = judged(images, net, (0, 1), config)
    traced = jax.jit(lambda x: judged(x, net, (0, 1), config))(images)
    for value, wanted in zip(jax.tree.leaves(traced), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_a_negative_gate_is_refused():
    with pytest.raises(InputError, match=r"noise_gate must be 0 or more, and finite, got -0\.1"):
        ObjectiveConfig(noise_gate=-0.1)


@dataclass(frozen=True)
class Redness:
    """A term of its own, which the package knows nothing of."""

    name: str = "red"

    def __call__(self, observed):
        red = observed.pictures[..., 0].mean((1, 2))
        return Contribution(red, {self.name: red})


def test_a_term_needs_to_be_known_to_nobody(images):
    net = MeanColour()
    target = TargetTerm(ClassTarget(net.vocabulary, (0,)))
    alone, both = (
        Objective(terms)(Observed(images, net)) for terms in ([target], [target, Redness()])
    )
    red = np.asarray(images)[..., 0].mean((1, 2))
    np.testing.assert_allclose(both.fitness - alone.fitness, red, rtol=1e-5)
    np.testing.assert_allclose(both.metrics["red"], red, rtol=1e-6)
    with pytest.raises(ValueError, match="two parts of an objective have a metric"):
        Objective([target, Redness("score")])(Observed(images, net))


def test_several_networks_judge_together(images):
    nets = {"mild": MeanColour(), "stern": MeanColour(factor=40.0)}
    crab = [ClassTarget(net.vocabulary, (0,), name) for name, net in nets.items()]
    apart = [Objective([TargetTerm(target)])(Observed(images, nets)).fitness for target in crab]
    for target, net, fitness in zip(crab, nets.values(), apart, strict=True):
        expected, _ = judged(images, net, target.indices, ObjectiveConfig())
        np.testing.assert_allclose(fitness, expected, rtol=1e-5, atol=1e-5)

    def together(observed):
        values = [target.measure(observed).value for target in crab]
        return Contribution(jnp.minimum(*values), {})

    evaluator = Evaluator(
        nets, crab[0], Objective([TargetTerm(crab[0], weight=0.0), together]), RasterConfig(size=8)
    )
    evaluation = jax.jit(evaluator.look_at)(images, evaluator.params)
    np.testing.assert_allclose(evaluation.fitness, np.minimum(*apart), rtol=1e-4, atol=1e-4)
    assert set(evaluation.metrics) == {"score", "value"}


def test_opinions_and_behaviours_where_somebody_asks(images):
    net = MeanColour()
    target = TargetTerm(ClassTarget(net.vocabulary, (0,)))
    niches = TargetTerm(
        EveryClass(net.vocabulary, [(index,) for index in range(len(net.vocabulary))]),
        scale="probability",
    )
    objective = Objective(
        [], descriptor_fn=lambda observed: observed.pictures.mean((1, 2)), niches=niches
    )
    evaluation = objective(Observed(images, net))
    expected = probabilities(images)
    np.testing.assert_allclose(evaluation.scores, expected, rtol=1e-4)
    np.testing.assert_allclose(evaluation.fitness, expected.max(1), rtol=1e-4)
    of_one = replace(objective, main=1)(Observed(images, net))
    np.testing.assert_allclose(of_one.fitness, expected[:, 1], rtol=1e-4)
    np.testing.assert_allclose(of_one.metrics["score"], expected[:, 1], rtol=1e-4)
    np.testing.assert_allclose(evaluation.descriptors, np.asarray(images).mean((1, 2)), rtol=1e-5)
    assert Objective([target])(Observed(images, net)).scores is None


def test_what_several_terms_ask_for_is_computed_once(images):
    calls = []

    class Counting(MeanColour):
        def logits_from_input(self, x):
            calls.append(x)
            return super().logits_from_input(x)

    net = Counting()
    targets = [ClassTarget(net.vocabulary, (n,)) for n in range(3)]
    observed = Observed(images, net)
    for target in targets:
        target.measure(observed)
    assert len(calls) == 1
