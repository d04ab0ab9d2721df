"""Copy what a run records into a tracker (`tracking: tensorboard | mlflow | wandb`): settings, epochs, scores, checksums.

The run's own files are the source. A thread of the command that trains reads them every few seconds and sends what the tracker
lacks, so a tracker that fails or hangs costs no training, and the same command sends the rest later. What was sent, and the id
of the tracked run, are in `tracking.json` beside `run.json`.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from driverwatch.config.loading import Strict, parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import Context
from driverwatch.errors import InputError, printable
from driverwatch.io.atomic import write_json
from driverwatch.io.console import say
from driverwatch.io.manifests import checksum_of_file, commit, read_json
from driverwatch.run import SPEED, Run
from driverwatch.training.checkpoint import read_history
from driverwatch.training.run_summary import state_of

NAME = "tracking.json"
PACKAGES = {"tensorboard": ["tensorboard"], "mlflow": ["mlflow", "sqlalchemy", "alembic"], "wandb": ["wandb"]}
LOOK_SECONDS = 3.0  # between two looks at the run's files
PATIENCE_SECONDS = 120.0  # at the end, for what is left to send: MLflow's first start makes its database
BROKEN_OFF_SECONDS = 5.0  # the same after an error or Ctrl-C
WRITTEN_SECONDS = 30.0  # for wandb to write what it was sent, as it does each FLUSH_SECONDS
FLUSH_SECONDS, STILL_SECONDS = 0.1, 0.25
WAY_OUT = "training is not affected, and the same command sends the rest later"
PIECES_AT_ONCE = 100  # parameters in one request; MLflow's limit
LONGEST = 500  # characters of a value; older MLflow servers refuse more


class Tracker(Protocol):
    """One tracked run. Whatever a method raises means that the tracker failed."""

    id: str  # by which a later command finds the run again

    def settings(self, values: dict[str, Any]) -> None: ...  # what was chosen, by dotted name
    def facts(self, values: dict[str, str]) -> None: ...  # checksums, places and the commit
    def metrics(self, values: dict[str, float], step: int) -> None: ...  # of an epoch (from 1); of a fold or run at 0
    def close(self) -> None: ...  # send what is buffered, and end the run


def refuse_missing(settings: ModelSettings) -> None:
    """Refuse a tracker whose packages are not installed. Raises `InputError`: with the command that installs them."""
    if missing := [name for name in PACKAGES.get(settings.tracking, []) if find_spec(name) is None]:
        raise InputError(
            f"tracking: {settings.tracking} needs the package {missing[0]}; make setup EXTRAS=tracking installs it"
        )


@contextmanager
def tracked(context: Context, run: Run, folds: int, kind: str) -> Iterator[None]:
    """Send what the run records to the tracker `kind`, while the caller trains its `folds` and once more at the end.

    With `none` nothing is imported, and nothing is written.
    """
    if kind == "none":
        yield
        return
    following = _Following(context, run, folds, kind)
    thread = threading.Thread(target=following.until_ended, name="tracking", daemon=True)
    thread.start()
    seconds = BROKEN_OFF_SECONDS
    try:
        yield
        seconds = PATIENCE_SECONDS
    finally:
        following.ended.set()
        thread.join(seconds)
        if thread.is_alive():
            say(f"{run.name}: {kind} has not taken everything within {seconds:g} s; {WAY_OUT}")


class Sent(Strict, frozen=False):
    """What the tracker has of a run: its id there, and how much was sent."""

    tracker: str
    run: str  # `Run.identity`
    id: str
    epochs: dict[str, int] = Field(default={})  # by fold
    folds: dict[str, str] = Field(default={})  # finished ones, with the checksum of their weights
    score: float | None = None  # out-of-fold log loss


@dataclass
class _Following:
    """A run's files, and what of them the tracker lacks."""

    context: Context
    run: Run
    count: int  # folds
    kind: str
    ended: threading.Event = field(default_factory=threading.Event)
    tracker: Tracker | None = None

    def until_ended(self) -> None:
        """Look until the caller has ended, and once more; a tracker that fails is named once."""
        try:
            sent = self._sent()
            while not self.ended.wait(LOOK_SECONDS):
                self._send(sent)
            self._send(sent)
            if self.tracker:
                self.tracker.close()
        except Exception as error:  # whatever a library or a server does: training goes on
            said = printable(" ".join(f"{type(error).__name__}: {error}".split()), 300)
            say(f"{self.run.name}: tracking with {self.kind} failed ({said}); {WAY_OUT}")

    def _sent(self) -> Sent:
        """What was sent before; nothing where the run, or a fold of it, was trained again."""
        path, fresh = self.run.folder / NAME, Sent(tracker=self.kind, run=self.run.identity, id="")
        if not path.is_file():
            return fresh
        sent = parse(Sent, read_json(path), str(path))
        again = any(count > len(self._history(int(fold))) for fold, count in sent.epochs.items())
        return fresh if again or (sent.tracker, sent.run) != (fresh.tracker, fresh.run) else sent

    def _history(self, number: int) -> list[dict[str, Any]]:
        path = self.run.fold(number) / "history.csv"
        return read_history(path) if path.is_file() else []

    def _send(self, sent: Sent) -> None:
        """Send what the files have and the tracker lacks; each piece is noted once the tracker has it."""
        if not sent.id:
            tracker = self._open(sent)
            tracker.settings(flat(self.run.settings.model_dump(exclude=SPEED)))
            tracker.facts(self._origin())
            sent.id = tracker.id
            self._note(sent)
        for number in range(self.count):
            self._send_fold(sent, number)
        score = state_of(self.context, self.run)
        if score.log_loss is not None and score.log_loss != sent.score and len(sent.folds) == self.count:
            found = {"log_loss": score.log_loss, "standard_error": score.standard_error}
            self._open(sent).metrics({f"out_of_fold/{name}": x for name, x in found.items() if x is not None}, 0)
            sent.score = score.log_loss
            self._note(sent)

    def _send_fold(self, sent: Sent, number: int) -> None:
        """Send a fold's new epochs, and what came of it once it is finished."""
        key = str(number)
        for row in self._history(number)[sent.epochs.get(key, 0) :]:
            found = {name: float(x) for name, x in row.items() if name != "epoch" and x is not None}
            self._open(sent).metrics({f"fold{number}/{name}": x for name, x in found.items()}, row["epoch"])
            sent.epochs[key] = row["epoch"]
            self._note(sent)
        if not self.run.finished(number):
            return
        made = self.run.manifest(number)
        if sent.folds.get(key) != made["weights"]:
            losses = {f"fold{number}/log_loss_{tta}": x for tta, x in (made.get("log_loss") or {}).items()}
            self._open(sent).metrics(losses, 0)
            self._open(sent).facts(self._outcome(number, made))
            sent.folds[key] = made["weights"]
            self._note(sent)

    def _open(self, sent: Sent) -> Tracker:
        """The tracked run; what a finished run with nothing to send never asks for."""
        tracker = self.tracker
        if tracker is None:
            folder = self.context.places.build / "tracking"
            tracker = self.tracker = TRACKERS[self.kind](folder, self.context.dataset, self.run.name, sent.id)
        return tracker

    def _note(self, sent: Sent) -> None:
        write_json(self.run.folder / NAME, sent.model_dump())

    def _origin(self) -> dict[str, str]:
        """What the run was started with."""
        facts = {"run": self.run.folder.as_posix(), "commit": commit() or "", "folds": self.run.folds}
        packs = {f"{kind}_pack": checksum for kind, checksum in self.run.packs.items()}
        pretrained = {f"pretrained.{name}": str(value) for name, value in (self.run.weights or {}).items()}
        return {name: value for name, value in (facts | packs | pretrained).items() if value}

    def _outcome(self, number: int, made: dict[str, Any]) -> dict[str, str]:
        """A finished fold's files, each with its checksum."""
        folder = self.run.fold(number)
        files = {"weights": folder / "weights.h5", **{path.stem: path for path in sorted(folder.glob("*-*.h5"))}}
        facts = {f"fold{number}.commit": str(made.get("commit") or "")}
        for name, path in files.items():
            facts[f"fold{number}.{name}"] = path.as_posix()
            facts[f"fold{number}.{name}.sha256"] = made["weights"] if name == "weights" else checksum_of_file(path)
        return {name: value for name, value in facts.items() if value}


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists stay whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) and value else {f"{above}{name}": value}
    return found


