"""Reading a stranger's pickle without running what it contains.

Unpickling calls whatever functions a file names. `PlainUnpickler` builds plain values
(dictionaries, lists, tuples, numbers, text, bytes) and what few names its subclass knows, each
replaced by a function of ours that checks its arguments; any other name is refused before anything
happens.

What it gives may still be nested deeply, or hold itself many times over by reference: look only
at what is expected, and at its type first.
"""

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

from evojax_art.runtime.errors import InputError

# What dictionaries of plain values, tensors and arrays are written with by protocols 2 and 3; U and
# T are the strings of Python 2, B and C the bytes of protocol 3.
_OPCODES = b"\x80.()]}NGJKMXUTBC\x85\x86\x87\x88\x89\x8a\x8bQRcabehjqrstu"


_NEWEST_PROTOCOL = 3


class Stateful:
    """What a known name may build if it takes a state afterwards, as pickles of objects do."""

    def set_state(self, state: Any) -> None:
        """Takes what the file says, which may be anything."""
        raise NotImplementedError


class PlainUnpickler(pickle._Unpickler):
    """Builds plain values and what `known` says; knows only the opcodes for those.

    The slower Python implementation, because it is told its opcodes. The one in C lets a few
    bytes claim a memo of 64 GB, hashes keys as deep as the stack, and sets attributes of whatever
    `find_class` gives.

    Give it a file whose bytes are in memory: others set aside whatever size a text claims to have.

    Attributes:
        known: what stands for each (module, name); called with whatever arguments a file gives.
        content: what a file is expected to be, for refusals.
    """

    known: ClassVar[Mapping[tuple[str, str], Any]] = {}
    content: ClassVar[str] = "file of plain values"
    dispatch: ClassVar[dict] = {code: pickle._Unpickler.dispatch[code] for code in _OPCODES}

    def _protocol(self):
        protocol = self.read(1)[0]  # pyright: ignore[reportAttributeAccessIssue]
        if protocol > _NEWEST_PROTOCOL:
            raise InputError(
                f"a pickle of protocol {protocol}, where a {self.content} has at most "
                f"{_NEWEST_PROTOCOL}; write it with that"
            )

    def _set_items(self):
        items = self.pop_mark()  # pyright: ignore[reportAttributeAccessIssue]
        self.stack[-1].update(dictionary(zip(items[::2], items[1::2], strict=True)))

    def _set_item(self):
        self.metastack.append(self.stack[:-2])  # pyright: ignore[reportAttributeAccessIssue]
        self.stack = self.stack[-2:]
        self._set_items()

    def _build(self):
        state = self.stack.pop()
        if isinstance(self.stack[-1], Stateful):  # else attributes that nobody asks for
            self.stack[-1].set_state(state)

    dispatch |= {
        pickle.PROTO[0]: _protocol,
        pickle.SETITEMS[0]: _set_items,
        pickle.SETITEM[0]: _set_item,
        pickle.BUILD[0]: _build,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name.

        Raises:
            InputError: it is not known.
        """
        if (module, name) in self.known:
            return self.known[module, name]
        raise InputError(
            f"names {f'{module}.{name}'!r}, which is no part of a plain {self.content}; refused"
        )


def dictionary(items=()) -> dict:
    """A dictionary of (key, value) pairs, the keys text, bytes or whole numbers.

    Raises:
        InputError: another key, since hashing it could recurse.
    """
    pairs = [(key, value) for key, value in items]
    if not all(isinstance(key, str | bytes | int) for key, _ in pairs):
        raise InputError("holds a dictionary whose keys are no names")
    return dict(pairs)
