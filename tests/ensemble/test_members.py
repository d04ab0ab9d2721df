"""Members of an ensemble: read from prediction files, joined by image name, complete or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.finished import World, world

from driverwatch.config.ensemble import PipelineSettings
from driverwatch.config.training import SplitSettings, TrainSettings
from driverwatch.data.folds import FoldTable
from driverwatch.ensemble import members as blending
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.blending import BLENDS, Mean
from driverwatch.ensemble.prediction_interval import prediction_interval
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.io.manifests import checksum_of_file
from driverwatch.metrics import interval, log_losses
from driverwatch.submission.build import make_ensemble

__all__ = ["world"]
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
    return Predictions(np.array(names, object)[order], rows[order], {"weights": "w", "tta": "centre"})


@pytest.fixture
def member(tmp_path: Path) -> Callable[..., Any]:
    """A finished run of two folds on disk; `lacks`: test images that its pack was made without."""

    def write(name: str, seed: int, lacks: tuple[str, ...] = ()) -> Any:
        folder = tmp_path / name
        for fold in range(2):
            validation = [
                image for image, driver in zip(TRAIN, DRIVERS, strict=True) if FOLDS.of_driver[driver] == fold
            ]
            for kind, names in (("validation", validation), ("test", [n for n in TEST if n not in lacks])):
                predictions.write(made(names, seed + fold), folder / f"fold{fold}" / f"{kind}-centre.h5")
        run: Any = SimpleNamespace(
            classes=("x", "y"),
            fold=lambda k: folder / f"fold{k}",
            predicted=lambda k, tta: {"weights": "w", "tta": tta},
            settings=SimpleNamespace(train=TrainSettings()),
        )
        pack: Any = SimpleNamespace(left_out=SimpleNamespace(names=list(lacks)))
        return blending.Member(run, pack, "centre")

    return write


def value(image: str, seed: int) -> float:
    return 0.1 + (int(image.split("_")[1][0]) + seed) / 50


def test_labelled_rows_are_joined_by_name(member: Callable[..., Any]) -> None:
    rows = blending.oof_of_members([member("one", 0), member("two", 10)], PACK, FOLDS)
    assert list(rows.names) == list(TRAIN)
    assert list(rows.sets) == [0, 0, 1, 1, 0, 0, 1, 1]
    for m, seed in enumerate((0, 10)):
        expected = [value(name, seed + fold) for name, fold in zip(TRAIN, rows.sets, strict=True)]
        assert rows.members[m, :, 0] == pytest.approx(expected, abs=1e-6)
    assert np.abs(rows.members.sum(axis=2) - 1).max() < 1e-15


def test_an_image_that_a_member_lacks_is_the_others_mean(member: Callable[..., Any]) -> None:
    members = [member("one", 0, (TEST[1], TEST[3])), member("two", 10, (TEST[3],)), member("three", 20, (TEST[3],))]
    rows = blending.test_of_members(members, TEST, [[1]] * 3)
    assert list(rows.names) == [TEST[i] for i in (0, 1, 2, 4)]
    assert rows.members[:, 0, 0] == pytest.approx([value(TEST[0], s) for s in (1, 11, 21)], abs=1e-6)
    others = [value(TEST[1], s) for s in (11, 21)]
    assert rows.members[:, 1, 0] == pytest.approx([np.mean(others), *others], abs=1e-6)


def test_rules_come_before_the_average_of_the_folds(member: Callable[..., Any]) -> None:
    members = [member("one", 0), member("two", 10)]
    rows = [blending.test_of_members(members, TEST, [[fold]] * 2) for fold in range(2)]
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
        blending.test_of_members([one], TEST, [[0]])


def of_splits(*kinds: SplitSettings) -> list[Any]:
    runs = [SimpleNamespace(settings=SimpleNamespace(train=TrainSettings(splits=kind))) for kind in kinds]
    return [blending.Member(run, None, "centre") for run in runs]  # type: ignore[arg-type]


ON_FOLDS, TWICE, DEMO = (
    SplitSettings(),
    SplitSettings(kind="all", count=2),
    SplitSettings(kind="shuffle_split", count=4),
)


@pytest.mark.parametrize(
    ("kinds", "only", "expected"),
    [
        ([ON_FOLDS, ON_FOLDS], None, [[[0], [0]], [[1], [1]], [[2], [2]]]),
        ([ON_FOLDS, TWICE], None, [[[0], [0, 1]], [[1], [0, 1]], [[2], [0, 1]]]),
        ([TWICE, DEMO], None, [[[0, 1], [0, 1, 2, 3]]]),
        ([ON_FOLDS, TWICE], 1, [[[1], [1]]]),
    ],
)
def test_runs_without_folds_take_part_in_every_fold_with_all_they_have(
    kinds: list[SplitSettings], only: int | None, expected: list
) -> None:
    assert blending.folds_of_run(of_splits(*kinds), 3, only) == expected


def test_a_run_without_folds_counts_as_one_more_member(member: Callable[..., Any]) -> None:
    """By hand: two runs are blended as fitted, and the third joins as a third, the blend counting for two."""
    members = [member("one", 0), member("two", 10), member("plain", 20)]
    rows = [blending.test_of_members(members, TEST, [[fold], [fold], [0, 1]]) for fold in range(2)]
    weighted = Mean(np.array([0.25, 0.75]))
    found = blending.by_fold(rows, [weighted], 2)
    for fold in range(2):
        for image, row in zip(rows[0].names, found[fold], strict=True):
            blend = 0.25 * value(image, fold) + 0.75 * value(image, 10 + fold)
            plain = (value(image, 20) + value(image, 21)) / 2
            assert row[0] == pytest.approx((2 * blend + plain) / 3, abs=1e-6)
    alone = blending.by_fold([blending.test_of_members(members[2:], TEST, [[0, 1]])], [], 0)
    assert alone[0, :, 0] == pytest.approx([(value(image, 20) + value(image, 21)) / 2 for image in TEST], abs=1e-6)


def submitted(world: World, names: list[str], **changes: object) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A submission by image name, and its manifest."""
    make_ensemble(world.context, names, "x", "five_crop", None, changes)
    path = world.context.places.submission("x")
    return pd.read_csv(path, index_col="img").sort_index(), json.loads(path.with_suffix(".json").read_text())


