"""Reads CIFAR-100 from a folder, in either of two layouts.

- the standard Python archive, unpacked (`cifar-100-python`): the pickles `train` and `test`, or one
  folder above them. They can name only what builds arrays of numbers, see `runtime.pickles`.
- mosaics: `cifar100_train_0.webp` to `cifar100_train_4.webp` and `cifar100_test.webp`, photographs
  of 32x32 pixels, 100 to a row, row by row; `cifar100_labels.npz` with `train_fine`, `test_fine`.
"""

import io
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from evojax_art.runtime.errors import InputError
from evojax_art.runtime.pickles import PlainUnpickler, Stateful

_SIDE = 32
_PER_ROW = 100
_NUM_CLASSES = 100


class Photographs(NamedTuple):
    """Images and their classes.

    Attributes:
        images: RGB, 0 to 255.
        labels: 0 to 99.
    """

    images: UInt8[np.ndarray, "N 32 32 3"]
    labels: UInt8[np.ndarray, "N"]

    def part(self, start: int | None, stop: int | None) -> "Photographs":
        """Those from `start` to `stop`, as slices count."""
        return Photographs(self.images[start:stop], self.labels[start:stop])


def read_photographs(folder: Path) -> tuple[Photographs, Photographs]:
    """Training and test photographs, in their order.

    Raises:
        InputError: neither layout, or damaged.
    """
    for candidate in (folder, folder / "cifar-100-python"):
        if (candidate / "train").is_file():
            return _read_pickle(candidate / "train"), _read_pickle(candidate / "test")
    labels_path = folder / "cifar100_labels.npz"
    if not labels_path.is_file():
        raise InputError(
            f"no CIFAR-100 in {folder}: give --data a folder with the unpacked Python archive "
            "(train, test), or with mosaics (cifar100_labels.npz, cifar100_train_0.webp ...)"
        )
    try:
        with np.load(labels_path, allow_pickle=False) as labels:
            train_labels, test_labels = labels["train_fine"], labels["test_fine"]
    except Exception as error:  # zip, npy and key errors have no class in common
        raise InputError(f"{labels_path}: damaged ({error})") from error
    parts = [_read_mosaic(folder / f"cifar100_train_{part}.webp") for part in range(5)]
    return (
        _checked(np.concatenate(parts), train_labels, labels_path),
        _checked(_read_mosaic(folder / "cifar100_test.webp"), test_labels, labels_path),
    )


def _read_mosaic(path: Path) -> UInt8[np.ndarray, "N 32 32 3"]:
    try:
        with Image.open(path) as picture:
            mosaic = np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or 'no picture'}") from error
    if mosaic.shape[0] % _SIDE or mosaic.shape[1] != _PER_ROW * _SIDE:
        raise InputError(f"{path}: {mosaic.shape[1]}x{mosaic.shape[0]} pixels are no mosaic")
    tiles = mosaic.reshape(-1, _SIDE, _PER_ROW, _SIDE, 3).swapaxes(1, 2)
    return tiles.reshape(-1, _SIDE, _SIDE, 3)


class _Dtype(Stateful):
    """Stands for `numpy.dtype`; of the few kinds that labels and pixels have."""

    def __init__(self, code: Any, *_options: Any):
        if _text(code) not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"):
            raise InputError("holds an array of something else than whole numbers")
        self.code = _text(code)
        self.value = np.dtype(self.code)

    def set_state(self, state: Any) -> None:
        _version, order, *_fields = state
        if _text(order) not in ("|", "<", ">"):
            raise InputError("holds an array of an unknown order of bytes")
        self.value = np.dtype(f"{_text(order)}{self.code}")


class _Array(Stateful):
    """Stands for `numpy.ndarray`; `value` is there once the file has told it."""

    value: np.ndarray

    def __init__(self, *_empty: Any):
        pass

    def set_state(self, state: Any) -> None:
        _version, shape, dtype, in_columns, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise InputError("holds an array of an unknown kind")
        order = "F" if in_columns is True else "C"
        self.value = np.frombuffer(content, dtype.value).reshape(shape, order=order)


class _Unpickler(PlainUnpickler):
    """Builds dictionaries of plain values and `_Array`s, written by Python 2 or 3."""

    content = "CIFAR-100 archive"
    known: ClassVar = {
        ("numpy", "ndarray"): None,  # an argument of the next
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): lambda text, _latin1: text.encode("latin-1"),  # bytes, protocol 2
    }


def _read_pickle(path: Path) -> Photographs:
    """The archive's rows are 1,024 red, 1,024 green and 1,024 blue bytes."""
    try:
        loaded = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        table = {_text(key): value for key, value in loaded.items()}
        rows, labels = table["data"].value, _labels(table["fine_labels"])
        images = rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path}: not CIFAR-100's Python archive, or damaged ({error})") from error
    return _checked(images, labels, path)


def _labels(found: Any) -> np.ndarray:
    """Of a list or an array; a list of anything but whole numbers is not even looked at."""
    if isinstance(found, _Array):
        return found.value
    if not isinstance(found, list) or not all(type(label) is int for label in found):
        raise InputError("its labels are no whole numbers")
    return np.array(found, np.int64)


def _text(value: Any) -> str:
    """A name, which Python 2 wrote as bytes; anything else might take for ever to print."""
    if not isinstance(value, str | bytes):
        raise InputError("holds something else in the place of a name")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _checked(images: np.ndarray, labels: np.ndarray, path: Path) -> Photographs:
    if images.dtype != np.uint8 or len(images) != len(labels) or not len(images):
        raise InputError(f"{path}: {len(images)} photographs and {len(labels)} labels")
    if labels.ndim != 1 or labels.min() < 0 or labels.max() >= _NUM_CLASSES:
        raise InputError(f"{path}: labels must be from 0 to {_NUM_CLASSES - 1}")
    return Photographs(np.ascontiguousarray(images), labels.astype(np.uint8))
