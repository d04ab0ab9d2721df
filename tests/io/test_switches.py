"""A switch that says off is off, whoever reads it; what says neither is refused in a sentence."""

import re

import pytest
from support.places import ROOT
from support.project import Verb

from driverwatch.errors import InputError
from driverwatch.io import paths
from driverwatch.io.paths import is_on


@pytest.mark.parametrize("value", [*paths.OFF, "No", "FALSE", "Off", " 0 ", " "])
def test_off(value: str, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    monkeypatch.setenv("DEBUG", value)
    assert not is_on("DEBUG")
    made = verb("layers", "no-such-model")
    assert made.returncode == 2
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize("value", [*paths.ON, "Yes", "TRUE", "On", " 1"])
def test_on(value: str, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    monkeypatch.setenv("DEBUG", value)
    assert is_on("DEBUG")
    made = verb("layers", "no-such-model")
    assert made.returncode == 2
    assert "Traceback" in made.stderr


@pytest.mark.parametrize("value", ["maybe", "2", "-1", "10", "1 0", "offf", "null"])
def test_neither(value: str, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    monkeypatch.setenv("DEBUG", value)
    with pytest.raises(InputError, match=rf"^DEBUG={value}: expected 1 \(yes, true, on\) or 0 \(no, false, off\)$"):
        is_on("DEBUG")
    made = verb("backbones")
    assert (made.returncode, made.stdout) == (2, "")
    assert made.stderr == f"driverwatch: DEBUG={value}: expected 1 (yes, true, on) or 0 (no, false, off)\n"


def test_the_makefile_knows_the_same_words() -> None:
    text = (ROOT / "Makefile").read_text()
    for name, words in (("ON ", paths.ON), ("OFF", paths.OFF)):
        found = re.search(rf"^{name} := (.*)", text, re.MULTILINE)
        assert found is not None
        assert {word.lower() for word in found[1].split()} == set(words) - {""}
