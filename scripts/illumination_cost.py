"""What illumination costs beside plain evolution: generations of both, in turn, on the same device.

python scripts/illumination_cost.py [--net cifar100] [--judged-size 0] [--rounds 15]

Both breed 256 children a generation from formulas of the same starters, of the operators of 2015,
all judged: without the sieve, which either can have.
"""

import argparse
import time

import jax
import numpy as np

from evojax_art.objective.niches import niches_of
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.objective.target import TargetConfig, load_judges, target_of
from evojax_art.objective.views import ViewsConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.plan import make_plan
from evojax_art.search.generation import Evolution
from evojax_art.search.genetic import Genetic
from evojax_art.search.illumination import Illumination
from evojax_art.search.map_elites import MapElites
from evojax_art.search.variation import GrowthConfig

_CHILDREN = 256


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", nargs="+", default=["cifar100"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--judged-size", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    plan = make_plan()
    config = TargetConfig(
        net=tuple(given.net), weights=tuple(given.weights), judged_size=(given.judged_size,)
    )
    nets = load_judges(config, plan)
    target = target_of(nets, config, None, ViewsConfig())
    niches, every = niches_of(nets, config, (), ViewsConfig())
    plain = Evolution(
        Genetic(offspring=_CHILDREN, population=len(every.groups)),
        nets,
        target,
        ObjectiveConfig(),
        RasterConfig(),
        plan=plan,
    )
    illumination = Illumination(
        MapElites(
            offspring=_CHILDREN, niches=len(every.groups), surplus=0.0, growth=GrowthConfig()
        ),
        nets,
        niches,
        build_objective(ObjectiveConfig(), niches, niches=niches),
        RasterConfig(),
        plan=plan,
    )
    states = [plain.init(jax.random.key(0)), illumination.init(jax.random.key(0))]
    times: list[list[float]] = [[], []]
    lengths = [0.0, 0.0]
    for number in range(1, given.rounds + 9):  # starters and compilation are over by then
        for which in (0, 1):
            began = time.perf_counter()
            if which == 0:
                states[0], summary = jax.block_until_ready(plain.step(states[0]))
            else:
                states[1], passed = jax.block_until_ready(illumination.step(states[1], number))
            if number > 8:
                times[which].append(time.perf_counter() - began)
        lengths = [float(summary.mean_length), float(passed.measures.mean_length)]
    evolved, illuminated = (float(np.median(seconds)) for seconds in times)
    print(
        f"{plan.device_kind}, {' '.join(given.net)}, {len(every.groups)} niches, {_CHILDREN} "
        f"children, medians of {given.rounds} generations in turn: evolution {evolved:.3f} s, "
        f"illumination {illuminated:.3f} s, {100 * (illuminated / evolved - 1):+.1f} %; at the end "
        f"formulas have {lengths[0]:.0f} and {lengths[1]:.0f} nodes"
    )


if __name__ == "__main__":
    main()
