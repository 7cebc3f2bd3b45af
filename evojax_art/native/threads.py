"""Work in pieces on all cores, for native code that writes where it is told to."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from evojax_art.runtime.cores import num_cores

P = ParamSpec("P")
T = TypeVar("T")

_local = threading.local()


def once(fn: Callable[P, T]) -> Callable[P, T]:
    """`functools.cache` whose function runs once, even where threads call it at the same time."""
    cached: Any = cache(fn)
    lock = threading.Lock()

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with lock:
            return cached(*args, **kwargs)

    return call


@once
def pool() -> ThreadPoolExecutor:
    """A thread for each core."""
    return ThreadPoolExecutor(num_cores(), thread_name_prefix="interpret")


def run_all(
    task_fn: Callable[[Any], None], pieces: Iterable[Any], threads: Executor | None = None
) -> None:
    """Calls a function with each piece on the pool's threads, and outlives all of the calls.

    Native code writes into buffers of XLA's, which are gone when this returns. So it returns, or
    raises what a call or Ctrl-C raised, when no call is running and none will start any more.

    Args:
        task_fn: called with a piece.
        pieces: of the work.
        threads: to call it on; None: those of the `pool`.
    """
    threads = threads or pool()
    futures = [threads.submit(task_fn, piece) for piece in pieces]
    try:
        for future in futures:
            future.result()
    except BaseException:  # of a call; or Ctrl-C, where XLA runs on the main thread
        for future in futures:
            future.cancel()  # those that have not started
        while not all(future.done() for future in futures):
            with suppress(KeyboardInterrupt):  # one is on its way already
                wait(futures)
        raise


def bounds(count: int, parts: int) -> list[int]:
    """Where `count` things are cut into about equal ranges, at most `parts`."""
    parts = max(1, min(count, parts))
    return [count * index // parts for index in range(parts + 1)]


def scratch(size: int) -> int:
    """Address of a register file of so many floats, kept by each thread."""
    held = getattr(_local, "registers", None)
    if held is None or held.size < size + 16:
        held = _local.registers = np.empty(size + 16, np.float32)
    return -(-held.ctypes.data // 64) * 64  # so that no vector straddles two lines of cache
