"""The synthetic competition: Kaggle's layout, the same bytes for the same seed, and a lesson about leakage."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.model_selection import KFold, PredefinedSplit
from support.project import MINI

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data import competition, synthetic
from driverwatch.errors import InputError
from driverwatch.experiments.leakage import NEAREST, Split, out_of_fold, scaled


def contents(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "sample.json")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes(data: Path, tmp_path: Path, demo_settings: DatasetSettings) -> None:
    synthetic.write(MINI, demo_settings, tmp_path / "again" / "data")
    assert contents(tmp_path / "again" / "data") == contents(data)
    synthetic.write(replace(MINI, seed=4), demo_settings, tmp_path / "other" / "data")
    assert contents(tmp_path / "other" / "data") != contents(data)


def test_layout_is_kaggles(data: Path, demo_settings: DatasetSettings) -> None:
    assert {p.name for p in data.iterdir()} == {
        "driver_imgs_list.csv", "imgs", "sample_submission.csv", "test_labels.csv", "sample.json"
    }  # fmt: skip
    assert (data / "driver_imgs_list.csv").read_text().splitlines()[0] == "subject,classname,img"
    assert (data / "sample_submission.csv").read_text().splitlines()[0] == "img,c0,c1,c2,c3,c4,c5,c6,c7,c8,c9"
    tables = competition.read_both(demo_settings, data)
    train, test = tables.train, tables.test
    assert (len(train), len(test)) == (120, 40)
    assert set(train.names).isdisjoint(test.names)
    test_labels = competition.read_test_labels(demo_settings, data)
    assert test_labels is not None
    assert sorted(test_labels) == test.names


def test_it_refuses_to_draw_over_something_else(data: Path, demo_settings: DatasetSettings) -> None:
    before = contents(data)
    synthetic.write(MINI, demo_settings, data)  # the same again: nothing to do
    with pytest.raises(InputError, match="FORCE=1 draws again"):
        synthetic.write(replace(MINI, seed=9), demo_settings, data)
    (data / "sample.json").unlink()
    with pytest.raises(InputError, match="left alone"):
        synthetic.write(MINI, demo_settings, data, force=True)
    assert contents(data) == before


@pytest.mark.parametrize(
    ("options", "said"), [({"drivers": 0}, "DRIVERS"), ({"frames": -1}, "FRAMES"), ({"size": "9"}, "SIZE")]
)
def test_options_that_draw_nothing(tmp_path: Path, demo_settings: DatasetSettings, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        synthetic.write(replace(MINI, **options), demo_settings, tmp_path / "data")


def test_it_teaches_leakage() -> None:
    """Nearest neighbour on 32x24 thumbnails: near perfect on a random split, little better than chance on new drivers."""
    options = synthetic.SyntheticOptions(size="48x64")
    shots = [shot for shot in synthetic.plan(options) if not shot.test]
    images = [cv2.resize(synthetic.picture(shot, options), (32, 24), interpolation=cv2.INTER_AREA) for shot in shots]
    seen = scaled(images)
    labels, drivers = (np.array([getattr(shot, name) for shot in shots]) for name in ("label", "driver"))

    def accuracy(folds: Split) -> float:
        made = out_of_fold(seen, labels, folds, 10)[NEAREST]
        return float((made.argmax(axis=1) == labels).mean())

    assert accuracy(KFold(5, shuffle=True, random_state=0)) >= 0.95
    assert accuracy(PredefinedSplit(drivers % 5)) <= 0.40
