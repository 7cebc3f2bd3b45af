"""Several judges: opinions joined, the short cut, and what users see of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VOCABULARY, TinyNet, register_tiny
from flax import nnx
from safetensors.numpy import load_file, save_file

from evojax_art.artwork.picture import read_png_text
from evojax_art.artwork.provenance import read_provenance
from evojax_art.cli.main import main
from evojax_art.language.formula import parse
from evojax_art.language.program import encode
from evojax_art.nets.registry import REGISTRY
from evojax_art.nets.vocabulary import Vocabulary, cifar100, imagenet
from evojax_art.nets.weights import load_net
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.ensemble import Ensemble, Judge
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.observed import Observed
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.target import TargetConfig, load_target, provenance_of, target_of
from evojax_art.objective.views import ViewsConfig, draw_views
from evojax_art.refine.pixels import PixelPolisher, PixelsConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.cache import CACHE_VARIABLE
from evojax_art.runtime.errors import InputError
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic
from evojax_art.search.mount2015 import Mount2015

SMALL = (
    "--raster.size 8 --record-size 16 --record-samples 1 --record-step 0 --max-length 24 "
    "--genetic.population 16 --genetic.offspring 8 --formulas 64"
).split()


def nets(count: int = 2) -> dict[str, TinyNet]:
    """Networks that disagree."""
    made = {f"net{number}": TinyNet(rngs=nnx.Rngs(number)) for number in range(count)}
    for net in made.values():
        net.head.kernel[...] = 4 * net.head.kernel[...]
    return made


def ensemble(made, join="mean", weights=(1.0, 1.0, 1.0), views_join="mean") -> Ensemble:
    judges = [
        Judge(
            name=name, target=ClassTarget(TINY_VOCABULARY, (0, 1), name), weight=weight, cost=cost
        )
        for cost, (name, weight) in enumerate(zip(made, weights, strict=False))
    ]
    return Ensemble(judges, join, views_join)


@pytest.fixture
def images():
    colours = jax.random.uniform(jax.random.key(0), (20, 1, 1, 3))
    return jnp.clip(colours + 0.2 * jax.random.normal(jax.random.key(1), (20, 8, 8, 3)), 0, 1)


def probabilities(made, images) -> np.ndarray:
    return np.stack([net.probabilities(images)[:, :2].sum(axis=1) for net in made.values()])


@pytest.mark.parametrize("join", ["mean", "least"])
def test_opinions_are_joined_by_their_logarithms(images, join):
    made = nets(3)
    weights = (1.0, 2.0, 5.0) if join == "mean" else (1.0, 1.0, 1.0)
    measure = ensemble(made, join, weights).measure(Observed(images, made))
    each = probabilities(made, images)
    shares = np.array(weights)[:, None] / sum(weights)
    wanted = np.exp((shares * np.log(each)).sum(0)) if join == "mean" else each.min(0)
    np.testing.assert_allclose(measure.score, wanted, rtol=1e-5)
    np.testing.assert_allclose(measure.value, np.log(wanted / (1 - wanted)), rtol=1e-4, atol=1e-5)
    for name, opinion in zip(made, each, strict=True):
        np.testing.assert_allclose(measure.opinions[name], opinion, rtol=1e-5)


@pytest.mark.parametrize("views_join", ["mean", "least"])
def test_views_are_joined_for_each_judge(images, views_join):
    made, config = nets(), ViewsConfig(count=3, join=views_join)
    views = draw_views(jax.random.key(2), config)
    observed = Observed(images, made, views=(views, config))
    measure = ensemble(made, views_join=views_join).measure(observed)
    seen = observed.viewed.images.reshape(3, *images.shape)
    looks = np.log([probabilities(made, look) for look in (images, *seen)])
    each = looks.mean(0) if views_join == "mean" else looks.min(0)
    np.testing.assert_allclose(measure.score, np.exp(each.mean(0)), rtol=1e-4)


def at_sizes(images) -> list:
    """Draws the pictures darker, and brighter and larger."""
    return [
        lambda places: 0.3 * images[places],
        lambda places: 1 - 0.2 * jnp.repeat(images[places], 2, axis=1),
    ]


def test_what_a_judge_is_least_sure_of_at_other_sizes_counts(images):
    made, config = nets(), ViewsConfig(count=1)
    views = (draw_views(jax.random.key(2), config), config)
    observed = Observed(images, made, views=views, sizes=at_sizes(images))
    seen = np.log([probabilities(made, look) for look in (images, observed.viewed.images)])
    others = np.log([probabilities(made, observed.at_size(number).images) for number in range(2)])
    each = np.minimum(seen.mean(0), others.min(0))
    assert np.any(each < seen.mean(0))
    assert np.any(each < np.minimum(seen.mean(0), others[0]))
    np.testing.assert_allclose(
        ensemble(made).measure(observed).score, np.exp(each.mean(0)), rtol=1e-4
    )


def test_formulas_are_drawn_at_the_other_sizes():
    """Programs are judged as if each size were the run's own, and the least counts."""
    made = nets(1)
    texts = ["( isin ( * ( q 30 9 4 2 ) x_iy ) )", "( exp ( * x_iy k ) )", "( mod y_k x )"]
    programs = encode([parse(text) for text in texts], 16)
    scores = {}
    for size, others in ((8, ()), (16, ()), (40, ()), (8, (16, 40))):
        evaluator = Evaluator(
            made,
            ensemble(made),
            ObjectiveConfig(),
            RasterConfig(size=size, samples=1),
            views=ViewsConfig(sizes=others),
        )
        found = evaluator.evaluate(programs, evaluator.params)
        scores[size, others] = np.asarray(found.metrics["score"])
    each = np.stack([scores[size, ()] for size in (8, 16, 40)])
    assert np.any(each.argmin(0) > 0), "another size is the worst of none"
    np.testing.assert_allclose(scores[8, (16, 40)], each.min(0), rtol=1e-5)


