"""`evojax-art illuminate` from a checkout: python scripts/illuminate.py --minutes 2."""

import sys

from evojax_art.cli.main import main

sys.exit(main(["illuminate", *sys.argv[1:]]))
