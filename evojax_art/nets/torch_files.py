"""Reading PyTorch's `.pth` files without PyTorch and without running what they contain.

A `.pth` file is a pickle. Here it can name only what builds a dictionary of tensors, see
`runtime.pickles`.

Both formats: the zip archive (PyTorch 1.6 and newer), and the older run of pickles followed by raw
storages, in which torchvision's early weights are still published.
"""

import io
import math
import operator
import zipfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from evojax_art.runtime.errors import InputError
from evojax_art.runtime.pickles import PlainUnpickler, dictionary

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view into a storage whose bytes may not have been read yet; in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary, by name.

    Raises:
        InputError: not such a file, damaged, or holding anything but a dictionary of tensors.
    """
    try:
        content = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(content)):
            entries, storages = _read_archive(content)
        else:
            entries, storages = _read_legacy(content)
        return {name: _view(tensor, storages) for name, tensor in entries.items()}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(
            f"{path}: not a PyTorch weights file, or damaged ({error}); download it again"
        ) from error


def _rebuild_tensor(storage, offset, shape, stride, requires_grad=False, hooks=None, metadata=None):
    del requires_grad, hooks, metadata
    shape, stride = (tuple(map(operator.index, numbers)) for numbers in (shape, stride))
    return _Tensor(storage, operator.index(offset), shape, stride)


class _Unpickler(PlainUnpickler):
    """Builds dictionaries of `_Tensor`s."""

    content = "weights file"
    known: ClassVar = {
        ("collections", "OrderedDict"): dictionary,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, requires_grad, hooks: tensor,
        **{("torch", name): np.dtype(code) for name, code in _DTYPES.items()},
    }

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size = pid[:5]
        known = kind == "storage" and isinstance(dtype, np.dtype) and isinstance(key, str)
        if not known or pid[5:] not in ((), (None,)):
            raise InputError("holds a storage of an unknown kind")
        return _Storage(key, dtype, operator.index(size))


def _read_archive(content: bytes):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError("compressed, which PyTorch's files never are; unpack it first")
        names = archive.namelist()
        pickled = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise InputError("a zip archive, but not one that PyTorch wrote")
        root = pickled[0][: -len("data.pkl")]
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise InputError("written on a big-endian machine, which is not supported")
        entries = _tensors(_Unpickler(io.BytesIO(archive.read(pickled[0]))).load())
        storages = {
            storage.key: np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype)
            for storage in {tensor.storage for tensor in entries.values()}
        }
    return entries, storages


def _read_legacy(content: bytes):
    file = io.BytesIO(content)
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise InputError("not a PyTorch weights file; download it again")
    _version, _system = _Unpickler(file).load(), _Unpickler(file).load()
    entries = _tensors(_Unpickler(file).load())
    known = {tensor.storage.key: tensor.storage for tensor in entries.values()}
    storages = {}
    for key in _Unpickler(file).load():
        size = int.from_bytes(file.read(8), "little")
        storage = known.get(key)
        if storage is None:
            raise InputError("holds a storage that belongs to no tensor; download it again")
        storages[key] = np.frombuffer(file.read(size * storage.dtype.itemsize), storage.dtype)
    return entries, storages


def _tensors(loaded: Any) -> dict[str, _Tensor]:
    entries = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not entries or not all(
        isinstance(name, str) and isinstance(item, _Tensor) for name, item in entries.items()
    ):
        raise InputError("holds something else than a dictionary of tensors")
    return dict(entries)


def _view(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    data = storages[tensor.storage.key]
    reach = tensor.offset + sum(
        step * (size - 1) for step, size in zip(tensor.stride, tensor.shape, strict=True)
    )
    empty = 0 in tensor.shape
    numbers = (tensor.offset, *tensor.stride, *tensor.shape)
    if data.size != tensor.storage.size or min(numbers) < 0 or (reach >= data.size and not empty):
        raise InputError("a tensor is cut short; download it again")
    if math.prod(tensor.shape) > data.size:  # an expanded view could claim any amount of memory
        raise InputError("a tensor is larger than its storage; save a contiguous copy of it")
    strides = [step * data.itemsize for step in tensor.stride]
    view = np.lib.stride_tricks.as_strided(
        data[0 if empty else tensor.offset :], tensor.shape, strides, writeable=False
    )
    return np.asarray(view, order="C")  # unlike ascontiguousarray, leaves scalars scalar
