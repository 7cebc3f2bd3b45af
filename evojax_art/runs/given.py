"""What runs of several kinds are given alike: formulas to start from, networks that have no say."""

from collections.abc import Sequence
from pathlib import Path

from evojax_art.artwork.formula_files import read_formulas
from evojax_art.language.program import Program, encode
from evojax_art.nets.registry import lookup, weights_path
from evojax_art.runtime.errors import InputError


def read_seeds(path: Path, max_length: int, images: Sequence[str] = ()) -> Program:
    """The formulas of a file, as programs of this capacity.

    Raises:
        InputError: unreadable, or a formula that does not parse or is too long.
    """
    expressions = read_formulas(path, images=images)
    for number, expression in enumerate(expressions, 1):
        if len(expression) > max_length:
            raise InputError(
                f"{path}: formula {number} has {len(expression)} nodes, more than "
                f"max_length = {max_length}; give --max-length {len(expression)} or more"
            )
    return encode(expressions, max_length=max_length)


def unseen_names(judges: Sequence[str], named: Sequence[str]) -> list[str]:
    """Networks that have no say in a run, and whose opinion is worth knowing.

    Args:
        judges: networks that have a say.
        named: those that were named, or "none"; none for those that suit the judges, as far as
            their weights are there.

    Raises:
        InputError: one that is a judge, or that there is not.
    """
    for name in named:
        if name in judges:
            raise InputError(f"unseen {name} is a judge; leave it out of one of them")
    if "none" in named and len(named) > 1:
        raise InputError(f"unseen {' '.join(named)}: none stands alone")
    if named:
        return [name for name in named if name != "none"]
    suited = dict.fromkeys(name for judge in judges for name in lookup(judge).unseen)
    return [name for name in suited if name not in judges and weights_path(name).exists()]
