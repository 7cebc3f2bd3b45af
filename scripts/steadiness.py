"""Whether the elites of a run stay what they are when they are drawn at other sizes.

python scripts/steadiness.py RUN --net squeezenet1_1 efficientnet_lite0 [--every 5]

RUN is a folder of `illuminate`. Prints for how many classes every network named has the class among
its first five at 128x128, 224x224, 448x448, and at all of these.
"""

import argparse
from pathlib import Path

import numpy as np

from evojax_art.objective.niches import niches_of
from evojax_art.objective.target import TargetConfig, load_judges
from evojax_art.objective.views import ViewsConfig
from evojax_art.runs.repertoire import read_elites
from evojax_art.runs.steadiness import SIZES, kept
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import make_plan


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--net", nargs="+", default=["cifar100"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth class")
    given = parser.parse_args()
    if given.every < 1:
        parser.error(f"--every must be 1 or more, got {given.every}")
    plan = make_plan()
    config = TargetConfig(net=tuple(given.net), weights=tuple(given.weights))
    try:
        elites = read_elites(given.run)[:: given.every]
        nets = load_judges(config, plan)
        niches = niches_of(nets, config, (), ViewsConfig())[1]
        always = np.ones(len(elites), bool)
        for size in SIZES:
            here = kept(elites, nets, niches, plan, sizes=(size,))
            always &= here
            print(f"{size}x{size}: {100 * here.mean():.1f} % of {len(elites)} classes", flush=True)
    except InputError as error:
        parser.error(str(error))
    print(f"at all of these: {100 * always.mean():.1f} %")


if __name__ == "__main__":
    main()