class _TensorBoard:
    """Event files in a folder by the run's name; settings in the HParams tab, facts as text."""

    def __init__(self, folder: Path, dataset: str, name: str, found: str) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.id = found or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.writer = EventFileWriter(str(folder / "tensorboard" / self.id))

    def settings(self, values: dict[str, Any]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        plain = {name: x if isinstance(x, bool | int | float | str) else str(x) for name, x in values.items()}
        self._add(hparams_pb(plain, trial_id=self.id), 0)

    def facts(self, values: dict[str, str]) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        for name, value in values.items():
            self._add(text_pb(f"facts/{name}", value), 0)

    def metrics(self, values: dict[str, float], step: int) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in values.items():
            self._add(scalar_pb(name, value), step)

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Mlflow:
    """A run of the experiment `driverwatch-<dataset>`, on the server of MLFLOW_TRACKING_URI or in a local SQLite file."""

    def __init__(self, folder: Path, dataset: str, name: str, found: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}")
        if found:
            self.client.update_run(found, status="RUNNING")
        self.id = found or self.client.create_run(self._experiment(f"driverwatch-{dataset}"), run_name=name).info.run_id

    def _experiment(self, name: str) -> str:
        known = self.client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self.client.create_experiment(name))

    def settings(self, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        made = [Param(name, str(value)[:LONGEST]) for name, value in values.items()]
        for start in range(0, len(made), PIECES_AT_ONCE):
            self.client.log_batch(self.id, params=made[start : start + PIECES_AT_ONCE])

    def facts(self, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(name, value) for name, value in values.items()])

    def metrics(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)


