"""`evojax-art evolve`."""

from dataclasses import dataclass, field
from pathlib import Path

from evojax_art.cli.flags import parse_flags
from evojax_art.cli.outputs import print_formula
from evojax_art.runs.evolve import run
from evojax_art.runs.settings import RunConfig
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.tables import INLINE


@dataclass(frozen=True, kw_only=True)
class EvolveCommand:
    """Breed formulas until a network sees the target in the pictures they draw.

    Attributes:
        config: a TOML file with any of these settings; flags override it.
        run: the settings.
    """

    config: Path | None = None
    run: RunConfig = field(default_factory=RunConfig, metadata=INLINE)


def evolve(flags: list[str]) -> None:
    """The command."""
    config = parse_flags(EvolveCommand, flags, "evojax-art evolve").run
    keep_compiled()
    outcome = run(config)
    print(f"stopped: {outcome.reason}, {outcome.seconds:.0f} s")
    if not outcome.records:
        print(f"no formula was valid: see objective.noise_gate\nfolder: {outcome.folder}")
        return
    best = outcome.records[-1]
    judged = "".join(f"; {name}: {outcome.target.text(by)}" for name, by in best.judges.items())
    unseen = "".join(
        f"; {name}, which it was not bred for: {100 * by:.3g} %" for name, by in best.unseen.items()
    )
    # Classes by their names: what was typed may have been read as another than was meant.
    wanted = config.target.words if config.target.layer else outcome.target.name
    print(
        f"best: {outcome.target.text(best.score)} {wanted}{judged}{unseen}; noise {best.noise:.3f}"
    )
    print_formula(best.formula)
    print(f"pictures: {outcome.folder}/records.png, {outcome.folder}/records/")
