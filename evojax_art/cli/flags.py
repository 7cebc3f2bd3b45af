"""Flags from dataclasses: each setting is a flag, its docstring the help.

What flags say becomes a table, as a TOML file's is (`runtime.tables`), so one place checks both.
`population` in the field `genetic` is `--genetic.population`; an underscore is a hyphen.
"""

import argparse
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, get_args, get_origin

from evojax_art.runs.toml import read_config
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.runtime.tables import Setting, from_table, settings_of

T = TypeVar("T")


def parse_flags(cls: type[T], flags: Sequence[str], prog: str) -> T:
    """A dataclass from command-line flags.

    Where it has a field `config`, that is a TOML file with the settings of its inlined field;
    flags override it.

    Args:
        cls: a dataclass whose docstring, with its `Attributes:`, becomes the help.
        flags: arguments.
        prog: the command, for help.

    Raises:
        InputError: one line, whatever is wrong.
        SystemExit: after printing help.
    """
    parser = _Parser(cls, prog)
    table = parser.table(flags)
    defaults = {}
    if file := table.get("config"):
        inlined = (item for item in settings_of(cls) if "inline" in item.field.metadata)
        defaults = {item.name: read_config(Path(file), item.type, tell) for item in inlined}
    return from_table(cls, table, defaults, is_text=True, spelled_fn=_flag, tell_fn=tell)


def tell(line: str) -> None:
    """Prints a remark on standard error."""
    print(f"evojax-art: {line}", file=sys.stderr)


class _Leaf(NamedTuple):
    """A setting that has a flag.

    Attributes:
        key: its name behind those of the tables around it, as in `genetic.population`.
        setting: the setting.
        default: its value without the flag.
        help: what its dataclass says of it.
        table_help: what is said of the table that it is in.
        is_old: whether an older name is in the key.
    """

    key: str
    setting: Setting
    default: Any
    help: str
    table_help: str
    is_old: bool

    @property
    def table(self) -> str:
        """Key of the table that it is in; empty for the outermost."""
        return self.key.rpartition(".")[0]


class _Parser(argparse.ArgumentParser):
    """Reads flags into a table."""

    def __init__(self, cls: type, prog: str):
        self._leaves = list(_leaves(cls, {}))
        positional = [leaf.setting for leaf in self._leaves if _is_positional(leaf.setting)]
        arguments = "".join(f" {item.name}{' ...' * item.is_list}" for item in positional)
        super().__init__(
            prog=prog,
            usage=f"{prog} [OPTIONS]{arguments}",
            description=_parts(cls)[0],
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        groups: dict[str, argparse._ActionsContainer] = {"": self}
        for leaf in self._leaves:
            if leaf.table not in groups and not leaf.is_old:
                title = f"{leaf.table} options"
                groups[leaf.table] = self.add_argument_group(title, leaf.table_help)
            _add(groups.get(leaf.table, self), leaf)

    def table(self, flags: Sequence[str]) -> dict[str, Any]:
        """What the flags say; values are text, lists of it, or true or false.

        Raises:
            InputError: an unknown flag, or one without its value.
        """
        given, unknown = self.parse_known_intermixed_args(_joined(flags))
        if unknown:
            name = unknown[0].partition("=")[0]
            known = [_flag(leaf.key) for leaf in self._leaves if not leaf.is_old]
            near = suggest(name, known) if name.startswith("-") else ""
            self.error(f"unknown option {name}{near}")
        table: dict[str, Any] = {}
        for key, value in vars(given).items():
            *outer, name = key.split(".")
            inner = table
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[name] = value
        return table

    def error(self, message: str) -> NoReturn:
        """In place of printing.

        Raises:
            InputError: always.
        """
        value = re.fullmatch(r"argument ([^/:]+).*: ignored explicit argument (.*)", message)
        if value:
            message = f"{value[1]} takes no value, got {value[2]}"
        raise InputError(f"{message} (see {self.prog} --help)")


class _Switch(argparse.Action):
    """A flag without a value, and its opposite."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


class _Formatter(argparse.HelpFormatter):
    """Keeps paragraphs."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(super(_Formatter, self)._fill_text(p, width, indent) for p in paragraphs)


def _add(group: argparse._ActionsContainer, leaf: _Leaf) -> None:
    setting, default = leaf.setting, argparse.SUPPRESS
    told = argparse.SUPPRESS if leaf.is_old else _told(leaf)
    if _is_positional(setting):
        optional = leaf.default is not dataclasses.MISSING
        count = "*" if setting.is_list else "?" if optional else None
        group.add_argument(leaf.key, nargs=count, default=default, help=told)
        return
    flag, dest, metavar = _flag(leaf.key), leaf.key, _metavar(setting.type)
    if setting.type is bool:
        opposite = _flag(leaf.key, negated=True)
        group.add_argument(flag, opposite, action=_Switch, dest=dest, default=default, help=told)
        return
    repeatable = "repeatable" in setting.field.metadata
    group.add_argument(
        flag,
        dest=dest,
        default=default,
        metavar=metavar,
        help=told,
        action="append" if repeatable else "store",
        nargs="*" if setting.is_list and not repeatable else None,
    )


def _leaves(
    cls: type,
    defaults: Mapping[str, Any],
    place: str = "",
    table_help: str = "",
    is_old: bool = False,
) -> Iterator[_Leaf]:
    """All settings of a dataclass and those within, under older names as well."""
    helps = _parts(cls)[1]
    for setting in settings_of(cls):
        default, told = setting.default(defaults), helps.get(setting.name, "")
        if "inline" in setting.field.metadata:
            yield from _leaves(setting.type, vars(default), place, table_help, is_old)
            continue
        for name, old in ((setting.name, is_old), (setting.formerly, True)):
            if name and setting.is_table:
                yield from _leaves(setting.type, vars(default), f"{place}{name}.", told, old)
            elif name:
                yield _Leaf(place + name, setting, default, told, table_help, old)


def _parts(cls: type) -> tuple[str, dict[str, str]]:
    """A docstring's text, and what its `Attributes:` say by name."""
    text, _, attributes = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")
    entries = re.split(r"^(\w+): ", textwrap.dedent(attributes), flags=re.MULTILINE)[1:]
    told = (" ".join(entry.split()) for entry in entries[1::2])
    return text.strip(), dict(zip(entries[::2], told, strict=True))


def _told(leaf: _Leaf) -> str:
    """The help, with the default where it says something."""
    default = leaf.default
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    if isinstance(default, bool):
        default = "yes" if default else ""
    silent = default is None or default is dataclasses.MISSING or default == ""
    told = leaf.help if silent else f"{leaf.help} (default: {default})"
    return told.replace("%", "%%")


def _joined(flags: Sequence[str]) -> list[str]:
    """The same with hyphens in names, and `--flag=-1e-3` where argparse would see two flags."""
    joined: list[str] = []
    for word in flags:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            joined.append(f"{name.replace('_', '-')}{equals}{value}")
        elif joined and re.fullmatch(r"--[^=]+", joined[-1]) and _is_negative(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _is_negative(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return word.startswith("-")


def _is_positional(setting: Setting) -> bool:
    return "positional" in setting.field.metadata


def _flag(key: str, *, negated: bool = False) -> str:
    table, dot, name = key.rpartition(".")
    return f"--{table}{dot}{'no-' * negated}{name}".replace("_", "-")


def _metavar(kind: Any) -> str:
    """What stands for a value in help."""
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if args := [one for one in get_args(kind) if one not in (NoneType, ...)]:
        return _metavar(args[0])
    return {int: "INT", float: "FLOAT", Path: "PATH"}.get(kind, "TEXT")
