"""What a run records, in a tracker: sent once, resumed in the same tracked run, and never at the cost of training."""

import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.project import QUICK, Verb

from driverwatch import run as runs
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.io.manifests import checksum_of_file, read_json
from driverwatch.training import tracking
from driverwatch.training.checkpoint import read_history

RUN = Path("build/demo/runs/tiny")
STATE = RUN / tracking.NAME


class Recorder:
    """A tracker that keeps what it is given, by id; `broken` and `held` decide how it fails."""

    def __init__(self, kept: dict[str, list[tuple[str, Any]]]) -> None:
        self.kept, self.broken, self.held, self.closed = kept, "", threading.Event(), 0
        self.held.set()

    def __call__(self, folder: Path, dataset: str, name: str, found: str) -> "Recorder":
        self.held.wait()
        if self.broken == "open":
            raise OSError(28, "No space left on device")
        self.id = found or f"{name}-{len(self.kept)}"
        self.kept.setdefault(self.id, [])
        return self

    def settings(self, values: dict[str, Any]) -> None:
        self.kept[self.id].append(("settings", values))

    def facts(self, values: dict[str, str]) -> None:
        self.kept[self.id].append(("facts", values))

    def metrics(self, values: dict[str, float], step: int) -> None:
        if self.broken == "metrics":
            raise ConnectionError("the server is down\nand says so in two lines")
        self.kept[self.id] += [(name, (step, value)) for name, value in values.items()]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder({})
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", made)
    monkeypatch.setitem(tracking.PACKAGES, "mlflow", [])
    return made


@pytest.fixture
def train(verb: Verb, finished: list[str]) -> Callable[..., str]:
    """Have the command train the finished run once more, with a tracker: what it says."""

    def command(*options: str, tracker: str = "mlflow") -> str:
        made = verb("train", "tiny", "--set", f"{QUICK} tracking={tracker}", *finished, *options)
        assert made.returncode == 0, made.stderr
        return made.stdout

    return command


@pytest.mark.slow
def test_what_a_run_records_is_sent_once(train: Callable[..., str], recorder: Recorder) -> None:
    for _ in range(2):
        assert "failed" not in (said := train()), said
    [(name, sent)] = recorder.kept.items()
    found = dict(sent)
    assert len(found) == len(sent) - sum(kind == "facts" for kind, _ in sent) + 1, "nothing is sent twice"
    assert (name, recorder.closed) == (read_json(STATE)["id"], 1), "the second time, nothing is left to send"
    settings = found["settings"]
    assert (settings["train.epochs"], settings["backbone"]) == (1, "tiny")
    assert not {"tracking", "train.workers", "predict.tta"} & set(settings), "they decide no result"
    facts = {key: value for kind, values in sent if kind == "facts" for key, value in values.items()}
    run = runs.load(RUN)
    assert (facts["folds"], facts["train_pack"]) == (run.folds, run.packs["train"])
    [row] = read_history(RUN / "fold1" / "history.csv")
    assert found["fold1/val_loss"] == (1, row["val_loss"])
    for number in range(2):
        for kind in ("weights", "validation-five_crop", "test-five_crop"):
            path = Path(facts[f"fold{number}.{kind}"])
            assert not path.is_absolute()
            assert facts[f"fold{number}.{kind}.sha256"] == checksum_of_file(path)
    assert found["out_of_fold/log_loss"] == (0, read_json(STATE)["score"])
    assert found["fold0/log_loss_five_crop"][1] == run.manifest(0)["log_loss"]["five_crop"]


def test_a_run_goes_on_in_the_same_tracked_run_and_one_trained_again_gets_a_new_one(
    train: Callable[..., str], recorder: Recorder
) -> None:
    aside = RUN.with_name("aside")
    shutil.move(RUN / "fold1", aside)
    train("--fold", "0")
    [name] = recorder.kept
    assert not [key for key, _ in recorder.kept[name] if key.startswith(("fold1/", "out_of_fold/"))]
    shutil.move(aside, RUN / "fold1")
    train()
    assert list(recorder.kept) == [name]
    assert [key for key, _ in recorder.kept[name]].count("fold0/loss") == 1
    assert {"fold1/loss", "out_of_fold/log_loss"} <= {key for key, _ in recorder.kept[name]}
    train("--force", "--fold", "1")
    assert len(recorder.kept) == 2
    again = dict(recorder.kept[read_json(STATE)["id"]])
    assert {"settings", "fold0/loss", "fold1/loss", "out_of_fold/log_loss"} <= set(again)


@pytest.mark.parametrize("broken", ["open", "metrics"])
def test_a_tracker_that_fails_costs_one_sentence(train: Callable[..., str], recorder: Recorder, broken: str) -> None:
    recorder.broken = broken
    said = train()
    [printed] = [line for line in said.splitlines() if "tracking" in line]
    assert printed.startswith("tiny: tracking with mlflow failed (")
    assert printed.endswith("training is not affected, and the same command sends the rest later")
    recorder.broken = ""
    assert "failed" not in train()
    [sent] = recorder.kept.values()
    assert dict(sent)["out_of_fold/log_loss"]


