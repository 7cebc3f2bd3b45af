import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_pickles import (
    archive,
    call,
    dictionary,
    legacy,
    named,
    plain,
    state_file,
    storage,
    stream,
    tensor,
)

from evojax_art.nets.torch_files import read_tensors
from evojax_art.runtime.errors import InputError

FIXTURES = Path(__file__).parent / "fixtures"
FILES = ("torch_zip.pth", "torch_legacy.pth")
FORMATS = (archive, legacy)
SIX = np.arange(6, dtype=np.float32)
DEEP = b")" + b"\x85" * 200_000  # a tuple in a tuple in a tuple
DOUBLED = b")q\x01" + b"0h\x01h\x01\x86q\x01" * 64  # 2**64 empty tuples, by reference


@pytest.fixture
def read(tmp_path):
    """Reads what a file of the given bytes holds."""

    def read(content: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_tensors(path)

    return read


def refusal(read, content: bytes) -> str:
    """The text of the InputError, which is one line and names the file."""
    with pytest.raises(InputError) as caught:
        read(content)
    text = str(caught.value)
    assert "weights.pth: " in text
    assert text.isprintable()  # neither line breaks nor codes that move the cursor
    return text


def one_tensor(offset, shape, stride, *, claimed=6, key="0", cut=0) -> bytes:
    """An archive of one tensor over the numbers 0 to 5."""
    entry = tensor(storage("0", claimed), offset, shape, stride)
    return archive(stream(dictionary({"layer": entry})), {key: SIX.tobytes()[cut:]})


# What PyTorch wrote


@pytest.mark.parametrize("file", FILES)
def test_files_by_pytorch_are_read(file):
    tensors = read_tensors(FIXTURES / file)
    with np.load(FIXTURES / "torch_tensors.npz") as expected:
        assert list(tensors) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(tensors[name], expected[name], err_msg=name)
            assert tensors[name].dtype == expected[name].dtype, name


@pytest.mark.parametrize("file", FILES)
def test_shapes_are_those_of_pytorch(file):
    tensors = read_tensors(FIXTURES / file)
    with np.load(FIXTURES / "torch_tensors.npz") as expected:
        shapes = {name: expected[name].shape for name in expected}
    assert {name: array.shape for name, array in tensors.items()} == shapes
    assert shapes["scalar"] == ()
    assert shapes["empty"] == (0, 3)


@pytest.mark.parametrize("file", FILES)
def test_views_are_cut_out_of_their_storages(file):
    tensors = read_tensors(FIXTURES / file)
    numbers = np.arange(12, dtype=np.float32)
    np.testing.assert_array_equal(tensors["transposed"], (numbers.reshape(3, 4) / 7).T)
    np.testing.assert_array_equal(tensors["every_second"], numbers[1::2] + 0.5)
    np.testing.assert_array_equal(tensors["shared.head"], -numbers[:5])
    np.testing.assert_array_equal(tensors["shared.tail"], -numbers[5:11].reshape(2, 3))


@pytest.mark.parametrize("write", FORMATS)
def test_our_own_writer_is_read_too(read, write):
    arrays = {"plain": SIX.reshape(2, 3), "single": SIX[:1] + 7}
    tensors = read(state_file(arrays, write))
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_a_checkpoint_holding_a_state_dictionary_is_read(read):
    entry = dictionary({"layer": tensor(storage("0", 6), 0, (6,), (1,))})
    pickled = stream(dictionary({"epoch": plain(3), "state_dict": entry}))
    np.testing.assert_array_equal(read(archive(pickled, {"0": SIX.tobytes()}))["layer"], SIX)


# Damaged files


@pytest.mark.parametrize("file", FILES)
def test_every_truncation_is_noticed(read, file):
    content = (FIXTURES / file).read_bytes()
    for length in [*range(0, len(content), 17), *range(len(content) - 30, len(content))]:
        refusal(read, content[:length])


@pytest.mark.parametrize("file", FILES)
def test_a_changed_byte_raises_nothing_but_input_errors(read, file):
    original = (FIXTURES / file).read_bytes()
    random = np.random.default_rng(4)
    refused = 0
    for place in random.integers(len(original), size=400):
        content = bytearray(original)
        content[place] ^= int(random.integers(1, 256))
        try:
            read(bytes(content))
        except InputError:
            refused += 1
    assert refused > 100  # not all: the older format has no checksums


def test_a_changed_number_in_an_archive_is_noticed(read):
    content = state_file({"layer": SIX}, archive)
    place = content.index(SIX.tobytes())
    refusal(read, content[:place] + b"\x01" + content[place + 1 :])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"<!DOCTYPE html>\n<title>404</title>\n",
        bytes(1000),
        stream(plain({"layer": 1.0})),
        stream(plain(0x1950A86A20F9469CFC6D)),  # the magic number plus one
    ],
)
def test_other_files_are_refused(read, content):
    assert "not a PyTorch weights file" in refusal(read, content)