class _Wandb:
    """A run of the project `driverwatch-<dataset>`: offline, for `wandb sync`, unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, dataset: str, name: str, found: str) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True,
                               x_disable_meta=True, x_disable_machine_info=True,
                               x_transaction_log_flush_interval=FLUSH_SECONDS)  # fmt: skip
        self.id = found or secrets.token_hex(4)
        about: dict[str, Any] = {"project": f"driverwatch-{dataset}", "name": name, "id": self.id, "resume": "allow"}
        self.run = wandb.init(**about, dir=str(folder), settings=quiet)
        self.file = Path(self.run.settings.sync_file)
        self.run.define_metric("epoch")
        self.run.define_metric("fold*", step_metric="epoch")

    def settings(self, values: dict[str, Any]) -> None:
        self._written(lambda: self.run.config.update(values, allow_val_change=True))

    def facts(self, values: dict[str, str]) -> None:
        self._written(lambda: self.run.summary.update(values))

    def metrics(self, values: dict[str, float], step: int) -> None:
        self._written(lambda: self.run.log({"epoch": step, **values}) if step else self.run.summary.update(values))

    def _written(self, send: Callable[[], None]) -> None:
        """Send, and wait until the run's file has grown and stands still: before, a kill may end the process that has it."""
        before = last = self._size()
        end = time.monotonic() + WRITTEN_SECONDS
        send()
        time.sleep(STILL_SECONDS)
        while not before < (size := self._size()) == last:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.file} has not grown within {WRITTEN_SECONDS:g} s")
            last = size
            time.sleep(STILL_SECONDS)

    def _size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, str, str, str], Tracker]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _Mlflow,
    "wandb": _Wandb,
}
