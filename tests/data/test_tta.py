"""View sets: what each holds and costs, resizing alike on both sides, and their comparison out of fold."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.runs import wanted

from driverwatch import run as runs
from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import InputSettings, PredictSettings
from driverwatch.config.types import TTA_SETS, TtaSet
from driverwatch.data.folds import FoldTable
from driverwatch.data.tta import Columns, View, centre_view, cut, cut_all, flips, held_by, resized, tta_set, unique
from driverwatch.ensemble.members import Finished
from driverwatch.errors import InputError
from driverwatch.experiments import compare as step
from driverwatch.experiments.experiment import paired_table
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.metrics import log_loss, log_losses

SWAP = [0, 2, 1]
NAMES = st.lists(st.sampled_from(TTA_SETS), min_size=1, unique=True)
SIDES = st.integers(1, 60)


def frames() -> st.SearchStrategy[tuple[tuple[int, int], tuple[int, int]]]:
    """An image and an input that fits into it."""
    return st.tuples(SIDES, SIDES, SIDES, SIDES).map(
        lambda s: ((max(s[0], s[1]), max(s[2], s[3])), (min(s[0], s[1]), min(s[2], s[3])))
    )


def test_the_order_of_shifts_and_scales_is_pinned() -> None:
    five = tta_set("five_crop", (20, 30), (16, 24))
    middles = [View(top, left, False, 16, 24) for top, left in ((0, 3), (2, 0), (2, 6), (4, 3))]
    assert tta_set("shifts", (20, 30), (16, 24)) == five + middles
    assert tta_set("multi_scale", (20, 30), (16, 24)) == [
        View(2, 3, False, 16, 24),
        View(0, 0, False, 20, 30),
        View(3, 4, False, 14, 21),
    ]
    assert {len(tta_set(name, (20, 30), (16, 24))) for name in TTA_SETS if flips(name)} == {10}


def test_what_a_set_holds_is_read_off_its_views() -> None:
    tens: tuple[TtaSet, ...] = ("ten_crop", "ten_crop_keep", "ten_crop_swap")
    assert held_by("centre") == ("centre",)
    assert held_by("five_crop") == ("centre", "five_crop")
    assert held_by("shifts") == ("centre", "five_crop", "shifts")
    assert held_by("multi_scale") == ("centre", "multi_scale")
    assert all(held_by(name) == ("centre", "five_crop", *tens) for name in tens)
    assert held_by("ten_crop_swap", "shifts", "multi_scale") == TTA_SETS
    assert held_by("shifts", "ten_crop") == held_by("ten_crop", "shifts")


@given(NAMES, frames())
def test_held_sets_need_no_further_view_whatever_the_frame(
    names: list[TtaSet], frame: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    image, size = frame
    held = held_by(*names)
    assert set(names) <= set(held)
    assert set(unique(held, image, size)) == set(unique(names, image, size))
    assert held_by(*held) == held
    for view in unique(held, image, size):
        assert 0 <= view.top <= view.top + view.height <= image[0]
        assert 0 <= view.left <= view.left + view.width <= image[1]
        assert min(view.size) >= 1


def test_of_a_whole_frame_all_crops_are_one_view() -> None:
    passes = {name: len(unique([name], (96, 128), (96, 128))) for name in TTA_SETS}
    assert passes == {"centre": 1, "five_crop": 1, "shifts": 1, "multi_scale": 2} | dict.fromkeys(TTA_SETS[4:], 2)
    apart = {name: len(unique([name], (108, 144), (96, 128))) for name in TTA_SETS}
    assert apart == {"centre": 1, "five_crop": 5, "shifts": 9, "multi_scale": 3} | dict.fromkeys(TTA_SETS[4:], 10)
    assert len(unique(TTA_SETS, (108, 144), (96, 128))) == 16
    assert len(unique(["five_crop"], (108, 128), (96, 128))) == 3  # left and right are one where the width is whole


@given(frames(), st.tuples(SIDES, SIDES), st.integers(0, 2**32 - 1))
def test_resizing_is_pillows(frame: tuple[tuple[int, int], tuple[int, int]], to: tuple[int, int], seed: int) -> None:
    """Enlarged, shrunk, and one of each; and a flip image resized is the resized image's flip."""
    images = np.random.default_rng(seed).integers(0, 256, (2, *frame[0], 3), np.uint8)
    view = View(frame[0][0] - frame[1][0], 0, False, *frame[1])
    made = cut(images, view, to)
    assert made.shape == (2, *to, 3)
    assert made.dtype == np.uint8
    for image, mine in zip(images[:, view.top :, : view.width], made, strict=True):
        theirs = np.asarray(Image.fromarray(image).resize(to[::-1], Image.Resampling.BILINEAR))
        assert np.abs(theirs.astype(int) - mine).max() <= 1
    flipped = cut(images, view._replace(flipped=True), to)
    assert np.array_equal(flipped, made[:, :, ::-1])
    assert np.abs(resized(images[:, view.top :, : view.width][:, :, ::-1], to).astype(int) - flipped).max() <= 1


