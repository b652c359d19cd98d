"""Settings as TOML: what a run writes into run.toml and `--config` reads. An unknown key is an error, never ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from gpt2kit.errors import ConfigError

T = TypeVar("T")


def to_toml(settings: Any) -> bytes:
    """A settings dataclass as TOML: nested ones become tables, None is left out."""
    return tomli_w.dumps(_table(settings)).encode()


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def from_table(kind: type[T], table: Mapping[str, Any], where: str, absent: Any) -> T:
    """A `kind` with the values of `table`; a field without default and value becomes `absent`. Raises ConfigError."""
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    values = {name: absent for name, field in known.items() if not _has_default(field)}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise ConfigError(f"{where} has no setting {key!r}{_hint(name, hints)}")
        if name != key and name in table:
            raise ConfigError(f"{where} has both {key!r} and {name!r}, which are the same setting")
        values[name] = _converted(value, hints[name], f"{where}, {key}", absent)
    return kind(**values)


def _table(settings: Any) -> dict[str, Any]:
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _table(value)
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    return str(value) if isinstance(value, Path) else value


def _hint(name: str, hints: Mapping[str, Any]) -> str:
    """Where a setting that is not among these was meant to stand, or what was meant."""
    for table, hint in hints.items():
        if is_dataclass(hint) and name in (field.name for field in fields(hint)):
            return f"; it stands in the table [{table}]"
    near = get_close_matches(name, hints, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _converted(value: Any, hint: Any, where: str, absent: Any) -> Any:
    """`value` as the type `hint` asks for, or a ConfigError."""
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_table(hint, value, where, absent)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _converted(value, next(one for one in arguments if one is not NoneType), where, absent)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_converted(entry, arguments[0], where, absent) for entry in value)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        key_type, value_type = arguments
        return {
            _converted(int(key) if key.isdecimal() else key, key_type, where, absent): _converted(
                entry, value_type, f"{where}, {key}", absent
            )
            for key, entry in value.items()
        }
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    named = {bool: "true or false", str: "a text", tuple: "a list", int: "a whole number", float: "a number"}
    one_of = f"one of {', '.join(map(repr, arguments))}"
    expected = one_of if origin is Literal else named.get(origin or hint, getattr(hint, "__name__", str(hint)))
    raise ConfigError(f"{where}: found {value!r}, expected {expected}")
