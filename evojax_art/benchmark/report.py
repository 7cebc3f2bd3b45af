"""Figures as tables for people and as JSON for programs."""

from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from evojax_art.benchmark.floors import Floors
from evojax_art.benchmark.parts import Row
from evojax_art.benchmark.sweeps import Sweep


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that a benchmark found.

    Attributes:
        machine: see `machine.describe_machine`.
        subject: what it was measured on, by name.
        floors: the device's rates.
        rows: the parts.
        shares: of a generation's time, by part.
        sweeps: in the order they were asked for.
        seconds: that all of it took.
    """

    machine: dict[str, Any]
    subject: dict[str, Any]
    floors: Floors
    rows: list[Row]
    shares: dict[str, float]
    sweeps: list[Sweep]
    seconds: float

    def figures(self) -> dict[str, Any]:
        """As they go into JSON."""
        return {
            **self.machine,
            **self.subject,
            "seconds": round(self.seconds, 1),
            "floors": asdict(self.floors),
            "rows": [asdict(row) for row in self.rows],
            "shares_of_generation": self.shares,
            "sweeps": [asdict(sweep) for sweep in self.sweeps],
        }


def print_report(console: Console, results: Results) -> None:
    """The rows, and one table a sweep."""
    if results.rows:
        console.print(_rows_table(results))
    else:
        console.print(title(results), highlight=False)
    console.print(_limits_line(results.floors), style="dim", highlight=False)
    fewer = [
        f"{row.part} {row.formulas:,}"
        for row in results.rows
        if row.formulas < results.subject["population"]
    ]
    if fewer:
        line = f"* measured on fewer formulas, for want of time or memory: {', '.join(fewer)}."
        console.print(line, style="dim", highlight=False)
    for sweep in results.sweeps:
        console.print()
        console.print(_sweep_table(sweep))
        for value, reason in sweep.left_out.items():
            console.print(f"left out: {sweep.axis} {value:,}: {reason}", highlight=False)


def title(results: Results) -> str:
    """Two lines: what was measured, and on what."""
    subject, machine = results.subject, results.machine
    samples = f", {subject['samples']}x{subject['samples']} samples a pixel"
    cores = f", {machine['cpus']} cores" if machine["platform"] == "cpu" else ""
    commit = f" {machine['commit']}" if machine["commit"] else ""
    return (
        f"{subject['population']:,} formulas of {subject['mean_nodes']:.1f} nodes, "
        f"{subject['size']}x{subject['size']}{samples if subject['samples'] > 1 else ''}, "
        f"network {subject['net']} ({subject['dtype']})\n"
        f"{machine['device']}{cores}, jax {machine['jax']}, evojax_art "
        f"{machine['evojax_art']}{commit}{' modified' if machine['modified'] else ''}"
    )


def _rows_table(results: Results) -> Table:
    table = Table(title=title(results), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ("part", "formulas/s", "node-pixels/s", "floor", "share", "compile s", "MB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "part" else "right", no_wrap=True)
    shares = results.shares
    for row in results.rows:
        table.add_row(
            f"{row.part}{'*' if row.formulas < results.subject['population'] else ''}",
            short(row.formulas_per_second),
            f"{row.node_pixels_per_second:.2e}" if row.node_pixels_per_second else "",
            _percent(row.floor_share),
            _percent(shares.get(row.part)),
            f"{row.compile_seconds:.2f}",
            _megabytes(row.memory_bytes),
        )
    if shares:
        table.add_row("rest", "", "", "", _percent(shares["rest"]), "", "")
    return table


def _sweep_table(sweep: Sweep) -> Table:
    growth = sweep.growth
    table = Table(
        title=f"{sweep.part} by {sweep.axis}",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in (sweep.axis, "us/formula", f"relative per {sweep.unit}", "compile s", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    units = {point.value: point.seconds_per_unit for point in sweep.points}
    for point in sweep.points:
        table.add_row(
            f"{point.value:,}",
            short(1e6 * point.seconds_per_formula),
            f"{point.seconds_per_unit / units[growth.start]:.2f}" if growth else "",
            f"{point.compile_seconds:.2f}",
            _megabytes(point.memory_bytes),
        )
    if growth:
        table.caption = (
            f"time per {sweep.unit} at {growth.to:,} over that at {growth.start:,}: "
            f"{growth.ratio:.2f}"
        )
    return table


def _limits_line(floors: Floors) -> str:
    rates = [f"copy {floors.bytes_per_second / 1e9:,.0f} GB/s"]
    for name, rate in floors.flops_per_second.items():
        rates.append(f"{name.replace('_', ' ')} product {rate / 1e9:,.0f} GFLOP/s")
    return (
        f"Measured limits: {', '.join(rates)}. Floor: the time that a part needs at these, by the "
        "time it took. Share: of a generation. MB: of the largest compiled call."
    )


def short(value: float) -> str:
    """A number of three digits or more, for people."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.1e}"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _megabytes(count: float | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:,.0f}" if count >= 1e7 else f"{max(0.1, count / 1e6):.1f}"
