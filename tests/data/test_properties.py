"""Whatever is in a table, a prediction file or a submission: it is taken for what it is, or refused in one sentence."""

import io
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data.competition import read_both, read_train
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.submission import build

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLASSES = [f"c{i}" for i in range(10)]
cell = st.one_of(
    st.sampled_from(
        ["p1", "p2", " p1", "", "c0", "c3", "c10", "img_1.jpg", "img_2.jpg", "../x.jpg", "a/b.jpg", "..", "é.jpg"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
row = st.tuples(st.one_of(st.just("p1"), cell), st.one_of(st.sampled_from(CLASSES), cell), cell)


@relaxed
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_one_sentence(content: bytes, data: Path, demo_settings: DatasetSettings) -> None:
    (data / demo_settings.table).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_both(demo_settings, data)
    assert demo_settings.table in str(error.value)


@relaxed
@given(rows=st.lists(row, min_size=1, max_size=12))
def test_sound_rows_are_sound_and_the_others_are_named(
    rows: list[tuple[str, str, str]], data: Path, demo_settings: DatasetSettings
) -> None:
    frame = pd.DataFrame(rows, columns=["subject", "classname", "img"])
    frame.to_csv(data / demo_settings.table, index=False)
    try:
        table, problems, dropped = read_train(demo_settings, data)
    except InputError as error:  # a NUL, say: no CSV at all
        assert demo_settings.table in str(error)
        return
    found = table.frame
    assert found["image"].is_unique
    assert found["label"].between(0, 9).all()
    assert (found["driver"].str.strip() == found["driver"]).all()
    assert (found["driver"] != "").all()
    assert not found["image"].str.contains(r"[/\\\x00\r\n]").any()
    assert not set(found["image"]) & dropped
    assert (len(found) < len(rows)) == bool(problems)


names = st.lists(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=8),
    min_size=1,
    max_size=9,
    unique=True,
)


def some(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(4), count).astype(np.float32)


@relaxed
@given(names=names, seed=st.integers(0, 2**32 - 1))
def test_predictions_come_back_as_they_were(names: list[str], seed: int, tmp_path: Path) -> None:
    made = Predictions(np.array(names, dtype=object), some(len(names), seed), {"folds": "f"})
    predictions.write(made, tmp_path / "p.h5")
    found = predictions.read(tmp_path / "p.h5", {"folds": "f"})
    assert list(found.names) == names
    assert np.array_equal(found.probabilities, made.probabilities)


@relaxed
@given(seed=st.integers(0, 2**32 - 1), row=st.integers(0, 4), column=st.integers(0, 3), value=st.floats(width=32))
def test_no_edited_prediction_is_taken(seed: int, row: int, column: int, value: float, tmp_path: Path) -> None:
    made = Predictions(np.array(list("abcde"), dtype=object), some(5, seed))
    predictions.write(made, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        same = file["probabilities"][row, column] == np.float32(value)
        file["probabilities"][row, column] = value
    if not same:
        with pytest.raises(InputError):
            predictions.read(tmp_path / "p.h5", {})


@relaxed
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_a_prediction_file_cut_anywhere_is_refused(data: st.DataObject, seed: int, tmp_path: Path) -> None:
    predictions.write(Predictions(np.array(list("abcde"), dtype=object), some(5, seed)), tmp_path / "p.h5")
    content = (tmp_path / "p.h5").read_bytes()
    (tmp_path / "p.h5").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError, match="not a whole prediction file"):
        predictions.read(tmp_path / "p.h5", {})


HEADER = ["img", "a", "b", "c", "d"]
number = st.one_of(
    st.floats(0, 1).map(lambda x: f"{x:.7f}"),
    st.sampled_from(["", "nan", "inf", "-0.1", "1.1", "1e-3", "x", " 0.5", "0,5", "1"]),
)


@relaxed
@given(
    cells=st.lists(st.lists(number, min_size=4, max_size=4), min_size=3, max_size=3),
    order=st.permutations(["x", "y", "z"]),
)
def test_a_submission_passes_exactly_when_it_is_one(cells: list[list[str]], order: list[str], tmp_path: Path) -> None:
    text = io.StringIO()
    pd.DataFrame([[name, *row] for name, row in zip(order, cells, strict=True)], columns=HEADER).to_csv(
        text, index=False
    )
    (tmp_path / "s.csv").write_text(text.getvalue())
    try:
        numbers = np.array([[float(value) for value in row] for row in cells])
        good = bool(
            (np.isfinite(numbers) & (numbers >= 0) & (numbers <= 1)).all()
            and (abs(numbers.sum(axis=1) - 1) <= 1e-5).all()
        )
    except ValueError:
        good = False
    try:
        found = build.read_submission(tmp_path / "s.csv", ["x", "y", "z"], HEADER)
    except InputError:
        assert not good
    else:
        assert good
        assert np.allclose(found[["x", "y", "z"].index(order[0])], numbers[0])


@relaxed
@given(seed=st.integers(0, 2**32 - 1), mass=st.floats(0, 1))
def test_whatever_is_written_passes(seed: int, mass: float, tmp_path: Path) -> None:
    """Rows that are certain, and rows with almost all on one class, among them."""
    rows = some(3, seed) * (1 - mass) + np.eye(4)[[0, 2, 3]] * mass
    build.write_submission(rows, ["x", "y", "z"], HEADER, tmp_path / "s.csv")
    assert build.read_submission(tmp_path / "s.csv", ["x", "y", "z"], HEADER).min() > 0
