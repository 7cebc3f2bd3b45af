"""CLIP: held to Hugging Face's, of made weights; tokens; prompts as targets, end to end."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_clip import IMAGE, LAYERS, SPACE, made_tensors, pictures, texts
from safetensors.numpy import save_file

from evojax_art.artwork.provenance import read_provenance
from evojax_art.cli.main import main
from evojax_art.nets.tokens import CONTEXT, END, START, encode, tokenize
from evojax_art.nets.weights import load_net
from evojax_art.objective.observed import Observed
from evojax_art.objective.prompts import PromptTarget
from evojax_art.objective.target import TargetConfig, target_of
from evojax_art.objective.views import ViewsConfig
from evojax_art.runtime.errors import InputError

FIXTURES = Path(__file__).parent / "fixtures"
NAME = "clip_vit_b32"


def saved(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    path = folder / "clip.safetensors"
    save_file({name: np.array(tensor, order="C") for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def reference():
    """What Hugging Face's model computes, see `make_clip.py`."""
    with np.load(FIXTURES / "clip.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return load_net(NAME, saved(tmp_path_factory.mktemp("clip"), made_tensors()))


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    """A file of weights for all tokens that there are."""
    return saved(tmp_path_factory.mktemp("clip"), made_tensors(END + 1))


@pytest.mark.usefixtures("full_precision")
def test_embeddings_are_those_of_hugging_face(net, reference):
    graph, weights = nnx.split(net)
    see = jax.jit(lambda weights, images: nnx.merge(graph, weights).image_embedding(images))
    np.testing.assert_allclose(see(weights, pictures()), reference["images"], atol=1e-5)
    np.testing.assert_allclose(net.text_embedding(texts()), reference["texts"], atol=1e-5)
    scale = float(jnp.exp(net.log_scale[...]))
    logits = scale * net.image_embedding(pictures()) @ net.text_embedding(texts()).T
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-3)


