"""The command line: `evojax-art evolve | render | nets | benchmark`.

Every mistake is one message on standard error and exit status 2.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress

from evojax_art.benchmark.session import BenchmarkConfig, benchmark
from evojax_art.compilation import keep_compiled
from evojax_art.config import RunConfig, parse_flags, with_config
from evojax_art.errors import InputError, suggest
from evojax_art.formula import Expression, FormulaError, parse
from evojax_art.formula_files import read_formulas
from evojax_art.nets.base import find_classes
from evojax_art.nets.weights import DEFAULT, REGISTRY, download, lookup, weights_path
from evojax_art.picture import read_png_text, write_png
from evojax_art.render import Crunch, render_large
from evojax_art.run import run

_OVERVIEW = """\
usage: evojax-art COMMAND [OPTIONS]

Breeds pictures from formulas over quaternions.

commands:
  evolve      breed formulas until a network sees the target
  render      draw formulas, given as text or in files
  nets        list networks and their classes, fetch weights
  benchmark   measure the engine on this machine

evojax-art COMMAND --help explains each.
"""


@dataclass(frozen=True, kw_only=True)
class EvolveCommand:
    """Breed formulas until a network sees the target in the pictures they draw.

    Attributes:
        config: a TOML file with any of these settings; flags override it.
        run: the settings.
    """

    config: Path | None = None
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


@dataclass(frozen=True, kw_only=True)
class RenderCommand:
    """Draw formulas.

    A PNG of ours says what z, crunch and smoothing it was made with; flags override that.

    Attributes:
        inputs: formulas as text, or files of them: a PNG of ours, text (one a line) or JSON.
        out: the PNG, or a folder where there are several formulas; existing files are replaced.
        size: WIDTHxHEIGHT, or one number for a square.
        z: the third coordinate.
        crunch: colours; 1995 is black beyond +-30.
        smooth: the original's plus-shaped blur.
        samples: n by n samples per pixel.
        lenient: read formulas as the 1995 program does, never complaining.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Path = Path("picture.png")
    size: str = "512"
    z: float | None = None
    crunch: Crunch | None = None
    smooth: bool = False
    samples: int = 2
    lenient: bool = False


@dataclass(frozen=True, kw_only=True)
class NetsCommand:
    """List the networks that can judge; with a name, tell about one.

    Attributes:
        name: a network.
        classes: list its classes.
        target: list the classes that this target means.
        download: fetch its published weights into the cache.
    """

    name: tyro.conf.Positional[str] = ""
    classes: bool = False
    target: str = ""
    download: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, or 2 for a mistake in what was given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {
        "evolve": _evolve,
        "render": _render,
        "nets": _nets,
        "benchmark": _benchmark,
    }
    try:
        if not given or given[0] in ("-h", "--help"):
            print(_OVERVIEW, end="")
            return 0 if given else 2
        if given[0] not in commands:
            near = suggest(given[0], commands) or f"; there are {', '.join(commands)}"
            raise InputError(f"unknown command {given[0]!r}{near}")
        commands[given[0]](given[1:])
    except InputError as error:
        print(f"evojax-art: error: {error}", file=sys.stderr)
        return 2
    except SystemExit as exit_:  # help was printed
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `evojax-art nets ... | head`
        sys.stderr.close()
        return 0
    return 0


def _evolve(flags: list[str]) -> None:
    prog = "evojax-art evolve"
    flags = with_config(flags, RunConfig, prog)
    config = parse_flags(EvolveCommand, flags, prog).run
    keep_compiled()
    outcome = run(config)
    print(f"stopped: {outcome.reason}, {outcome.seconds:.0f} s")
    best = outcome.records[-1]
    unseen = lookup(config.net).unseen
    opinion = f"; {unseen}, which it was not bred for: {100 * best.unseen:.3g} %" if unseen else ""
    print(
        f"best: {100 * best.score:.4g} % {' '.join(config.target)}{opinion}; "
        f"noise {best.noise:.3f}\n"
        f"{best.formula}\n"
        f"pictures: {outcome.folder}/records.png, {outcome.folder}/records/"
    )


