"""Settings in TOML files: a key for a field, a table for a dataclass, see `runtime.tables`."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from evojax_art.runtime.errors import InputError
from evojax_art.runtime.tables import from_table, to_table

T = TypeVar("T")


def read_config(path: Path, cls: type[T], tell_fn: Callable[[str], None] = lambda line: None) -> T:
    """The settings in a file; those that it does not name are as by default.

    Args:
        path: the file.
        cls: the dataclass.
        tell_fn: is told in a line of every old name in it.

    Raises:
        InputError: unreadable, not TOML, a key that does not exist or a value of no use; in one
            line that begins with the file's name.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    try:
        return from_table(cls, table, tell_fn=lambda line: tell_fn(f"{path}: {line}"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def config_text(config: Any, comment: str) -> str:
    """A dataclass as a file that `read_config` takes, under some lines of comment."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return f"{lines}{tomli_w.dumps(to_table(config))}"
