"""Retired words stay retired: in file names, code, comments, printed text, settings and documentation."""

import pytest
from support.places import ROOT

from scripts import prose
from scripts.retired_words import LEGITIMATE


def test_words_of_names_are_told_apart() -> None:
    assert {"trunk", "cache", "of"} <= prose.words("TrunkCache trunk_cache trunk-of")
    assert "trunk" not in prose.words("trunkated")


@pytest.mark.parametrize("name", prose.tracked())
def test_no_retired_word(name: str) -> None:
    try:
        text = (ROOT / name).read_text()
    except UnicodeDecodeError:
        return
    assert prose.retired_words(name, text) == []


def test_exceptions_are_needed() -> None:
    for word, places in LEGITIMATE.items():
        for name in places:
            assert word in prose.words(name + "\n" + (ROOT / name).read_text()), f"{name} no longer says {word}"
