"""A run of illumination as one figure: how sure of every class, and how that came about."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evojax_art.artwork.plotting import FAINT, INK, STYLE
from evojax_art.runs.repertoire import Elite
from evojax_art.runtime.files import written_whole

_OURS, _MEAN = "#1f6f8b", "#7fb2c4"
_UNSEEN = ("#c8553d", "#8a6bb1", "#5f8f4e")


def write_curves(folder: Path, elites: Sequence[Elite]) -> None:
    """Draws `curves.png` from a run's `metrics.jsonl` and its elites.

    Args:
        folder: of the run.
        elites: of all places, in any order.
    """
    # See `benchmark.plot` for why here.
    import matplotlib
    from matplotlib.figure import Figure

    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), dpi=140, layout="constrained")
        ranked, over_time = figure.subplots(1, 2)
        _draw_ranked(ranked, elites)
        _draw_over_time(over_time, rows)
        for axes in (ranked, over_time):
            axes.set_ylim(0, 102)
            axes.grid(visible=True, axis="y")
        with written_whole(folder / "curves.png") as temporary:
            figure.savefig(temporary, format="png", facecolor="white")


def _draw_ranked(axes: Any, elites: Sequence[Elite]) -> None:
    """Every class, the surest first: the judges' confidence, and what others say of the same."""
    ordered = sorted(elites, key=lambda elite: -elite.confidence)
    place = np.arange(1, len(ordered) + 1)
    for colour, name in zip(_UNSEEN, _names(ordered), strict=False):
        said = [elite.unseen[name][0] for elite in ordered]
        known = [(n, 100 * p) for n, p in zip(place, said, strict=True) if p is not None]
        axes.scatter(*zip(*known, strict=True), s=5, color=colour, alpha=0.45, linewidths=0)
        axes.scatter([], [], s=16, color=colour, label=f"{name}, unseen")
    confidences = [100 * elite.confidence for elite in ordered]
    axes.plot(place, confidences, color=_OURS, linewidth=2, label="the judges")
    axes.set_title("How sure of every class, %")
    axes.set_xlabel("elites, the surest first")
    axes.set_xlim(1, max(2, len(ordered)))
    axes.legend(frameon=False, fontsize=8.5, loc="upper right")


def _draw_over_time(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Median and mean, and in how many cases others agree."""
    formulas = [row["formulas"] for row in rows]
    for name, colour in (("median", _OURS), ("mean", _MEAN)):
        axes.plot(formulas, [100 * row[name] for row in rows], color=colour, linewidth=2)
        axes.plot([], [], color=colour, linewidth=2, label=f"{name} confidence of the judges")
    asked = [row for row in rows if row["unseen"]]
    for colour, name in zip(_UNSEEN, asked[-1]["unseen"] if asked else (), strict=False):
        shares = [100 * row["unseen"][name]["top5"] for row in asked]
        label = f"among the first five of {name}, unseen"
        at = [row["formulas"] for row in asked]
        axes.plot(at, shares, color=colour, marker="o", markersize=4, label=label)
    axes.set_title("How it came about, %")
    axes.set_xlabel("formulas")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, edgecolor=FAINT, loc="upper left")


def _names(elites: Sequence[Elite]) -> Sequence[str]:
    return list(elites[0].unseen) if elites else []