def openais(theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under the names of OpenAI's release, written out by hand."""
    ours = {
        "visual.class_embedding": theirs["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": theirs["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": theirs["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "token_embedding.weight": theirs["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": theirs["text_model.embeddings.position_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
        "logit_scale": theirs["logit_scale"],
        "input_resolution": np.int64(IMAGE),
        "context_length": np.int64(CONTEXT),
        "vocab_size": np.int64(520),
    }
    for leaf in ("weight", "bias"):
        ours[f"visual.ln_pre.{leaf}"] = theirs[f"vision_model.pre_layrnorm.{leaf}"]
        ours[f"visual.ln_post.{leaf}"] = theirs[f"vision_model.post_layernorm.{leaf}"]
        ours[f"ln_final.{leaf}"] = theirs[f"text_model.final_layer_norm.{leaf}"]
        for kind, tower in (("vision", "visual.transformer"), ("text", "transformer")):
            for number in range(LAYERS[kind]):
                block, layer = (
                    f"{tower}.resblocks.{number}",
                    f"{kind}_model.encoder.layers.{number}",
                )
                ours[f"{block}.attn.in_proj_{leaf}"] = np.concatenate(
                    [theirs[f"{layer}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
                )
                ours[f"{block}.attn.out_proj.{leaf}"] = theirs[f"{layer}.self_attn.out_proj.{leaf}"]
                ours[f"{block}.ln_1.{leaf}"] = theirs[f"{layer}.layer_norm1.{leaf}"]
                ours[f"{block}.ln_2.{leaf}"] = theirs[f"{layer}.layer_norm2.{leaf}"]
                ours[f"{block}.mlp.c_fc.{leaf}"] = theirs[f"{layer}.mlp.fc1.{leaf}"]
                ours[f"{block}.mlp.c_proj.{leaf}"] = theirs[f"{layer}.mlp.fc2.{leaf}"]
    return ours


def test_names_of_openai_are_read_too(net, tmp_path):
    other = load_net(NAME, saved(tmp_path, openais(made_tensors())))
    np.testing.assert_array_equal(
        other.image_embedding(pictures()), net.image_embedding(pictures())
    )
    np.testing.assert_array_equal(other.text_embedding(texts()), net.text_embedding(texts()))


def test_tokens_are_those_of_hugging_face():
    told = json.loads((FIXTURES / "clip_tokens.json").read_text(encoding="utf-8"))
    assert len(told) == 200
    for text, tokens in told.items():
        assert tokenize(text) == tokens, text
    assert tokenize("a photo of a cat") == [320, 1125, 539, 320, 2368]  # as everybody's


def test_texts_are_marked_and_cut():
    long = "crab " * 80
    tokens, cut = encode(["", "a crab", long, "crab " * 75, "x" * 100_000])
    assert tokens.shape == (5, CONTEXT)
    assert cut == (False, False, True, False, True)
    assert tokens[0, :3].tolist() == [START, END, 0]
    assert tokens[1, 0] == START
    assert tokens[1, 3] == END
    assert (tokens[2, -1], tokens[3, -1]) == (END, END)
    assert np.array_equal(tokens[2], tokens[3])


def test_only_tokens_are_counted():
    long = "entertainment " * 75  # 1050 letters, and a token each
    tokens, cut = encode([long, long + "!", " " * 3000 + "a crab", "a crab" + "\n" * 3000])
    assert cut == (False, True, False, False)
    assert tokens[0, 1:-1].tolist() == [tokenize("entertainment")[0]] * 75
    assert np.array_equal(tokens[2], encode(["a crab"])[0][0])
    assert np.array_equal(tokens[2], tokens[3])


def test_what_comes_after_the_end_has_no_say(net):
    other = texts()
    ends = np.argmax(other == 519, axis=1)
    for row, end in zip(other, ends, strict=True):
        row[end + 1 :] = 519
    np.testing.assert_allclose(net.text_embedding(other), net.text_embedding(texts()), atol=1e-6)


@pytest.mark.usefixtures("full_precision")
def test_gradient_is_that_of_central_differences(net):
    graph, weights = nnx.split(net)
    image = jnp.asarray(pictures()[:1])

    @jax.jit
    def score(image):
        return nnx.merge(graph, weights).image_embedding(image)[0, 7]

    gradient = jax.grad(score)(image)
    direction, step = jnp.sign(gradient), 1e-3  # the way that changes most, beside rounding
    slope = jnp.vdot(gradient, direction)
    measured = (score(image + step * direction) - score(image - step * direction)) / (2 * step)
    assert jnp.isfinite(slope)
    np.testing.assert_allclose(slope, measured, rtol=0.05)


def test_layers_are_pictures_of_patches(net):
    shapes = jax.eval_shape(net.activations, jax.ShapeDtypeStruct((2, 48, 64, 3), jnp.float32))
    assert shapes["block1"].shape == (2, 6, 8, 128)
    assert shapes["embedding"].shape == (2, SPACE)
    with pytest.raises(InputError, match="multiples of 8"):
        net.features(jnp.zeros((1, 30, 32, 3)), resize=False)


def test_half_precision_is_finite(tmp_path):
    net = load_net(NAME, saved(tmp_path, made_tensors()), dtype=jnp.bfloat16)
    embedding = net.image_embedding(pictures())
    assert embedding.dtype == jnp.float32
    assert np.isfinite(embedding).all()


QUERY = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
PLACES = "vision_model.embeddings.position_embedding.weight"
PATCHES = "vision_model.embeddings.patch_embedding.weight"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (QUERY, (128, 64), "tensors of other shapes"),
        (QUERY, (), "tensors of other shapes"),
        (PATCHES, (128, 192), "tensors of other shapes"),
        (PATCHES, (128, 3, 0, 0), "tensors of other shapes"),
        (PATCHES, (96, 3, 8, 8), "a width of 96 is not that of whole heads of 64"),
        (PLACES, (0, 128), "tensors of other shapes"),
        (PLACES, (1, 128), "tensors of other shapes"),
        ("text_model.embeddings.token_embedding.weight", (0, 64), "tensors of other shapes"),
        (
            "vision_model.encoder.layers.999.layer_norm1.weight",
            (128,),
            "blocks other than 0 to at most 47",
        ),
    ],
)
def test_weights_of_impossible_shapes_are_refused(tmp_path, name, shape, message):
    tensors = made_tensors() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(InputError, match=message) as refused:
        load_net(NAME, saved(tmp_path, tensors))
    assert "\n" not in str(refused.value)


def test_tokens_that_the_weights_are_not_for_are_refused(net):
    with pytest.raises(InputError, match="for 520 tokens, not for 49407"):
        net.text_embedding(encode(["a crab"])[0])
    with pytest.raises(InputError, match="texts of 77 tokens, not 80"):
        net.text_embedding(np.zeros((1, 80), np.int32))


@pytest.mark.parametrize("lacking", ["visual_projection.weight", "logit_scale"])
def test_files_of_other_networks_are_refused(tmp_path, lacking):
    tensors = made_tensors()
    del tensors[lacking]
    with pytest.raises(InputError, match="not the weights of"):
        load_net(NAME, saved(tmp_path, tensors))
    with pytest.raises(InputError, match=r"clip.safetensors: not the weights of a CLIP: no visual"):
        load_net(NAME, saved(tmp_path, {"a": np.zeros(3, np.float32)}))


def test_a_prompt_is_a_softmax_of_texts(reading):
    net = load_net(NAME, reading)
    target = PromptTarget(net, "a crab", ("static", "a photo of a cat"))
    measure = target.measure(Observed(jnp.asarray(pictures()), net))
    directions = net.text_embedding(encode(["a crab", "static", "a photo of a cat"])[0])
    scale = jnp.exp(net.log_scale[...])
    wanted = jax.nn.softmax(scale * net.image_embedding(pictures()) @ directions.T, axis=-1)[:, 0]
    np.testing.assert_allclose(measure.score, wanted, rtol=1e-4)
    np.testing.assert_allclose(measure.value, jnp.log(wanted / (1 - wanted)), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="say something else than the prompt"):
        PromptTarget(net, "a crab", ("a crab",))
    with pytest.raises(InputError, match="say something else than the prompt"):
        PromptTarget(net, "a crab", ("static", "A  Crab"))  # the same tokens
    with pytest.raises(InputError, match="a text is empty"):
        PromptTarget(net, "a crab", (" ",))
    assert PromptTarget(net, "crab " * 90).describe()[-1].startswith("cut to 77 tokens: crab")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens": 520}, "for 520 tokens, not for 49408"),
        ({"logit_scale": 200.0}, "their logit_scale is no number"),
    ],
)
def test_weights_that_no_prompt_can_use_are_refused(wrong, message, tmp_path):
    tensors = made_tensors(wrong.pop("tokens", END + 1))
    tensors |= {name: np.float32(value) for name, value in wrong.items()}
    net = load_net(NAME, saved(tmp_path, tensors))
    with pytest.raises(InputError, match=message):
        PromptTarget(net, "a crab")


def test_classifiers_beside_it_are_asked_for_the_target(reading):
    nets = {"cifar100": load_net(), NAME: load_net(NAME, reading)}
    config = TargetConfig(prompt="a crab", net=tuple(nets))
    target = target_of(nets, config, None, ViewsConfig())
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    measure = target.measure(Observed(images, nets))
    crab = nets["cifar100"].probabilities(images)[:, 26]
    np.testing.assert_allclose(measure.opinions["cifar100"], crab, rtol=1e-4)
    np.testing.assert_allclose(measure.score**2, crab * measure.opinions[NAME], rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"against": ("static",)}, "say with --prompt"),
        ({"prompt": "a crab", "layer": "block0"}, "a prompt or a layer"),
        ({"prompt": "a crab", "net": ("squeezenet1_1",)}, "none of squeezenet1_1 reads"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        TargetConfig(**wrong).check()


def test_a_class_of_a_network_without_classes_is_refused(reading, tmp_path, capsys):
    flags = ["--net", NAME, "--weights", str(reading), "--out", str(tmp_path / "run")]
    assert main(["evolve", "--target", "crab", *flags]) == 2
    assert f"{NAME} has no classes: say with --prompt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["nets", NAME, "--target", "crab"]) == 2


def test_a_run_a_polish_and_a_dream_by_prompt(reading, tmp_path, capsys):
    run, files = tmp_path / "run", ["--weights", str(reading)]
    prompt = ["--prompt", "a samurai crab", "--against", "static", "a pattern"]
    small = (
        "--raster.samples 1 --record-size 32 --record-samples 1 --max-length 24 "
        "--genetic.population 16 --genetic.offspring 8 --formulas 64"
    ).split()
    assert main(["evolve", *prompt, *small, *files, "--out", str(run)]) == 0
    printed = capsys.readouterr()
    assert "against: a pattern" in printed.err
    assert "% a samurai crab" in printed.out
    said = read_provenance(run / "best.png")
    assert (said.prompt, said.against) == ("a samurai crab", ("static", "a pattern"))
    assert said.net == NAME
    again = ["evolve", "--config", str(run / "config.toml"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert (tmp_path / "again/best.txt").read_text() == (run / "best.txt").read_text()

    best, out = str(run / "best.png"), str(tmp_path / "polished.png")
    steps = ["--ascent.steps", "4", "--restarts", "2", "--lift"]
    assert main(["polish", best, *files, *steps, "--size", "32", "--out", out]) == 0
    assert read_provenance(Path(out)).prompt == "a samurai crab"
    quick = ["--pixel.octaves", "1", "--pixel.steps", "2", "--size", "32"]
    assert main(["polish", "--pixels", best, *files, *quick, "--out", out]) == 0
    assert read_provenance(Path(out)).against == ("static", "a pattern")
    frames = ["--frames", "2", "--size", "32", "--video", "none", "--pixels.steps", "1"]
    out = str(tmp_path / "dream")
    assert main(["dream", best, *prompt, *files, *frames, "--out", out]) == 0


def test_nets_tells_which_text_fits(reading, tmp_path, capsys):
    picture = str(Path(__file__).parents[1] / "scripts/photographs/cat.webp")
    flags = ["nets", NAME, "--weights", str(reading), "--show", picture]
    assert main(flags) == 2
    assert "say with --prompt" in capsys.readouterr().err
    assert main([*flags, "--prompt", "a cat", "a dog", "--cost"]) == 0
    told = capsys.readouterr().out
    shares = [float(line.split("%")[0]) for line in told.splitlines()[1:3]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert "a dog" in told
    assert "judged" in told
