"""Augmentation policies as plain data, read without the library that carries them out."""

from pathlib import Path
from typing import Any

from driverwatch.errors import InputError, nearest
from driverwatch.listing import matching
from driverwatch.settings import transforms
from driverwatch.yaml_files import read_yaml

Transforms = list[dict[str, dict[str, Any]]]


def plain(folder: Path, policy: str | Transforms | None) -> tuple[str, Transforms]:
    """Where a policy stands, for sentences about it, and its transforms; none of them is tried.

    Args:
        policy: a file's name in `folder`, the transforms themselves, or None, the empty policy.

    Raises:
        InputError: no such file, or anything but a list of transforms in it.
    """
    where, content = ("augment.policy", policy or []) if not isinstance(policy, str) else _file(folder, policy)
    try:
        return where, transforms(content)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _file(folder: Path, name: str) -> tuple[str, Any]:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        names = [p.stem for p in matching(folder, "*.yaml")]
        raise InputError(
            f"augment.policy: {path} does not exist; expected one of {', '.join(names)}{nearest(name, names)}"
        )
    return str(path), read_yaml(path)
