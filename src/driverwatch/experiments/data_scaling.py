"""The curve of drivers: one recipe trained on more and more of each fold's drivers, and how its loss falls with their number."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.blend.power_law import Fall, fitted
from driverwatch.blend.score import interval
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.errors import InputError
from driverwatch.metrics import log_losses
from driverwatch.report.curve import picture
from driverwatch.setting_types import ViewSet
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, open_packs
from driverwatch.steps.prepare import make_packs
from driverwatch.experiments.reproduce import refuse_misfits
from driverwatch.experiments.experiment import CurvePoint, CurveRecord, begun, change, write_record
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.steps.train import train
from driverwatch.training.run import Run
from driverwatch.wording import close
from driverwatch.writing import replacing

PLACE = "curve"  # of its runs, where ensembles do not see them


@dataclass(frozen=True, eq=False)
class Point:
    """A run on so many drivers a fold (mean over folds), and its losses (N,) out of fold, in the pack's order."""

    run: Run
    views: ViewSet
    drivers: float
    images: float
    losses: np.ndarray


def draw_curve(context: Context, model: str, settings: ModelSettings, counts: list[int], weights: Path | None) -> None:
    """Train a model on so many drivers of each fold, and on all of them; write its record, page and picture.

    Raises:
        InputError: splits that are not folds, or as many drivers as a fold has, or more.
    """
    start, place = time.monotonic(), replace(context, places=replace(context.places, study=PLACE))
    make_packs(context, settings.input.key, None, "", False, False)
    wanted = runs_of(model, settings, counts, open_packs(context, settings.input.key)[0])
    refuse_misfits(wanted, weights)
    for name, made in wanted.items():
        train(place, made, name, weights, None, False)
    found = finished_runs(place, list(wanted))
    points = sorted((_point(run, found) for run in found.runs), key=lambda point: point.drivers)
    fall = fitted([point.drivers for point in points], [point.losses for point in points], found.train.drivers)
    path = context.places.result(f"curve-{model}")
    _draw(path.with_suffix(".png"), points, found.train.drivers, fall)
    written = write_record(path, _record(context, model, found, points, fall), page)
    close(written, "written", time.monotonic() - start)


def _draw(path: Path, points: list[Point], drivers: np.ndarray, fall: Fall) -> None:
    drawn = [(point.drivers, float(point.losses.mean()), *interval(point.losses, drivers)) for point in points]
    amounts = np.geomspace(points[0].drivers, 2 * points[-1].drivers, 60)
    line = np.array([(amount, *fall.loss(amount)) for amount in amounts])
    with replacing(path) as temporary:
        picture(drawn, line).savefig(temporary, format="png", dpi=110)


def runs_of(model: str, settings: ModelSettings, counts: list[int], folds: FoldTable) -> dict[str, ModelSettings]:
    """Settings of each run by its name, the one on all drivers last."""
    if not settings.train.splits.scored:
        raise InputError("train.splits: a curve compares out-of-fold scores; it must be folds")
    if settings.train.splits.learn_from is not None:
        raise InputError("train.splits.learn_from: is what a curve varies; name numbers with COUNTS=")
    every = splits.of(settings.train, folds)
    least = min(every.learnt_from(fit) for fit in range(every.count))
    if bad := [count for count in counts if not 0 < count < least]:
        raise InputError(
            f"COUNTS: each fold has {least} drivers or more to learn from, so expected numbers below {least}, got {bad[0]}; all of "
            "them are the last point anyway"
        )
    made = {}
    for count in sorted(set(counts)):
        chosen = settings.train.splits.model_copy(update={"learn_from": count})
        made[f"{model}-{count}-drivers"] = settings.model_copy(
            update={"train": settings.train.model_copy(update={"splits": chosen})}
        )
    return {**made, f"{model}-all-drivers": settings}


def _point(run: Run, found: Finished) -> Point:
    """A run's losses out of fold."""
    member = Member(run, found.tests[found.runs.index(run)], blending.honest_views(run))
    rows = blending.out_of_fold(member, found.train, found.folds)
    split = splits.of(run.settings.train, found.folds)
    fits = range(split.count)
    images = [len(split.rows(found.train.drivers, fit)[0]) for fit in fits]
    drivers = [split.learnt_from(fit) for fit in fits]
    return Point(
        run, member.views, float(np.mean(drivers)), float(np.mean(images)), log_losses(rows, found.train.labels)
    )


HEADER = (
    "| drivers a fold learns from | images | log loss | 95 % interval | against the line above |\n|---|---|---|---|---|"
)


def _record(context: Context, model: str, found: Finished, points: list[Point], fall: Fall) -> CurveRecord:
    drivers, kept = found.train.drivers, list[CurvePoint]()
    for point, before in zip(points, [None, *points[:-1]], strict=True):
        gain = None if before is None else point.losses - before.losses
        kept.append(
            CurvePoint(
                drivers=point.drivers,
                images=point.images,
                log_loss=float(point.losses.mean()),
                interval=list(interval(point.losses, drivers)),
                change=None if gain is None else [float(gain.mean()), *interval(gain, drivers)],
            )
        )
    fits = range(found.folds.count)
    facts = begun(context.places, len(found.train.names), len(set(drivers)), found.folds.count)
    return CurveRecord(
        **facts,
        model=model,
        views=points[0].views,
        fold_file=found.folds.digest,
        commits=sorted({str(point.run.manifest(fold)["commit"]) for point in points for fold in fits}),
        points=kept,
        exponent=fall.exponent,
        exponent_interval=list(fall.exponents),
        at_twice_as_many=list(fall.loss(2 * points[-1].drivers)),
    )


def page(record: CurveRecord) -> str:
    """The record as Markdown."""
    lines = [
        f"| {point.drivers:g} | {point.images:.0f} | {point.log_loss:.3f} | {point.interval[0]:.3f} to {point.interval[1]:.3f} | "
        f"{change(point.change)} |"
        for point in record.points
    ]
    counts = " ".join(f"{point.drivers:g}" for point in record.points[:-1])
    command = f'make curve MODEL={record.model} COUNTS="{counts}" DATASET={record.dataset}'
    about = (
        f"Written by `{command}`: {record.images} photos of {record.drivers} drivers, {record.folds} driver "
        f"folds (digest {record.fold_file[:12]}), {record.views} view set, commit {', '.join(record.commits)}. Each fold "
        "learns from some of its drivers, drawn once, fewer always among more, and is held against the same drivers whatever "
        "their number. Epochs are the recipe's, so that fewer drivers mean fewer steps too. Single fold models, averaged with "
        "nothing; intervals by drawing drivers anew."
    )
    (low, high), (doubled, least, most) = record.exponent_interval, record.at_twice_as_many
    law = (
        f"A power law through these points has exponent {record.exponent:.2f} (90 % interval {low:.2f} to {high:.2f}): twice as "
        f"many drivers take {1 - 2**-record.exponent:.0%} off the loss. Continued to {2 * record.points[-1].drivers:g} drivers it "
        f"says {doubled:.3f} ({least:.3f} to {most:.3f}); that is an extrapolation, and no floor is fitted."
    )
    shown = f"![log loss of new drivers by the number of drivers learnt from](curve-{record.model}.png)"
    table = "\n".join([HEADER, *lines])
    return f"# What more drivers are worth\n\n{about}\n\n{shown}\n\n{table}\n\n{law}\n"
