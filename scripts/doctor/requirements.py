"""Pins of a requirements file and their environment markers, read without third-party packages."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;]+)\s*(?:;\s*(.*\S))?\s*")
_TERM = re.compile(r"\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*(['\"])([^'\"]*)\3\s*")
_COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_VERSIONS = {"python_version", "python_full_version", "implementation_version"}


@dataclass(frozen=True)
class Pin:
    name: str  # normalized: lower case, single hyphens
    version: str
    marker: str = ""


def normalized(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> list[Pin]:
    """Every `name==version ; marker` of a requirements file; comments and options are passed over."""
    lines = (re.sub(r"(^|\s)#.*$", "", line).rstrip("\\ ").strip() for line in text.splitlines())
    matches = (_PIN.fullmatch(line) for line in lines)
    return [Pin(normalized(match[1]), match[2], match[3] or "") for match in matches if match]


def applies(marker: str, values: Mapping[str, str]) -> bool | None:
    """Whether an environment marker holds; None for one that this small reader cannot judge (brackets, `in`)."""
    if not marker:
        return True
    alternatives = [
        [_holds(term, values) for term in re.split(r"\s+and\s+", part)] for part in re.split(r"\s+or\s+", marker)
    ]
    if any(held is None for terms in alternatives for held in terms):
        return None
    return any(all(terms) for terms in alternatives)


def _holds(term: str, values: Mapping[str, str]) -> bool | None:
    match = _TERM.fullmatch(term)
    if not match or match[1] not in values:
        return None
    got, wanted = values[match[1]], match[4]
    if match[1] not in _VERSIONS:
        return bool(_COMPARE[match[2]](got, wanted))
    if not re.fullmatch(r"[\d.]+", wanted):
        return None
    return bool(_COMPARE[match[2]](_release(got), _release(wanted)))


def _release(version: str) -> list[int]:
    """`"3.12"` -> `[3, 12, 0, 0]`, so that 3.12 equals 3.12.0; a suffix like `rc1` is passed over."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    return (numbers + [0] * 4)[:4]
