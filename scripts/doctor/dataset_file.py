"""A data set's YAML as far as the doctor needs it, read without a library: PyYAML comes with .venv, which may not be there yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

from driverwatch.layout import SAMPLE_SUBMISSION, TABLE, TEST_IMAGES, TRAIN_IMAGES
from scripts.doctor.finding import Surroundings, ask

DEFAULTS = {
    "table": TABLE,
    "train_images": TRAIN_IMAGES,
    "test_images": TEST_IMAGES,
    "sample_submission": SAMPLE_SUBMISSION,
}
WANTED = ("data", "slug", "truth", *DEFAULTS)
LINE = re.compile(r"(['\"]?)(\w+)\1[ \t]*:(?:[ \t]+(.*))?")  # a key of the settings themselves
VALUE = re.compile(r"(?:'((?:[^']|'')*)'|\"([^\"\\]*)\"|([^\s'\"&*!|>%@`{}\[\],#?:-][^#]*?|))(?:[ \t]+#.*)?[ \t]*")
BY_LIBRARY = (
    "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8')), default=str))"
)


class UnreadableError(Exception):
    """YAML of a form that takes a library, where there is none."""


def settings_path(s: Surroundings) -> Path:
    return s.root / "configs/datasets" / f"{s.dataset}.yaml"


def dataset_settings(s: Surroundings) -> dict[str, str]:
    """The data set's places as its YAML gives them, with their defaults; `data`, `slug` and `truth` only where they are given.

    Raises:
        UnreadableError: the YAML is of another form than `key: value` lines, and .venv has no library that reads it.
    """
    path = settings_path(s)
    found = plain_values(path.read_text(encoding="utf-8-sig"))
    if found is None:
        answer = ask(s, [s.python, "-c", BY_LIBRARY, path.absolute()])
        try:
            found = {key: str(value) for key, value in json.loads(answer.out).items() if value is not None}
        except (ValueError, AttributeError):
            raise UnreadableError(path.name) from None
    return {**DEFAULTS, **{key: found[key] for key in WANTED if key in found}}


def plain_values(text: str) -> dict[str, str] | None:
    """Top-level `key: value` lines of YAML whose values are text on one line; None where a wanted one may be something else."""
    found: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#") or line.rstrip() == "---":
            continue
        if line[0] in " \t":  # more of the value above
            if last in WANTED:
                return None
            continue
        key = LINE.fullmatch(line)
        if key is None or key[2] in found:
            return None
        last, value = key[2], VALUE.fullmatch(key[3] or "")
        if value is None and last in WANTED:
            return None
        found[last] = "" if value is None else (value[1] or "").replace("''", "'") or value[2] or value[3] or ""
    return {key: value for key, value in found.items() if value not in ("", "null", "~")}
