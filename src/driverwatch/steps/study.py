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
from driverwatch.metrics import accuracy, log_losses
from driverwatch.recipe_settings import StudySettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.prepare import make_packs
from driverwatch.steps.recipe import refuse_misfits
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.steps.train import train
from driverwatch.training.history import Row, read_history
from driverwatch.training.run import Run
from driverwatch.typed_yaml import load
from driverwatch.wording import close
from driverwatch.writing import write_text

HEADER = (
    "| network, frozen to | learns | log loss | 95 % interval | against features alone | right | CPU seconds per epoch |\n"
    "|---|---|---|---|---|---|---|"
)


class Scored(NamedTuple):
    """A run's row: (N,) losses out of fold, share right, weights that learn, CPU seconds of the last stage's epochs."""

    run: Run
    losses: np.ndarray
    right: float
    learns: str
    seconds: float

    @property
    def network(self) -> str:
        settings = self.run.settings
        return settings.backbone + (f" cut at {settings.cut}" if settings.cut else "")

    @property
    def depth(self) -> str:
        return str(self.run.settings.train.stages[-1].freeze_until)


def run_study(context: Context, name: str, weights: Path | None) -> None:
    """Train what is not finished, in places of the study's own, and write `docs/<name>_study.md`."""
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
    path = Path("docs") / f"{name}_study.md"
    write_text(path, _page(context, name, found))
    close(path, "written", time.monotonic() - start)


def _page(context: Context, name: str, found: Finished) -> str:
    rows = [_scored(run, found) for run in found.runs]
    commits = sorted({str(row.run.manifest(fold)["commit"]) for row in rows for fold in range(found.folds.count)})
    lines = []
    for row in rows:
        head = next(one for one in rows if one.network == row.network and one.depth == "head")
        lines.append(_line(row, head, found.train.drivers))
    about = (
        f"{len(found.train.names)} photos of {len(set(found.train.drivers))} drivers ({context.dataset}), {found.folds.count} "
        f"driver folds (digest {found.folds.digest[:12]}), centre view, commit {', '.join(commits)}; the recipe is "
        f"`configs/studies/{name}.yaml`. Log loss out of fold; intervals by drawing drivers anew 10,000 times, those of the "
        "difference too; CPU seconds (of all cores) of training alone in the last stage, median over folds and epochs: "
        "what lies below the boundary is computed once for all folds, and not counted."
    )
    return f"# Study: {name}\n\nWritten by `make study NAME={name}`. {about}\n\n{HEADER}\n" + "\n".join(lines) + "\n"


def _scored(run: Run, found: Finished) -> Scored:
    member = Member(run, found.tests[found.runs.index(run)], "centre")
    rows = blending.out_of_fold(member, found.train, found.folds)
    epochs = [_last_stage(run.fold(fold) / "history.csv") for fold in range(found.folds.count)]
    seconds = median(epoch["training_cpu_seconds"] for fold in epochs for epoch in fold)
    learns = {run.manifest(fold)["trainable_parameters"] for fold in range(found.folds.count)}
    labels = found.train.labels
    return Scored(run, log_losses(rows, labels), accuracy(rows, labels), f"{learns.pop() / 1e6:.2f} M", seconds)


def _last_stage(path: Path) -> list[Row]:
    rows = read_history(path)
    if any(row.get("training_cpu_seconds") is None for row in rows):
        raise InputError(f"{path}: expected training_cpu_seconds of every epoch; train the fold anew with FORCE=1")
    return [row for row in rows if row["stage"] == rows[-1]["stage"]]


def _line(row: Scored, head: Scored, drivers: np.ndarray) -> str:
    low, high = interval(row.losses, drivers)
    depth, against = "features alone", ""
    if row is not head:
        gain = row.losses - head.losses
        least, most = interval(gain, drivers)
        depth, against = row.depth, f"{gain.mean():+.3f} ({least:+.3f} to {most:+.3f})"
    return (
        f"| {row.network}, {depth} | {row.learns} | {row.losses.mean():.3f} | {low:.3f} to {high:.3f} | {against} | "
        f"{row.right:.1%} | {row.seconds:.0f} |"
    )
