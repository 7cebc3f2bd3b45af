"""Picture files: PNGs that carry their formula, written whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evojax_art.cores import num_cores
from evojax_art.errors import InputError
from evojax_art.png import Rows, RowWriter, read_text


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well.

    Raises:
        InputError: the place cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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


@contextmanager
def png_writer(
    path: Path, width: int, height: int, text: Mapping[str, object]
) -> Iterator[Callable[[Rows], None]]:
    """Writes a picture as its rows come, holding few of them; whole or not at all.

    Args:
        path: the PNG.
        width: of the picture, pixels.
        height: likewise.
        text: text chunks, `formula` the one that matters.

    Yields:
        What takes the next rows, of 8 or 16 bits a channel; compressed beside the caller's work.

    Raises:
        InputError: the place cannot be written.
    """
    with (
        written_whole(path) as temporary,
        temporary.open("wb") as file,
        RowWriter(file, width, height, text, num_cores()) as stream,
    ):
        yield stream.write
        stream.finish()


def write_png(path: Path, picture: Rows, text: Mapping[str, object]) -> None:
    """Writes a picture with text chunks, `formula` the one that matters.

    Raises:
        InputError: the place cannot be written.
    """
    height, width, _ = picture.shape
    with png_writer(path, width, height, text) as write_fn:
        write_fn(picture)


def read_png_text(path: Path) -> dict[str, str]:
    """The text chunks of a PNG, however large its picture is: pixels are not decoded.

    Raises:
        InputError: not a readable PNG.
    """
    try:
        with path.open("rb") as file:
            return read_text(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
