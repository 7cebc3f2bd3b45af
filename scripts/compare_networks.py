"""Networks in native code and in plain JAX, side by side on this CPU.

python scripts/compare_networks.py cifar100 squeezenet1_1 efficientnet_lite0 --sizes 0 160 128

Logits of pictures that lie ready, in turns; medians. Size 0 is the network's own.
"""

import argparse
import sys
import time
from functools import partial

import jax
import numpy as np
from flax import nnx

from evojax_art.nets.base import Staged
from evojax_art.nets.weights import load_net
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import current_plan

IMPLEMENTATIONS = ("native", "xla")


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="+")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0])
    parser.add_argument("--batch", type=int, default=0, help="0: as a run would have it")
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    if odd := [pair for pair in given.weights if "=" not in pair]:
        parser.exit(2, f"--weights {odd[0]}: give NAME=FILE\n")
    files = dict(pair.split("=", 1) for pair in given.weights)
    if current_plan().network_implementation != "native":
        parser.exit(2, "no native code here: it needs a CPU and LLVM\n")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; ms a picture")
    for name in given.nets:
        try:
            net = load_net(name, files.get(name))
        except InputError as error:
            parser.exit(2, f"{error}\n")
        if not isinstance(net, Staged):
            parser.exit(2, f"{name} has no native code\n")
        for size in given.sizes:
            compare(name, net, size or net.size, given.batch, given.repeats)


def compare(name: str, net: Staged, size: int, batch: int, repeats: int) -> None:
    """Prints a line."""
    count = batch or current_plan().batch(size)
    pictures = jax.random.normal(jax.random.key(0), (count, size, size, 3))
    calls, logits = {}, {}
    for implementation in IMPLEMENTATIONS:
        net.implementation = implementation
        graph, weights = nnx.split(net)

        @jax.jit
        def see(weights, pictures, graph=graph):
            return nnx.merge(graph, weights).logits_from_input(pictures)

        calls[implementation] = partial(see, weights, pictures)
        logits[implementation] = np.asarray(calls[implementation]())
    seconds: dict[str, list[float]] = {implementation: [] for implementation in IMPLEMENTATIONS}
    for _ in range(repeats):
        for implementation, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds[implementation].append(time.perf_counter() - began)
    native, xla = (1e3 * np.median(seconds[one]) / count for one in IMPLEMENTATIONS)
    apart = np.abs(logits["native"] - logits["xla"]).max()
    print(
        f"{name} {size}x{size}, {count} at a time: native {native:.2f}, xla {xla:.2f}, ratio "
        f"{xla / native:.2f}; logits differ by {apart:.0e}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
