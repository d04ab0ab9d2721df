"""Typed settings out of YAML: every mistake one readable line.

A model's, dataset's or ensemble's settings are one small YAML that says only what differs; its file name is its name.
"""

import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from driverwatch.errors import InputError, listed, nearest
from driverwatch.listing import matching
from driverwatch.yaml_files import parse_yaml, read_yaml


class Strict(BaseModel):
    """Unknown keys and loosely typed values are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Strict)


def load(kind: type[S], folder: Path, name: str, overrides: str = "") -> S:
    """Read `<folder>/<name>.yaml` and `key.path=value` overrides (space-separated) into typed settings.

    Raises:
        InputError: no such file, unreadable YAML, or settings that do not fit, one line per mistake.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [p.stem for p in matching(folder, "*.yaml")]
        raise InputError(
            f"{path}: no such settings; expected one of {', '.join(names) or '(none there)'}{nearest(name, names)}"
        )
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected settings as key: value lines, got {type(content).__name__}")
    where = f"{path}" + (f' with SET="{overrides}"' if overrides.strip() else "")
    return parse(kind, overridden(content, overrides, kind), where)


def overridden(content: dict[str, Any], overrides: str, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """Plain settings, changed in place by `key.path=value` overrides (space-separated); `kind` as in `put`."""
    for override in overrides.split():
        _override(content, override, kind)
    return content


def _override(content: dict[str, Any], override: str, kind: type[BaseModel] | None) -> None:
    """Put one `a.b.0.c=value` into nested settings; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f'SET="{override}": expected key=value, like SET="train.epochs=3 augment.policy=light"')
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise InputError(f'SET="{override}": expected YAML after =, got {error}') from error
    put(content, key, parsed, f"SET {key}", kind)


def put(content: dict[str, Any], key: str, value: Any, where: str, kind: type[BaseModel] | None = None) -> None:
    """Put a value at `a.b.0.c` into nested settings; what is left out or null on the way there begins as its default.

    Args:
        kind: what the settings are parsed as, whose defaults these are; without it they are empty.

    Raises:
        InputError: there is no such place; begins with `where`.
    """
    *parents, last = key.split(".")
    place: Any = content
    for depth, part in enumerate(parents, start=1):
        found = place[_index(place, part, where)] if isinstance(place, list) else place.get(part)
        if found is None and isinstance(place, dict):
            found = place[part] = _default(kind, parents[:depth], where)
        if not isinstance(found, dict | list):
            raise InputError(f"{where}: {part} holds a value, not further keys")
        place = found
    place[_index(place, last, where) if isinstance(place, list) else last] = value


def _default(kind: type[BaseModel] | None, path: list[str], where: str) -> dict[str, Any] | list[Any]:
    """What stands at a dotted place that settings leave out, as plain data. Raises `InputError` if that is one value."""
    field = None if kind is None else _field(kind, path)
    default = None if field is None else field.get_default(call_default_factory=True)
    if isinstance(default, list):
        return [one.model_dump(exclude_unset=True) if isinstance(one, BaseModel) else one for one in default]
    if field is not None and _model_in(field) is None and not isinstance(default, dict):
        raise InputError(f"{where}: {'.'.join(path)} holds a value, not further keys; set it as a whole")
    return {}


def _index(place: list[Any], part: str, where: str) -> int:
    if not place:
        raise InputError(
            f"{where}: there is an empty list in place of one with an entry {part}; set it as a whole: =[...]"
        )
    if not part.isdecimal() or int(part) >= len(place):
        raise InputError(f"{where}: expected a number from 0 to {len(place) - 1} in place of {part}")
    return int(part)


def parse(kind: type[S], content: dict[str, Any], where: str) -> S:
    """Typed settings from plain data, or one sentence per mistake."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {_sentences(kind, error)}") from None


def _sentences(kind: type[Strict], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        dotted = ".".join(location)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            keys = _keys(kind, location[:-1])
            message = f"unknown key; expected one of {', '.join(keys)}{nearest(location[-1], keys)}"
        elif problem["type"] == "missing":
            message = "is missing"
        elif not isinstance(problem["input"], dict | Strict):
            message += f", got {reprlib.repr(problem['input'])}"
        lines.append(f"{dotted}: {message[0].lower()}{message[1:]}" if dotted else message)
    return lines[0] if len(lines) == 1 else listed(lines)


def _keys(kind: type[BaseModel], location: list[str]) -> list[str]:
    """Keys that the settings at a dotted place know."""
    for part in location:
        if part in kind.model_fields:
            kind = _model_in(kind.model_fields[part]) or kind
    return list(kind.model_fields)


def _field(kind: type[BaseModel], path: list[str]) -> FieldInfo | None:
    """The field at a dotted place, past the numbers of lists; None where there is none."""
    found = None
    for part in path:
        if part in kind.model_fields:
            found = kind.model_fields[part]
            kind = _model_in(found) or kind
        elif not part.isdecimal():
            return None
    return found


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    """The settings that a field holds, one or many; None where it holds plain values."""
    inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
