"""Rewrites the generated part of the README: python scripts/update_readme.py.

The operator table comes from the op table; a test checks that the README is up to date.
"""

from pathlib import Path

from evojax_art.language.ops import BY_NAME

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- operators: scripts/update_readme.py -->", "<!-- end of operators -->"


def operator_table() -> str:
    """The operators as a Markdown table, in opcode order."""
    rows = ["| name | operands | value |", "|---|---|---|"]
    rows += [f"| `{op.name}` | {op.arity} | {op.summary} |" for op in BY_NAME.values()]
    return "\n".join(rows)


def updated(readme: str) -> str:
    """The README with a fresh table.

    Raises:
        ValueError: a marker is missing.
    """
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{README} lacks the markers of the operator table")
    return f"{before}{BEGIN}\n\n{operator_table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
