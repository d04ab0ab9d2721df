"""The freezing study: one recipe for several networks, each frozen to several depths, scored out of fold."""

import time
from pathlib import Path
from statistics import median
from typing import Any

from driverwatch.config.experiments import StudySettings
from driverwatch.config.loading import load
from driverwatch.data.context import CONFIGS, Context
from driverwatch.errors import InputError
from driverwatch.experiments import experiment
from driverwatch.experiments.experiment import Number, ScoredRun, StudyRecord, StudyRow
from driverwatch.io.console import close
from driverwatch.io.html import render
from driverwatch.run import Run
from driverwatch.training.checkpoint import Row, read_history

COLUMNS = {
    "network, frozen to": "{network}, {frozen_to}",
    "trainable weights": "{learns:.2f} M",
    "log loss": "{log_loss:.3f}",
    "95 % interval": "{interval[0]:.3f} to {interval[1]:.3f}",
    "against the frozen backbone": "{difference}",
    "accuracy": "{accuracy:.1%}",
    "CPU seconds per epoch": "{seconds:.0f}",
}


class FreezingRow(StudyRow):
    """A network frozen to some depth; the change is against the whole backbone frozen, None for that row itself."""

    network: str
    depth: str
    learns: Number  # million trainable weights
    accuracy: Number
    seconds: Number  # of CPU, an epoch


class FreezingRecord(StudyRecord):
    name: str
    rows: list[FreezingRow]


def run_study(context: Context, name: str, weights: Path | None) -> None:
    """Train the runs of `configs/studies/<name>.yaml` that are not finished, and write the study's record and page."""
    start, study = time.monotonic(), load(StudySettings, CONFIGS / "studies", name)
    found, facts = experiment.study_runs(context, name, study.runs(name), weights)
    rows, frozen = list[FreezingRow](), dict[str, ScoredRun]()
    for scored in experiment.score_runs(found, ["centre"]):
        settings, depth = scored.run.settings, depth_of(scored.run)
        network = settings.backbone + (f" cut at {settings.truncate_at}" if settings.truncate_at else "")
        millions, seconds = training_cost(scored.run, found.folds.count)
        compared = scored.facts(None if depth == "head" else frozen[network], found.train.drivers)
        about: dict[str, Any] = {"network": network, "depth": depth, "learns": millions, "seconds": seconds}
        rows.append(FreezingRow(**about, **compared, accuracy=scored.accuracy))
        frozen |= {network: scored} if depth == "head" else {}
    record = FreezingRecord(**facts, name=name, rows=rows)
    path = experiment.write_record(context.places.result(f"study-{name}"), record, page)
    close(path, "written", time.monotonic() - start)


def depth_of(run: Run) -> str:
    """The layer that a run's last stage freezes to; `head`: the whole backbone is frozen."""
    return str(run.settings.train.stages[-1].freeze_until)


def training_cost(run: Run, folds: int) -> tuple[float, float]:
    """Million trainable weights, and CPU seconds of an epoch of the last stage: the median over folds and epochs.

    Raises `InputError`: a fold's history does not say how long its epochs took.
    """
    epochs = [epoch for fold in range(folds) for epoch in _last_stage(run.fold(fold) / "history.csv")]
    weights = {run.manifest(fold)["trainable_parameters"] for fold in range(folds)}
    return weights.pop() / 1e6, median(epoch["training_cpu_seconds"] for epoch in epochs)


def _last_stage(path: Path) -> list[Row]:
    epochs = read_history(path)
    if any(epoch.get("training_cpu_seconds") is None for epoch in epochs):
        raise InputError(f"{path}: expected training_cpu_seconds of every epoch; retrain the fold with FORCE=1")
    return [epoch for epoch in epochs if epoch["stage"] == epochs[-1]["stage"]]


def page(record: FreezingRecord) -> str:
    """The record as Markdown."""
    cells = [experiment.cells(row, frozen_to=row.depth if row.change else "whole backbone") for row in record.rows]
    return render("freezing_study.md", record=record, table=experiment.markdown_table(COLUMNS, cells))
