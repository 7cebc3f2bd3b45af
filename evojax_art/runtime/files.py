"""Files that are written whole or not at all; and lines of JSON, read with a place for mistakes."""

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from evojax_art.runtime.errors import InputError

T = TypeVar("T")
# What reading a damaged line may end with; deep nesting is the last.
_STUMBLES = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well.

    Raises:
        InputError: the place cannot be written.
    """
    try:
        temporary = _created_beside(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _created_beside(path: Path) -> Path:
    """A new empty file in the folder of `path`, with a new file's usual permissions.

    `tempfile` makes private ones. What the usual are only the kernel can tell without a change to
    the whole process, which `os.umask` would be.

    Raises:
        OSError: the place cannot be written.
    """
    while True:
        temporary = path.parent / f".{path.name}-{secrets.token_hex(4)}"
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        return temporary


def check_writable(path: Path) -> None:
    """Finds out before long work whether a file can be written after it; leaves nothing behind.

    Raises:
        InputError: the place cannot be written.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole.

    Raises:
        InputError: the place cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json_lines(path: Path, read_fn: Callable[[Any], T], complaint: str) -> list[T]:
    """What each line of a file says.

    Args:
        path: the file, of JSON a line.
        read_fn: from a line's value; what is missing or of another kind it may stumble over.
        complaint: what is said of a line that is none, as "no line of elites".

    Raises:
        InputError: the file cannot be read, or a line; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"cannot read {path}: {reason}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            break  # behind the last line's end
        try:
            found.append(read_fn(json.loads(line)))
        except _STUMBLES as error:
            raise InputError(f"{path}: line {number} is {complaint}") from error
    return found
