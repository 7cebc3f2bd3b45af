"""A run's configuration: frozen dataclasses, TOML files, and flags that override them.

A config file holds the same names as the flags, in tables: `genetic.population = 256` stands for
`--genetic.population 256`. It is turned into flags and read by the same parser, so there is one
place where values are checked.
"""

import contextlib
import dataclasses
import io
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

import tomli_w
import tyro

from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.target import TargetConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.search.genetic import Genetic
from evojax_art.search.memetic import MemeticConfig
from evojax_art.search.mount2015 import Mount2015

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunConfig(TargetConfig):
    """One evolution.

    Attributes:
        dtype: of the network's arithmetic.
        seed: same seed, same run (on the same device).
        formulas: how many to score before stopping.
        minutes: stop after this many minutes; 0 for no limit.
        stop_score: stop when a formula reaches this score, for classes a probability; inf for
            never.
        max_length: longest formula, in nodes.
        seeds: formulas to start from: a text file (one a line) or JSON; by default random ones.
        start_from: a photograph to start from: formulas may read it, half of the first ones are
            variations of it (unless there are seeds), and `objective.near` keeps near it.
        image: NAME=FILE: a photograph that formulas may read as the leaf NAME, NAME:whole=FILE for
            all of it within the picture; up to four such flags.
        out: folder for the results, new or empty; by default runs/TARGET-SEED.
        record_size: height and width of the pictures of new bests.
        record_samples: n by n samples per pixel of those pictures.
        record_step: a new best is drawn when its log-odds (of a layer's score, its logarithm) are
            this far from those of the last one drawn; 0 draws all. The last best is always drawn.
        batch: formulas rendered and judged at a time; 0 chooses by device.
        algorithm: which one; its settings are in the table of its name.
        scene: the pictures that are judged.
        objective: how fitness is composed.
        genetic: settings of the genetic algorithm.
        mount2015: settings of the 2015 experiment.
        polish: whether the best are polished by gradient now and then.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    formulas: int = 50_000
    minutes: float = 0.0
    stop_score: float = math.inf
    max_length: int = 128
    seeds: Path | None = None
    start_from: Path | None = None
    image: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    out: Path | None = None
    record_size: int = 448
    record_samples: int = 2
    record_step: float = 0.2
    batch: int = 0
    algorithm: Literal["genetic", "mount2015"] = "genetic"
    scene: RasterConfig = field(default_factory=RasterConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    genetic: Genetic = field(default_factory=Genetic)
    mount2015: Mount2015 = field(default_factory=Mount2015)
    polish: MemeticConfig = field(default_factory=MemeticConfig)

    def __post_init__(self):
        super().__post_init__()
        for name in ("formulas", "record_size", "record_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.max_length < 3:
            raise InputError(f"max_length must be 3 or more, got {self.max_length}")
        for name in ("minutes", "batch", "record_step"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be 0 to {2**32 - 1}, got {self.seed}")
        if self.algorithm == "mount2015" and self.objective.scale != "probability":
            raise InputError(
                "algorithm mount2015 compares plain scores: set objective.scale to probability"
            )
        if self.algorithm == "mount2015" and self.layer:
            raise InputError("algorithm mount2015 compares probabilities: give a target, no layer")
        if self.algorithm == "mount2015" and self.start_from:
            raise InputError("algorithm mount2015 cannot keep near a picture: leave out start_from")

    def scored_in(self, generation: int) -> int:
        """Formulas that a generation, counted from 1, evaluates; a step of polish is one."""
        every = self.polish.every
        polished = self.polish.evaluations if every and generation % every == 0 else 0
        return self.chosen_algorithm.num_offspring + polished

    @property
    def chosen_algorithm(self) -> Genetic | Mount2015:
        """The settings of the algorithm that `algorithm` names."""
        return self.genetic if self.algorithm == "genetic" else self.mount2015


def parse_flags(cls: type[T], flags: Sequence[str], prog: str, source: str = "") -> T:
    """A dataclass from command-line flags.

    Args:
        cls: a dataclass with an `Attributes:` section in its docstring, which becomes the help.
        flags: arguments.
        prog: the command, for help.
        source: a file that the flags stand for, named in errors.

    Raises:
        InputError: one line, whatever is wrong.
        SystemExit: after printing help.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, args=list(flags), prog=prog)
    except SystemExit as exit_:
        if not exit_.code:
            raise
    place = f"{source}: " if source else ""
    raise InputError(f"{place}{_one_line(complaint.getvalue())} (see {prog} --help)")


