"""Predictions, averages and submissions: joined by name, refused when they are anything but probabilities."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverwatch.ensemble.members import completed, mean
from driverwatch.errors import InputError
from driverwatch.experiments.experiment import score_table, score_table_by
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.metrics import FLOOR, accuracy, kaggle_log_loss, limited, log_loss, standard_error
from driverwatch.submission import build

NAMES = np.array([f"img_{i}.jpg" for i in range(6)])
HEADER = ["img", "a", "b", "c"]


def rows(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), count).astype(np.float32)


def test_round_trip(tmp_path: Path) -> None:
    made = Predictions(NAMES, rows(), {"folds": "f", "weights": "w"})
    predictions.write(made, tmp_path / "p.h5")
    found = predictions.read(tmp_path / "p.h5", {"folds": "f"})
    assert list(found.names) == list(NAMES)
    assert np.array_equal(found.probabilities, made.probabilities)
    with pytest.raises(InputError, match="made from other folds"):
        predictions.read(tmp_path / "p.h5", {"folds": "g"})


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    with pytest.raises(InputError, match="no such predictions"):
        predictions.read(path, {})
    predictions.write(Predictions(NAMES, rows()), path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match="not a whole prediction file"):
        predictions.read(path, {})


@pytest.mark.parametrize(
    ("names", "values", "said"),
    [
        (NAMES[:5], rows(), "5 names for probabilities"),
        (np.repeat(NAMES[:3], 2), rows(), "named twice"),
        (NAMES, np.where(np.eye(6, 3) > 0, np.nan, rows()), "finite"),
        (NAMES, rows() - 1, "not negative"),
        (NAMES, rows() * 2, "rows must sum to 1"),
        (NAMES, rows()[0], "names for probabilities"),
    ],
)
def test_only_probabilities_are_taken(names: np.ndarray, values: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Predictions(names, values)


@given(st.permutations(range(6)))
def test_alignment_is_by_name(order: list[int]) -> None:
    made = Predictions(NAMES, rows())
    shuffled = Predictions(NAMES[order], rows()[order])
    assert np.array_equal(shuffled.aligned_to(list(NAMES)), made.probabilities)


def test_alignment_refuses_missing_and_extra() -> None:
    made = Predictions(NAMES, rows())
    with pytest.raises(InputError, match=r"1 images missing \(img_9.jpg\), 0 not asked for"):
        made.aligned_to([*NAMES, "img_9.jpg"])
    with pytest.raises(InputError, match=r"0 images missing .*, 2 not asked for"):
        made.aligned_to(list(NAMES[:4]))


def test_the_mean_is_the_mean() -> None:
    assert np.allclose(mean([rows(seed=1), rows(seed=2)]), (rows(seed=1) + rows(seed=2)) / 2, atol=1e-6)
    assert mean([rows()]).sum(axis=1) == pytest.approx(1)


def test_images_that_no_rows_are_of_get_the_prior() -> None:
    known = NAMES[[4, 0, 2]]
    found = completed(rows(3), known, list(NAMES), np.array([0.2, 0.3, 0.5]))
    assert np.array_equal(found[[4, 0, 2]], rows(3))
    assert np.allclose(found[[1, 3, 5]], [0.2, 0.3, 0.5])


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.01, 1e-6]))
def test_every_submission_written_passes_its_own_check(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, alpha: float
) -> None:
    values = np.random.default_rng(seed).dirichlet(np.full(3, alpha) + 1e-9, count)
    values = np.nan_to_num(values, nan=1 / 3)
    names = [f"img_{i}.jpg" for i in np.random.default_rng(seed).permutation(count)]
    path = tmp_path_factory.mktemp("s") / "s.csv"
    build.write_submission(values, names, HEADER, path)
    lines = path.read_text().splitlines()
    assert lines[0] == "img,a,b,c"
    assert [line.split(",")[0] for line in lines[1:]] == names
    written = np.array([line.split(",")[1:] for line in lines[1:]], float)
    kept = np.maximum(values, 1e-5)  # a submission's floor
    assert np.allclose(written, kept / kept.sum(axis=1, keepdims=True), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.replace("img,a", "image,a"), "missing column img"),
        (lambda t: t.replace("img,a,b,c", "img,b,a,c"), "expected the header"),
        (lambda t: t.replace("img_1.jpg", "img_2.jpg"), "1 missing .*1 repeated"),
        (lambda t: t.replace("img_1.jpg", "img_x.jpg"), "1 missing .*1 unknown"),
        (lambda t: "\n".join(t.splitlines()[:-1]), "got 5 rows, 1 missing"),
        (lambda t: t.replace(",0.", ",1.", 1), "line 2: expected probabilities from 0 to 1|line 2: expected a row"),
        (lambda t: t.replace(",0.", ",nan", 1), "expected numbers|expected probabilities"),
        (lambda t: t.replace(",0.", ",-0.", 1), "line 2: expected probabilities"),
        (lambda t: t.replace(",0.", ",zero", 1), "expected numbers in every cell"),
        (lambda t: t.replace("img_0.jpg,0.", "img_0.jpg,0.0", 1), "line 2: expected a row that sums to 1"),
        (lambda t: "", "expected a UTF-8 CSV"),
    ],
)
def test_what_kaggle_would_refuse(tmp_path: Path, edit: Callable[[str], str], said: str) -> None:
    path = tmp_path / "s.csv"
    build.write_submission(rows(), list(NAMES), HEADER, path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(InputError, match=said):
        build.read_submission(path, list(NAMES), HEADER)


def test_a_submissions_log_loss_is_the_competitions() -> None:
    values = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 2.0], [1.0, 0.0, 0.0]])
    labels = np.array([0, 2, 1])
    each = [kaggle_log_loss(values[[row]], labels[[row]]) for row in range(3)]
    assert each == pytest.approx([np.log(2), 0, -np.log(1e-15)], abs=1e-9)
    uniform = np.full((5, 10), 0.1)
    assert kaggle_log_loss(uniform, np.arange(5)) == log_loss(uniform, np.arange(5)) == pytest.approx(np.log(10))
    assert accuracy(values, labels) == pytest.approx(2 / 3)


def test_the_log_loss_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import log_loss as reference

    labels = np.arange(6) % 3
    assert kaggle_log_loss(rows(), labels) == pytest.approx(
        reference(labels, mean([rows()]), labels=[0, 1, 2]), abs=1e-6
    )


def test_clipping_keeps_rows_whole() -> None:
    kept = limited(np.array([[1.0, 0.0, 0.0]]), FLOOR)
    assert kept.sum() == pytest.approx(1)
    assert kept.min() == pytest.approx(1e-5, rel=1e-3)


def test_scores_by_group() -> None:
    labels, groups = np.array([0, 1, 2, 0, 1, 2]), np.array(list("aabbcc"))
    table = score_table({"m": rows()}, labels, groups)
    assert table["log loss"][0] == pytest.approx(log_loss(rows(), labels))
    split = score_table_by({"m": rows()}, labels, groups, "driver")
    assert split["m"].mean() == pytest.approx(log_loss(rows(), labels))
    assert list(split["images"]) == [2, 2, 2]


def test_standard_error_counts_drivers_not_frames() -> None:
    losses, groups = np.random.default_rng(0).random(40), np.arange(40)
    assert standard_error(losses, groups) == pytest.approx(losses.std(ddof=1) / np.sqrt(40))
    copies = standard_error(np.repeat(losses, 25), np.repeat(groups, 25))  # near-duplicate frames teach nothing new
    assert copies == pytest.approx(standard_error(losses, groups))
    assert np.isnan(standard_error(losses, np.zeros(40)))
