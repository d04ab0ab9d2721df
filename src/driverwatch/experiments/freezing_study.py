"""A study: one recipe for several networks and depths of freezing, trained, scored out of fold and written as a table."""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.blend.score import interval
from driverwatch.errors import InputError
from driverwatch.metrics import oof_score
from driverwatch.recipe_settings import StudySettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.prepare import make_packs
from driverwatch.experiments.reproduce import refuse_misfits
from driverwatch.experiments.experiment import StudyRecord, StudyRow, begun, change, write_record
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.steps.train import train
from driverwatch.training.history import Row, read_history
from driverwatch.training.run import Run
from driverwatch.typed_yaml import load
from driverwatch.wording import close

HEADER = (
    "| network, frozen to | learns | log loss | 95 % interval | against features alone | right | CPU seconds per epoch |\n"
    "|---|---|---|---|---|---|---|"
)


class Scored(NamedTuple):
    """A run's row: (N,) losses out of fold, share right, million weights that learn, CPU seconds of the last stage's epochs."""

    run: Run
    losses: np.ndarray
    right: float
    learns: float
    seconds: float

    @property
    def network(self) -> str:
        settings = self.run.settings
        return settings.backbone + (f" cut at {settings.cut}" if settings.cut else "")

    @property
    def depth(self) -> str:
        return str(self.run.settings.train.stages[-1].freeze_until)


def run_study(context: Context, name: str, weights: Path | None) -> None:
    """Train what is not finished, in places of the study's own, and write its record and page."""
    start, settings = time.monotonic(), load(StudySettings, CONFIGS / "studies", name)
    place = replace(context, places=replace(context.places, study=name))
    wanted = settings.runs(name)
    if unscored := [run for run, made in wanted.items() if not made.train.splits.scored]:
        raise InputError(f"{unscored[0]}: a study compares out-of-fold scores; train.splits must be folds")
    refuse_misfits(wanted, weights)
    for size in {made.input.key for made in wanted.values()}:
        make_packs(context, size, None, "", False, False)
    for run, made in wanted.items():
        train(place, made, run, weights, None, False)
    found = finished_runs(place, list(wanted))
    path = write_record(context.places.result(f"study-{name}"), _record(context, name, found), page)
    close(path, "written", time.monotonic() - start)


def _record(context: Context, name: str, found: Finished) -> StudyRecord:
    rows = [_scored(run, found) for run in found.runs]
    drivers = found.train.drivers
    commits = sorted({str(row.run.manifest(fold)["commit"]) for row in rows for fold in range(found.folds.count)})
    heads = {row.network: row for row in rows if row.depth == "head"}
    facts = begun(context.places, len(found.train.names), len(set(drivers)), found.folds.count)
    facts |= {"name": name, "fold_file": found.folds.digest, "commits": commits}
    return StudyRecord(**facts, rows=[_row(row, heads[row.network], drivers) for row in rows])


def _row(row: Scored, head: Scored, drivers: np.ndarray) -> StudyRow:
    gain = row.losses - head.losses
    return StudyRow(
        network=row.network,
        depth=row.depth,
        learns=row.learns,
        log_loss=float(row.losses.mean()),
        interval=list(interval(row.losses, drivers)),
        change=None if row is head else [float(gain.mean()), *interval(gain, drivers)],
        accuracy=row.right,
        seconds=row.seconds,
    )


def page(record: StudyRecord) -> str:
    """The record as Markdown."""
    about = (
        f"{record.images} photos of {record.drivers} drivers ({record.dataset}), {record.folds} driver folds (digest "
        f"{record.fold_file[:12]}), centre view, commit {', '.join(record.commits)}; the recipe is "
        f"`configs/studies/{record.name}.yaml`. Log loss out of fold, clipped at {record.clip:g}; intervals by drawing drivers "
        "anew 10,000 times, those of the difference too; CPU seconds (of all cores) of training alone in the last stage, median "
        "over folds and epochs: what lies below the boundary is computed once for all folds, and not counted."
    )
    command = f"make study NAME={record.name} DATASET={record.dataset}"
    lines = "\n".join(map(_line, record.rows))
    return f"# Study: {record.name}\n\nWritten by `{command}`. {about}\n\n{HEADER}\n{lines}\n"


def _scored(run: Run, found: Finished) -> Scored:
    member = Member(run, found.tests[found.runs.index(run)], "centre")
    rows = blending.out_of_fold(member, found.train, found.folds)
    epochs = [_last_stage(run.fold(fold) / "history.csv") for fold in range(found.folds.count)]
    seconds = median(epoch["training_cpu_seconds"] for fold in epochs for epoch in fold)
    learns = {run.manifest(fold)["trainable_parameters"] for fold in range(found.folds.count)}
    losses, _, _, right = oof_score(rows, found.train.labels, found.train.drivers)
    return Scored(run, losses, right, learns.pop() / 1e6, seconds)


def _last_stage(path: Path) -> list[Row]:
    rows = read_history(path)
    if any(row.get("training_cpu_seconds") is None for row in rows):
        raise InputError(f"{path}: expected training_cpu_seconds of every epoch; train the fold anew with FORCE=1")
    return [row for row in rows if row["stage"] == rows[-1]["stage"]]


def _line(row: StudyRow) -> str:
    depth = "features alone" if row.change is None else row.depth
    low, high = row.interval
    return (
        f"| {row.network}, {depth} | {row.learns:.2f} M | {row.log_loss:.3f} | {low:.3f} to {high:.3f} | {change(row.change)} | "
        f"{row.accuracy:.1%} | {row.seconds:.0f} |"
    )
