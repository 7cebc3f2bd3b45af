"""`evojax-art evolve` from a checkout: python scripts/evolve.py --target crab."""

import sys

from evojax_art.cli.main import main

sys.exit(main(["evolve", *sys.argv[1:]]))
