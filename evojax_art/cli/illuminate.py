"""`evojax-art illuminate`."""

from dataclasses import dataclass, field
from pathlib import Path

from evojax_art.cli.flags import parse_flags
from evojax_art.cli.gallery import write_gallery
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.illuminate import illuminate as run
from evojax_art.runtime.cache import keep_compiled
from evojax_art.runtime.tables import INLINE


@dataclass(frozen=True, kw_only=True)
class IlluminateCommand:
    """Breed the best formula for every class of a network, all at once.

    Attributes:
        config: a TOML file with any of these settings; flags override it.
        run: the settings.
    """

    config: Path | None = None
    run: IlluminateConfig = field(default_factory=IlluminateConfig, metadata=INLINE)


def illuminate(flags: list[str]) -> None:
    """The command."""
    config = parse_flags(IlluminateCommand, flags, "evojax-art illuminate").run
    keep_compiled()
    outcome = run(config)
    found = outcome.measures
    print(
        f"stopped: {outcome.reason}, {outcome.formulas} formulas, {outcome.seconds:.0f} s\n"
        f"niches: {int(found.niches)} filled, median {100 * float(found.median):.3g} %, "
        f"{int(found.above_half)} above 50 %, {int(found.above_99)} above 99 %"
    )
    for name, (first, five) in outcome.agreed.items():
        print(f"{name}, which had no say: {100 * first:.1f} % first, {100 * five:.1f} % among 5")
    if not found.niches:
        print("no formula was valid: breed for longer, or lower objective.contrast_gate")
        return
    print(f"pictures: {outcome.folder}/elites.png, formulas: {outcome.folder}/elites.jsonl")
    if config.gallery:
        page = outcome.folder / "gallery.html"
        write_gallery([outcome.folder], page, outcome.folder.resolve().name, config.gallery)
        print(f"gallery, to be opened in a browser: {page.resolve()}")
