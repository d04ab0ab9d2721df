"""A submission file, to the letter."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.submission import build


def test_each_line_holds_its_own_images_probabilities(tmp_path: Path) -> None:
    values = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    path = tmp_path / "s.csv"
    build.write_submission(values, ["b.jpg", "a.jpg", "c.jpg"], ["img", "c0", "c1", "c2"], path)
    assert path.read_text().splitlines() == [
        "img,c0,c1,c2",
        "b.jpg,0.7000000,0.2000000,0.1000000",
        "a.jpg,0.1000000,0.8000000,0.1000000",
        "c.jpg,0.2500000,0.2500000,0.5000000",
    ]
    assert np.array_equal(
        build.read_submission(path, ["a.jpg", "b.jpg", "c.jpg"], ["img", "c0", "c1", "c2"])[0], values[1]
    )


def test_a_manifest_says_how_each_run_was_trained() -> None:
    """What the model card prints of hardware, times and commits; the settings are read back as they were."""
    asked = {
        "backbone": "tiny",
        "weights": "none",
        "input": {"pack": "84x112", "size": "78x104"},
        "train": {"epochs": 12},
    }
    settings = parse(ModelSettings, asked, "asked")
    folds = [
        {"machine": "x86_64", "cores": 4, "seconds": 70.4, "training_seconds": 50.0, "commit": "b"},
        {
            "machine": "x86_64",
            "processor": "Xeon",
            "accelerators": ["Tesla T4"],
            "cores": 4,
            "commit": "a",
            "seconds": None,
        },
    ]
    run: Any = SimpleNamespace(settings=settings, weights=None, manifest=folds.__getitem__)
    made = build._trained(run, range(2))
    assert made["machines"] == ["Tesla T4, Xeon, 4 cores", "x86_64, 4 cores"]
    assert (made["seconds"], made["training_seconds"], made["commits"]) == (70, 50, ["a", "b"])
    assert parse(ModelSettings, made["settings"], "made") == settings
