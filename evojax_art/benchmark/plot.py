"""One figure of a benchmark: rows as bars, a generation's shares, sweeps as lines."""

from pathlib import Path
from typing import Any

from evojax_art.artwork.plotting import FAINT, INK, STYLE
from evojax_art.benchmark.parts import GENERATION, LOWERING, RENDERING
from evojax_art.benchmark.report import Results, short, title
from evojax_art.benchmark.sweeps import Sweep
from evojax_art.runtime.files import written_whole

_PALE = "#d5dee8"
_COLOURS = {RENDERING: "#1f6f8b", GENERATION: "#c8553d"}
_OTHER = "#5b7f95"
_LIMITS = {LOWERING: 0.05, RENDERING: 0.25}  # of a generation: beyond it they are in the way
_AXIS_LABELS = {
    "population": "formulas at once",
    "size": "pixels along a side",
    "length": "nodes of each formula",
}


def write_plot(path: Path, results: Results) -> None:
    """Draws the results into a PNG, written whole.

    Raises:
        InputError: the place cannot be written.
    """
    # Here, because importing it takes longer than most commands; and without pyplot, which keeps
    # figures and looks for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    axes_of = {
        axis: [sweep for sweep in results.sweeps if sweep.axis == axis]
        for axis in dict.fromkeys(sweep.axis for sweep in results.sweeps if sweep.points)
    }
    with matplotlib.rc_context(STYLE):
        num_bands = bool(results.rows) + bool(axes_of)
        figure = Figure(figsize=(12.5, 0.6 + 4.1 * num_bands), dpi=140, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.07)  # pyright: ignore
        first, second = title(results).splitlines()
        figure.suptitle(first, x=0.012, ha="left", fontsize=13, fontweight="bold")
        bands = list(figure.subfigures(num_bands, 1, squeeze=False)[:, 0])
        bands[0].suptitle(second, x=0.012, ha="left", fontsize=9.5, color=FAINT)
        if results.rows:
            rates, shares = bands.pop(0).subplots(1, 2, width_ratios=(3, 2))
            _draw_rates(rates, results)
            _draw_shares(shares, results)
        if axes_of:
            panels = bands.pop(0).subplots(1, len(axes_of), squeeze=False)[0]
            for panel, sweeps in zip(panels, axes_of.values(), strict=True):
                _draw_sweeps(panel, sweeps)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", facecolor="white")


def _draw_rates(axes: Any, results: Results) -> None:
    """Formulas per second by part, over the pale bar of what the device could do."""
    rows = results.rows[::-1]
    names = [row.part for row in rows]
    rates = [row.formulas_per_second for row in rows]
    limits = [row.formulas / row.floor_seconds if row.floor_seconds else None for row in rows]
    least = min(rates) / 4
    for name, limit in zip(names, limits, strict=True):
        if limit:
            axes.barh(name, limit - least, left=least, height=0.62, color=_PALE)
    colours = [_COLOURS.get(name, _OTHER) for name in names]
    widths = [rate - least for rate in rates]
    axes.barh(names, widths, left=least, height=0.62, color=colours)
    for row, rate in zip(rows, rates, strict=True):
        share = f", {100 * row.floor_share:.2g} % of the limit" if row.floor_share else ""
        inside = rate / least > 40
        axes.annotate(
            f"{short(rate)}/s{share}",
            (rate, row.part),
            xytext=(-6 if inside else 6, 0),
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else INK,
            fontsize=8.5,
        )
    axes.set_xscale("log")
    axes.set_xlim(least, max([*rates, *filter(None, limits)]) * 2)
    axes.set_title("Formulas per second")
    axes.set_xlabel("pale: what the device could do, by its copying and its matrix products")
    axes.tick_params(axis="y", length=0)


def _draw_shares(axes: Any, results: Results) -> None:
    """Of a generation's time, by part, with the limits that two parts have."""
    shares = dict(reversed(results.shares.items()))
    axes.set_title("Share of a generation's time")
    axes.set_xlabel("percent; each part measured on its own")
    axes.tick_params(axis="y", length=0)
    for part, share in shares.items():
        limit = _LIMITS.get(part, 2.0)
        over = share > limit
        beside = limit if share <= limit < share + 0.12 else share  # clear of the limit's mark
        axes.barh(part, 100 * share, height=0.62, color=_COLOURS.get(part, _OTHER))
        axes.annotate(
            f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %",
            (100 * beside, part),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=_COLOURS[GENERATION] if over else INK,
            fontweight="bold" if over else "normal",
        )
        if part in _LIMITS:
            height = list(shares).index(part)
            axes.plot([100 * limit] * 2, [height - 0.42, height + 0.42], color=INK, linewidth=1.6)
    axes.set_xlim(0, max(100.0, 115 * max(shares.values(), default=0.0)))


def _draw_sweeps(axes: Any, sweeps: list[Sweep]) -> None:
    """Time per formula along one axis, log-log, and the memory it takes."""
    from matplotlib.ticker import LogLocator

    axis = sweeps[0].axis
    memory_axes = axes.twinx()
    memory_axes.set_yscale("log")
    memory_axes.spines["right"].set_visible(False)
    for sweep in sweeps:
        colour = _COLOURS.get(sweep.part, _OTHER)
        values = [point.value for point in sweep.points]
        times = [1e6 * point.seconds_per_formula for point in sweep.points]
        memory = [(point.memory_bytes or 0.0) / 1e6 for point in sweep.points]
        axes.plot(values, times, color=colour, marker="o", markersize=5, linewidth=2)
        label = sweep.part
        if sweep.growth:
            growth = sweep.growth
            label += f": x{growth.ratio:.2f} per {sweep.unit} from {growth.start:,}"
        axes.plot([], [], color=colour, marker="o", markersize=5, linewidth=2, label=label)
        if all(memory):
            memory_axes.plot(values, memory, color=colour, linewidth=1, linestyle=":")
    axes.plot([], [], color=FAINT, linewidth=1, linestyle=":", label="memory, MB (right)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({point.value for sweep in sweeps for point in sweep.points})
    axes.set_xticks(ticks, [f"{value:,}" for value in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.set_xlabel(_AXIS_LABELS[axis])
    axes.set_title(f"Microseconds per formula by {axis}")
    axes.grid(True, which="major")
    for each in (axes, memory_axes):
        each.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.5, high * 3.5)  # room for the legend
    low, high = memory_axes.get_ylim()
    memory_axes.set_ylim(low / 1.5, high * 30)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
