"""`python -m evojax_art`: the command line, where its program is not on the PATH."""

import sys

from evojax_art.cli.main import main

sys.exit(main())
