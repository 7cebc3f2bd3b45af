"""`evojax-art polish` from a checkout: python scripts/polish.py best.png --target crab."""

import sys

from evojax_art.cli.main import main

sys.exit(main(["polish", *sys.argv[1:]]))
