"""Reading Caffe's `.caffemodel` files without Caffe.

Such a file is one message of protobuf's wire format, `NetParameter` of `caffe.proto`. What is read:

    NetParameter   100 layer, of files since 2015:  1 name, 7 blobs
                     2 layers, of those before:     4 name, 6 blobs
    BlobProto        7 shape (1 dims), or 1 num, 2 channels, 3 height, 4 width
                     5 data, float32; 8 double_data, float64

Other fields are passed over. Nothing in the format runs or refers back, and no length is believed
before the bytes are there, so a damaged file costs no more than one that is whole.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evojax_art.runtime.errors import InputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MOST_FIELDS = 200_000  # and sizes, in all; the networks of the zoo have some thousands
_MOST_DIMS = 8

_Field = tuple[int, "int | memoryview"]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a network: `LAYER/weight` and `LAYER/bias`.

    Returns:
        Kernels as [out, in, height, width], dense layers as [out, in], biases as [out].

    Raises:
        InputError: unreadable, damaged, or no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        tensors = _network(_Message(content))
    except ValueError as error:
        raise InputError(
            f"{path}: a damaged .caffemodel, or none ({error}); get it again"
        ) from None
    if not tensors:
        raise InputError(f"{path}: this .caffemodel has no layers with weights")
    return tensors


class _Message:
    """Bytes that are messages, and how many more fields and sizes may be read from them."""

    def __init__(self, content: bytes):
        self.all = memoryview(content)
        self._left = _MOST_FIELDS

    def count(self) -> None:
        """One more field, or size within one.

        Raises:
            ValueError: too many by now.
        """
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {_MOST_FIELDS} fields")

    def fields(self, view: memoryview) -> Iterator[_Field]:
        """Number and content of each field: a number, or its bytes.

        Raises:
            ValueError: it ends within a field, there are too many, or it is no message.
        """
        place = 0
        while place < len(view):
            self.count()
            tag, place = _varint(view, place)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, place = _varint(view, place)
                yield number, value
                continue
            if wire == _BYTES:
                length, place = _varint(view, place)
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            else:
                raise ValueError(f"a field of the unknown kind {wire}")
            if length > len(view) - place:
                raise ValueError(f"it ends {length - len(view) + place} bytes too early")
            yield number, view[place : place + length]
            place += length


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    """A number in up to ten bytes of seven bits, the lowest first; and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            raise ValueError("it ends within a number")
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")


def _network(message: _Message) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for number, layer in message.fields(message.all):
        if number in (100, 2) and isinstance(layer, memoryview):
            name_at, blobs_at = (1, 7) if number == 100 else (4, 6)
            name, blobs = "", []
            for inner, value in message.fields(layer):
                if inner == name_at and isinstance(value, memoryview):
                    name = bytes(value[:200]).decode("utf-8", "replace")
                elif inner == blobs_at and isinstance(value, memoryview):
                    blobs.append(_blob(message, value))
            for kind, blob in zip(("weight", "bias"), blobs, strict=False):
                tensors[f"{name}/{kind}"] = blob.reshape(-1) if kind == "bias" else blob
    return tensors


def _blob(message: _Message, view: memoryview) -> np.ndarray:
    dims: list[int] = []
    old_dims = [1, 1, 1, 1]
    data: dict[int, list[memoryview]] = {5: [], 8: []}
    for number, value in message.fields(view):
        if number == 7 and isinstance(value, memoryview):
            dims = _dims(message, value)
        elif number in data and isinstance(value, memoryview):
            data[number].append(value)
        elif 1 <= number <= 4 and isinstance(value, int):
            old_dims[number - 1] = value
    dtype, parts = ("<f8", data[8]) if data[8] else ("<f4", data[5])
    shape = dims or _without_ones(old_dims)
    held = sum(map(len, parts)) / np.dtype(dtype).itemsize
    if math.prod(shape) != held or not held:
        raise ValueError(f"{held:.20g} numbers where the shape {tuple(shape)} says otherwise")
    with np.errstate(over="ignore", invalid="ignore"):  # what is no float32 is refused by others
        return np.frombuffer(b"".join(parts), dtype).astype(np.float32, copy=False).reshape(shape)


def _dims(message: _Message, view: memoryview) -> list[int]:
    dims: list[int] = []
    for number, value in message.fields(view):
        place = 0
        if number == 1 and isinstance(value, int):
            dims.append(value)
        while number == 1 and isinstance(value, memoryview) and place < len(value):
            message.count()
            dim, place = _varint(value, place)
            dims.append(dim)
            if len(dims) > _MOST_DIMS:
                break
        if len(dims) > _MOST_DIMS:
            raise ValueError(f"a shape of more than {_MOST_DIMS} numbers")
    return dims


def _without_ones(shape: list[int]) -> list[int]:
    """A dense layer of before 2015 is [1, 1, out, in]."""
    return shape[2:] if shape[:2] == [1, 1] else shape