def test_a_crop_of_the_inputs_size_is_not_copied_and_none_is_cut_from_nothing() -> None:
    images = np.zeros((2, 20, 30, 3), np.uint8)
    assert np.shares_memory(cut(images, View(2, 3, True, 16, 24), (16, 24)), images)
    assert cut(images[:0], View(0, 0, False, 20, 30), (16, 24)).shape == (0, 16, 24, 3)
    assert cut_all(images, "multi_scale", (16, 24)).shape == (3, 2, 16, 24, 3)
    for value in (0, 97, 255):
        flat = np.full((1, 20, 30, 3), value, np.uint8)
        assert (cut_all(flat, "multi_scale", (16, 24)) == value).all()


def test_what_a_class_activation_map_is_drawn_over_is_the_centre_view() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    seen = centre_view(image, InputSettings(pack="20x30", size="16x24"))
    assert np.array_equal(seen.pixels, image[2:18, 3:27])
    assert seen.boxes == ((2 / 20, 3 / 30, 18 / 20, 27 / 30),)


@pytest.mark.parametrize("hflip", ["none", "keep_labels", "swap_left_right"])
def test_columns_follow_training_or_the_sets_name(hflip: str) -> None:
    columns = Columns(SWAP, hflip)  # type: ignore[arg-type]
    assert columns.of("ten_crop") == (SWAP if hflip == "swap_left_right" else None)
    assert columns.of("ten_crop_swap") == SWAP
    assert columns.of("ten_crop_keep") is None
    assert columns.sets_of(["ten_crop"]) == ["centre", "five_crop", "ten_crop", "ten_crop_keep", "ten_crop_swap"]


def test_without_flipped_pairs_nothing_is_swapped() -> None:
    columns = Columns([0, 1, 2], "keep_labels")
    assert columns.sets_of(["ten_crop"]) == ["centre", "five_crop", "ten_crop", "ten_crop_keep"]
    with pytest.raises(InputError, match="names no left_right_pairs"):
        columns.sets_of(["centre", "ten_crop_swap"])


def test_one_tta_set_or_several_can_be_asked_for() -> None:
    def tta(value: object) -> list[TtaSet]:
        return parse(PredictSettings, {"tta": value}, "TTA").tta

    assert tta("shifts") == ["shifts"]  # as settings and manifests of before have it
    assert tta(["shifts", "ten_crop"]) == ["shifts", "ten_crop"]
    assert parse(EnsembleSettings, {"runs": ["a"], "tta": "multi_scale"}, "x").tta == "multi_scale"
    for wrong in ([], 5, {"ten_crop": 1}, ["ten"], [["shifts"]], ""):
        with pytest.raises(InputError, match=r"TTA: tta: must be (a TTA set|one or several)"):
            tta(wrong)


@given(NAMES)
def test_the_fewest_sets_are_asked_for(wanted: list[TtaSet]) -> None:
    asked = step.fewest_sets(wanted)
    assert set(asked) <= set(wanted) <= set(held_by(*asked))
    for one in asked:
        assert not set(wanted) <= set(held_by(*[name for name in asked if name != one])) or len(asked) == 1


def sample(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), count)


LABELS, DRIVERS = np.arange(12) % 3, np.repeat(list("abcd"), 3)


def test_differences_are_paired() -> None:
    rows = {"centre": sample(12, 0), "shifts": sample(12, 1)}
    table = paired_table(rows, LABELS, DRIVERS, "centre").set_index("model")
    gain = log_losses(rows["shifts"], LABELS) - log_losses(rows["centre"], LABELS)
    assert table["against centre"]["shifts"] == pytest.approx(gain.mean())
    assert table["against centre"]["shifts"] == pytest.approx(table["log loss"]["shifts"] - table["log loss"]["centre"])
    assert table["low"]["shifts"] < gain.mean() < table["high"]["shifts"]
    assert list(table.loc["centre", ["against centre", "low", "high"]]) == [0, 0, 0]
    easier = rows["centre"] + np.eye(3)[LABELS] * 0.2  # better for every driver: the interval does not hold 0
    assert paired_table({**rows, "x": easier}, LABELS, DRIVERS, "centre")["high"].iloc[2] < 0


