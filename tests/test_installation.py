"""What is installed: the package without its extras, its version, bounds of what it needs."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image
from test_movie import MOVING

from evojax_art.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--size", "8", "--seconds", "0.2", "--fps", "10"]


@pytest.fixture
def _no_extras(monkeypatch, tmp_path):
    """As after `pip install evojax-art` on a machine without an ffmpeg."""
    for name in ("imageio_ffmpeg", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_no_extras")
def test_movies_are_gifs_without_an_ffmpeg_and_say_so(capsys):
    assert main(["movie", MOVING, *QUICK]) == 0
    printed = capsys.readouterr()
    assert printed.out == "movie.gif\n"
    assert printed.err.strip() == (
        "movie: no ffmpeg that can write H.264 (there is none on the PATH): a GIF instead; "
        "see evojax-art[video]"
    )
    with Image.open("movie.gif") as movie:
        assert movie.size == (8, 8)


@pytest.mark.usefixtures("_no_extras", "tiny_weights")
def test_dreams_are_gifs_without_an_ffmpeg_and_say_so(capsys, tmp_path):
    flags = "--net tiny --target 0 --size 32 --frames 2 --pixels.steps 1 --pixels.octaves 1".split()
    weights = ["--weights", str(tmp_path / "tiny.safetensors")]
    assert main(["dream", MOVING, "--out", "out", *flags, *weights]) == 0
    printed = capsys.readouterr()
    assert "dream: no ffmpeg" in printed.err
    assert printed.out.endswith("out/dream.gif\n")


@pytest.mark.usefixtures("_no_extras")
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["movie", MOVING, "--out", "a.mp4"], "evojax-art[video]"),
        (["benchmark", "--plot", "a.png"], "evojax-art[plot]"),
        (["benchmark", "--keep", "results"], "evojax-art[plot]"),
    ],
)
def test_what_needs_an_extra_names_it_before_the_work(arguments, extra, capsys, tmp_path):
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert extra in message
    assert len(message.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_extras")
def test_a_system_ffmpeg_is_found_on_the_path(tmp_path, monkeypatch, capsys):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho it is not one >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["movie", MOVING, *QUICK, "--out", "a.mp4"]) == 2
    assert "(it is not one)" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag, capsys):
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"evojax-art {version('evojax-art')}\n"


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "evojax_art", "--version"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == f"evojax-art {version('evojax-art')}\n"


def test_oldest_versions_are_those_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    allowed = {}
    for requirement in (*project["dependencies"], *extras["plot"], *extras["video"]):
        name, bound = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
        allowed[name] = bound
    lines = (ROOT / "scripts/oldest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert oldest.pop("jaxlib") == oldest["jax"]
    assert allowed.keys() == oldest.keys()
    for name, bound in allowed.items():
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", oldest[name]), name
