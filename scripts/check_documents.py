"""Runs what the READMEs say: python scripts/check_documents.py [--quick] [DOCUMENT ...].

Every document has a fresh copy of the checkout to itself, in a temporary folder, and its ```bash
and ```python blocks are run there in order, so that a command finds what earlier ones have made.
Commands are those of this Python's environment, and import the copy. Each is reported with its exit
status and seconds; the exit status is 1 where one failed.

A comment of the document, on the line before a block, says what is special about it:

    <!-- needs: gpu -->      also ffmpeg, network, data (see `NEEDS`): left out, and said so, where
                             that is missing; words with commas between them
    <!-- minutes: 3 -->      about so long on two cores; `--quick` leaves it out, and says so
    <!-- example -->         not to be run as it stands, because it shows a form
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NO_PART = re.compile(r"(\.|runs/|build/|dist/)|(.*/)?(\.|__pycache__/|[^/]+\.egg-info/)")
LIMIT = 3600  # seconds for one command


def _has_ffmpeg() -> bool:
    return bool(shutil.which("ffmpeg") or importlib.util.find_spec("imageio_ffmpeg"))


NEEDS: dict[str, Callable[[], bool]] = {  # what a block may need, and whether it is there
    "ffmpeg": _has_ffmpeg,
    "gpu": lambda: shutil.which("nvidia-smi") is not None,
    "network": lambda: False,  # only where `--with network` says so
    "data": lambda: False,  # CIFAR-100
}


class Block(NamedTuple):
    """A fenced block of a document.

    Attributes:
        language: behind the fence.
        text: what is in it.
        line: of the document, from 1, where the text begins.
        needs: what must be there.
        minutes: about how long it takes; 0 where nothing is said.
        is_example: whether it only shows a form.
    """

    language: str
    text: str
    line: int
    needs: tuple[str, ...] = ()
    minutes: float = 0.0
    is_example: bool = False


class Command(NamedTuple):
    """Something to run.

    Attributes:
        text: as it stands, without the newline at its end.
        line: of the document, from 1.
        block: that it is in.
    """

    text: str
    line: int
    block: Block


def documents() -> list[Path]:
    """The READMEs of the checkout, the outermost first."""
    found = (path for path in ROOT.rglob("README.md") if _is_part(path))
    return sorted(found, key=lambda path: (len(path.parts), path))


def blocks(document: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text.

    Raises:
        ValueError: a comment before one that nobody understands.
    """
    pattern = r"((?:^<!--[^\n]*-->\n)*)^```(\w+)\n(.*?)^```$"
    for match in re.finditer(pattern, document, re.MULTILINE | re.DOTALL):
        comments, language, text = match.groups()
        line = document.count("\n", 0, match.start(3)) + 1
        marks = dict(_mark(comment) for comment in re.findall(r"<!--(.*)-->", comments))
        yield Block(language, text, line)._replace(**marks)


def commands(document: str) -> Iterator[Command]:
    """What there is to run in a Markdown text: lines of bash blocks, and python blocks whole."""
    for block in blocks(document):
        if block.language == "python":
            yield Command(block.text.rstrip("\n"), block.line, block)
        if block.language == "bash":
            for match in re.finditer(r"^(?!#|\n)(?:.*\\\n)*.+", block.text, re.MULTILINE):
                line = block.line + block.text.count("\n", 0, match.start())
                yield Command(match.group(), line, block)


def check(document: Path, given: argparse.Namespace) -> int:
    """Runs the commands of a document, each after the other; returns how many failed."""
    failed = 0
    name = document.relative_to(ROOT)
    with tempfile.TemporaryDirectory(prefix="evojax-art-") as folder:
        home = Path(folder) / "checkout"
        shutil.copytree(ROOT, home, ignore=_no_part)
        for command in commands(document.read_text(encoding="utf-8")):
            reason = _reason_to_skip(command.block, given)
            if reason:
                _report(name, command, f"left out, {reason}")
                continue
            began = time.monotonic()
            status, output = _run(command, home)
            _report(name, command, f"status {status}, {time.monotonic() - began:.1f} s")
            if status:
                failed += 1
                print(output[-2000:], flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the documents that are named, or all; 1 where a command failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("documents", nargs="*", type=Path, help="by default all READMEs")
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument(
        "--with", nargs="+", default=[], choices=NEEDS, dest="present", help="there"
    )
    parser.add_argument("--list", action="store_true", help="say what would run, and run nothing")
    given = parser.parse_args(arguments)
    chosen = [path.resolve() for path in given.documents] or documents()
    failed = sum(check(document, given) for document in chosen)
    print(f"{failed} commands failed" if failed else "no command failed")
    return int(failed > 0)


def _mark(comment: str) -> tuple[str, Any]:
    """A field of `Block` and its value, from the comment before it."""
    word, _, value = comment.strip().partition(":")
    if word == "needs":
        needs = tuple(part.strip() for part in value.split(","))
        if not set(needs) <= set(NEEDS):
            raise ValueError(f"<!--{comment}-->: a block can need {', '.join(NEEDS)}")
        return "needs", needs
    if word == "minutes":
        return "minutes", float(value)
    if word == "example":
        return "is_example", True
    raise ValueError(f"<!--{comment}--> before a block is not understood")


def _reason_to_skip(block: Block, given: argparse.Namespace) -> str:
    missing = [need for need in block.needs if need not in given.present and not NEEDS[need]()]
    if block.is_example:
        return "it shows a form"
    if missing:
        return f"needs {', '.join(missing)}"
    if given.quick and block.minutes:
        return f"takes about {block.minutes:g} minutes"
    return "only listed" if given.list else ""


def _run(command: Command, folder: Path) -> tuple[int, str]:
    """Exit status and output of a command; 124 where it took too long."""
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    if command.block.language == "python":
        line = [sys.executable, "-c", command.text]
    else:
        line = ["bash", "-euo", "pipefail", "-c", command.text]
    try:
        done = subprocess.run(
            line,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return 124, (error.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace")


def _report(name: Path, command: Command, outcome: str) -> None:
    first = command.text.partition("\n")[0]
    print(f"{name}:{command.line}: {outcome}: {first}", flush=True)


def _is_part(path: Path) -> bool:
    """Whether a file is of the checkout, and not what runs and tools left there."""
    return not NO_PART.match(path.relative_to(ROOT).as_posix())


def _no_part(folder: str, names: list[str]) -> list[str]:
    """Those of a folder that are no part of the checkout, for `shutil.copytree`."""
    inside = (Path(folder) / name for name in names)
    told = {path.name: path.relative_to(ROOT).as_posix() + "/" * path.is_dir() for path in inside}
    return [name for name, shown in told.items() if NO_PART.match(shown)]


if __name__ == "__main__":
    sys.exit(main())