def test_unscored_runs_join_a_scored_ensemble(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed, splits in (("whole", 90, {"kind": "all", "count": 2}), ("one", 0, "folds"), ("two", 50, "folds")):
        world.run(name, seed, splits=splits)
    both, made = submitted(world, ["whole", "one", "two"])
    said = capsys.readouterr().out
    assert made["not_scored"] == {"whole": "trained on all drivers"}
    assert list(made["runs"]) == ["one", "two", "whole"]
    assert made["fold_models"] == {"one": [0, 1, 2], "two": [0, 1, 2], "whole": [0, 1]}
    assert f"log loss {made['out_of_fold_log_loss']:.4f}, without whole (trained on all drivers)" in said
    scored, alone = submitted(world, ["one", "two"])
    assert alone["out_of_fold_log_loss"] == made["out_of_fold_log_loss"]
    assert "not_scored" not in alone
    assert "without whole" not in capsys.readouterr().out
    whole, unscored = submitted(world, ["whole"])
    assert unscored["out_of_fold"] == "no out-of-fold score: trained on all drivers"
    assert not {"out_of_fold_log_loss", "prediction_interval", "chosen_on_validation"} & set(unscored)
    assert "  no out-of-fold score: trained on all drivers" in capsys.readouterr().out
    assert np.allclose(both, (2 * scored + whole) / 3, atol=1e-6)


def test_the_score_can_be_computed_again_from_the_rows_beside_it(world: World) -> None:
    """Without the runs: loss, interval over drivers, and what to prediction interval for."""
    world.run("one", 0, 2.0)
    _, facts = submitted(world, ["one"], calibrate="bias")
    path, pack = world.context.places.out_of_fold("x"), world.packs["train"]
    frame = pd.read_csv(path)
    assert checksum_of_file(path) == facts["out_of_fold_rows"]
    classes = list(world.context.settings.classes)
    assert list(frame) == ["img", "driver", "class", "fold", *classes]
    assert frame["img"].tolist() == list(pack.names)
    labels = np.array([classes.index(name) for name in frame["class"]])
    assert frame.groupby("driver")["fold"].nunique().eq(1).all()
    losses, drivers = log_losses(frame[classes].to_numpy(), labels), frame["driver"].to_numpy()
    assert abs(losses.mean() - facts["out_of_fold_log_loss"]) < 1e-4
    assert np.allclose(interval(losses, drivers), facts["out_of_fold_95%"], atol=2e-4)
    predicted = prediction_interval(losses, drivers, facts["prediction_interval"]["unseen_drivers"])
    assert np.allclose(
        [predicted.low, predicted.high],
        [facts["prediction_interval"]["low"], facts["prediction_interval"]["high"]],
        atol=2e-3,
    )
    before = path.read_bytes()
    submitted(world, ["one"], calibrate="bias")
    assert path.read_bytes() == before
    make_ensemble(world.context, ["one"], "x", "five_crop", 1)  # a fold alone has no such rows
    assert not path.exists()


def test_nothing_is_fitted_to_unscored_runs_alone(world: World) -> None:
    world.run("whole", 90, splits="all")
    world.run("one", 0)
    for changes in ({"blend": "geometric"}, {"calibrate": "bias"}, {"clip": "fitted"}, {"class_balance": "tiny"}):
        with pytest.raises(InputError, match="none of its runs was trained on folds"):
            submitted(world, ["whole"], **changes)
    assert not world.context.places.submission("x").exists()
    assert submitted(world, ["whole"], clip=0.01)[0].to_numpy().min() >= 0.01
    assert list(submitted(world, ["whole", "one"], blend="geometric")[1]["pipeline"]["steps"]) == ["geometric"]
    assert post_processing.unfitted(PipelineSettings(clip=0.01)).level == 0.01


def test_runs_named_in_another_order_are_the_same_submission(world: World) -> None:
    for name, seed, splits in (("whole", 90, "all"), ("one", 0, "folds"), ("two", 50, "folds")):
        world.run(name, seed, 1.0 + seed / 50, splits=splits)
    for changes in ({}, {"blend": "weighted"}, {"blend": "geometric", "calibrate": "temperature"}):
        first, second = (
            submitted(world, names, **changes)[0] for names in (["whole", "one", "two"], ["two", "whole", "one"])
        )
        assert np.allclose(first, second, atol=1e-4)
    with pytest.raises(InputError, match="one is named twice"):
        submitted(world, ["one", "whole", "one"])


def test_one_fold_asks_that_fit_of_every_run(world: World) -> None:
    world.run("one", 0)
    world.run("whole", 90, splits={"kind": "all", "count": 2})
    make_ensemble(world.context, ["one", "whole"], "x", "five_crop", 1)
    made = json.loads(world.context.places.submission("x").with_suffix(".json").read_text())
    assert made["fold_models"] == {"one": [1], "whole": [1]}
    assert "out_of_fold_log_loss" not in made
    with pytest.raises(InputError, match="FOLD=2: expected 0 to 1"):
        make_ensemble(world.context, ["one", "whole"], "y", "five_crop", 2)