def _render(flags: list[str]) -> None:
    command = parse_flags(RenderCommand, flags, "evojax-art render")
    keep_compiled()
    width, height = _size(command.size)
    jobs = [job for given in command.inputs for job in _render_jobs(given, command)]
    if not jobs:
        raise InputError("render: give a formula or a file")
    several = len(jobs) > 1
    if several and command.out.suffix and command.out != RenderCommand.out:
        raise InputError(
            f"render: {len(jobs)} formulas cannot go into one file; give a folder with --out"
        )
    folder = Path("pictures") if several and command.out.suffix else command.out
    if several:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write folder {folder}: {error.strerror}") from error
    elif not command.out.parent.is_dir():  # known before the work, not after it
        raise InputError(f"cannot write {command.out}: there is no folder {command.out.parent}")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for number, (expression, look) in enumerate(jobs, 1):
            path = folder / f"{number:04d}.png" if several else command.out
            task = progress.add_task(path.name, total=1.0)
            picture = render_large(
                expression,
                height,
                width,
                samples=command.samples,
                progress_fn=lambda share, task=task: progress.update(task, completed=share),
                **look,
            )
            text = {"formula": expression, "samples": command.samples, **look}
            write_png(path, picture, text)
            progress.remove_task(task)
    print(folder if several else command.out)


def _render_jobs(given: str, command: RenderCommand) -> list[tuple[Expression, dict]]:
    """The formulas of one argument, each with how it wants to look."""
    path = Path(given)
    is_file = path.suffix.lower() in (".png", ".txt", ".json") or (
        len(given) < 256 and path.is_file()
    )
    look = {"z": 0.0, "crunch": "sigmoid", "smooth": False}
    if is_file:
        expressions = read_formulas(path, lenient=command.lenient)
        if path.suffix.lower() == ".png":
            text = read_png_text(path)
            look |= _look_in(text)
    else:
        try:
            expressions = [parse(given, lenient=command.lenient)]
        except FormulaError as error:
            if not re.search(r"[()\s]", given):
                raise InputError(f"{given!r} is no file, and no formula either: {error}") from None
            raise
    if command.z is not None:
        look["z"] = command.z
    if command.crunch is not None:
        look["crunch"] = command.crunch
    look["smooth"] |= command.smooth
    return [(expression, look) for expression in expressions]


def _look_in(text: dict[str, str]) -> dict:
    """z, crunch and smooth as a PNG's text has them; what makes no sense is left out."""
    look = {}
    with_z = re.fullmatch(r"-?[\d.]+(e-?\d+)?", text.get("z", ""))
    if with_z:
        look["z"] = float(text["z"])
    if text.get("crunch") in ("sigmoid", "1995"):
        look["crunch"] = text["crunch"]
    if text.get("smooth") in ("True", "False"):
        look["smooth"] = text["smooth"] == "True"
    return look


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    width, height = (int(part) for part in match.groups(match.group(1))) if match else (0, 0)
    if not (0 < width <= 1 << 16 and 0 < height <= 1 << 16):
        raise InputError(
            f"--size {text}: give WIDTHxHEIGHT or one number, each from 1 to 65536, as in 640x480"
        )
    return width, height


def _nets(flags: list[str]) -> None:
    command = parse_flags(NetsCommand, flags, "evojax-art nets")
    if not command.name:
        for name, entry in REGISTRY.items():
            found = weights_path(name).exists()
            missing = "missing; install again" if entry.embedded else "not downloaded"
            there = "in this package" if entry.embedded else "in the cache"
            mark = " (default)" if name == DEFAULT else ""
            print(f"{name}{mark}: {entry.summary}; {there if found else missing}")
        return
    entry = lookup(command.name)
    if command.download:
        print(download(command.name, progress=True))
        return
    classes, groups = entry.class_names(), entry.groups()
    if command.classes or command.target:
        everything = range(len(classes))
        chosen = find_classes(classes, command.target, groups) if command.target else everything
        group_of = {index: f" ({name})" for name, members in groups.items() for index in members}
        for index in chosen:
            print(f"{index}: {classes[index]}{group_of.get(index, '')}")
        return
    print(f"{command.name}: {entry.summary}\nweights: {weights_path(command.name)}")
    if entry.url:
        print(f"published at: {entry.url}")
    if entry.unseen:
        print(f"unseen judge of what evolves for it: {entry.unseen}")


def _benchmark(flags: list[str]) -> None:
    config = parse_flags(BenchmarkConfig, flags, "evojax-art benchmark")
    benchmark(config)
