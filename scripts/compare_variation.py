"""Which ways to make children win niches: so many children by each, of the elites of a run.

python scripts/compare_variation.py RUN --net squeezenet1_1 efficientnet_lite0 --judged-size 128

RUN is a folder of `illuminate`. Every child is drawn and judged as there, and compared with the
elite of every niche. Prints a line a way: the share of children that would win a niche, niches won
a child, what all niches would gain together, in log-odds a child, and the share of children that
the sieve would leave out.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from evojax_art.language.program import Program, encode, take
from evojax_art.objective.niches import niches_of
from evojax_art.objective.settings import build_objective
from evojax_art.objective.target import TargetConfig, load_judges
from evojax_art.objective.views import ViewsConfig
from evojax_art.render.look import RasterConfig
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.repertoire import read_elites
from evojax_art.runtime.plan import make_plan
from evojax_art.search.breeding import breed, kin_of
from evojax_art.search.illumination import Illumination
from evojax_art.search.sieve import promises
from evojax_art.search.variation import VariationConfig


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--net", nargs="+", default=["cifar100"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--judged-size", type=int, default=0)
    parser.add_argument("--children", type=int, default=768)
    parser.add_argument("--least-step", type=float, default=VariationConfig.least_step)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plan = make_plan()
    wanted = TargetConfig(
        net=tuple(given.net), weights=tuple(given.weights), judged_size=(given.judged_size,)
    )
    nets = load_judges(wanted, plan)
    niches, every = niches_of(nets, wanted, (), ViewsConfig())
    config = IlluminateConfig()
    algorithm = replace(config.map_elites, niches=len(every.groups))
    objective = build_objective(config.objective, niches, niches=niches)
    illumination = Illumination(
        algorithm, nets, niches, objective, RasterConfig(), max_length=config.max_length, plan=plan
    )
    evaluate = jax.jit(
        lambda programs: (
            illumination.evaluator.evaluate_all(
                programs, illumination.params, batch=illumination.batch
            ).scores
        )
    )
    elites = encode([elite.formula for elite in read_elites(given.run)], config.max_length)
    standing = jnp.max(evaluate(elites), axis=0)
    host_key, donor_key, kin_key, key = jax.random.split(jax.random.key(given.seed), 4)
    count, among = given.children, elites.length.shape[0]
    hosts = jax.random.randint(host_key, (count,), 0, among)
    donors = jax.random.randint(donor_key, (count,), 0, among)
    promising = jax.jit(
        lambda made: promises(
            made, take(elites, hosts), illumination.evaluator, illumination.params
        )
    )

    def children(variation: VariationConfig) -> Program:
        bred = jax.jit(lambda key: breed(key, elites, hosts, donors, variation, algorithm.growth))
        return bred(key)[0]

    has_kin = np.asarray(kin_of(kin_key, elites, hosts)[1])
    print(f"{100 * np.mean(has_kin):.1f} % of the hosts have kin; `blend` is of these\n")
    print("| way | children that win | niches won a child | gain a child | left out | nodes |")
    print("|---" * 6 + "|")
    usual = VariationConfig(least_step=given.least_step)
    variations = {
        way: replace(usual, blend=0.0, **{name: float(name == way) for name in usual.weights})
        for way in usual.weights
    }
    variations |= {"blend": replace(usual, blend=1e9), "all, as weighted": usual}
    for way, variation in variations.items():
        shown = has_kin if way == "blend" else np.full(count, True)
        made = children(variation)
        gain = np.maximum(np.asarray(evaluate(made) - standing), 0)[shown]
        print(
            f"| {way} | {100 * np.mean(gain.max(axis=1) > 0):.1f} % | "
            f"{np.sum(gain.max(axis=0) > 0) / len(gain):.3f} | "
            f"{gain.max(axis=0).sum() / len(gain):.4f} | "
            f"{100 * np.mean(~np.asarray(promising(made))[shown]):.1f} % | "
            f"{np.mean(np.asarray(made.length)[shown]):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
