"""Checkpoints: a fold's progress in `checkpoint.h5`, its history, and whether its training has diverged."""

import csv
import io
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverwatch.errors import InputError, printable
from driverwatch.io.atomic import write_text
from driverwatch.io.manifests import plain_json
from driverwatch.models.backend import load_state

FAR = 2.0  # times the loss of a uniform guess: no network that learns has as much over a whole epoch and stays there
LEARNS = 0.95  # times it: below, a loss that was far is behind us

Divergence = dict[str, Any]
"""`epoch` (from 1) in which the loss went away, its `loss` and that of a `uniform` guess, weighed alike, and a `way_out`."""


def judged(before: Divergence | None, epoch: int, loss: float, uniform: float, way_out: str) -> Divergence | None:
    """What one more epoch's training loss makes of a fold: diverged since some epoch, or None.

    A first epoch that is far because a head is still random is forgiven as soon as a later one beats a uniform guess.

    Args:
        before: what the epochs before made of it.
        loss: mean of the epoch, without penalties on weights.
        uniform: loss of a uniform guess under the epoch's sample weights and auxiliary classifiers.
    """
    if loss < LEARNS * uniform:
        return None
    if before is not None or loss <= FAR * uniform:
        return before
    return {"epoch": epoch, "loss": loss, "uniform": uniform, "way_out": way_out}


def uniform_loss(classes: int, weight: float, auxiliary: float) -> float:
    """Loss, in nats, of a guess that gives each of `classes` the same: `weight` (mean of samples) x ln C, once more per auxiliary.

    `auxiliary`: sum of the weights of auxiliary classifiers' losses.
    """
    return weight * math.log(classes) * (1 + auxiliary)


def way_out(run: str, stage: int, own_rate: float | None, rate: float) -> str:
    """How to train again at a tenth of the rate: what `SET=` changes where it stands, and a name that is free.

    `own_rate`: the stage's `learning_rate`, if it has one of its own beside `train`'s.
    """
    key = "train.learning_rate" if own_rate is None else f"train.stages.{stage}.learning_rate"
    return f'lower the learning rate, for example by the same command with SET="{key}={rate / 10:.4g}" RUN={run}-lower'


def told(name: str, made: Divergence) -> str:
    """One sentence of a finished fold that diverged without an overflow."""
    return (
        f"{name}: training diverged in epoch {made['epoch']} (loss {made['loss']:.4g}; a uniform guess has "
        f"{made['uniform']:.4g}), and has learned nothing since; {made['way_out']}"
    )


WHOLE = {"epoch": 1, "stage": 0}  # columns of every history, and their least value
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan", re.ASCII)
LARGEST = 2**24  # bytes; 10,000 epochs have two million
MOST = 10**6  # epochs, and stages
Row = dict[str, Any]  # `epoch` and `stage` whole numbers, all else float, or None where there was nothing to measure


