"""PyTorch's two file formats, written without PyTorch, so that a test can make any mistake in them.

Each function returns a piece of a pickle of protocol 2; `stream` makes a whole pickle of one.
"""

import io
import pickle
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_KINDS = {"float16": "Half", "float32": "Float", "float64": "Double", "int64": "Long"}


def plain(value) -> bytes:
    """Any value that pickles without naming a class."""
    return pickle.dumps(value, 2)[2:-1]  # without the protocol and the stop


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def dictionary(items: dict) -> bytes:
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def stream(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def storage(key, size, *, kind="FloatStorage", last=b"") -> bytes:
    parts = plain("storage"), named("torch", kind), plain(key), plain("cpu"), plain(size), last
    return b"(" + b"".join(parts) + b"tQ"


def tensor(stored: bytes, offset, shape, stride) -> bytes:
    hooks = call(named("collections", "OrderedDict"))
    numbers = (plain(value) for value in (offset, shape, stride, False))
    return call(named("torch._utils", "_rebuild_tensor_v2"), stored, *numbers, hooks)


def archive(pickled: bytes, data: dict[str, bytes], *, root="archive/", compression=0) -> bytes:
    """A zip file as PyTorch 1.6 and newer write it; `data` are the storages by key."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        written.writestr(f"{root}data.pkl", pickled)
        written.writestr(f"{root}byteorder", b"little")
        for key, content in data.items():
            written.writestr(f"{root}data/{key}", content)
        written.writestr(f"{root}version", b"3\n")
    return file.getvalue()


def legacy(pickled: bytes, data: dict[str, bytes], *, itemsize=4) -> bytes:
    """A file as older PyTorch wrote it; `data` are the storages by key."""
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
    head = b"".join(stream(plain(value)) for value in (MAGIC, PROTOCOL, system))
    sized = ((len(content) // itemsize, content) for content in data.values())
    raw = b"".join(size.to_bytes(8, "little") + content for size, content in sized)
    return head + pickled + stream(plain(list(data))) + raw


def state_file(arrays: dict[str, np.ndarray], write) -> bytes:
    """A state dictionary of float32 arrays, without views, in the format that `write` is of."""
    last = plain(None) if write is legacy else b""  # the older format has a sixth entry
    entries, data = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        steps = tuple(step // array.itemsize for step in array.strides)
        stored = storage(str(number), array.size, last=last)
        entries[name] = tensor(stored, 0, array.shape, steps)
        data[str(number)] = array.tobytes()
    return write(stream(dictionary(entries)), data)
