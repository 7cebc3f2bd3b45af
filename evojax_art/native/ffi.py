"""Python functions as targets of XLA's foreign function interface on the CPU.

XLA calls a target with a pointer to a call frame: structures of C, declared in the header
`xla/ffi/api/c_api.h` that comes with jaxlib. The ones needed here are repeated as ctypes. A target
gets its operands and results as NumPy arrays over XLA's own memory: nothing is copied, and unlike a
`jax.pure_callback` it never waits for a JAX array.

XLA says which version of these structures it has when a target is registered: within a major
version they only grow at their ends. With another one there are no targets (`obstacle`).
"""

import ctypes
import functools
import threading
from collections.abc import Callable
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import jax
import numpy as np

FfiFn = Callable[[list[np.ndarray], list[np.ndarray], dict[str, Any]], None]

_EXECUTE = 3  # of the stages of a target, the only one that computes
_METADATA = 1  # the extension by which XLA asks for the version a target was written for
_VERSION = (0, 3)  # of the header that the structures below repeat: jaxlib 0.10's
_STRING, _SCALAR = 4, 3  # kinds of attributes
_INTERNAL = 13  # an error code
_DTYPES = {
    code: np.dtype(kind) for code, kind in {1: "?", 4: "i4", 5: "i8", 8: "u4", 11: "f4"}.items()
}


def _structure(name: str, *fields: tuple[str, Any]) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


_HEAD = (("struct_size", c_size_t), ("extension", c_void_p))
_Extension = _structure("Extension", ("size", c_size_t), ("type", c_int), ("next", c_void_p))
_Version = _structure("Version", *_HEAD, ("major", c_int), ("minor", c_int))
_Metadata = _structure(
    "Metadata", ("size", c_size_t), ("version", _Version), ("traits", c_uint32), ("state", c_int64)
)
_MetadataExtension = _structure(
    "MetadataExtension", ("base", _Extension), ("metadata", POINTER(_Metadata))
)
_Buffer = _structure(
    "Buffer",
    *_HEAD,
    ("dtype", c_int32),
    ("data", c_void_p),
    ("rank", c_int64),
    ("dims", POINTER(c_int64)),
)
_Span = _structure("Span", ("data", POINTER(c_char)), ("size", c_size_t))
_Scalar = _structure("Scalar", ("dtype", c_int32), ("data", c_void_p))
_LIST = (("size", c_int64), ("types", POINTER(c_int32)))
_Buffers = _structure("Buffers", *_HEAD, *_LIST, ("items", POINTER(POINTER(_Buffer))))
_Attributes = _structure(
    "Attributes",
    *_HEAD,
    *_LIST,
    ("names", POINTER(POINTER(_Span))),
    ("items", POINTER(c_void_p)),
)
_ErrorArguments = _structure("ErrorArguments", *_HEAD, ("message", c_char_p), ("code", c_int32))
_CreateError = ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorArguments))
_Api = _structure(
    "Api", *_HEAD, ("version", _Version), ("internal", c_void_p), ("create_error", _CreateError)
)
_Frame = _structure(
    "Frame",
    *_HEAD,
    ("api", POINTER(_Api)),
    ("context", c_void_p),
    ("stage", c_int32),
    ("arguments", _Buffers),
    ("results", _Buffers),
    ("attributes", _Attributes),
)
_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
_registered: dict[str, Any] = {}  # keeps the handlers alive
_reported: list[tuple[int, int]] = []  # versions of XLA's, at each registration
_lock = threading.RLock()


def register(name: str, fn: FfiFn) -> None:
    """Makes `fn(operands, results, attributes)` what `jax.ffi.ffi_call(name, ...)` calls.

    May be called from several threads at once.

    Args:
        name: unique in the process; registering it again does nothing.
        fn: fills the results, contiguous arrays as the operands are. Runs on a thread of XLA's. An
            exception becomes an XLA error with its text.
    """
    with _lock:
        if name not in _registered:
            handler = _Handler(functools.partial(_handle, fn))
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
            _registered[name] = handler


@functools.cache
def obstacle() -> str:
    """Why no target can be called in this process; empty where they can."""
    try:
        register("evojax_art_probe", lambda operands, results, attributes: None)
    except Exception as error:  # whatever XLA says of a version that it no longer serves
        return f"XLA refuses the interface ({error})"
    return mismatch(_reported[-1] if _reported else None)


def mismatch(reported: tuple[int, int] | None) -> str:
    """What is wrong with a version that XLA reports, major and minor; empty where nothing is."""
    ours = f"{_VERSION[0]}.{_VERSION[1]}"
    if reported is None:
        return (
            f"XLA does not say which version of its foreign function interface it has, not {ours}"
        )
    theirs = f"XLA's foreign function interface has version {reported[0]}.{reported[1]}"
    if reported[0] != _VERSION[0]:
        return f"{theirs}, whose structures are unknown here; {ours} is known"
    return f"{theirs}, older than {ours}" if reported < _VERSION else ""


def _handle(fn: FfiFn, frame_pointer: Any) -> int | None:
    frame = frame_pointer.contents
    try:
        if frame.extension:
            extension = _Extension.from_address(frame.extension)
            if extension.type == _METADATA:
                _answer_metadata(frame)
                return None
        if frame.stage == _EXECUTE:
            fn(_arrays(frame.arguments), _arrays(frame.results), _attributes(frame.attributes))
    except BaseException as error:  # nothing may pass through the C code that called us
        message = f"{type(error).__name__}: {error}".encode()
        arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message, _INTERNAL)
        return frame.api.contents.create_error(ctypes.byref(arguments))
    return None


def _answer_metadata(frame: Any) -> None:
    """Says which version this is written for, and notes XLA's."""
    if frame.struct_size >= _Frame.api.offset + ctypes.sizeof(c_void_p) and frame.api:
        version = frame.api.contents.version
        _reported.append((version.major, version.minor))
    metadata = _MetadataExtension.from_address(frame.extension).metadata.contents
    metadata.version.major, metadata.version.minor = _VERSION


class _Memory:
    """Somebody else's memory, as NumPy's array interface describes it: the quickest way there."""

    def __init__(self, buffer: Any):
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(buffer.dims[: buffer.rank]),
            "typestr": _DTYPES[buffer.dtype].str,
            "data": (buffer.data or 1, False),  # an empty one may have no address
        }


def _arrays(buffers: Any) -> list[np.ndarray]:
    items = buffers.items
    return [np.asarray(_Memory(items[index].contents)) for index in range(buffers.size)]


def _attributes(attributes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for index in range(attributes.size):
        name = _text(attributes.names[index].contents)
        kind, address = attributes.types[index], attributes.items[index]
        if kind == _STRING:
            values[name] = _text(_Span.from_address(address))
        elif kind == _SCALAR:
            scalar = _Scalar.from_address(address)
            dtype = _DTYPES[scalar.dtype]
            memory: Any = (c_char * dtype.itemsize).from_address(scalar.data)
            values[name] = np.frombuffer(memory, dtype)[0].item()
        else:
            raise TypeError(f"attribute {name} is neither a number nor a text")
    return values


def _text(span: Any) -> str:
    return ctypes.string_at(span.data, span.size).decode()
