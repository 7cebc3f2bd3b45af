"""Settings as tables: what TOML files hold and command lines say, to frozen dataclasses and back.

A dataclass is a table and its fields are the keys; a field that is a dataclass is a table in it.
What a type cannot say of a field stands in its metadata:

INLINE       a dataclass whose keys stand in the table around it
POSITIONAL   on the command line a plain argument, without a flag
REPEATABLE   on the command line a flag that may be given several times; adds to what a file says
UNSAVED      read, but never written: what holds for one run alone
INTERNAL     neither read nor written: what the program sets itself
formerly()   an older name, still read
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from evojax_art.runtime.errors import InputError, suggest

T = TypeVar("T")
INLINE, POSITIONAL, REPEATABLE, UNSAVED, INTERNAL = (
    {name: True} for name in ("inline", "positional", "repeatable", "unsaved", "internal")
)


def formerly(name: str) -> dict[str, str]:
    """Metadata of a field that had another name."""
    return {"formerly": name}


class Setting(NamedTuple):
    """A key of a table.

    Attributes:
        name: the key.
        field: of the dataclass.
        type: of the value.
    """

    name: str
    field: Field
    type: Any

    @property
    def is_table(self) -> bool:
        """Whether the value is a table."""
        return dataclasses.is_dataclass(self.type)

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return get_origin(self.type) is tuple

    @property
    def formerly(self) -> str:
        """Its older name, if there is one."""
        return self.field.metadata.get("formerly", "")

    def default(self, defaults: Mapping[str, Any]) -> Any:
        """The value among these, else the field's own; `dataclasses.MISSING` without either."""
        if self.name in defaults:
            return defaults[self.name]
        factory = self.field.default_factory
        return self.field.default if factory is dataclasses.MISSING else factory()


@cache
def settings_of(cls: type) -> tuple[Setting, ...]:
    """The fields of a dataclass that can be read, inlined dataclasses as one field each."""
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return tuple(
        Setting(item.name, item, hints[item.name])
        for item in fields
        if "internal" not in item.metadata
    )


def keys_of(cls: type) -> Iterator[Setting]:
    """The keys of its table, those of inlined dataclasses among them."""
    for setting in settings_of(cls):
        if "inline" in setting.field.metadata:
            yield from keys_of(setting.type)
        else:
            yield setting


def from_table(
    cls: type[T],
    table: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    *,
    is_text: bool = False,
    spelled_fn: Callable[[str], str] = str,
    tell_fn: Callable[[str], None],
) -> T:
    """A dataclass from a table.

    Args:
        cls: the dataclass.
        table: values by key; a key that is not there keeps its default.
        defaults: by name of a field, in place of the dataclass's own.
        is_text: numbers come as text, as from a command line.
        spelled_fn: how users write a key, which is given as in `genetic.population`.
        tell_fn: is told in a line of every old name.

    Raises:
        InputError: a key that there is not, a value of another type, a value that is missing;
            whatever the dataclasses themselves refuse, unchanged.
    """
    return _Reader(is_text, spelled_fn, tell_fn).read(cls, table, defaults or {}, "")


def to_table(config: Any) -> dict[str, Any]:
    """The table that `from_table` makes the same dataclass from; what is None is left out."""
    table: dict[str, Any] = {}
    for setting in settings_of(type(config)):
        value, metadata = getattr(config, setting.name), setting.field.metadata
        if "inline" in metadata:
            table |= to_table(value)
        elif value is not None and "unsaved" not in metadata:
            table[setting.name] = to_table(value) if setting.is_table else _plain(value)
    return table


