"""The doctor as a whole, on the standard library alone; the token, which is never shown; data sets and weights."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.doctoring import SECRET, Make, makes_places, says, write
from support.places import ROOT

from scripts.doctor import __main__ as doctor
from scripts.doctor import project
from scripts.doctor.__main__ import examined
from scripts.doctor.machine import Finding, Surroundings, ok


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


@pytest.mark.parametrize("name", ["KAGGLE_API_TOKEN", "KAGGLE_USERNAME KAGGLE_KEY"])
def test_token_in_the_environment(place: Make, name: str) -> None:
    finding = project.kaggle_token(place(environ=dict.fromkeys(name.split(), SECRET)))
    says(finding, "ok", *name.split())
    assert SECRET not in finding.line("")


def test_half_a_token_and_none(place: Make) -> None:
    finding = project.kaggle_token(place(environ={"KAGGLE_KEY": SECRET}))
    says(finding, "problem", "KAGGLE_KEY is set without", "KAGGLE_USERNAME")
    assert SECRET not in finding.line("")
    says(project.kaggle_token(place()), "note", "none in", "chmod 600")


WHOLE = json.dumps({"username": "me", "key": SECRET})


@pytest.mark.parametrize(
    ("name", "content", "mode", "mark", "text"),
    [
        ("kaggle.json", WHOLE, 0o600, "ok", "home/.kaggle/kaggle.json"),
        ("kaggle.json", WHOLE, 0o644, "note", "chmod 600"),
        ("kaggle.json", WHOLE[:-3], 0o600, "problem", "not a JSON object"),
        ("kaggle.json", SECRET, 0o600, "problem", "not a JSON object"),
        ("kaggle.json", f'["{SECRET}"]', 0o600, "problem", "not a JSON object"),
        ("kaggle.json", "[" * 100000 + SECRET, 0o600, "problem", "not a JSON object"),
        ("kaggle.json", json.dumps({"key": SECRET}), 0o600, "problem", "username and key"),
        ("kaggle.json", json.dumps({"username": SECRET, "key": ""}), 0o600, "problem", "username and key"),
        ("access_token", SECRET, 0o600, "ok", "home/.kaggle/access_token"),
        ("access_token", SECRET, 0o640, "note", "chmod 600"),
        ("access_token", " \n", 0o600, "problem", "is empty"),
    ],
)
def test_token_files(place: Make, name: str, content: str, mode: int, mark: str, text: str) -> None:
    s = place()
    write(Path(s.environ["HOME"]) / ".kaggle" / name, content, mode)
    finding = examined(project.kaggle_token, s)
    says(finding, mark, text)
    assert SECRET not in finding.line("")


def test_token_folder_of_ones_own(place: Make, tmp_path: Path) -> None:
    s = place(environ={"KAGGLE_CONFIG_DIR": str(tmp_path / "kept")})
    says(project.kaggle_token(s), "note", str(tmp_path / "kept"))
    write(tmp_path / "kept/kaggle.json", WHOLE, 0o600)
    says(project.kaggle_token(s), "ok", str(tmp_path / "kept/kaggle.json"))
    (Path(s.environ["HOME"]) / ".kaggle/access_token").mkdir(
        parents=True
    )  # the newer file lies there alone, and comes first
    says(project.kaggle_token(s), "problem", "cannot be read")


def test_dataset(place: Make, tmp_path: Path) -> None:
    says(project.CHECKS["data set"](place(dataset="statefram")), "problem", "did you mean statefarm?")
    says(project.dataset(place(dataset="demo")), "note", "make synthetic DATASET=demo")
    says(project.dataset(place(dataset="statefarm_mini")), "note", "make subset")
    says(project.dataset(place(data="elsewhere")), "problem", "elsewhere")
    s = place()
    says(project.dataset(s), "note", "data/statefarm", "Unpack")
    (s.root / "data/statefarm/imgs/train").mkdir(parents=True)
    says(project.dataset(s), "problem", "lacks driver_imgs_list.csv, sample_submission.csv")
    for name in ("driver_imgs_list.csv", "sample_submission.csv"):
        write(s.root / "data/statefarm" / name)
    says(project.dataset(s), "note", "lacks imgs/test")
    (s.root / "data/statefarm/imgs/test").mkdir()
    says(project.dataset(s), "ok", "imgs/test")
    write(s.root / "configs/datasets/own.yaml", "title: x\nclasses: {a: '', b: ''}\n")
    says(project.CHECKS["data set"](place(dataset="own")), "problem", "own.yaml: data: is missing")


@pytest.mark.parametrize(
    ("line", "folder"), [("data: a b  # why", "a b"), ("data: 'a b'", "a b"), ('data: "/c"', "/c")]
)
def test_data_folder(place: Make, line: str, folder: str) -> None:
    s = place(dataset="own")
    write(s.root / "configs/datasets/own.yaml", f"# data: no\n{line}\ntitle: x\nclasses: {{a: '', b: ''}}\n")
    assert project.data_folder(s) == s.root / folder


def test_weights(place: Make, tmp_path: Path) -> None:
    s = place()
    says(
        project.weights(s),
        "note",
        "Keras downloads vgg16",
        "make convert makes squeezenet_torch, squeezenet_v1_1, googlenet of PyTorch checkpoints",
        "squeezenet (squeezenet_v1.0_imagenet.npz) must be in WEIGHTS",
    )
    says(project.weights(place(weights="gone")), "problem", "no folder")
    kept = tmp_path / "kept"
    write(kept / "unknown.h5", "x")
    write(kept / "squeezenet_v1.0_imagenet.npz")
    says(project.weights(place(weights=str(kept))), "problem", "no weight file")
    write(kept / "squeezenet_v1.0_imagenet.npz", "x")
    write(Path(s.environ["HOME"]) / ".keras/models/efficientnetb0_notop.h5", "x")
    write(Path(s.environ["HOME"]) / ".keras/models/mobilenet_v2_imagenet_notop.weights.h5", "x")  # no name of Keras'
    says(
        project.weights(place(weights=str(kept))),
        "note",
        "WEIGHTS: squeezenet; installed packages: efficientnet_lite0",
        "Keras' cache: efficientnet_b0.",
    )
    for row in project.BACKBONES.values():
        for name in row.weight_files[-1:]:
            write((tmp_path / "keras/models" if row.downloads else kept) / (row.backbone.official or name), "x")
    says(project.weights(place(environ={"KERAS_HOME": str(tmp_path / "keras")}, weights=str(kept))), "ok")


def test_made(place: Make) -> None:
    s = place()
    says(project.made(s), "note", "no folds/statefarm.csv", "make folds")
    write(s.root / "folds/statefarm.csv")
    for folder in ("pack/180x240", "runs/tiny", "runs/.lock"):
        (s.root / "build/statefarm" / folder).mkdir(parents=True)
    says(project.made(s), "ok", "packs: 180x240; runs: tiny")
    says(project.made(place(dataset="../x")), "note", "not looked at")


def test_a_check_that_raises_is_a_problem_without_its_text(place: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def raises(s: Surroundings) -> Finding:
        raise ValueError(SECRET)

    assert doctor.examine(place(), {"first": raises, "second": lambda s: ok("fine")}) == 2
    out = capsys.readouterr().out
    assert "problem  first" in out
    assert "ValueError at test_doctor.py:" in out
    assert "ok       second        fine\n\n1 ok, 0 to note, 1 to fix" in out
    assert SECRET not in out


def test_notes_are_no_failure(place: Make) -> None:
    assert doctor.examine(place(), {"token": project.kaggle_token}) == 0


def test_an_empty_folder_and_nothing_but_the_standard_library(tmp_path: Path) -> None:
    write(tmp_path / "home/.kaggle/kaggle.json", WHOLE, 0o644)
    (tmp_path / "empty").mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    made = subprocess.run(
        [sys.executable, "-S", "-B", "-m", "scripts.doctor", "--make-version", "4.3"],
        cwd=tmp_path / "empty",
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.stderr == ""
    lines = made.stdout.splitlines()[: len(doctor.TITLES)]
    assert [line[9:22].rstrip() for line in lines] == list(doctor.TITLES)
    assert made.returncode == (2 if any(line.startswith("problem") for line in lines) else 0)
    assert "environment   there is no .venv yet" in made.stdout
    assert made.stdout.count("not looked at, for want of a working .venv") == len(doctor.TITLES) - 10
    assert "failed itself" not in made.stdout
    assert SECRET not in made.stdout
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py", "machine.py"])
def test_old_pythons_can_read_what_runs_before_there_is_an_environment(name: str) -> None:
    tree = ast.parse((ROOT / "scripts" / "doctor" / name).read_text(), feature_version=(3, 8))
    assigned = [part for node in tree.body if isinstance(node, ast.Assign) for part in ast.walk(node)]
    assert not [part for part in assigned if isinstance(part, ast.Subscript)], "collections.abc has no [...] before 3.9"
    for node in tree.body:  # what is imported later is there or is done without
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for each in names:
            assert each.startswith("scripts.doctor") or each.split(".")[0] in sys.stdlib_module_names, each


def test_makefile_needs_no_setup(tmp_path: Path) -> None:
    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-C", str(ROOT), "doctor", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert "pip install" not in make("--dry-run").stdout
    refused = make("PYTHON3=no-such-python", f"VENV={tmp_path}")
    assert refused.returncode == 2
    assert "no-such-python does not run or is older than 3.8" in refused.stdout
    old = write(tmp_path / "old", "#!/bin/sh\nexit 1\n", 0o755)
    assert "is older than 3.8" in make(f"PYTHON3={old}", f"VENV={tmp_path}").stdout
