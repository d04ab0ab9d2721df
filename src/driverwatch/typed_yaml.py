"""Typed settings out of YAML: every mistake one readable line.

A model's, dataset's or ensemble's settings are one small YAML that says only what differs; its file name is its name.
"""

import reprlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

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
    return parse(kind, overridden(content, overrides), where)


def overridden(content: dict[str, Any], overrides: str) -> dict[str, Any]:
    """Plain settings, changed in place by `key.path=value` overrides (space-separated)."""
    for override in overrides.split():
        _override(content, override)
    return content


def _override(content: dict[str, Any], override: str) -> None:
    """Put one `a.b.0.c=value` into nested settings; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f'SET="{override}": expected key=value, like SET="train.epochs=3 augment.policy=light"')
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise InputError(f'SET="{override}": expected YAML after =, got {error}') from error
    put(content, key, parsed, f"SET {key}")


def put(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put a value at `a.b.0.c` into nested settings. Raises `InputError`, beginning with `where`, if there is no such place."""
    *parents, last = key.split(".")
    place: Any = content
    for part in parents:
        place = place[_index(place, part, where)] if isinstance(place, list) else place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise InputError(f"{where}: {part} holds a value, not further keys")
    place[_index(place, last, where) if isinstance(place, list) else last] = value


def _index(place: list[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
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
            inner = [kind.model_fields[part].annotation, *getattr(kind.model_fields[part].annotation, "__args__", ())]
            kind = next((a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)), kind)
    return list(kind.model_fields)
