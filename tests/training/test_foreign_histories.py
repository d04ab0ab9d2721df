"""Histories and manifests from elsewhere: what the import takes is read the same way by all who come after."""

import json
import shutil
from pathlib import Path

import h5py
import pytest
from support.elsewhere import KAGGLE, partly_trained, trained_elsewhere
from support.finished import World, world  # noqa: F401

from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.remote import import_runs
from driverwatch.report.score_runs import history
from driverwatch.training.checkpoint import HistoryLog, read_history


@pytest.fixture
def here(world: World, monkeypatch: pytest.MonkeyPatch) -> World:  # noqa: F811
    monkeypatch.setattr(import_runs, "open_packs", lambda *_: (world.folds, world.packs))
    return world


HUGE = "9" * 400
HEAD = "epoch,stage,loss,val_loss\n"
STRANGE = {
    "400 digits": HEAD + f"1,0,{HUGE},1.0\n",
    "400 digits of a validation loss": HEAD + f"1,0,1.0,{HUGE}\n",
    "400 digits of an epoch": HEAD + f"{HUGE},0,1.0,1.0\n",
    "400 digits of a stage": HEAD + f"1,{HUGE},1.0,1.0\n",
    "400 digits in a column nobody knows": HEAD.replace("\n", ",more\n") + f"1,0,1.0,1.0,{HUGE}\n",
    "5,000 digits": HEAD + f"1,0,{'9' * 5000},1.0\n",
    "too large a power": HEAD + "1,0,1e999,1.0\n",
    "infinite": HEAD + "1,0,inf,1.0\n",
    "words": HEAD + "1,0,low,1.0\n",
    "a number of another script": HEAD + "1,0,\u0661,1.0\n",
    "underscores": HEAD + "1,0,1_0,1.0\n",
    "half an epoch": HEAD + "1.5,0,1.0,1.0\n",
    "a stage below none": HEAD + "1,-1,1.0,1.0\n",
    "an epoch twice": HEAD + "1,0,1.0,1.0\n1,0,1.0,1.0\n",
    "an epoch left out": HEAD + "1,0,1.0,1.0\n3,0,1.0,1.0\n",
    "no stage": "epoch,loss\n1,1.0\n",
    "a column twice": "epoch,stage,loss,loss\n1,0,1.0,1.0\n",
    "a short line": HEAD + "1,0,1.0\n",
    "a long line": HEAD + "1,0,1.0,1.0,1.0\n",
    "a validation loss left out": HEAD + "1,0,1.0,1.0\n2,0,1.0,\n",
    "no line": HEAD,
    "nothing": "",
    "an open quote": HEAD + '1,0,"1.0,1.0\n',
    "zeros": HEAD + "1,0,\0,1.0\n",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_a_strange_history_is_one_sentence_for_everybody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.csv"
    path.write_text(text)
    for read in (read_history, history):
        with pytest.raises(InputError, match=r"history\.csv: expected a line of numbers per epoch") as refused:
            read(path)
        assert len(str(refused.value)) < 500 and str(refused.value).isprintable()


def test_no_text_at_all_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for content in (b"\xff\xfe", b"PK\3\4", b"x" * (2**24 + 1)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="expected a line of numbers"):
            read_history(path)


@pytest.mark.parametrize("validation", [None, 0.1 + 0.2])
def test_what_a_fold_writes_is_read_as_it_was(tmp_path: Path, validation: float | None) -> None:
    rows = [{"epoch": n, "stage": n - 1, "loss": 1 / 3 * n, "val_loss": validation, "seconds": 1e-7, "pseudo_images": 7}
            for n in (1, 2)]  # fmt: skip
    HistoryLog(tmp_path, rows)
    assert read_history(tmp_path / "history.csv") == rows
    assert history(tmp_path / "history.csv")["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", ["400 digits", "infinite", "words", "an epoch twice", "nothing"])
def test_the_import_reads_as_those_who_come_after(here: World, name: str, finished: bool) -> None:
    run = trained_elsewhere(here)
    if not finished:
        partly_trained(run, 1, 1)
    (run.fold(1) / "history.csv").write_text(STRANGE[name])
    with pytest.raises(InputError, match=r"fold1/history\.csv: expected a line of numbers per epoch"):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert not here.context.places.run("away").exists()


@pytest.mark.parametrize(
    "row",
    [f'{{"stage": 0, "epoch": 1, "val_loss": {HUGE}}}', f'{{"stage": 0, "epoch": {HUGE}, "val_loss": 1.0}}',
     '{"stage": 0, "epoch": 1, "val_loss": "low"}', '{"stage": "0", "epoch": 1, "val_loss": 1.0}',
     '{"stage": true, "epoch": 1, "val_loss": 1.0}', '{"stage": 0, "epoch": 1, "val_loss": [1.0]}',
     '{"stage": 0, "epoch": 1, "val_loss": Infinity}', '{"stage": 0, "epoch": 2, "val_loss": 1.0}', "[]", "7",
     "[" * 5000 + "]" * 5000],
)  # fmt: skip
def test_a_checkpoint_with_a_strange_history_is_refused(here: World, row: str) -> None:
    run = trained_elsewhere(here)
    partly_trained(run, 1, 1)
    with h5py.File(run.fold(1) / "checkpoint.h5", "a") as file:
        file.attrs["progress"] = f'{{"epoch": 1, "history": [{row}], "best": 1.0}}'
    with pytest.raises(InputError, match="not a whole checkpoint"):
        import_runs.import_runs(here.context, KAGGLE, None, False)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seconds", "long"), ("seconds", [1]), ("training_seconds", {}), ("step_seconds", "x"), ("trainable_parameters", "many"),
     ("log_loss", [1]), ("log_loss", {"centre": "low"}), ("weights", 7), ("versions", "new"), ("commit", 7)],
)  # fmt: skip
def test_a_manifest_with_strange_facts_is_refused(here: World, key: str, value: object) -> None:
    run = trained_elsewhere(here)
    path = run.fold(1) / "manifest.json"
    write_json(path, read_json(path) | {key: value})
    with pytest.raises(InputError, match=rf"fold1/manifest\.json: {key}"):
        import_runs.import_runs(here.context, KAGGLE, None, False)


def test_a_manifest_with_a_number_of_400_digits_is_refused(here: World) -> None:
    run = trained_elsewhere(here)
    path = run.fold(1) / "manifest.json"
    path.write_text(path.read_text().replace("{", f'{{"seconds": {HUGE}, ', 1))
    with pytest.raises(InputError, match=r"manifest\.json: expected a JSON manifest, got a number of 400 digits"):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    shutil.rmtree(KAGGLE)
    assert json.loads(HUGE)
