"""Retired words stay retired: in file names, code, comments, printed text, settings and documentation."""

import re
import subprocess

import pytest
from support.places import ROOT
from support.retired_words import LEGITIMATE, RETIRED

PLACES = ("src/", "docs/", "configs/", "benchmarks/", "scripts/", "Makefile", "README.md")
RECORDS = ("docs/dev/decisions/0017-words.md",)  # the table itself


def files() -> list[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if name.startswith(PLACES) and not name.startswith(RECORDS)]


def words(text: str) -> set[str]:
    """Whole words, lower case: of names their parts too."""
    return set(re.findall(r"re-estimated|[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def test_words_of_names_are_told_apart() -> None:
    assert {"trunk", "cache", "of"} <= words("TrunkCache trunk_cache trunk-of") and "trunk" not in words("trunkated")


@pytest.mark.parametrize("name", files())
def test_no_retired_word(name: str) -> None:
    path = ROOT / name
    try:
        text = name + "\n" + path.read_text()
    except UnicodeDecodeError:
        return
    found = {word for word in words(text) & set(RETIRED) if name not in LEGITIMATE.get(word, {})}
    assert not found, "; ".join(f"{word}: use {RETIRED[word]}" for word in sorted(found))


def test_exceptions_are_needed() -> None:
    for word, places in LEGITIMATE.items():
        for name in places:
            assert word in words(name + "\n" + (ROOT / name).read_text()), f"{name} no longer says {word}"