def test_other_sizes_that_a_layer_cannot_take_are_refused_before_anything_is_written(
    tmp_path, capsys
):
    out = tmp_path / "run"
    flags = ["--layer", "block2", "--views.sizes", "32", "30", "--formulas", "8"]
    assert main(["evolve", *flags, "--out", str(out)]) == 2
    assert "multiples of 8, got 30x30" in capsys.readouterr().err
    assert not out.exists()


def test_pixels_have_no_other_sizes():
    made = nets(1)
    with pytest.raises(InputError, match=r"views\.sizes: pixels cannot be drawn at other sizes"):
        PixelPolisher(made, ensemble(made), PixelsConfig(), views=ViewsConfig(sizes=(64,)))


@pytest.mark.parametrize("sizes", [0, 2])
@pytest.mark.parametrize("join", ["mean", "least"])
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("num_nets", [1, 3])
def test_short_cut_is_exact_above_and_below_elsewhere(images, join, count, num_nets, sizes):
    made, config = nets(num_nets), ViewsConfig(count=count)
    views = (draw_views(jax.random.key(2), config), config) if count else None
    target = ensemble(made, join)
    others = at_sizes(images)[:sizes]
    everything = target.measure(Observed(images, made, views=views, sizes=others))
    for least in np.quantile(everything.value, [0.0, 0.3, 0.9]) - 1e-4:
        bars = jnp.full(20, least)
        measure = jax.jit(
            lambda images, bars: target.measure_above(
                Observed(images, made, views=views, sizes=at_sizes(images)[:sizes]), bars
            )
        )(images, bars)
        matters = everything.value >= least
        np.testing.assert_allclose(
            measure.value[matters], everything.value[matters], rtol=1e-4, atol=1e-4
        )
        assert np.all(measure.value[~matters] < least)
    if num_nets > 1:
        assert np.isnan(measure.opinions["net1"]).any(), "nobody was spared anything"


