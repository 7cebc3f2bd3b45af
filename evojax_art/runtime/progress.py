"""What a long command shows while it runs, and how Ctrl-C ends it."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.text import Text

_PLAIN_LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class StatusLine:
    """One line that is kept up to date; without a terminal, a plain line now and then.

    Args:
        console: where it shows.
        first: the line before anything is known.
    """

    def __init__(self, console: Console, first: str):
        self._console = console
        self._live = Live(Text(first), console=console) if console.is_terminal else None
        self._printed = -_PLAIN_LINE_EVERY
        self._line = first

    def __enter__(self) -> "StatusLine":
        if self._live:
            self._live.start()
        else:
            self._console.print(self._line, markup=False)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()
        elif exception == (None, None, None):
            self._console.print(self._line, markup=False, soft_wrap=True)

    def show(self, line: str) -> None:
        """Replaces the line."""
        self._line = line
        if self._live:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif time.monotonic() - self._printed >= _PLAIN_LINE_EVERY:
            self._console.print(line, markup=False, soft_wrap=True)
            self._printed = time.monotonic()


@runtime_checkable
class Flag(Protocol):
    """Set once somebody wants to stop."""

    def is_set(self) -> bool:
        """Whether it is."""
        ...


@contextmanager
def stop_on_interrupt(console: Console, after: str) -> Iterator[Flag]:
    """Ctrl-C or SIGTERM sets the flag, so that work can end cleanly; a second one interrupts.

    Args:
        console: where to say so.
        after: what is finished first, as in "stopping after this generation".
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals are the main thread's
        return

    def stop(number: int, frame: object) -> None:
        del frame
        flag.set()
        signal.signal(number, signal.default_int_handler)
        console.print(f"stopping after {after} ...")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
