"""Settings: tables, TOML files and flags, to dataclasses and back."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from evojax_art.artwork.provenance import Provenance
from evojax_art.cli.dream import DreamCommand
from evojax_art.cli.evolve import EvolveCommand
from evojax_art.cli.flags import parse_flags
from evojax_art.cli.main import main
from evojax_art.cli.polish import PolishCommand
from evojax_art.objective.target import TargetConfig, recall_target
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.toml import config_text, read_config
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import (
    INLINE,
    INTERNAL,
    POSITIONAL,
    REPEATABLE,
    UNSAVED,
    formerly,
    from_table,
    to_table,
)

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Oven:
    """Heat.

    Attributes:
        heat: degrees.
        fan: whether air moves.
        length: of what is baked; a dash -
            and 100 % of a second line.
    """

    heat: float = 200.0
    fan: bool = True
    length: int = field(default=3, metadata={**formerly("size")})

    def __post_init__(self):
        if self.heat < 0:
            raise InputError("oven.heat: below | zero  -  two blanks")


@dataclass(frozen=True, kw_only=True)
class Dough:
    """What is baked.

    Attributes:
        flour: kinds of it.
        counts: of eggs.
        kind: of dough.
        recipe: a file.
        secret: of the baker.
    """

    flour: tuple[str, ...] = ("rye",)
    counts: tuple[int, ...] = ()
    kind: Literal["sour", "1995"] = "sour"
    recipe: Path | None = None
    secret: int = field(default=0, metadata=INTERNAL)


@dataclass(frozen=True, kw_only=True)
class Bake:
    """Bake bread.

    Attributes:
        loaves: names.
        note: remarks.
        place: where it is put.
        dough: what is baked.
        oven: heat.
    """

    loaves: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    note: tuple[str, ...] = field(default=(), metadata=REPEATABLE)
    place: Path | None = field(default=None, metadata=UNSAVED)
    dough: Dough = field(default_factory=Dough, metadata=INLINE)
    oven: Oven = field(default_factory=lambda: Oven(heat=220.0), metadata=formerly("stove"))


def bake(*flags: str) -> Bake:
    return parse_flags(Bake, flags, "bake")


def test_flags_are_fields():
    assert bake() == Bake()
    assert bake("a", "--kind", "1995", "b") == Bake(loaves=("a", "b"), dough=Dough(kind="1995"))
    assert bake("--flour", "oat", "corn", "--counts=3").dough == Dough(
        flour=("oat", "corn"), counts=(3,)
    )
    assert bake("--flour").dough.flour == ()
    assert bake("--note", "a", "--note", "b=c").note == ("a", "b=c")
    assert bake("--oven.no-fan").oven == Oven(heat=220.0, fan=False)
    assert bake("--oven.no-fan", "--oven.fan").oven.fan
    assert bake("--recipe", "None").dough.recipe is None
    assert bake("--recipe=~/bread.txt").dough.recipe == Path.home() / "bread.txt"


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5.0), (".5", 0.5), ("1e-3", 1e-3), ("1_000", 1000.0), ("inf", np.inf), ("+2", 2.0)],
)
def test_numbers_are_written_as_in_python(text, number):
    assert bake("--oven.heat", text).oven.heat == number


@pytest.mark.parametrize("number", ["-3", "-1e-3", "-.5", "-inf"])
def test_negative_numbers_are_no_flags(number):
    with pytest.raises(InputError, match="below") as error:
        bake("--oven.heat", number)
    assert str(error.value) == "oven.heat: below | zero  -  two blanks"  # whole, as it was raised


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--oven.length", "2.5"], "--oven.length must be a whole number, got '2.5'"),
        (["--oven.length", "9" * 40], r"--oven.length is out of range: 99999999999999999999\.\.\."),
        (["--counts", "1", "x"], r"--counts must be a whole number, or a list of such, got \['1'"),
        (["--kind", "sor"], "--kind must be one of sour, 1995, got 'sor'; did you mean sour?"),
        (["--ovn.heat", "3"], r"unknown option --ovn.heat; did you mean --oven.heat.*bake --help"),
        (["--oven.heat"], r"--oven.heat: expected one argument \(see bake --help\)"),
        (["--oven.he", "3"], "unknown option --oven.he; did you mean --oven.heat"),
        (["--secret", "3"], "unknown option --secret"),
    ],
)
def test_mistakes_in_flags_are_one_line(flags, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        bake(*flags)
    assert "\n" not in str(error.value)


def test_help_has_words_defaults_and_tables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        bake("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "usage: bake [OPTIONS] loaves ..." in text
    assert "kinds of it. (default: rye)" in text
    assert "of what is baked; a dash - and 100 % of a second line. (default: 3)" in text
    assert "degrees. (default: 220.0)" in text
    assert "--oven.fan, --oven.no-fan" in text
    assert "oven options:\n  heat.\n" in text
    assert not {"--stove.heat", "--oven.size", "--secret"} & set(text.split())


def test_tables_are_fields_and_back(tmp_path):
    config = Bake(
        note=("x",),
        place=tmp_path,
        dough=Dough(counts=(1, 2), recipe=Path("a.txt"), secret=7),
        oven=Oven(heat=np.inf, fan=False),
    )
    table = to_table(config)
    assert table["oven"] == {"heat": np.inf, "fan": False, "length": 3}
    assert (table["counts"], table["recipe"]) == ([1, 2], "a.txt")
    assert not {"place", "secret", "dough"} & set(table)
    back = replace(config, place=None, dough=replace(config.dough, secret=0))
    path = tmp_path / "bake.toml"
    path.write_text(config_text(config, "a comment"))
    assert read_config(path, Bake) == back


def test_tables_may_be_loose_where_the_meaning_is_plain():
    table = {"flour": [118, "oat"], "kind": 1995, "note": "one", "recipe": "", "oven": {"heat": 1}}
    assert from_table(Bake, table, tell_fn=pytest.fail) == Bake(
        note=("one",), dough=Dough(flour=("118", "oat"), kind="1995"), oven=Oven(heat=1.0)
    )


def test_old_names_are_read_and_told(tmp_path, capsys):
    path = tmp_path / "old.toml"
    path.write_text("[stove]\nsize = 4\n")
    told = []
    assert read_config(path, Bake, told.append) == Bake(oven=Oven(heat=220.0, length=4))
    assert told == [
        f"{path}: stove.* is now called oven.*",
        f"{path}: oven.size is now called oven.length",
    ]
    assert bake("--stove.size", "4") == Bake(oven=Oven(heat=220.0, length=4))
    assert capsys.readouterr().err.splitlines() == [
        "evojax-art: --stove.* is now called --oven.*",
        "evojax-art: --oven.size is now called --oven.length",
    ]
    assert bake("--oven.heat", "4").oven.heat == 4
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"--stove\.\* is the old name of --oven\.\*"):
        bake("--stove.size", "4", "--oven.heat", "4")


def test_files_that_windows_wrote(tmp_path):
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\r\nformulas = 64\r\n")
    assert read_config(path, RunConfig) == RunConfig(seed=3, formulas=64)


def test_flags_override_a_file_and_pictures_add_up(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("image = ['a=a.png']\nnet = 'b'\n[genetic]\npopulation = 5\ntournament = 3\n")
    flags = ["--genetic.population", "7", f"--config={path}", "--image", "c=c.png"]
    config = parse_flags(EvolveCommand, flags, "evolve").run
    assert config.image == ("a=a.png", "c=c.png")
    assert (config.target.net, config.target.target) == (("b",), ("crab",))
    assert (config.genetic.population, config.genetic.tournament) == (7, 3)


OLD_FLAGS = {
    ("evolve", "--scene.size", "16"): ("raster", "size"),
    ("evolve", "--scene.smooth"): ("raster", "smooth"),
    ("evolve", "--polish.every", "4"): ("memetic", "every"),
    ("evolve", "--polish.learning_rate", "0.5"): ("memetic", "learning_rate"),
    ("polish", "--climb.steps", "4"): ("polish", "ascent", "steps"),
    ("polish", "--scene.crunch", "1995"): ("raster", "crunch"),
    ("dream", "--breed.polish.every", "4"): ("breed", "memetic", "every"),
}


@pytest.mark.parametrize("flags", OLD_FLAGS, ids=lambda flags: f"{flags[0]}{flags[1]}")
def test_old_flags_are_read(flags, capsys):
    command, *given = flags
    if command == "evolve":
        config = parse_flags(EvolveCommand, given, command).run
    elif command == "polish":
        config = parse_flags(PolishCommand, ["x", *given], command)
    else:
        config = parse_flags(DreamCommand, ["x", *given], command).settings.dream
    for name in OLD_FLAGS[flags]:
        config = getattr(config, name)
    assert str(config) == (given[1] if len(given) > 1 else "True")
    assert "is now called --" in capsys.readouterr().err


def test_old_files_are_read(tmp_path):
    path = tmp_path / "config.toml"
    # Of a run under an earlier release, shortened.
    path.write_text(
        "# evojax_art 0.1.0, jax 0.10.0, cpu, Python 3.11.7\n"
        'target = ["crab"]\nlayer = ""\nnet = "squeezenet1_1"\nstop_score = inf\nimage = []\n'
        'out = "runs/crab-0"\n[scene]\nsize = 0\nsamples = 1\n[genetic.growth]\nmax_depth = 7\n'
        "[polish]\nevery = 16\ntop = 8\n"
    )
    told = []
    config = read_config(path, RunConfig, told.append)
    assert (config.raster.samples, config.memetic.every, config.out) == (1, 16, Path("runs/crab-0"))
    assert [line.rpartition(": ")[2] for line in told] == [
        "scene.* is now called raster.*",
        "polish.* is now called memetic.*",
    ]


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "a.toml"
    path.write_text("out = '~/run'\nguide = '~nobody-of-that-name/a.png'\nlayer = 'stem'\n")
    config = read_config(path, RunConfig)
    assert config.out == tmp_path / "run"
    assert config.target.guide == Path("~nobody-of-that-name/a.png")  # there is no such home


def test_defaults_of_a_command_stay_beside_a_flag():
    command = parse_flags(PolishCommand, ["x", "--objective.noise-gate", "1"], "polish")
    assert (command.objective.tv_weight, command.objective.noise_gate) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("target", "said", "wanted"),
    [
        (TargetConfig(target=(), net=()), Provenance(), TargetConfig()),
        (
            TargetConfig(target=(), net=()),
            Provenance(target=("a", "b"), net="n"),
            TargetConfig(target=("a", "b"), net=("n",)),
        ),
        (
            TargetConfig(target=(), net=("m",)),
            Provenance(layer="stem", net="n"),
            TargetConfig(layer="stem", net=("m",)),
        ),
        (TargetConfig(target=("crab",), net=()), Provenance(target=("a",)), TargetConfig()),
    ],
)
def test_what_is_unsaid_is_recalled_from_a_picture(target, said, wanted):
    assert recall_target(target, said, Path()) == wanted
    assert recall_target(wanted, Provenance(), Path()) == wanted


TINY = (
    "--net tiny --raster.size 8 --record-size 16 --formulas 1 --minutes 0 --max-length 16 "
    "--genetic.population 8 --genetic.offspring 4 "
    "--early.formulas 4 --early.size 16 --map-elites.starters 8 --map-elites.offspring 4 "
    "--mount2015.slots 8 --mount2015.batch 4 --mount2015.starter-depth 3"
).split()


CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
ILLUMINATIONS = [path for path in CONFIGS if "evojax-art illuminate" in path.read_text()]
DREAMS = [path for path in CONFIGS if "evojax-art dream" in path.read_text()]


@pytest.mark.parametrize("path", DREAMS, ids=lambda path: path.stem)
def test_every_dream_lives_through_a_tiny_frame(path, tiny_weights, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    Image.fromarray(np.full((40, 48, 3), 90, np.uint8)).save(photo)
    flags = ["--net", "tiny", "--weights", str(tiny_weights), "--layer", "squares", "--size", "48"]
    flags += ["--frames", "2", "--video", "none", "--out", str(out)]
    assert main(["dream", str(photo), "--config", str(path), *flags]) == 0
    assert len(list((out / "frames").iterdir())) == 2


@pytest.mark.parametrize("path", ILLUMINATIONS, ids=lambda path: path.stem)
def test_every_illumination_lives_through_a_tiny_generation(path, tiny_weights, tmp_path):
    flags = ["--net", "tiny", "--weights", str(tiny_weights), "--raster.size", "8"]
    flags += ["--formulas", "1", "--max-length", "16", "--map-elites.starters", "8"]
    flags += ["--judged-size", "0", "--map-elites.offspring", "4", "--out", str(tmp_path / "out")]
    flags += ["--early.formulas", "1", "--early.size", "16", "--gallery", "2", "--unseen", "none"]
    flags += ["--objective.contrast-gate", "0"]  # so few would all be faint
    assert main(["illuminate", "--config", str(path), *flags]) == 0
    assert read_config(tmp_path / "out" / "config.toml", IlluminateConfig).batch > 0


@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS if path not in DREAMS + ILLUMINATIONS],
    ids=lambda path: path.stem,
)
def test_every_config_lives_through_a_tiny_generation(path, tiny_weights, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--config", str(path), *TINY, "--weights", str(tiny_weights), "--out", str(out)]
    assert main(["evolve", *flags]) == 0
    assert "is now called" not in capsys.readouterr().err
    saved = read_config(out / "config.toml", RunConfig)
    assert saved.batch > 0  # as it was chosen
    given = parse_flags(EvolveCommand, flags, "evolve").run
    assert replace(saved, out=out, batch=given.batch) == given


def test_what_a_run_writes_can_be_run_again(tiny_weights, tmp_path):
    given = ["evolve", *TINY, "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    config = ["--config", str(tmp_path / "out/config.toml")]
    assert main(["evolve", *config, "--out", str(tmp_path / "again")]) == 0
    texts = [(tmp_path / name / "best.txt").read_text() for name in ("out", "again")]
    assert texts[0] == texts[1]


def test_a_dream_of_an_earlier_release_goes_on(tiny_weights, tmp_path, capsys):
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    Image.fromarray(np.full((40, 48, 3), 90, np.uint8)).save(photo)
    weights = ["--net", "tiny", "--weights", str(tiny_weights)]
    flags = [str(photo), "--out", str(out), *weights, "--size", "48", "--video", "none"]
    flags += ["--pixels.steps", "1", "--pixels.octaves", "1", "--frames"]
    assert main(["dream", *flags, "1"]) == 0
    settings = out / "dream.toml"
    old = settings.read_text().replace("[breed.memetic]", "[breed.polish]")
    assert "[breed.polish]" in old
    settings.write_text('guide = ""\n' + old)  # as there was none
    assert main(["dream", *flags, "2"]) == 0
    assert len(list((out / "frames").iterdir())) == 2
    settings.write_text("speed = 3\n" + old)
    assert main(["dream", *flags, "3"]) == 2
    assert f"{settings}: unknown key speed" in capsys.readouterr().err
