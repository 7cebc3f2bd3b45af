"""Picture files: PNGs that carry their formula, written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from evojax_art.errors import InputError


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


def write_png(path: Path, picture: UInt8[np.ndarray, "H W 3"], text: Mapping[str, object]) -> None:
    """Writes a picture with text chunks, `formula` the one that matters.

    Raises:
        InputError: the place cannot be written.
    """
    chunks = PngInfo()
    for key, value in text.items():
        chunks.add_text(key, str(value), zip=len(str(value)) > 1000)
    with written_whole(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", pnginfo=chunks)


def read_png_text(path: Path) -> dict[str, str]:
    """The text chunks of a PNG.

    Raises:
        InputError: not a readable PNG.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # text may stand behind the pixels
            return {str(key): str(value) for key, value in image.info.items()}  # pyright: ignore
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a PNG picture") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
