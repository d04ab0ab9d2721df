"""YAML files from anywhere, as plain data: no objects, no aliases, numbers that are numbers."""

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml

from driverwatch.errors import InputError

LARGEST = 2**20  # bytes
DIGITS = 100  # of a whole number; beyond 308 it is no floating-point number either


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


def _sequence(loader: _Loader, node: Any) -> list[Any]:
    return list(loader.construct_sequence(node, deep=True))


def _int(loader: _Loader, node: Any) -> int:
    text = loader.construct_scalar(node)
    if not INT.match(text) or len(text) > DIGITS:
        raise ValueError(text)
    return int(text)


def _told(kind: str, read: Any) -> Any:
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
    "tag:yaml.org,2002:bool": _told("true or false", _SAFE.construct_yaml_bool),
    "tag:yaml.org,2002:int": _told(f"whole number of at most {DIGITS} digits", _int),
    "tag:yaml.org,2002:float": _told("number", _SAFE.construct_yaml_float),
    "tag:yaml.org,2002:str": _SAFE.construct_yaml_str,
    "tag:yaml.org,2002:seq": _sequence,
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
