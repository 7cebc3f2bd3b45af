"""Formulas in files: text, JSON, and the PNGs that pictures are saved as."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evojax_art.artwork.beside import names_with
from evojax_art.artwork.provenance import read_provenance
from evojax_art.language.formula import Expression, FormulaError, parse
from evojax_art.runtime.errors import InputError


def read_formulas(
    path: Path, *, lenient: bool = False, images: Sequence[str] = ()
) -> list[Expression]:
    """The formulas of a file, at least one.

    Args:
        path: a PNG with a `formula` in its text; JSON: a list of texts, or of objects with a
            `formula`; anything else is text with one formula a line, where empty lines and lines
            that start with `#` do not count.
        lenient: read formulas as the 1995 program does.
        images: names of pictures, slot by slot; behind them come those that a PNG was drawn with
            (`beside.names_with`).

    Raises:
        InputError: unreadable, empty, or with a formula that does not parse; names the place.
    """
    if path.suffix.lower() == ".png":
        provenance = read_provenance(path)
        if not provenance.formula:
            raise InputError(f"{path}: this PNG carries no formula")
        entries = [("", provenance.formula)]
        images = names_with(images, provenance.photographs)
    else:
        try:
            content = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: neither a PNG nor a text file of formulas") from error
        entries = _from_json(path, content) if path.suffix == ".json" else _from_lines(content)
    if not entries:
        raise InputError(f"{path}: holds no formulas")
    return [_parse(path, place, text, lenient, images) for place, text in entries]


def _parse(path: Path, place: str, text: str, lenient: bool, images: Sequence[str]) -> Expression:
    try:
        return parse(text, lenient=lenient, images=images)
    except FormulaError as error:
        raise FormulaError(f"{path}{place}: {error.message}", error.excerpt) from None


def _from_lines(content: str) -> list[tuple[str, str]]:
    lines = enumerate(content.splitlines(), 1)
    return [
        (f", line {number} of the file", line)
        for number, line in lines
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _from_json(path: Path, content: str) -> list[tuple[str, str]]:
    try:
        items: Any = json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    entries = []
    for number, item in enumerate(items if isinstance(items, list) else [items], 1):
        formula = item.get("formula") if isinstance(item, dict) else item
        if not isinstance(formula, str):
            raise InputError(
                f"{path}, item {number}: expected a formula, or an object with a `formula`"
            )
        entries.append((f", item {number}", formula))
    return entries
