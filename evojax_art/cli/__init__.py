"""The command line: a module for each command; `main` finds them.

May import everything.
"""

from evojax_art.cli.main import main

__all__ = ["main"]