class _Reader(NamedTuple):
    """`from_table`, whose arguments it holds; `place` is where a table stands, as `genetic.`."""

    is_text: bool
    spelled_fn: Callable[[str], str]
    tell_fn: Callable[[str], None]

    def read(
        self, cls: type[T], table: Mapping[str, Any], defaults: Mapping[str, Any], place: str
    ) -> T:
        known = {setting.name: setting for setting in keys_of(cls)}
        table = self._renamed(known, table, place)
        for key in table:
            if key not in known:
                near = suggest(key, known) or f"; there are {', '.join(known)}"
                raise InputError(f"unknown key {self.spelled_fn(place + key)}{near}")
        return self._made(cls, table, defaults, place)

    def _made(
        self, cls: type[T], table: Mapping[str, Any], defaults: Mapping[str, Any], place: str
    ) -> T:
        """The same of a table all whose keys are known, if not to this dataclass."""
        values = {}
        for setting in settings_of(cls):
            name, default = setting.name, setting.default(defaults)
            if "inline" in setting.field.metadata:
                values[name] = self._made(setting.type, table, _held(default), place)
            elif name not in table:
                values[name] = default
            elif setting.is_table:
                if not isinstance(table[name], Mapping):
                    raise InputError(f"{self.spelled_fn(place + name)} must be a table")
                inside = f"{place}{name}."
                values[name] = self.read(setting.type, table[name], _held(default), inside)
            else:
                value = self._value(setting.type, table[name], place + name)
                adds = self.is_text and "repeatable" in setting.field.metadata
                values[name] = (*default, *value) if adds else value
            if values[name] is dataclasses.MISSING:
                raise InputError(f"{self.spelled_fn(place + name)} is missing")
        return cls(**values)

    def _renamed(
        self, known: Mapping[str, Setting], table: Mapping[str, Any], place: str
    ) -> Mapping[str, Any]:
        """The table under today's names."""
        for setting in known.values():
            if not setting.formerly or setting.formerly not in table:
                continue
            names = (self.spelled_fn(place + name) for name in (setting.formerly, setting.name))
            old, new = (f"{name}.*" if setting.is_table else name for name in names)
            if setting.name in table:
                raise InputError(f"{old} is the old name of {new}: give one of them")
            self.tell_fn(f"{old} is now called {new}")
            table = {
                setting.name if key == setting.formerly else key: value
                for key, value in table.items()
            }
        return table

    def _value(self, kind: Any, value: Any, place: str) -> Any:
        if isinstance(value, Mapping):
            raise InputError(f"{self.spelled_fn(place)} must be a plain value")
        try:
            loose = _loose(kind, value, is_text=self.is_text)
            if type(loose) is int and abs(loose) >= 2**63:
                raise InputError(f"{self.spelled_fn(place)} is out of range: {value!s:.20}...")
            return msgspec.convert(loose, kind, dec_hook=_read_path)
        except msgspec.ValidationError as error:
            near = suggest(str(value), map(str, get_args(kind))) if _is_choice(kind) else ""
            raise InputError(
                f"{self.spelled_fn(place)} must be {_expected(kind)}, got {value!r}{near}"
            ) from error


def _held(default: Any) -> Mapping[str, Any]:
    """The fields of a dataclass's default."""
    return {} if default is dataclasses.MISSING else vars(default)


def _loose(kind: Any, value: Any, *, is_text: bool) -> Any:
    """What people write for a value of that type, as the value that they mean."""
    if get_origin(kind) is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return [_loose(get_args(kind)[0], item, is_text=is_text) for item in values]
    if NoneType in get_args(kind):  # TOML has no null
        nothing = ("", "None") if is_text else ("",)
        return None if value in nothing else _loose(_main(kind), value, is_text=is_text)
    if _is_choice(kind):
        return {str(choice): choice for choice in get_args(kind)}.get(str(value), value)
    if kind is str and type(value) in (int, float):
        return str(value)
    if is_text and kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _read_path(kind: type, value: Any) -> Path:
    """A file's name; msgspec asks for what it has no type of."""
    if kind is not Path or not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    try:
        return Path(value).expanduser()
    except RuntimeError:  # nobody's home
        return Path(value)


def _main(kind: Any) -> Any:
    """The type without None."""
    return next((one for one in get_args(kind) if one is not NoneType), kind)


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _expected(kind: Any) -> str:
    if NoneType in get_args(kind):
        return _expected(_main(kind))
    if get_origin(kind) is tuple:
        return f"{_expected(get_args(kind)[0])}, or a list of such"
    if _is_choice(kind):
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "the name of a file",
    }[kind]


def _plain(value: Any) -> Any:
    """As TOML has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