def read_history(path: Path) -> list[Row]:
    """A fold's epochs, in order, as all read them: import, report, study and refit.

    Raises `InputError`: not a whole table of finite numbers (a loss may be `nan`), or none of an epoch.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes")
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file, strict=True)
        if len(set(header)) < len(header):
            raise ValueError("a column twice")
        if wrong := next((line for line in lines if len(line) != len(header)), None):
            raise ValueError(f"{len(wrong)} cells below {len(header)} columns")
        if not lines:
            raise ValueError("no epoch")
        cells = [zip(header, line, strict=True) for line in lines]
        return checked_rows([{name: _cell(name, cell) for name, cell in pairs} for pairs in cells])
    except (OSError, ValueError, csv.Error) as error:
        said = printable(" ".join(str(error).split()), 150)
        raise InputError(
            f"{path}: expected a line of numbers per epoch, this is not a whole history ({said}); FORCE=1 trains it again"
        ) from error


def _cell(name: str, text: str) -> float | int | None:
    if text == "":
        return None
    if not NUMBER.fullmatch(text) or (name in WHOLE and (not text.isdecimal() or len(text) > 7)):
        raise ValueError(f"{name}: {text[:30]!r} is no number that it can have")
    return int(text) if name in WHOLE else float(text)


def checked_rows(rows: Any) -> list[Row]:
    """The rows of a history, from a table or a checkpoint, if they are what a fold writes.

    Raises `ValueError`: something else, in a few words.
    """
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("no rows by name")
    for number, row in enumerate(rows, start=1):
        if row.keys() != rows[0].keys() or not row.keys() >= WHOLE.keys():
            raise ValueError(
                f"epoch {number} has other columns than an epoch and a stage, and those of the first epoch"
            )
        if wrong := next((name for name, value in row.items() if not _fits(str(name), value)), None):
            raise ValueError(f"{wrong}: {str(row[wrong])[:30]} is no number that it can have")
        if row["epoch"] != number:
            raise ValueError(f"epoch {row['epoch']} where {number} was expected")
    losses = [row.get("val_loss") for row in rows]
    if None in losses and losses.count(None) < len(losses):
        raise ValueError("val_loss is missing in some epochs")
    return [dict(row) for row in rows]


def _fits(name: str, value: object) -> bool:
    """Whether a value is None or a number that a floating-point number can be; an epoch or stage, a whole one."""
    if name in WHOLE:
        return isinstance(value, int) and not isinstance(value, bool) and WHOLE[name] <= value <= MOST
    if value is None or isinstance(value, int):
        return value is None or abs(value) < 2**53
    return isinstance(value, float) and not math.isinf(value)


class HistoryLog:
    """Keeps `<folder>/history.csv` and `<folder>/tensorboard/` up to date with a growing list of epochs."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        """Begin again from `history`, so that an epoch that was logged but not kept does not appear twice."""
        from tensorboard.summary import Writer

        self.folder = folder
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = Writer(str(folder / "tensorboard"))
        self.written = 0
        self.write(history)

    def write(self, history: list[dict[str, Any]]) -> None:
        for row in history[self.written :]:
            for name in (name for name in row.keys() - {"epoch", "stage"} if row[name] is not None):
                self.writer.add_scalar(name, row[name], row["epoch"])
        self.writer.flush()
        self.written = len(history)
        if history:
            text = io.StringIO()
            table = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(history)
            write_text(self.folder / "history.csv", text.getvalue())


@dataclass
class Progress:
    """How far a fold has come; travels in the checkpoint beside weights and optimizer."""

    epoch: int = 0  # finished ones, over all stages
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = float("inf")
    diverged: Divergence | None = None


def is_over(history: list[dict[str, Any]], stage: int, stop: int, patience: int | None) -> bool:
    """Whether a stage has had its `stop` epochs, or ends by early stopping: `patience` of them without a better validation loss."""
    losses = [row["val_loss"] for row in history if row["stage"] == stage]
    stalled = (
        len(losses) - 1 - losses.index(min(losses)) if losses and None not in losses and patience is not None else 0
    )
    return len(losses) >= stop or (patience is not None and stalled >= patience)


def resumed(checkpoint: Path, identity: str, number: int) -> Progress:
    """What the checkpoint of fold `number` says of a run with this identity.

    Raises `InputError`: it is of another run, or not whole.
    """
    kept = load_state(checkpoint, {})
    if kept.get("run") != identity:
        raise InputError(
            f"{checkpoint}: is of another run than this folder's; add FORCE=1 to the command that trains it"
        )
    try:
        progress = Progress(**plain_json(kept["progress"]))
        progress.history = checked_rows([{"epoch": n, **row} for n, row in enumerate(progress.history, start=1)])
        stages = [(row["stage"], row["val_loss"]) for row in progress.history]
        if type(progress.epoch) is not int or not isinstance(progress.best, int | float):
            raise ValueError(f"epoch {progress.epoch!r}, best {progress.best!r}")
        if len(stages) != progress.epoch:
            raise ValueError(f"{len(stages)} epochs of {progress.epoch}")
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        way_out = f"add FORCE=1 FOLD={number} to the command that trains it"
        raise InputError(f"{checkpoint}: not a whole checkpoint ({error}); {way_out}") from error
    return progress
