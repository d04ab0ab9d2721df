"""YAML read as plain data (no objects, no aliases, YAML 1.2 numbers), overridden by `SET=`, and parsed into typed settings."""

import re
import reprlib
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from driverwatch.errors import InputError, listed, nearest
from driverwatch.io.manifests import DIGITS
from driverwatch.io.paths import matching

LARGEST = 2**20  # bytes


class _Loader(yaml.SafeLoader):
    """YAML 1.1 made safer: `1e-3` is a number, a key given twice is an error, and so are aliases (they can explode)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken; write it out", mark)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


# YAML 1.2's whole numbers alone: in 1.1, 010 is 8 and 1:30 is 90; and no dates, which are text
INT = re.compile(r"^[-+]?(0|[1-9]\d*)$")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in ("int", "timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))


def _refused(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _mapping(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _refused(node, "!!map stands before something else")
    if strange := next((key for key, _ in node.value if not isinstance(key, yaml.ScalarNode)), None):
        raise _refused(strange, "a list or a mapping as key")
    keys = [loader.construct_object(key) for key, _ in node.value]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise _refused(node, f"key given twice: {', '.join(map(str, twice))}")
    return loader.construct_mapping(node, deep=True)


def _int(loader: _Loader, node: Any) -> int:
    text = loader.construct_scalar(node)
    if not INT.match(text) or len(text) > DIGITS:
        raise ValueError(text)
    return int(text)


def _or_refused(kind: str, read: Any) -> Any:
    """A constructor that says in one line of what it is given that it is none."""

    def construct(loader: _Loader, node: Any) -> Any:
        try:
            return read(loader, node)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _refused(node, f"{reprlib.repr(node.value)} is no {kind}") from error

    return construct


_SAFE = yaml.constructor.SafeConstructor
_Loader.yaml_constructors = {  # a tag of any other kind (!!timestamp, !!binary, !!set, !!python/...) is refused by name
    "tag:yaml.org,2002:null": _SAFE.construct_yaml_null,
    "tag:yaml.org,2002:bool": _or_refused("true or false", _SAFE.construct_yaml_bool),
    "tag:yaml.org,2002:int": _or_refused(f"whole number of at most {DIGITS} digits", _int),
    "tag:yaml.org,2002:float": _or_refused("number", _SAFE.construct_yaml_float),
    "tag:yaml.org,2002:str": _SAFE.construct_yaml_str,
    "tag:yaml.org,2002:seq": lambda loader, node: list(loader.construct_sequence(node, deep=True)),
    "tag:yaml.org,2002:map": _mapping,
    None: _SAFE.construct_undefined,
}


def parse_yaml(text: str) -> Any:
    """YAML text as plain data.

    Raises:
        ValueError: anything else, in one line.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date like 2024-13-45
        raise ValueError(" ".join(str(error).split())) from error


def read_yaml(path: Path) -> Any:
    """A YAML file's content as plain data, or one sentence."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes, more than settings can need")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: expected YAML, got {error}") from error


class Strict(BaseModel):
    """Unknown keys and loosely typed values are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    file_keys: ClassVar[tuple[str, ...]] = ()  # what a file may say beside the fields, for sentences about it

    @classmethod
    def from_file(cls, content: dict[str, Any], path: Path, overrides: str) -> dict[str, Any]:
        """What is parsed of a file's content: with `SET=`'s overrides, and whatever else this kind of file is read with."""
        return overridden(content, overrides, cls)


S = TypeVar("S", bound=Strict)


def load(kind: type[S], folder: Path, name: str, overrides: str = "") -> S:
    """Read `<folder>/<name>.yaml` and `key.path=value` overrides (space-separated) into typed settings.

    Raises:
        InputError: no such file, unreadable YAML, or settings that do not fit, one line per mistake.
    """
    path = named_file(folder, name, "{path}: no such settings")
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected settings as key: value lines, got {type(content).__name__}")
    where = f"{path}" + (f' with SET="{overrides}"' if overrides.strip() else "")
    return parse(kind, kind.from_file(content, path, overrides), where, kind.file_keys)


def named_file(folder: Path, name: str, lacks: str) -> Path:
    """`<folder>/<name>.yaml`; where it is not there, an `InputError` that says `lacks`, the nearest name and all names."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [p.stem for p in matching(folder, "*.yaml")]
        there = f"(expected one of {', '.join(names) or 'none there'})"
        raise InputError(f"{lacks.format(path=path)}{nearest(name, names)} {there}")
    return path


def overridden(content: dict[str, Any], overrides: str, kind: type[BaseModel] | None = None) -> dict[str, Any]:
    """Plain settings, changed in place by `key.path=value` overrides (space-separated); `kind` as in `put`."""
    for override in overrides.split():
        _override(content, override, kind)
    return content


def _override(content: dict[str, Any], override: str, kind: type[BaseModel] | None) -> None:
    """Put one `a.b.0.c=value` into nested settings; the value is read as YAML."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f'SET="{override}": expected key=value, like SET="train.epochs=3 augment.preset=light"')
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
        there = f"there is an empty list in place of one with an entry {part}"
        raise InputError(f"{where}: {there}; set it as a whole: =[...]")
    if not part.isdecimal() or int(part) >= len(place):
        raise InputError(f"{where}: expected a number from 0 to {len(place) - 1} in place of {part}")
    return int(part)


def parse(kind: type[S], content: dict[str, Any], where: str, beside: tuple[str, ...] = ()) -> S:
    """Typed settings from plain data, or one sentence per mistake; `beside`: what else its top level may say there."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {_sentences(kind, error, beside)}") from None


def _sentences(kind: type[Strict], error: ValidationError, beside: tuple[str, ...]) -> str:
    lines = []
    for problem in error.errors():
        location, message = [str(part) for part in problem["loc"]], problem["msg"].removeprefix("Value error, ")
        dotted = ".".join(location)
        if problem["type"] == "extra_forbidden":
            keys = [*(beside if len(location) == 1 else ()), *_keys(kind, location[:-1])]
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
