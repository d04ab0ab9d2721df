"""Artefacts are written whole or not at all."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from driverwatch.errors import InputError
from driverwatch.io.atomic import locked, replacing, write_json
from driverwatch.io.manifests import checksum_of, differences, read_json, require_space


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not written.*unchanged"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "a").exists()


def test_the_lock_refuses_a_second_writer_and_ends_with_its_process(tmp_path: Path) -> None:
    code = f"from driverwatch.io.atomic import locked\nfrom pathlib import Path\nwith locked(Path({str(tmp_path)!r})): pass"
    with locked(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another command is writing here" in second.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_differences_are_shown_by_dotted_key() -> None:
    before = {"train": {"epochs": 4, "stages": [{"a": 1}]}, "weights": None}
    after = {"train": {"epochs": 3, "stages": [{"a": 2}]}, "weights": {"file": "x"}}
    assert differences(before, after) == [
        "train.epochs: 4 -> 3", "train.stages.0.a: 1 -> 2", 'weights: null -> {"file": "x"}'
    ]  # fmt: skip
    assert differences(before, json.loads(json.dumps(before))) == []


def test_json_round_trip_and_refusal(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    for invalid in ("[1]", "{", ""):
        (tmp_path / "b.json").write_text(invalid)
        with pytest.raises(InputError, match=r"b\.json: expected a JSON"):
            read_json(tmp_path / "b.json")


def test_checksum_ignores_key_order() -> None:
    assert checksum_of({"a": 1, "b": 2}) == checksum_of({"b": 2, "a": 1}) != checksum_of({"a": 2, "b": 1})


@pytest.mark.parametrize("count", [0, 1, 8, 9, 4096, 4097, 10000])
def test_a_checksum_taken_in_pieces_is_that_of_the_whole(count: int) -> None:
    names, numbers = [f"é{n}" for n in range(count)], list(range(count))
    arrays = [np.array(names, object), np.array(numbers, np.int64), np.array([names, names], object).T]
    content = [names, numbers, [[name, name] for name in names], {"b": names[:3], "a": None}, "x", np.float64(0.5)]
    whole = json.dumps(content, sort_keys=True, ensure_ascii=False)
    assert checksum_of(content) == checksum_of([*arrays, *content[3:]]) == hashlib.sha256(whole.encode()).hexdigest()


def test_space_is_asked_first(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there" / "yet", 1, "it", "do without")
    with pytest.raises(InputError, match="GB are free"):
        require_space(tmp_path, 10**18, "it", "do without")
