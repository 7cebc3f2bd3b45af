"""The command line: `evojax-art COMMAND`.

Every mistake is one message on standard error and exit status 2.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from evojax_art.runtime.errors import InputError, suggest

COMMANDS = {  # a module of `cli` each, and its function of that name
    "evolve": "breed formulas until a network sees the target",
    "illuminate": "breed the best formula for every class, all at once",
    "gallery": "make a page of all that runs bred",
    "lineage": "show what the elite of a class descends from",
    "render": "draw formulas, given as text or in files",
    "movie": "show formulas in motion",
    "dream": "let a network see things in a picture, and zoom into them",
    "polish": "finish a formula, or its pixels, by gradient",
    "nets": "list networks and their classes, fetch weights",
    "benchmark": "measure the engine on this machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, or 2 for a mistake in what was given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not given or given[0] in ("-h", "--help"):
            print(_overview(), end="")
            return 0 if given else 2
        if given[0] in ("-V", "--version"):
            print(f"evojax-art {version('evojax-art')}")
            return 0
        if given[0] not in COMMANDS:
            near = suggest(given[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
            raise InputError(f"unknown command {given[0]!r}{near}")
        _command(given[0])(given[1:])
    except InputError as error:
        print(f"evojax-art: error: {error}", file=sys.stderr)
        return 2
    except SystemExit as exit_:  # help was printed
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `evojax-art nets ... | head`
        sys.stderr.close()
        return 0
    return 0


def _command(name: str) -> Callable[[list[str]], None]:
    """Its module is imported when it is called, so that each starts with what it needs."""
    return getattr(import_module(f"evojax_art.cli.{name}"), name)


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 3
    lines = "".join(f"  {name:{width}}{summary}\n" for name, summary in COMMANDS.items())
    return (
        "usage: evojax-art COMMAND [OPTIONS]\n\n"
        "Breeds pictures from formulas over quaternions.\n\n"
        f"commands:\n{lines}\n"
        "evojax-art COMMAND --help explains each, evojax-art --version says which this is.\n"
    )
