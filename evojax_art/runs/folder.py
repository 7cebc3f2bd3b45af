"""The folder of a run.

config.toml      the configuration, as `evolve --config` takes it
metrics.jsonl    a line per generation: scores, fitness, nodes, formulas, and the seconds that had
                 passed when the host learnt of it; null where there is no finite number
records/         the new bests: PNGs with formula, score, seed and generation inside
records.png      the records side by side
photographs/     copies of what formulas read, and of the guide, where the pictures find them
best.png         the last record
best.txt         its formula
population.txt   the surviving formulas, best first, as `evolve --seeds` takes them
"""

import re
from pathlib import Path

from evojax_art.runs.settings import RunConfig
from evojax_art.runtime.errors import InputError

_LONGEST = 60  # letters of a name; of 4 bytes each they fit every file system


def make_folder(given: Path | None, words: str) -> Path:
    """A new or empty folder.

    Args:
        given: which; None makes one among `runs`.
        words: what it is named after.

    Raises:
        InputError: there is something in it, or it cannot be written.
    """
    folder = given or _unused(Path("runs") / words)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"run folder {folder} is not empty; give another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write run folder {folder}: {error.strerror}; give another one with --out"
        ) from error
    return folder


def name_of(config: RunConfig) -> str:
    """What the folder of a run is named after: its target and seed."""
    name = re.sub(r"\W+", "-", config.target.words)[:_LONGEST].strip("-") or "run"
    return f"{name}-{config.seed}"


def _unused(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