def test_a_tracker_that_hangs_is_left_behind(
    train: Callable[..., str], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.3)
    recorder.held.clear()
    assert "mlflow has not taken everything within 0.3 s" in train()
    recorder.held.set()
    for thread in threading.enumerate():
        if thread.name == "tracking":
            thread.join(10)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_packed(
    verb: Verb, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for command in ("preflight", "train"):
        made = verb(command, "tiny", "--set", f"{QUICK} tracking=wandb", *finished)
        assert made.returncode == 2
        assert "tracking: wandb needs the package wandb; make setup EXTRAS=tracking installs it" in made.stderr


def test_without_a_tracker_nothing_is_imported_or_written(train: Callable[..., str]) -> None:
    train(tracker="none")
    assert not STATE.exists()
    code = "import driverwatch.training.train, sys; print({'mlflow', 'wandb', 'tensorboard'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_other_names_are_refused() -> None:
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}}
    with pytest.raises(InputError, match="tracking"):
        parse(ModelSettings, {**content, "tracking": "neptune"}, "test")


def test_tensorboard_has_it(train: Callable[..., str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tracker="tensorboard")
    events = EventAccumulator(str(Path("build/demo/tracking/tensorboard") / read_json(STATE)["id"]))
    events.Reload()
    [row] = read_history(RUN / "fold0" / "history.csv")
    [loss] = events.Tensors("fold0/val_loss")
    assert (loss.step, loss.tensor_proto.float_val[0]) == (1, pytest.approx(row["val_loss"], rel=1e-6))
    [weights] = events.Tensors("facts/fold0.weights.sha256")
    assert weights.tensor_proto.string_val[0].decode() == runs.load(RUN).manifest(0)["weights"]
    assert b"train.epochs" in events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries, which they give themselves
def test_mlflow_has_it_on_a_sqlite_file_when_a_run_is_trained_and_resumed(
    verb: Verb, drawn: list[str], project: Path
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="make setup EXTRAS=tracking")
    small = f"{QUICK} train.epochs=2 tracking=mlflow"
    for options in (["--fold", "0"], [], []):
        made = verb("train", "tiny", "--set", small, *drawn, *options)
        assert made.returncode == 0, made.stderr
        assert "tracking" not in made.stdout
    client = mlflow.MlflowClient("sqlite:///build/demo/tracking/mlflow.db")
    experiment = client.get_experiment_by_name("driverwatch-demo")
    [found] = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.run_name, found.info.status) == (read_json(STATE)["id"], "tiny", "FINISHED")
    assert found.data.params["train.epochs"] == "2"
    for number in range(2):
        course = client.get_metric_history(found.info.run_id, f"fold{number}/val_loss")
        rows = read_history(RUN / f"fold{number}" / "history.csv")
        assert [(each.step, each.value) for each in course] == [(row["epoch"], row["val_loss"]) for row in rows]
        weights = Path(found.data.tags[f"fold{number}.weights"])
        assert found.data.tags[f"fold{number}.weights.sha256"] == checksum_of_file(weights)
    assert found.data.metrics["out_of_fold/log_loss"] == read_json(STATE)["score"]
    assert "tensorflow" in sys.modules, "folds were trained in this process"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries, which they give themselves
def test_mlflow_on_a_full_disk_or_without_its_server_costs_one_sentence(
    train: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="make setup EXTRAS=tracking")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for address in ("http://127.0.0.1:9", "sqlite:////dev/full/x.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert "tiny: tracking with mlflow failed (" in train()
        assert not STATE.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries, which they give themselves
def test_wandb_has_it_offline(train: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="make setup EXTRAS=tracking")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "failed" not in train(tracker="wandb")
    [file] = Path("build/demo/tracking/wandb").glob("offline-run-*/*.wandb")
    assert file.stem == f"run-{read_json(STATE)['id']}"
    records = wandb_records(file)
    config = {"/".join(item.nested_key) or item.key: item.value_json for each in records for item in each.config.update}
    assert config["train.epochs"] == "1"
    history = {"/".join(item.nested_key) or item.key: item.value_json for each in records for item in each.history.item}
    [row] = read_history(RUN / "fold0" / "history.csv")
    assert float(history["fold0/val_loss"]) == pytest.approx(row["val_loss"])
    summary = {
        "/".join(item.nested_key) or item.key: item.value_json for each in records for item in each.summary.update
    }
    assert summary["fold0.weights.sha256"].strip('"') == runs.load(RUN).manifest(0)["weights"]
    assert float(summary["out_of_fold/log_loss"]) == read_json(STATE)["score"]


def wandb_records(path: Path) -> list[Any]:
    """The records of an offline run's file: LevelDB's log format after a header of 7 bytes, in blocks of 32 KB."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts = (b"" if kind in (1, 2) else parts) + content[at + 7 : at + 7 + length]
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(parts))
        at += 7 + length
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries, which they give themselves
def test_what_wandb_was_sent_survives_a_kill_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the file at once, not after the 15 seconds of wandb's own: `tracking.json` says that it was sent."""
    pytest.importorskip("wandb", reason="make setup EXTRAS=tracking")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = tracking.TRACKERS["wandb"](tmp_path, "demo", "tiny", "")
    [folder] = tmp_path.glob("wandb/offline-run-*")
    file, kept = folder / f"run-{tracker.id}.wandb", tmp_path / "kept.wandb"
    try:
        for epoch in (1, 2, 3):
            tracker.metrics({"fold0/val_loss": 0.5 + epoch}, epoch)
            shutil.copyfile(file, kept)
            sent = [item.value_json for each in wandb_records(kept) for item in each.history.item]
            assert str(0.5 + epoch) in sent
        tracker.facts({"fold0.weights.sha256": "12ab"})
        assert b'"12ab"' in file.read_bytes()
    finally:
        tracker.close()
