"""The one exception that stands for a mistake in what a user gave us."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: a formula, a flag, a file, a target.

    Its text is complete for a person: what is wrong, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean a, b?"` for the known names nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""
