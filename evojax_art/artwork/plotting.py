"""How all plots look, and whether there can be any: matplotlib comes with the extra `plot`."""

from importlib.util import find_spec
from typing import Any

from evojax_art.runtime.errors import InputError

INK, FAINT = "#22272e", "#8b949e"
STYLE: Any = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e6ebf0",
}


def has_matplotlib() -> bool:
    """Whether plots can be drawn."""
    return find_spec("matplotlib") is not None


def check_matplotlib() -> None:
    """Finds out before long work whether plots can be drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise InputError("a plot needs matplotlib: pip install 'evojax-art[plot]'")
