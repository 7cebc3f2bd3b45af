"""What several commands print."""

import sys

from evojax_art.language.formula import Expression

_LONGEST = 1200  # characters, on a terminal; about twelve lines


def print_formula(formula: Expression) -> None:
    """Prints a formula: whole to a file or a pipe, the beginning of a long one to a terminal."""
    text = str(formula)
    if sys.stdout.isatty() and len(text) > _LONGEST:
        beginning = text[:_LONGEST].rsplit(" ", 1)[0]
        text = f"{beginning} ... ({len(formula)} nodes; the picture has all of them)"
    print(text)
