"""`evojax-art benchmark` from a checkout: python scripts/benchmark.py --json FILE."""

import sys

from evojax_art.cli.main import main

sys.exit(main(["benchmark", *sys.argv[1:]]))