def read_config(path: Path, cls: type = RunConfig, prog: str = "evojax-art evolve") -> list[str]:
    """The flags that a config file stands for.

    Args:
        path: the file.
        cls: the dataclass that its keys are of.
        prog: the command that takes the flags.

    Raises:
        InputError: unreadable, not TOML, or with a key that does not exist or a value of no use.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    flags = list(_flags(cls, table, str(path), ""))
    parse_flags(cls, flags, prog, str(path))  # to name the file in errors
    return flags


def with_config(flags: list[str], cls: type, prog: str) -> list[str]:
    """The same flags behind those that their `--config FILE` stands for, so that they override.

    Raises:
        InputError: as `read_config`; `--config` without a file.
    """
    position = next((n for n, flag in enumerate(flags) if re.match(r"--config(=|$)", flag)), None)
    if position is None:
        return flags
    _, equals, name = flags[position].partition("=")
    if not equals and position + 1 == len(flags):
        raise InputError(f"--config needs a file (see {prog} --help)")
    return read_config(Path(name if equals else flags[position + 1]), cls, prog) + flags


def config_text(config: Any, comment: str) -> str:
    """A config as a TOML file that `read_config` takes, under a line of comment."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            settings = (f.name for f in dataclasses.fields(value) if "set_by_run" not in f.metadata)
            items = {name: plain(getattr(value, name)) for name in settings}
            return {name: item for name, item in items.items() if item is not None}
        return str(value) if isinstance(value, Path) else value

    return f"# {comment}\n{tomli_w.dumps(plain(config))}"


def _flags(cls: type, table: Mapping[str, Any], source: str, prefix: str) -> Iterator[str]:
    known = {item.name: item for item in dataclasses.fields(cls)}
    for key, value in table.items():
        if key not in known:
            near = suggest(key, known) or f"; there are {', '.join(known)}"
            raise InputError(f"{source}: unknown key {prefix}{key}{near}")
        factory = known[key].default_factory
        is_table = dataclasses.is_dataclass(known[key].type) or isinstance(factory, type)
        if is_table != isinstance(value, Mapping):
            raise InputError(
                f"{source}: {prefix}{key} must be {'a table' if is_table else 'a plain value'}"
            )
        if isinstance(value, bool) != (known[key].type is bool):
            negation = "" if known[key].type is bool else "not "
            raise InputError(f"{source}: {prefix}{key} must {negation}be true or false")
        if isinstance(value, list) and not isinstance(known[key].default, tuple):
            raise InputError(f"{source}: {prefix}{key} must be one value, not a list")
        flag = f"--{prefix}{key}".replace("_", "-")
        if isinstance(value, Mapping):
            yield from _flags(known[key].type, value, source, f"{prefix}{key}.")  # pyright: ignore
        elif isinstance(value, bool):
            head, _, name = flag.rpartition(".")
            no_flag = f"{head}.no-{name}" if head else f"--no-{name[2:]}"
            yield flag if value else no_flag
        elif isinstance(value, list) and get_origin(known[key].type) is Annotated:
            for item in value:  # the flag is given several times
                yield from (flag, str(item))
        else:
            yield flag
            yield from map(str, value if isinstance(value, list) else [value])


def _one_line(complaint: str) -> str:
    """The message of tyro's boxed report, with the first name it suggests."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", complaint)
    lines = [re.sub(r"^-+$", "", line.strip("│╭╮╰╯|+─ ")) for line in text.splitlines()]
    body = lines[lines.index(next(filter(None, lines), "")) + 1 :]  # below the title
    start = next((n for n, line in enumerate(body) if line), 0)
    end = next((n for n, line in enumerate(body[start:], start) if not line), len(body))
    message = re.sub(r"^Error parsing [\w.]+: ", "", " ".join(body[start:end]))
    if "Perhaps you meant:" in body:
        message += f"; did you mean {body[body.index('Perhaps you meant:') + 1]}?"
    return message or complaint.strip()
