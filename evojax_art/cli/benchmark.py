"""`evojax-art benchmark`."""

from evojax_art.benchmark.session import BenchmarkConfig
from evojax_art.benchmark.session import benchmark as run_benchmark
from evojax_art.cli.flags import parse_flags


def benchmark(flags: list[str]) -> None:
    """The command."""
    run_benchmark(parse_flags(BenchmarkConfig, flags, "evojax-art benchmark"))
