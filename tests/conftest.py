"""Shared fixtures: a small synthetic competition, and a project folder around it."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support import kills, trained
from support import packs as quadrants
from support.in_process import InThisProcess, folds_by, here
from support.once import once
from support.places import ROOT
from support.project import MINI, SMALL, Verb

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.data import synthetic
from driverwatch.data.pack import Pack

pytest_plugins = ["support.skips"]
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one thread a worker: small networks gain nothing from more, and workers share cores
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
hypothesis.settings.register_profile("busy", deadline=None)  # the machine may do other things meanwhile
hypothesis.settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collections: each network that is built asks for a whole one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def demo_settings() -> DatasetSettings:
    return load(DatasetSettings, ROOT / "configs" / "datasets", "demo")


@pytest.fixture(scope="session")
def _drawn(tmp_path_factory: pytest.TempPathFactory, demo_settings: DatasetSettings) -> Path:
    data = tmp_path_factory.mktemp("demo") / "data"
    synthetic.write(MINI, demo_settings, data)
    return data


@pytest.fixture
def data(_drawn: Path, tmp_path: Path) -> Path:
    """A synthetic competition of one's own: 120 labelled images of 6 drivers, 40 test images of 2 others."""
    return Path(shutil.copytree(_drawn, tmp_path / "data"))


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> kills.Reference:
    """A line run without interruption, to compare with."""
    return kills.read(once(tmp_path_factory, "known", kills.reference))


@pytest.fixture(scope="session")
def finished_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished line (`support/trained.py`), to be copied and never changed."""
    return once(tmp_path_factory, "finished_line", trained.make)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with the real configs, as working directory."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "folds").mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """Packs of a class a quadrant, for reading alone: 48 images of six drivers, and 9 test images."""
    folder = tmp_path_factory.mktemp("packs")
    return {kind: quadrants.pack_of(folder, count, kind) for kind, count in (("train", quadrants.COUNT), ("test", 9))}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests", ROOT)))
    )  # for the processes that tests start


@pytest.fixture
def process(project: Path) -> Verb:
    """Run a command in the project folder as make does, in a process of its own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "driverwatch", *map(str, arguments)]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def verb(project: Path) -> Iterator[Verb]:
    """Run a command in the project folder in this process, which imports TensorFlow once, folds included."""
    with folds_by(InThisProcess()):
        yield here


@pytest.fixture
def drawn(verb: Verb, project: Path, data: Path) -> list[str]:
    """Options that name the synthetic competition, with two folds to save time."""
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))
    options = ["--dataset", "demo", "--data", str(data)]
    for step in (["folds"], ["pack", "--model", "tiny", "--set", SMALL]):
        made = verb(*step, *options)
        assert made.returncode == 0, made.stderr
    return options


@pytest.fixture
def finished(project: Path, finished_line: Path, verb: Verb) -> list[str]:
    """Make the project folder a copy of a finished line; the options that name its data set."""
    shutil.copytree(finished_line, project, symlinks=True, dirs_exist_ok=True)
    return trained.PLACE
