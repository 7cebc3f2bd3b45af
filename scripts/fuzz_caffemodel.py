"""Damages `.caffemodel` files at random and reads them, to see that nothing goes wrong.

    python scripts/fuzz_caffemodel.py --minutes 10

Whatever the bytes, the reader may return tensors or raise `InputError`, within a second of
processor time and half a gigabyte. Processes that are bound to both read the files in batches; one
that a file brings down leaves it in the folder, and its reason on stderr. For Linux.
"""

import argparse
import multiprocessing
import random
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_caffe import caffemodel, field, number  # pyright: ignore[reportMissingImports]

from evojax_art.nets.caffe_files import read_tensors
from evojax_art.runtime.errors import InputError

MEMORY = 500 << 20  # bytes above what Python and its libraries take
SECONDS = 1.0
BATCH = 500  # files for each process
SIZES = (0, 1, 127, 128, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**70)
KEYS = tuple(number(place << 3 | 2) for place in (1, 2, 4, 5, 6, 7, 8, 100))  # before lengths
CROWDED = 200  # one in so many files is of those that take long


class HangError(Exception):
    """A file took too long; no OSError, which the reader would take for its own."""


def seeds() -> list[bytes]:
    """Small files of both layouts, all ways to keep numbers, and messages within messages."""
    chance = np.random.default_rng(0)
    layers = {
        "data": [],
        "conv": [chance.random((4, 3, 3, 3)), chance.random(4)],
        "dense/fc": [chance.random((5, 6)), chance.random(5)],
    }
    ways = ({}, {"is_double": True}, {"is_packed": False})
    made = [caffemodel(layers, is_old=is_old, **way) for is_old in (False, True) for way in ways]
    deep = b""
    for _ in range(200):
        deep = field(100, deep)
    dims = field(7, field(1, b"".join(map(number, (2**31, 2**31, 2**31)))))
    huge = field(100, field(1, b"huge") + field(7, dims + field(5, b"1234")))
    return [*made, deep, huge, b""]


def crowded() -> list[bytes]:
    """Files of nearly as many fields as the reader takes, in the places where they cost most."""
    single = field(6, number(5 << 3 | 5) + bytes(4))
    named = field(1, bytes(200)) + field(7, number(5 << 3 | 5) + bytes(4))
    sizes = field(7, field(1, (b"\xff" * 9 + b"\x01") * 8))
    return [
        field(2, single * 2) * 39_000,
        field(100, named) * 45_000,
        field(100, field(7, sizes * 19_000)),
        field(100, field(7, field(7, field(1, number(199_000))) + single[2:] * 199_000)),
        (b"\x08" + b"\xff" * 9 + b"\x01") * 199_000,
    ]


def damaged(chance: random.Random, pool: list[bytes], slow: list[bytes]) -> bytes:
    """One of the files after a few accidents."""
    is_slow = chance.randrange(CROWDED) == 0
    content = bytearray(chance.choice(slow if is_slow else pool))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(content) + 1)
        accident = chance.randrange(7)
        if accident == 0 and content:
            content[place % len(content)] ^= 1 << chance.randrange(8)
        elif accident == 1:
            content[place : place + chance.randrange(1, 9)] = number(chance.choice(SIZES))
        elif accident == 2:
            del content[place : place + chance.randrange(1, 64)]
        elif accident == 3:
            other = chance.choice(pool)
            start = chance.randrange(len(other) + 1)
            content[place:place] = other[start : start + chance.randrange(256)]
        elif accident == 4:
            content[place:place] = chance.randbytes(chance.randrange(1, 32))
        elif accident == 5:
            key = chance.choice(KEYS)
            if (found := content.find(key, place)) >= 0:
                length = found + len(key)
                content[length : length + 1] = number(chance.choice(SIZES))
        elif not is_slow:
            content += content[place:]
    return bytes(content if is_slow else content[: 1 << 20])


def bind() -> int:
    """Bounds this process; gives the most memory that it has taken so far, in bytes.

    Addresses are bounded at twice `MEMORY`, lest the machine suffer before it is measured.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def hang(*_: object) -> None:
        raise HangError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGPROF, hang)
    warnings.simplefilter("error")
    return most_memory()


def most_memory() -> int:
    """That this process has taken, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def read_some(seed: int, folder: Path, answers: multiprocessing.Queue) -> None:
    """Reads a batch of files; tells how many, the longest time, and the most memory in bytes."""
    chance, pool, slow = random.Random(seed), seeds(), crowded()
    before, longest, memory = bind(), 0.0, 0
    path = folder / f"{seed}.caffemodel"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(BATCH):
        path.write_bytes(damaged(chance, pool, slow))
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            read_tensors(path)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
        signal.setitimer(signal.ITIMER_PROF, 0)
        longest = max(longest, time.process_time() - began)
        memory = most_memory() - before
        if memory > MEMORY:
            raise MemoryError(f"{memory >> 20} MB")
    path.unlink()
    answers.put((outcomes, longest, memory))


def main() -> int:
    """Goes on until the time is over; 1 where something went wrong."""
    parser = argparse.ArgumentParser(
        description="Reads damaged .caffemodel files, to see that nothing goes wrong."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch (0)")
    parser.add_argument("--folder", type=Path, default=Path("fuzzed"), help="what went wrong")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    total, longest, most, failures = {"read": 0, "refused": 0}, 0.0, 0, 0
    until, seed = time.monotonic() + 60 * given.minutes, given.seed
    while time.monotonic() < until:
        process = context.Process(target=read_some, args=(seed, given.folder, answers))
        process.start()
        process.join(BATCH * SECONDS)
        if process.is_alive():
            process.kill()
        process.join()
        if process.exitcode:
            failures += 1
            print(f"{given.folder}/{seed}.caffemodel: exit status {process.exitcode}", flush=True)
        else:
            outcomes, seconds, memory = answers.get()
            total = {name: total[name] + count for name, count in outcomes.items()}
            longest, most = max(longest, seconds), max(most, memory)
        seed += 1
    print(
        f"{sum(total.values())} files, {total['read']} read, {total['refused']} refused, "
        f"{failures} failures; longest {1000 * longest:.0f} ms, at most {most >> 20} MB"
    )
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
