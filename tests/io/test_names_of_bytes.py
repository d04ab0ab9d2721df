"""Folders and files whose names are no UTF-8, as old disks and archives have them: every command takes them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT
from support.project import MINI, Verb

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.data import synthetic
from driverwatch.data.pack import sources
from driverwatch.io.atomic import write_json, write_text
from driverwatch.io.manifests import checksum_of, read_json

NAMES = [
    os.fsdecode(name)
    for name in (b"caf\xe9", b"\xff\xfe", b"a\x80b", "café".encode("utf-16-le").replace(b"\0", b"\x81"))
]
EACH = pytest.mark.parametrize("name", NAMES, ids=ascii)
SET = "input.pack=40x52 input.size=36x48 train.epochs=1 train.batch_size=16 predict.tta=centre"


def strict(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own whose output takes UTF-8 alone, as in most terminals."""
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "driverwatch", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, errors="surrogateescape", check=False
    )


@EACH
def test_images_in_such_a_folder_are_folded_and_packed(verb: Verb, project: Path, data: Path, name: str) -> None:
    shutil.move(data, project / name)
    options = ["--dataset", "demo", "--data", name]
    for step in (["folds"], ["pack", "--size", "24x32"], ["pack", "--size", "24x32"]):
        made = verb(*step, *options)
        assert made.returncode == 0, made.stderr
    assert "up to date (120 images)" in made.stdout
    (project / name / "imgs/train/c0" / name).mkdir()
    (project / name / "imgs/train/c0" / name / f"{name}.jpg").write_bytes(b"x")
    for step in (["folds"], ["pack", "--size", "24x32"]):
        refused = verb(*step, *options)
        assert refused.returncode == 2
        shown = ascii(name)[1:-1].replace("\\\\", "\\")
        assert f"extra file imgs/train/c0/{shown}/{shown}.jpg" in refused.stderr
    assert (project / "build/demo/problems.txt").read_text().count("\n") == 1


@EACH
def test_checksums_json_and_text_hold_such_names(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "x.json", {"place": name, "said": "é"})
    assert read_json(tmp_path / "x.json") == {"place": name, "said": "é"}
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["place"] == name
    write_text(tmp_path / "x.txt", f"{name}é\n")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8").endswith("é\n")
    assert checksum_of([name]) != checksum_of([name[:-1]])
    assert checksum_of({"a": "é"}) == hashlib.sha256('{"a": "é"}'.encode()).hexdigest()


@EACH
def test_what_is_packed_is_known_again_by_such_names(data: Path, demo_settings: DatasetSettings, name: str) -> None:
    before = sources(demo_settings, data, [])
    (data / "imgs/test" / f"{name}.jpg").write_bytes(b"x")
    assert sources(demo_settings, data, []) not in ("", before)


@EACH
def test_such_names_are_printed(name: str) -> None:
    code = f"from driverwatch.io.console import keep_printing; keep_printing(); print({name!a}, chr(177))"
    for encoding in ("utf-8:strict", "ascii:strict", "latin-1:strict"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        made = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
        assert made.stdout.endswith(b"\n")
        assert made.stderr == b""


@pytest.mark.slow
def test_a_project_in_such_a_folder(tmp_path: Path) -> None:
    project = tmp_path / NAMES[0]
    shutil.copytree(ROOT / "configs", project / "configs")
    synthetic.write(MINI, load(DatasetSettings, project / "configs/datasets", "demo"), project / "data")
    options = ("--dataset", "demo", "--data", str(project / "data"))
    for step in (["folds"], ["pack", "--size", "24x32"], ["status"], ["report"], ["leakage"]):
        made = strict(*step, *options, cwd=project)
        assert made.returncode == 0, made.stderr
    assert r"caf\udce9" in strict("folds", *options[:2], "--data", str(project / "none"), cwd=project).stderr


@pytest.mark.slow
def test_the_whole_pipeline_in_such_a_folder(tmp_path: Path) -> None:
    project, name = tmp_path / NAMES[0], NAMES[1]
    shutil.copytree(ROOT / "configs", project / "configs")
    synthetic.write(MINI, load(DatasetSettings, project / "configs/datasets", "demo"), project / name)
    where, here = ["--dataset", "demo"], ["--dataset", "demo", "--data", name]
    shutil.copytree(project / name / "imgs/test", project / f"new{name}")
    image = next((project / f"new{name}").iterdir())
    image.rename(image.with_name(f"{name}.jpg"))
    (project / f"maps{name}").mkdir()
    for step in (
        ["folds", *here],
        ["pack", "--model", "tiny", "--set", SET, *here],
        ["train", "tiny", "--set", SET, *here],
        ["ensemble", "--name", "first", "--tta", "centre", *here],
        ["check", "submissions/demo/first.csv", *here],
        ["score", *here],
        ["trace", image.name, *here],
        ["report", *here],
        ["review", "--tta", "centre", *here],
        ["status", *here],
        ["export", "tiny", "--file", f"maps{name}/x.keras", *where],
        ["classify", f"new{name}", "--run", "tiny", "--cam", f"maps{name}", *where],
    ):
        made = strict(*step, cwd=project)
        assert made.returncode == 0, f"{step}: {made.stderr}"
    assert (project / f"maps{name}" / f"{name}.png").is_file()
