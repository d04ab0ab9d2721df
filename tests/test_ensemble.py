"""Members of an ensemble: read from prediction files, joined by image name, complete or refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driverwatch.blend import ensemble as blending
from driverwatch.blend.blends import BLENDS
from driverwatch.data.folds import FoldTable
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.settings import TrainSettings

TRAIN = np.array([f"img_{i}.jpg" for i in range(8)], object)
DRIVERS = np.array(list("aabbccdd"), object)
FOLDS = FoldTable(pd.DataFrame({"driver": list("abcd"), "fold": [0, 1, 0, 1], "images": 2, "x": 1, "y": 1}))
TEST = [f"test_{i}.jpg" for i in range(5)]
PACK: Any = SimpleNamespace(names=TRAIN, drivers=DRIVERS)


def made(names: list[str], seed: int) -> Predictions:
    """Probabilities that tell which image and model they are of, in shuffled order."""
    order = np.random.default_rng(seed).permutation(len(names))
    rows = np.array([[0.1 + (int(name.split("_")[1][0]) + seed) / 50] for name in names])
    rows = np.hstack([rows, 1 - rows]).astype(np.float32)
    return Predictions(np.array(names, object)[order], rows[order], {"weights": "w", "views": "centre"})


@pytest.fixture
def member(tmp_path: Path) -> Callable[..., Any]:
    """A finished run of two folds on disk; `lacks`: test images that its pack was made without."""

    def write(name: str, seed: int, lacks: tuple[str, ...] = ()) -> Any:
        folder = tmp_path / name
        for fold in range(2):
            held_out = [image for image, driver in zip(TRAIN, DRIVERS, strict=True) if FOLDS.of_driver[driver] == fold]
            for kind, names in (("held_out", held_out), ("test", [n for n in TEST if n not in lacks])):
                predictions.write(made(names, seed + fold), folder / f"fold{fold}" / f"{kind}-centre.h5")
        run: Any = SimpleNamespace(
            classes=("x", "y"),
            settings=SimpleNamespace(train=TrainSettings()),
            fold=lambda k: folder / f"fold{k}",
            predicted=lambda k, views: {"weights": "w", "views": views},
        )
        pack: Any = SimpleNamespace(left_out=SimpleNamespace(names=list(lacks)))
        return blending.Member(run, pack, "centre")

    return write


def value(image: str, seed: int) -> float:
    return 0.1 + (int(image.split("_")[1][0]) + seed) / 50


def test_labelled_rows_are_joined_by_name(member: Callable[..., Any]) -> None:
    rows = blending.labelled_rows([member("one", 0), member("two", 10)], PACK, FOLDS)
    assert list(rows.names) == list(TRAIN)
    assert list(rows.sets) == [0, 0, 1, 1, 0, 0, 1, 1]
    for m, seed in enumerate((0, 10)):
        expected = [value(name, seed + fold) for name, fold in zip(TRAIN, rows.sets, strict=True)]
        assert rows.members[m, :, 0] == pytest.approx(expected, abs=1e-6)
    assert np.abs(rows.members.sum(axis=2) - 1).max() < 1e-15


def test_an_image_that_a_member_lacks_is_the_others_mean(member: Callable[..., Any]) -> None:
    members = [member("one", 0, (TEST[1], TEST[3])), member("two", 10, (TEST[3],)), member("three", 20, (TEST[3],))]
    rows = blending.unseen_rows(members, TEST, [[1]] * 3)
    assert list(rows.names) == [TEST[i] for i in (0, 1, 2, 4)]
    assert rows.members[:, 0, 0] == pytest.approx([value(TEST[0], s) for s in (1, 11, 21)], abs=1e-6)
    others = [value(TEST[1], s) for s in (11, 21)]
    assert rows.members[:, 1, 0] == pytest.approx([np.mean(others), *others], abs=1e-6)


def test_rules_come_before_the_average_of_the_folds(member: Callable[..., Any]) -> None:
    members = [member("one", 0), member("two", 10)]
    rows = [blending.unseen_rows(members, TEST, [[fold]] * 2) for fold in range(2)]
    rule = BLENDS["geometric"].fit(rows[0], np.zeros(5, int), np.zeros(5))
    shuffled = rows[1].at(np.array([3, 1, 0, 2, 4]))
    found = blending.by_fold([rows[0], shuffled], [rule], 2)
    assert np.allclose(found[1], rule(rows[1]).blended)
    assert found.shape == (2, 5, 2)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (TEST[1:], r"1 images missing \(test_0.jpg\), 0 not asked for"),
        ([*TEST, "test_7.jpg"], r"0 images missing .*, 1 not"),
    ],
)
def test_incomplete_predictions_are_refused(
    member: Callable[..., Any], tmp_path: Path, names: list[str], said: str
) -> None:
    one = member("one", 0)
    predictions.write(made(names, 0), tmp_path / "one" / "fold0" / "test-centre.h5")
    with pytest.raises(InputError, match=said):
        blending.unseen_rows([one], TEST, [[0]])