@given(st.permutations(range(12)))
def test_the_order_of_images_does_not_matter(order: list[int]) -> None:
    rows = {"centre": sample(12, 0), "shifts": 7 * sample(12, 1)}  # not normalised
    shuffled = {name: p[order] for name, p in rows.items()}
    table, again = (
        paired_table(rows, LABELS, DRIVERS, "centre"),
        paired_table(shuffled, LABELS[order], DRIVERS[order], "centre"),
    )
    pd.testing.assert_frame_equal(table, again)


def test_what_cannot_be_known_is_nan() -> None:
    alone = paired_table({"centre": sample(12, 0), "shifts": sample(12, 1)}, LABELS, np.repeat("a", 12), "centre")
    assert np.isfinite(alone["against centre"]).all()
    assert alone[["low", "high"]].isna().all(axis=None)
    without = paired_table({"shifts": sample(12, 1)}, LABELS, DRIVERS, "centre")
    assert without[["against centre", "low", "high"]].isna().all(axis=None)
    assert np.isfinite(without["log loss"]).all()


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run of two folds, four drivers, whose manifests are there and whose predictions are written by `predicted`."""
    runs.begin(tmp_path / "mine", wanted("augment.hflip=none input.pack=108x144 input.size=96x128"), None, False)
    run = replace(runs.load(tmp_path / "mine"), classes=tuple("abc"), swap=SWAP)
    manifest = {"settings": {**run.settings.model_dump(), "predict": {"tta": "ten_crop"}}, **run.claim}
    for fold in range(2):
        write_json(
            run.fold(fold) / "manifest.json", {**manifest, "weights": f"w{fold}", "seconds": 12, "training_seconds": 10}
        )
    table = FoldTable(pd.DataFrame({"driver": list("abcd"), "fold": [0, 0, 1, 1], "images": 3}))
    train = SimpleNamespace(names=np.array([f"{i}.jpg" for i in range(12)]), labels=LABELS, drivers=DRIVERS)
    test = SimpleNamespace(names=np.array(["t.jpg"]))
    found = Finished([run], [test], table, train)  # type: ignore[list-item, arg-type]
    monkeypatch.setattr(step, "finished_runs", lambda context, names: found)
    return found


def predicted(found: Finished, tta: TtaSet, seed: int, folds: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """Write a set's validation predictions, rows in any order; probabilities in the pack's order."""
    run, rows = found.runs[0], sample(12, seed).astype(np.float32)
    for fold in folds:
        _, validation = found.folds.indices(DRIVERS, fold)
        chosen = np.random.default_rng(seed).permutation(validation)
        origin = {**run.origin, "weights": run.manifest(fold)["weights"], "tta": tta}
        made = Predictions(found.train.names[chosen], rows[chosen], origin)
        predictions.write(made, prediction_path(run.fold(fold), "validation", tta))
    return rows


CONTEXT = SimpleNamespace(dataset="demo")


def test_views_are_compared_from_files_alone(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    centre, shifts = predicted(finished, "centre", 0), predicted(finished, "shifts", 1)
    predicted(finished, "five_crop", 2, folds=(0,))  # a fold lacks it, so it is missing
    step.compare_tta(CONTEXT, "mine")  # type: ignore[arg-type]
    said, made = capsys.readouterr().out, read_json(finished.runs[0].folder / "tta.json")
    assert list(made["tta"]) == ["centre", "shifts"]
    assert made["tta"]["shifts"]["log_loss"] == pytest.approx(log_loss(shifts, LABELS), abs=1e-3)
    difference = log_loss(shifts, LABELS) - log_loss(centre, LABELS)
    assert made["tta"]["shifts"]["against_centre"] == pytest.approx(difference, abs=1e-3)
    assert [line["passes"] for line in made["tta"].values()] == [1, 9]
    assert made["drivers"] == 4
    assert made["missing"] == ["multi_scale", "five_crop", "ten_crop", "ten_crop_keep", "ten_crop_swap"]
    assert 'make predict RUN=mine DATASET=demo TTA="multi_scale ten_crop_swap" makes them' in said
    assert "trained without flips" in said
    assert f"{made['tta']['shifts']['log_loss']:.4f}" in said


@pytest.mark.parametrize(
    ("differences", "chosen", "said"),
    [
        ({"ten_crop": (-0.05, -0.08, -0.02), "shifts": (-0.01, -0.02, 0.01)}, "ten_crop", "ten_crop helps: -0.0500"),
        ({"ten_crop": (0.05, 0.02, 0.08)}, "centre", "even ten_crop has +0.0500"),
        ({"ten_crop": (-0.05, -0.2, 0.1)}, "centre", "changes nothing for certain (-0.0500"),
        ({"ten_crop": (-0.05, np.nan, np.nan)}, "centre", "changes nothing for certain"),
        ({}, None, "no second TTA set"),
    ],
)
def test_what_a_comparison_means(
    differences: dict[str, tuple[float, float, float]], chosen: str | None, said: str
) -> None:
    lines = [{"TTA": "centre", "log loss": 1.0, "against centre": 0.0, "low": 0.0, "high": 0.0}]
    for tta, (difference, low, high) in differences.items():
        line = {"against centre": difference, "low": low, "high": high}
        lines.append({"TTA": tta, "log loss": 1.0 + difference, **line})
    found, sentence = step.tta_verdict(pd.DataFrame(lines))
    assert found == chosen
    assert said in sentence


def test_what_a_table_of_blends_means() -> None:
    lines = [
        {"blend": "mean", "calibrate": "none", "nested": 1.2, "difference": 0.0, "95%": (0.0, 0.0)},
        {"blend": "weighted", "calibrate": "temperature", "nested": 1.1, "difference": -0.1, "95%": (-0.2, -0.05)},
    ]
    asked, sentence = step.blend_verdict(lines)
    assert asked == "BLEND=weighted CALIBRATE=temperature"
    assert (
        "Best of 2, so a little optimistic: weighted calibrated by temperature, nested CV log loss 1.1000, -0.1000"
        in sentence
    )
    lines[1]["95%"] = (-0.2, 0.01)
    asked, sentence = step.blend_verdict(lines)
    assert asked == "BLEND=mean"
    assert "for certain" in sentence


def test_what_a_table_of_embeddings_means() -> None:
    """By the last predictions, the mean of all runs, and with k chosen: as an ensemble would."""
    lines = [
        {
            "predictions": of,
            "embeddings": text,
            "way": way,
            "nested": 1 + change,
            "difference": change,
            "95%": (low, high),
        }
        for of, text, way, change, low, high in [
            ("tiny centre", "near", "chosen", -0.9, -1.0, -0.8),
            ("mean of 2", "near", "50", -0.5, -0.6, -0.4),
            ("mean of 2", "near", "chosen", -0.2, -0.3, -0.1),
            ("mean of 2", "far", "chosen", -0.1, -0.2, -0.05),
        ]
    ]
    asked, sentence = step.knn_verdict(lines)
    assert asked == "KNN=near"
    assert sentence == "Smoothing over neighbours helps: near changes mean of 2 by -0.2000 (-0.3000 to -0.1000)."
    asked, sentence = step.knn_verdict([{**line, "95%": (-1.0, 0.1)} for line in lines])
    assert asked == "KNN=none"
    assert "helps for certain by no embeddings" in sentence


def test_without_the_centre_view_there_is_nothing_to_compare_with(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(finished, "shifts", 1)
    step.compare_tta(CONTEXT, "mine")  # type: ignore[arg-type]
    assert 'next   make predict RUN=mine DATASET=demo TTA="multi_scale ten_crop_swap"' in capsys.readouterr().out
    line = read_json(finished.runs[0].folder / "tta.json")["tta"]["shifts"]
    assert line["against_centre"] is line["low"] is line["high"] is None


def test_predictions_that_do_not_fit_are_refused(finished: Finished) -> None:
    with pytest.raises(InputError, match=r"no TTA set is there .*TTA=\"multi_scale shifts ten_crop_swap\" makes them"):
        step.compare_tta(CONTEXT, "mine")  # type: ignore[arg-type]
    predicted(finished, "centre", 0)
    path = prediction_path(finished.runs[0].fold(1), "validation", "centre")
    made = predictions.read(path, {})
    predictions.write(Predictions(made.names[1:], made.probabilities[1:], made.origin), path)
    with pytest.raises(InputError, match="1 images missing"):
        step.compare_tta(CONTEXT, "mine")  # type: ignore[arg-type]
    predictions.write(Predictions(made.names, made.probabilities, made.origin | {"weights": "others"}), path)
    with pytest.raises(InputError, match="made from other weights"):
        step.compare_tta(CONTEXT, "mine")  # type: ignore[arg-type]
    assert not (finished.runs[0].folder / "tta.json").exists()
