"""Picture files: PNGs with text in them, written whole or not at all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evojax_art.artwork.png import PIECE_BYTES, Rows, RowWriter, read_text
from evojax_art.runtime.cores import num_cores
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import written_whole


@contextmanager
def png_writer(
    path: Path,
    width: int,
    height: int,
    text: Mapping[str, object],
    piece_bytes: int = PIECE_BYTES,
) -> Iterator[Callable[[Rows], None]]:
    """Writes a picture as its rows come, holding few of them; whole or not at all.

    Args:
        path: the PNG.
        width: of the picture, pixels.
        height: of the picture, pixels.
        text: text chunks, see `provenance`.
        piece_bytes: of rows that are compressed at a time.

    Yields:
        What takes the next rows, of 8 or 16 bits a channel; compressed beside the caller's work.

    Raises:
        InputError: the place cannot be written.
    """
    with (
        written_whole(path) as temporary,
        temporary.open("wb") as file,
        RowWriter(file, width, height, text, num_cores(), piece_bytes) as stream,
    ):
        yield stream.write
        stream.finish()


def write_png(path: Path, picture: Rows, text: Mapping[str, object]) -> None:
    """Writes a picture with text chunks, see `provenance`.

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