def test_archives_that_pytorch_did_not_write_are_refused(read):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("readme.txt", "weights follow")
    assert "not one that PyTorch wrote" in refusal(read, file.getvalue())
    with zipfile.ZipFile(file, "a") as written:
        written.writestr("one/data.pkl", stream(plain({})))
        written.writestr("two/data.pkl", stream(plain({})))
    assert "not one that PyTorch wrote" in refusal(read, file.getvalue())


def test_big_endian_archives_are_refused(read):
    content = state_file({"layer": SIX}, archive)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as written:
        for name in source.namelist():
            swapped = b"big" if name.endswith("byteorder") else source.read(name)
            written.writestr(name, swapped)
    assert "big-endian" in refusal(read, file.getvalue())


def test_unreadable_paths_are_input_errors(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(InputError, match=r"cannot read .*: (No such|Is a) "):
            read_tensors(path)


# Tensors that do not fit


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (1, (6,), (1,)),
        (0, (7,), (1,)),
        (0, (3, 3), (2, 1)),
        (6, (), ()),
        (-1, (2,), (1,)),
        (5, (6,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 3), (3,)),
        (0, (2**62,), (1,)),
        (0, (2**62,), (0,)),
        (0, (2**80,), (0,)),
        (2**80, (1,), (1,)),
        (0, (1,), (2**80,)),
        (0, (2.0,), (1,)),
        (0, (2,), (float("nan"),)),
        (0, ("2",), (1,)),
        (0, "ab", (1, 1)),
        (0, None, None),
        (0, ((2,),), ((1,),)),
        (0.5, (2,), (1,)),
        (0, (1000, 1000), (0, 0)),
    ],
)
def test_tensors_beyond_their_storage_are_refused(read, offset, shape, stride):
    refusal(read, one_tensor(offset, shape, stride))


@pytest.mark.parametrize("claimed", [0, 5, 7, -6, 2**40, 2**80, "six", None, ()])
def test_storages_of_another_size_than_claimed_are_refused(read, claimed):
    refusal(read, one_tensor(0, (1,), (1,), claimed=claimed))


def test_missing_and_broken_storages_are_refused(read):
    refusal(read, one_tensor(0, (6,), (1,), key="1"))
    refusal(read, one_tensor(0, (6,), (1,), cut=1))


def test_older_files_claiming_huge_storages_are_refused(read):
    entry = tensor(storage("0", 2**60, last=plain(None)), 0, (1,), (1,))
    content = legacy(stream(dictionary({"layer": entry})), {"0": b""})
    refusal(read, content[:-8] + (2**60).to_bytes(8, "little") + SIX.tobytes())


def test_storages_of_other_kinds_are_refused(read):
    for kind in ("BFloat16Storage", "ComplexFloatStorage"):
        entry = tensor(storage("0", 6, kind=kind), 0, (6,), (1,))
        content = archive(stream(dictionary({"layer": entry})), {"0": bytes(48)})
        assert f"torch.{kind}" in refusal(read, content)
    entry = tensor(storage("0", 6, last=plain(("1", 0, 3))), 0, (3,), (1,))  # a view of a storage
    refusal(read, legacy(stream(dictionary({"layer": entry})), {"0": SIX.tobytes()}))


