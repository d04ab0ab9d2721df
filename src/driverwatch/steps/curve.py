"""The curve of drivers: one recipe trained on more and more of each fold's drivers, and how its loss falls with their number."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.blend.power_law import Fall, fitted
from driverwatch.blend.score import interval
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.errors import InputError
from driverwatch.kaggle import submission
from driverwatch.metrics import log_losses
from driverwatch.report.curve import picture
from driverwatch.setting_types import ViewSet
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, open_packs
from driverwatch.steps.prepare import make_packs
from driverwatch.steps.recipe import refuse_misfits
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.steps.train import train
from driverwatch.training.run import Run
from driverwatch.wording import close
from driverwatch.writing import replacing, write_json, write_text

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
    """Train a model on so many drivers of each fold, and on all of them; write `docs/curve.md` and `docs/curve.png`.

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
    path = Path("docs") / "curve.md"
    with replacing(path.with_suffix(".png")) as temporary:
        drawn = [
            (point.drivers, float(point.losses.mean()), *interval(point.losses, found.train.drivers))
            for point in points
        ]
        amounts = np.geomspace(points[0].drivers, 2 * points[-1].drivers, 60)
        line = np.array([(amount, *fall.loss(amount)) for amount in amounts])
        picture(drawn, line).savefig(temporary, format="png", dpi=110)
    write_text(path, _page(context, model, found, points, fall))
    write_json(context.places.build / f"curve-{model}.json", _facts(points, found.train.drivers, fall) | provenance())
    close(path, "written", time.monotonic() - start)


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
    """A run's losses, clipped as submissions are."""
    member = Member(run, found.tests[found.runs.index(run)], blending.honest_views(run))
    rows = submission.clipped(blending.out_of_fold(member, found.train, found.folds))
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


def _page(context: Context, model: str, found: Finished, points: list[Point], fall: Fall) -> str:
    drivers, lines = found.train.drivers, []
    for place, point in enumerate(points):
        low, high = interval(point.losses, drivers)
        against = ""
        if place:
            gain = point.losses - points[place - 1].losses
            least, most = interval(gain, drivers)
            against = f"{gain.mean():+.3f} ({least:+.3f} to {most:+.3f})"
        lines.append(
            f"| {point.drivers:g} | {point.images:.0f} | {point.losses.mean():.3f} | {low:.3f} to {high:.3f} | {against} |"
        )
    last = points[-1].drivers
    doubled, least, most = fall.loss(2 * last)
    fits = range(found.folds.count)
    commits = sorted({str(point.run.manifest(fold)["commit"]) for point in points for fold in fits})
    counts = " ".join(f"{point.drivers:g}" for point in points[:-1])
    command = f'make curve MODEL={model} COUNTS="{counts}" DATASET={context.dataset}'
    about = (
        f"Written by `{command}`: {len(found.train.names)} photos of {len(set(drivers))} drivers, {found.folds.count} driver "
        f"folds (digest {found.folds.digest[:12]}), {points[0].views} view set, commit {', '.join(commits)}. Each fold "
        "learns from some of its drivers, drawn once, fewer always among more, and is held against the same drivers whatever "
        "their number. Epochs are the recipe's, so that fewer drivers mean fewer steps too. Single fold models, averaged with "
        "nothing; intervals by drawing drivers anew."
    )
    low, high = fall.exponents
    law = (
        f"A power law through these points has exponent {fall.exponent:.2f} (90 % interval {low:.2f} to {high:.2f}): twice as "
        f"many drivers take {1 - 2**-fall.exponent:.0%} off the loss. Continued to {2 * last:g} drivers it says {doubled:.3f} "
        f"({least:.3f} to {most:.3f}); that is an extrapolation, and no floor is fitted."
    )
    shown = "![log loss of new drivers by the number of drivers learnt from](curve.png)"
    return f"# What more drivers are worth\n\n{about}\n\n{shown}\n\n{HEADER}\n" + "\n".join(lines) + f"\n\n{law}\n"


def _facts(points: list[Point], drivers: np.ndarray, fall: Fall) -> dict[str, Any]:
    return {
        "points": [
            {"run": p.run.name, "drivers": p.drivers, "images": p.images, "log_loss": float(p.losses.mean()),
             "interval": interval(p.losses, drivers)} for p in points
        ],
        "exponent": fall.exponent,
        "exponent_interval": fall.exponents,
        "at_twice_as_many": fall.loss(2 * points[-1].drivers),
    }  # fmt: skip
