"""YAML with tags, keys and numbers of every kind: plain data, or one sentence."""

import itertools
import json
from pathlib import Path

import pytest

from driverwatch.config.loading import load, parse_yaml
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError

VALUES = ["x", "maybe", "", "'2'", "1", "010", "1e999", "2024-01-01", "9" * 400, "9" * 5000, "[a, b]", "{a: b}", "[[]]",
          "{a: [b, {c: d}]}", "~", "=", "<<", "AAA=", "\"\\x00\""]  # fmt: skip
TAGS = ["timestamp", "bool", "int", "float", "binary", "null", "str", "seq", "map", "set", "omap", "pairs", "merge",
        "value", "yaml", "python/none", "python/tuple", "python/object:os.system", "python/object/apply:os.getcwd",
        "python/name:os.system", "python/module:os", "nonsense"]  # fmt: skip
ALL = [f"!!{tag}" for tag in TAGS] + ["!", "!local", "!<tag:example.org,2000:x>", ""]
PLACES = ["{tag} {value}", "a: {tag} {value}", "- {tag} {value}", "a: {{b: [{tag} {value}]}}", "? {tag} {value}\n: 1",
          "? {tag} {value}\n: 1\n? {tag} {value}\n: 2", "a: {{? {tag} {value} : 1}}"]  # fmt: skip


def is_plain(content: object) -> bool:
    if isinstance(content, dict):
        return all(isinstance(key, str | int | float | bool | None) for key in content) and all(
            map(is_plain, content.values())
        )
    return (
        all(map(is_plain, content))
        if isinstance(content, list)
        else isinstance(content, str | int | float | bool | None)
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tag", ALL)
def test_every_tag_and_type_is_plain_data_or_one_sentence(tag: str, place: str) -> None:
    for value in VALUES:
        text = place.format(tag=tag, value=value)
        try:
            found = parse_yaml(text)
        except ValueError as error:
            assert str(error) and "\n" not in str(error), text
        else:
            assert is_plain(found), text
            json.dumps(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: !!timestamp x", "timestamp"), ("a: !!bool maybe", "'maybe' is no true or false"),
     ("a: !!int x", "'x' is no whole number"),
     ("a: !!int", "is no whole number"), ("a: !!float x", "'x' is no number"), ("a: !!float", "is no number"),
     ("a: !!binary AAA=", "binary"), ("a: !!set {b}", "set"), ("a: !!python/object/apply:os.getcwd []", "python"),
     ("? [a]\n: 1", "a list or a mapping as key"), ("? [a]\n: 1\n? [a]\n: 2", "a list or a mapping as key"),
     ("? {a: b}\n: 1\n? {a: b}\n: 2", "a list or a mapping as key"), ("a: 1\na: 2", "key given twice: a"),
     ("!!map [a]", "!!map"), ("a: " + "9" * 400, "at most 100 digits")],
)  # fmt: skip
def test_what_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"line \d+") as refused:
        parse_yaml(text)
    assert said in str(refused.value)


def test_what_stays() -> None:
    said = "{a: 1, b: 1e-3, c: true, d: null, e: 2024-01-01, f: 010, g: !!int 3, h: !!str 4, i: !!float 2, j: .inf}"
    assert parse_yaml(said) == {
        "a": 1, "b": 1e-3, "c": True, "d": None, "e": "2024-01-01", "f": "010", "g": 3, "h": "4", "i": 2.0, "j": float("inf")
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", ["9" * 99, "-" + "9" * 99, "1e999", ".nan", "!!float x", "!!timestamp x", "{? [a] : 1}", "2024-01-01"]
)
@pytest.mark.parametrize(
    "key",
    ["train.batch_size", "train.learning_rate", "train.seed", "input.size", "head.dropout", "train.stages", "backbone"],
)
def test_settings_of_strange_values_are_one_sentence(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "m.yaml").write_text("base: none\nbackbone: tiny\nweights: none\ninput: {pack: 40x52, size: 36x48}\n")
    with pytest.raises(InputError, match=f"{key.partition('.')[0]}"):
        load(ModelSettings, tmp_path, "m", f"{key}={value.replace(' ', '')}")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(pair)
        for pair in itertools.product(
            ["1: a", "true: a", "~: a", "1.5: a", "2024-01-01: a"], ["base: none\nbackbone: tiny"]
        )
    ],
)
def test_keys_that_are_no_text_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(InputError, match=r"m\.yaml"):
        load(ModelSettings, tmp_path, "m")