# Other content


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(
    "value",
    [{"layer": 1.0}, {}, [1.0], None, 3, "weights", {"state_dict": [1]}, {"state_dict": {}}],
)
def test_anything_but_a_dictionary_of_tensors_is_refused(read, write, value):
    refusal(read, write(stream(plain(value)), {}))


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("name", [7, None, 0.5, ("a", "b")])
def test_names_that_are_no_strings_are_refused(read, write, name):
    refusal(read, state_file({name: SIX}, write))


def test_a_dictionary_mixing_tensors_and_numbers_is_refused(read):
    entries = {"layer": tensor(storage("0", 6), 0, (6,), (1,)), "epoch": plain(3)}
    refusal(read, archive(stream(dictionary(entries)), {"0": SIX.tobytes()}))


class Creates:
    """Creates a folder when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_file_is_run(read, write, protocol, tmp_path):
    created = tmp_path / "created"
    pickled = pickle.dumps({"layer": Creates(created)}, protocol)
    pickle.loads(pickled)
    assert created.is_dir()  # so it would have worked
    created.rmdir()
    for content in (write(pickled, {}), pickled):
        refusal(read, content)
        assert not created.exists()


@pytest.mark.parametrize("write", FORMATS)
def test_a_refused_function_is_named(read, write):
    pickled = stream(dictionary({"layer": call(named("builtins", "eval"), plain("1"))}))
    assert "builtins.eval" in refusal(read, write(pickled, {}))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch._utils", "_rebuild_qtensor"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "dtype"),
        ("evojax_art.nets.torch_files", "read_tensors"),
        ("o\x1b[2Js", "x"),
    ],
)
def test_only_the_functions_of_plain_files_are_known(read, module, name):
    refusal(read, archive(stream(named(module, name)), {}))


def test_deep_nesting_is_refused(read):
    for body in (DEEP, b"]" * 100_000 + b"a" * 99_999):
        refusal(read, archive(stream(body), {}))


def test_compressed_archives_are_refused(read):
    entry = tensor(storage("0", 10**6), 0, (1,), (1,))
    pickled = stream(dictionary({"layer": entry}))
    refusal(read, archive(pickled, {"0": bytes(4 * 10**6)}, compression=zipfile.ZIP_DEFLATED))


# In a process of its own: these files crash, hang or change a reader that is not careful enough.
READ_ALL = """
import resource, sys
from pathlib import Path
from evojax_art.runtime.errors import InputError
from evojax_art.nets.torch_files import read_tensors
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, in_use + 2**28))
for path in sys.argv[1:]:
    try:
        print(*read_tensors(Path(path)))
    except InputError as error:
        assert "Unable to allocate" not in str(error)
        assert not isinstance(error.__cause__, MemoryError)
        print("refused")
"""

HOSTILE = {
    "a memo of 64 GB": plain(1) + b"r\xff\xff\xff\xff",
    "a key as deep as the stack": b"}" + DEEP + b"Ns",
    "a key that takes for ever to hash": b"}" + DOUBLED + b"Ns",
    "a storage key that takes for ever to print": storage("0", 1).replace(plain("0"), DOUBLED),
    "64 GB of text": tensor(storage("0", 6), 0, (2**36,), ("step",)),
    "an attribute of the function that builds tensors": named("torch._utils", "_rebuild_tensor_v2")
    + plain((None, {"__defaults__": (), "__code__": None}))
    + b"b",
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_neither_crash_nor_hang_nor_linger(name, tmp_path):
    contents = {
        "hostile": archive(stream(dictionary({"layer": HOSTILE[name]})), {"0": SIX.tobytes()}),
        "good": state_file({"layer": SIX}, archive),
    }
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *(tmp_path / file for file in contents)],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.split() == ["refused", "layer"], done.stderr[-500:]
