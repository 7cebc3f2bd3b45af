"""Trains a classifier on CIFAR-100; the weights in evojax_art/nets come from here.

    python scripts/train_classifier.py --config configs/training/cifar100.toml --data FOLDER

Started again with the same --out, it goes on after the last finished epoch. `--report-only` judges
the weights of the package (or of --start) on the test photographs.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from evojax_art.cli.flags import parse_flags
from evojax_art.nets.weights import load_net
from evojax_art.runs.training.photographs import read_photographs
from evojax_art.runs.training.session import judge_report, train
from evojax_art.runs.training.training import TrainingConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import INLINE

_PROG = "train_classifier.py"


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a classifier of 32x32 pictures on CIFAR-100, or go on with a training.

    Attributes:
        data: the photographs: the unpacked Python archive, or mosaics.
        out: folder for checkpoint, weights and report; given again, the training goes on.
        config: a TOML file with any of the settings below; flags override it.
        report_only: do not train; judge the weights of the package, or of --start.
        training: the settings.
    """

    data: Path
    out: Path = Path("runs/training")
    config: Path | None = None
    report_only: bool = False
    training: TrainingConfig = field(default_factory=TrainingConfig, metadata=INLINE)


def main() -> int:
    """Exit status 2 for a mistake in what was given."""
    try:
        command = parse_flags(TrainCommand, sys.argv[1:], _PROG)
        training = command.training
        if command.report_only:
            _, test = read_photographs(command.data)
            report = judge_report(load_net(training.net, training.start), test)
        else:
            report = train(training, command.data, command.out, Console(stderr=True))
    except InputError as error:
        print(f"{_PROG}: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
