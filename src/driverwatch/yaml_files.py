"""YAML files from anywhere, as plain data: no objects, no aliases, numbers that are numbers."""

import re
from pathlib import Path
from typing import Any

import yaml

from driverwatch.errors import InputError

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


# YAML 1.2's whole numbers alone: in 1.1, 010 is 8 and 1:30 is 90
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789"))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise yaml.constructor.ConstructorError(
            None, None, f"key given twice: {', '.join(map(str, twice))}", node.start_mark
        )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


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