def test_values_near_certainty_stay_apart():
    """Where a score rounds to 1 its log-odds still tell more from less."""
    made = nets()
    for net in made.values():
        net.head.kernel[...] = jnp.zeros((3, 4))
    values = []
    for certainty in (20.0, 25.0, 30.0, 200.0):
        for net in made.values():
            net.head.bias[...] = jnp.array([certainty, certainty, 0, 0])
        measure = ensemble(made).measure(Observed(jnp.zeros((1, 8, 8, 3)), made))
        values.append(float(measure.value[0]))
    np.testing.assert_allclose(values[:3], (20, 25, 30), rtol=1e-3)
    assert 30 < values[3] < np.inf, "nothing could be better"


def test_what_is_not_finite_stays_so(images):
    made = nets()
    made["net1"].head.bias[...] = jnp.full(4, jnp.nan)
    for measure in (
        ensemble(made).measure(Observed(images, made)),
        ensemble(made).measure_above(Observed(images, made), jnp.full(20, -1e9)),
    ):
        assert not np.isfinite(measure.value).any()


@pytest.mark.parametrize("algorithm", ["genetic", "mount2015"])
@pytest.mark.parametrize("join", ["mean", "least"])
def test_run_is_the_same_without_the_short_cut(algorithm, join):
    made = nets(2)
    scale = "log_odds" if algorithm == "genetic" else "probability"
    chosen = Genetic(population=16, offspring=8) if algorithm == "genetic" else Mount2015()
    states = []
    for short_cut in (True, False):
        evolution = Evolution(
            chosen,
            made,
            ensemble(made, join),
            ObjectiveConfig(scale=scale, tv_weight=0.1, short_cut=short_cut),
            RasterConfig(size=8, samples=1),
            max_length=24,
            views=ViewsConfig(count=2, sizes=(16, 20)),
        )
        state = evolution.init(jax.random.key(0))
        for _ in range(24):
            state, _ = evolution.step(state)
        states.append(state)
    for ours, theirs in zip(
        *(jax.tree.leaves(evolution.algorithm) for evolution in states), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert states[0].best.program.length == states[1].best.program.length


def test_views_change_from_generation_to_generation(images):
    made = nets(1)
    evolution = Evolution(
        Genetic(population=8, offspring=8),
        made,
        ensemble(made),
        ObjectiveConfig(),
        RasterConfig(size=8, samples=1),
        max_length=24,
        views=ViewsConfig(count=2),
    )
    evaluator = evolution.evaluator
    shifts = [
        evaluator.seen_anew(evaluator.params, jax.random.key(seed)).views.shift for seed in (0, 1)
    ]
    assert not np.allclose(*shifts)


def test_gradient_reaches_all_judges_and_views(images):
    made, config = nets(), ViewsConfig(count=1)
    views = (draw_views(jax.random.key(2), config), config)

    def value(images):
        return ensemble(made).measure(Observed(images, made, views=views)).value.sum()

    gradient = jax.grad(value)(images)
    direction, step = jnp.sign(gradient), 1e-3
    measured = (value(images + step * direction) - value(images - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(gradient, direction), measured, rtol=0.02)


def test_layers_of_several_networks_are_not_joined():
    made = nets()
    target = ensemble(made).judges[0].target
    target.is_probability = False
    with pytest.raises(ValueError, match="only probabilities"):
        Ensemble([Judge(name=name, target=target) for name in made])


class Speaks(TinyNet):
    """A network whose classes have other names."""

    def __init__(self, vocabulary):
        super().__init__(rngs=nnx.Rngs(0))
        self.vocabulary = vocabulary


def test_classes_are_matched_by_meaning():
    speakers = {"cifar100": Speaks(cifar100()), "squeezenet1_1": Speaks(imagenet())}
    target = target_of(speakers, TargetConfig(net=tuple(speakers)), None, ViewsConfig())
    (first, second) = (judge.target for judge in target.judges)
    assert [cifar100().names[index] for index in first.indices] == ["crab"]
    assert second.indices == (118, 119, 120, 121, 125)
    assert target.describe()[0].startswith("cifar100: target 26: crab")


def test_a_class_that_only_one_judge_has_is_refused():
    speakers = {"cifar100": Speaks(cifar100()), "squeezenet1_1": Speaks(imagenet())}
    config = TargetConfig(target=("crab", "maple tree"), net=tuple(speakers))
    with pytest.raises(
        InputError, match="'maple tree': squeezenet1_1 has no class of that meaning"
    ):
        target_of(speakers, config, None, ViewsConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"net": ()}, "name at least one network"),
        ({"match": "best", "layer": "x"}, "say with --guide"),
        ({"net": ("a", "a")}, "names a network twice"),
        ({"net": ("a", "b"), "layer": "x"}, "is one network's"),
        ({"net": ("a", "b"), "net_weight": (1.0,)}, "give one for each of a b"),
        ({"net": ("a",), "net_weight": (0.0,)}, "must be from 1e-6 to 1e6, got 0"),
        ({"net": ("a", "b"), "net_weight": (1e300, 1.0)}, "must be from 1e-6"),
        ({"otherwise": "squeezenet"}, "unknown network 'squeezenet'"),
        ({"prompt": "caf\udce9"}, "bytes that are no text"),
        ({"net": ("abcd", "b"), "weights": ("abce=f",)}, "say whose they are; did you mean abcd"),
        ({"net": ("a",), "weights": ("a=f", "a=g")}, "a has f already"),
        ({"net": ("a", "b"), "net_weight": (1.0, 2.0), "join": "least"}, "has no weights"),
        ({"net": ("a", "b"), "weights": ("file.pth",)}, "say whose they are, as in a=file.pth"),
        ({"net": ("a",), "weights": ("squeezenet1_1=f",)}, "squeezenet1_1 is not among --net a"),
        ({"net": ("a",), "weights": ("a=",)}, "name a file, as in a=FILE"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        TargetConfig(**wrong).check()


def test_weights_are_told_apart():
    config = TargetConfig(net=("a", "b"), weights=("a=x.pth", "b=y=z.pth"))
    assert {name: str(path) for name, path in config.weights_files().items()} == {
        "a": "x.pth",
        "b": "y=z.pth",
    }
    assert str(TargetConfig(net=("a",), weights=("p=q.pth",)).weights_files()["a"]) == "p=q.pth"


@pytest.fixture
def two_judges(tmp_path, monkeypatch):
    """Registers `tiny`, and `other` whose classes have another order; flags that name both."""
    weights = register_tiny(tmp_path, monkeypatch)
    order = [2, 3, 1, 0]
    vocabulary = Vocabulary(tuple(TINY_VOCABULARY.names[index] for index in order))

    class Other(TinyNet):
        def __init__(self, **options):
            super().__init__(**options)
            self.vocabulary = vocabulary

    other = dataclasses.replace(REGISTRY["tiny"], build=Other, vocabulary=lambda: vocabulary)
    monkeypatch.setitem(REGISTRY, "other", other)
    tensors = load_file(weights)
    tensors["head/kernel"] = tensors["head/kernel"][:, order].copy()
    save_file(tensors, tmp_path / "other.safetensors")
    files = (f"tiny={weights}", f"other={tmp_path / 'other.safetensors'}")
    return ["--net", "tiny", "other", "--weights", files[0], "--weights", files[1]]


def test_a_run_by_two_judges_names_their_opinions(two_judges, tmp_path, capsys):
    flags = ["--views.count", "1", "--out", str(tmp_path / "run")]
    assert main(["evolve", *SMALL, *two_judges, *flags]) == 0
    printed = capsys.readouterr()
    assert "; tiny: " in printed.out
    assert "; other: " in printed.out
    assert "other: target 2: green crab" in printed.err
    text = read_png_text(tmp_path / "run" / "best.png")
    judges = json.loads(text["judges"])
    assert text["net"] == "tiny other"
    # Copies of each other but for the order of their classes.
    assert judges["tiny"] == pytest.approx(judges["other"], abs=1e-4)
    assert judges["tiny"] == pytest.approx(float(text["score"]), abs=1e-4)
    again = ["evolve", "--config", str(tmp_path / "run" / "config.toml")]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    best = [(tmp_path / name / "best.txt").read_text() for name in ("run", "again")]
    assert best[0] == best[1]


def test_polish_remembers_both_judges(two_judges, tmp_path, capsys):
    assert main(["evolve", *SMALL, *two_judges, "--out", str(tmp_path / "run")]) == 0
    files = two_judges[3:]
    best = str(tmp_path / "run" / "best.png")
    flags = ["--views.count", "1", "--ascent.steps", "4", "--restarts", "2", "--lift", *files]
    out = tmp_path / "polished.png"
    command = ["polish", best, "--raster.size", "8", "--size", "16", "--out", str(out), *flags]
    assert main(command) == 0
    assert read_provenance(out).net == "tiny other"
    quick = ["--pixel.octaves", "1", "--pixel.steps", "4", "--size", "32"]
    command = ["polish", "--pixels", best, *quick, "--views.count", "1", "--out", str(out), *files]
    assert main(command) == 0
    assert read_provenance(out).net == "tiny other"


def test_another_network_judges_where_weights_are_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    register_tiny(tmp_path, monkeypatch)
    config = TargetConfig(target=("26",), net=("tiny",), otherwise="cifar100")
    assert config.judges == ("cifar100",)
    assert list(load_target(config)[0]) == ["cifar100"]
    assert "cifar100 judges: the weights of tiny are not downloaded: `evojax" in caplog.text
    assert provenance_of(config).net == "cifar100"
    assert dataclasses.replace(config, weights=("a.pth",)).judges == ("tiny",)
    (tmp_path / "tiny.pth").touch()
    assert config.judges == ("tiny",)


def test_weights_of_unseen_networks_may_be_named(two_judges, tmp_path):
    flags = ["--net", "tiny", *two_judges[3:], "--out", str(tmp_path / "run")]
    assert main(["evolve", *SMALL, *flags]) == 2  # whose are the others?
    assert main(["evolve", *SMALL, *flags, "--unseen", "other"]) == 0
    text = read_png_text(tmp_path / "run" / "best.png")
    assert json.loads(text["unseen"])["other"] == pytest.approx(float(text["score"]), abs=0.02)


def test_an_unseen_network_that_knows_nothing_is_refused(two_judges, tmp_path, capsys):
    flags = ["--unseen", "cifar100_judge", "--out", str(tmp_path / "run")]
    assert main(["evolve", *SMALL, *two_judges, *flags, "--target", "grey goose"]) == 2
    assert "unseen cifar100_judge: it knows nothing of what is wanted" in capsys.readouterr().err


def test_an_unseen_network_that_judges_is_refused(two_judges, tmp_path, capsys):
    flags = ["--unseen", "tiny", "--out", str(tmp_path / "run")]
    assert main(["evolve", *SMALL, *two_judges, *flags]) == 2
    assert "unseen tiny is a judge" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_embedded_networks_judge_together():
    made = {name: load_net(name) for name in ("cifar100", "cifar100_judge")}
    target = target_of(made, TargetConfig(net=tuple(made)), None, ViewsConfig())
    assert [judge.name for judge in target.judges] == ["cifar100_judge", "cifar100"]
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    measure = target.measure(Observed(images, made))
    each = [net.probabilities(images)[:, 26] for net in made.values()]
    np.testing.assert_allclose(measure.score, np.sqrt(each[0] * each[1]), rtol=1e-4)
