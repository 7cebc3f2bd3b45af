"""PNG files larger than memory: written as their rows come, their text read without them.

Pillow encodes a picture that is there whole, on one thread, and no colours of 16 bits. The format
asks for little: a signature and chunks, of which `IDAT` hold one zlib stream of rows, each behind
the number of the filter that it went through (W3C, PNG Specification, third edition).
"""

import struct
import zlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL.PngImagePlugin import PngInfo, PngStream

Rows = UInt8[np.ndarray, "R W 3"] | UInt16[np.ndarray, "R W 3"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
PIECE_BYTES = 1 << 21  # of rows that are compressed at a time; 0.1 s
_LONG_TEXT = 1000  # characters; more are compressed
_RGB = 2  # colour type
_ZLIB_HEADER = b"\x78\x9c"  # deflate, a window of 32 kB, the usual effort
_LAST_BLOCK = b"\x03\x00"  # of deflate: one without content


class RowWriter:
    """A PNG of RGB colours in the making; a context, which waits for its threads at the end."""

    def __init__(
        self,
        file: BinaryIO,
        width: int,
        height: int,
        text: Mapping[str, object],
        num_threads: int = 1,
        piece_bytes: int = PIECE_BYTES,
    ):
        """Writes nothing yet.

        Args:
            file: where to.
            width: pixels.
            height: pixels.
            text: text chunks, which will stand before the pixels.
            num_threads: that compress.
            piece_bytes: of rows that each of them compresses at a time.
        """
        self._file = file
        self._width, self._rows_left = width, height
        self._size = width, height
        self._text = text
        self._num_threads = num_threads
        self._piece_bytes = piece_bytes
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="png")
        self._waiting: deque[Future[tuple[bytes, bytes]]] = deque()
        self._above = np.empty(0, np.uint8)  # the row before the next, as bytes
        self._checksum = zlib.adler32(b"")

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self._pool.shutdown(cancel_futures=True)

    def write(self, rows: Rows) -> None:
        """Takes the next rows; the first decide between 8 bits and 16.

        Raises:
            ValueError: rows that do not fit what was announced or came before.
        """
        fitting = rows.ndim == 3 and rows.shape[1:] == (self._width, 3)
        if not fitting or len(rows) > self._rows_left or rows.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"rows of {rows.dtype} {rows.shape} for a picture {self._width} wide, "
                f"with {self._rows_left} rows left to write"
            )
        given = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">")).view(np.uint8)
        lines = given.reshape(len(rows), -1)
        if not self._above.size:
            self._begin(8 * rows.itemsize)
            self._above = np.zeros(lines.shape[1], np.uint8)
        if lines.shape[1] != len(self._above):
            raise ValueError(f"rows of {rows.dtype} after others")
        self._rows_left -= len(rows)
        step = max(1, self._piece_bytes // lines.shape[1])
        for start in range(0, len(lines), step):
            piece = lines[start : start + step].copy()  # the caller may reuse its rows
            self._waiting.append(
                self._pool.submit(_compressed, piece, self._above, 3 * rows.itemsize)
            )
            self._above = piece[-1]
            if len(self._waiting) > 2 * self._num_threads:
                self._put_piece()

    def finish(self) -> None:
        """Writes what is left.

        Raises:
            ValueError: rows are missing.
        """
        if self._rows_left:
            raise ValueError(f"{self._rows_left} rows are missing")
        while self._waiting:
            self._put_piece()
        self._put(b"IDAT", _LAST_BLOCK + struct.pack(">I", self._checksum))
        self._put(b"IEND", b"")

    def _begin(self, bits: int) -> None:
        self._file.write(SIGNATURE)
        self._put(b"IHDR", struct.pack(">IIBBBBB", *self._size, bits, _RGB, 0, 0, 0))
        chunks = PngInfo()  # knows which of three kinds of chunk a text needs
        for key, value in self._text.items():
            chunks.add_text(key, str(value), zip=len(str(value)) > _LONG_TEXT)
        for name, content, *_ in chunks.chunks:
            self._put(name, content)
        self._put(b"IDAT", _ZLIB_HEADER)

    def _put_piece(self) -> None:
        filtered, compressed = self._waiting.popleft().result()
        self._checksum = zlib.adler32(filtered, self._checksum)
        self._put(b"IDAT", compressed)

    def _put(self, name: bytes, content: bytes) -> None:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        self._file.write(struct.pack(">I", len(content)) + name + content + checksum)


def read_text(file: BinaryIO) -> dict[str, str]:
    """The text chunks of a PNG; its pixels are skipped.

    Raises:
        ValueError: no PNG, or damaged or cut off; says which.
    """
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ValueError("not a PNG picture")
    with PngStream(file) as chunks:
        try:
            while (chunk := chunks.read())[0] != b"IEND":
                name, start, length = chunk
                if name in _TEXT_CHUNKS:
                    chunks.crc(name, chunks.call(name, start, length))
                else:
                    file.seek(start + length + 4)  # behind its checksum
        except (SyntaxError, ValueError, OSError, struct.error) as error:
            raise ValueError("this PNG is damaged or cut off") from error
        return {str(key): str(value) for key, value in chunks.im_text.items()}


def _compressed(
    lines: UInt8[np.ndarray, "R B"], above: UInt8[np.ndarray, "B"], pixel_bytes: int
) -> tuple[bytes, bytes]:
    """Rows with their filters, and the part of a deflate stream that holds them.

    Each row goes through whichever of no filter, the difference to the left and that to the row
    above leaves the smallest numbers. The format's other two take longer than they save room.
    """
    left, up = lines.copy(), lines.copy()
    left[:, pixel_bytes:] -= lines[:, :-pixel_bytes]
    up[0] -= above
    up[1:] -= lines[:-1]
    filters = (lines, left, up)
    sizes = [np.minimum(each, np.negative(each)).sum(axis=1, dtype=np.int64) for each in filters]
    choice = np.argmin(sizes, axis=0)
    filtered = np.empty((len(lines), 1 + lines.shape[1]), np.uint8)
    for number, each in enumerate(filters):
        chosen = choice == number
        filtered[chosen, 0] = number
        filtered[chosen, 1:] = each[chosen]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)  # no header: a part of a longer stream
    content = filtered.tobytes()
    return content, packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH)
