"""The ancestors of an elite, read from `lineage.jsonl` (format: `runs.repertoire`)."""

from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import read_json_lines


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One formula of a chain.

    Attributes:
        id: GENERATION.NUMBER.
        formula: what it draws with.
        won: classes that it took.
        of: the class whose elite its host was; None where it had none.
        host: id of that; empty where it had none.
    """

    id: str
    formula: str
    won: tuple[int, ...]
    of: int | None
    host: str


def read_lineage(folder: Path) -> dict[str, Ancestor]:
    """Everybody in the lineage of a run, by id.

    Raises:
        InputError: no lineage there, or a line that is none.
    """
    path = folder / "lineage.jsonl"

    def ancestor(row: Any) -> Ancestor:
        return Ancestor(
            id=str(row["id"]),
            formula=str(row["formula"]),
            won=tuple(index(won) for won in row["won"]),
            of=index(row["of"][0]) if row["of"] else None,
            host=str(row["parents"][0]) if row["parents"] else "",
        )

    everybody = read_json_lines(path, ancestor, "no line of a lineage")
    return {one.id: one for one in everybody}


def hosts(kin: dict[str, Ancestor], id: str) -> list[Ancestor]:
    """The chain of hosts that leads to an individual, the eldest first, itself the last.

    Raises:
        InputError: nobody of that id.
    """
    if id not in kin:
        raise InputError(f"lineage: there is nobody of id {id}")
    chain, seen = [kin[id]], {id}
    while chain[-1].host in kin and chain[-1].host not in seen:  # a damaged file may go round
        chain.append(kin[chain[-1].host])
        seen.add(chain[-1].id)
    return chain[::-1]


def bred_as(chain: list[Ancestor], last: int) -> list[int | None]:
    """The class that each of a chain was the elite of when it bred; of the last, that it is now.

    What an ancestor was is said by its child.
    """
    return [child.of for child in chain[1:]] + [last]
