"""What a run is started with, and one whose folds are finished."""

from pathlib import Path
from typing import Any

from driverwatch import run as runs
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from support.places import ROOT


def wanted(overrides: str = "", **other: Any) -> dict[str, Any]:
    settings = load(ModelSettings, ROOT / "configs" / "models", "tiny", overrides)
    dataset = load(DatasetSettings, ROOT / "configs" / "datasets", "demo")
    parts = {"folds": "f", "packs": {"train": "p", "test": "q"}, "weights": None, "preset": [], **other}
    return runs.identity(settings, dataset, **parts)


def started_folder(folder: Path) -> Path:
    runs.begin(folder, wanted(), None, False)
    for number in range(2):
        (folder / f"fold{number}").mkdir()
        (folder / f"fold{number}" / "manifest.json").write_text("{}")
    return folder
