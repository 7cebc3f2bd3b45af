"""`evojax-art evolve`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from evojax_art.nets.registry import lookup
from evojax_art.runs.config import RunConfig, parse_flags, with_config
from evojax_art.runs.evolve import run
from evojax_art.runtime.cache import keep_compiled


@dataclass(frozen=True, kw_only=True)
class EvolveCommand:
    """Breed formulas until a network sees the target in the pictures they draw.

    Attributes:
        config: a TOML file with any of these settings; flags override it.
        run: the settings.
    """

    config: Path | None = None
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)


def evolve(flags: list[str]) -> None:
    """The command."""
    prog = "evojax-art evolve"
    flags = with_config(flags, RunConfig, prog)
    config = parse_flags(EvolveCommand, flags, prog).run
    keep_compiled()
    outcome = run(config)
    print(f"stopped: {outcome.reason}, {outcome.seconds:.0f} s")
    best = outcome.records[-1]
    unseen = "" if config.layer else lookup(config.net).unseen
    opinion = f"; {unseen}, which it was not bred for: {100 * best.unseen:.3g} %" if unseen else ""
    print(
        f"best: {outcome.goal.text(best.score)} {config.wanted}{opinion}; "
        f"noise {best.noise:.3f}\n"
        f"{best.formula}\n"
        f"pictures: {outcome.folder}/records.png, {outcome.folder}/records/"
    )
