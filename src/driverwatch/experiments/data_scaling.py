"""The data-scaling curve: one recipe trained on more and more of each fold's drivers, and the power law its loss follows."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from driverwatch.config.model import ModelSettings
from driverwatch.data import splits
from driverwatch.data.context import Context, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.ensemble.members import Finished
from driverwatch.errors import InputError
from driverwatch.experiments import experiment
from driverwatch.experiments.experiment import Change, Interval, Number, StudyRecord, StudyRow
from driverwatch.io.atomic import replacing
from driverwatch.io.console import close
from driverwatch.io.html import PALETTE, PLOT_STYLE, render
from driverwatch.metrics import bootstrap_means
from driverwatch.run import Run

STUDY = "curve"  # where its runs lie, which ensembles do not take
RESAMPLES = 2_000  # of drivers, under the power law's intervals
COLUMNS = {
    "training drivers per fold": "{drivers:g}",
    "images": "{images:.0f}",
    "log loss": "{log_loss:.3f}",
    "95 % interval": "{interval[0]:.3f} to {interval[1]:.3f}",
    "against the line above": "{difference}",
}


class ScalingPoint(StudyRow):
    """A recipe on so many drivers a fold (mean over folds); the change is against the point before."""

    drivers: Number
    images: Number


class ScalingRecord(StudyRecord):
    model: str
    tta: str
    points: list[ScalingPoint]
    exponent: Number
    exponent_interval: Interval
    at_twice_as_many: Change  # log loss by the power law, and its interval


@dataclass(frozen=True)
class PowerLaw:
    """loss = coefficient * amount ** -exponent, with a 90 % interval of the exponent by bootstrap over validation drivers."""

    coefficient: float
    exponent: float
    exponent_interval: tuple[float, float]
    resamples: np.ndarray  # float64 (2, R): coefficient and exponent of each resample

    def loss(self, amount: float) -> tuple[float, float, float]:
        """Log loss at an amount of data, and its 90 % interval."""
        low, high = np.percentile(self.resamples[0] * amount ** -self.resamples[1], [5, 95])
        return self.coefficient * amount**-self.exponent, float(low), float(high)


def fit_power_law(amounts: list[float], losses: list[np.ndarray], drivers: np.ndarray) -> PowerLaw:
    """A straight line through the logarithms of amounts and mean losses, and one through each resample's.

    Power laws in the amount of data: Hestness et al. 2017 (arXiv:1712.00409).

    Args:
        losses: (N,) of each point.
        drivers: (N,), each image's driver.
    """
    means = np.stack([np.mean(losses, axis=1), *bootstrap_means(np.stack(losses), drivers, RESAMPLES).T], axis=1)
    heights, slopes = np.polynomial.polynomial.polyfit(np.log(amounts), np.log(means), 1)
    fits = np.stack([np.exp(heights), -slopes])
    low, high = np.percentile(fits[1, 1:], [5, 95])
    return PowerLaw(float(fits[0, 0]), float(fits[1, 0]), (float(low), float(high)), fits[:, 1:])


def run_data_scaling(
    context: Context, model: str, settings: ModelSettings, counts: list[int], weights: Path | None
) -> None:
    """Train a model on so many drivers of each fold, and on all of them; write the record, page and plot.

    Raises `InputError`: splits that are not folds, or as many drivers as a fold has, or more.
    """
    start = time.monotonic()
    wanted = runs_of(model, settings, counts, open_packs(context, settings.input.key)[0])
    found, facts = experiment.study_runs(context, STUDY, wanted, weights)
    drivers, scored = found.train.drivers, experiment.score_runs(found)
    points = [
        ScalingPoint(**amounts_of(each.run, found), **each.facts(before, drivers))
        for before, each in zip([None, *scored[:-1]], scored, strict=True)
    ]
    law = fit_power_law([point.drivers for point in points], [each.losses for each in scored], drivers)
    record = ScalingRecord(
        **facts,
        model=model,
        tta=scored[0].tta,
        points=points,
        exponent=law.exponent,
        exponent_interval=list(law.exponent_interval),
        at_twice_as_many=list(law.loss(2 * points[-1].drivers)),
    )
    path = context.places.result(f"curve-{model}")
    with replacing(path.with_suffix(".png")) as temporary:
        plot(record.points, law).savefig(temporary, format="png", dpi=110)
    close(experiment.write_record(path, record, page), "written", time.monotonic() - start)


def runs_of(model: str, settings: ModelSettings, counts: list[int], folds: FoldTable) -> dict[str, ModelSettings]:
    """Settings of each run by its name, the one on all drivers last."""
    if settings.train.splits.train_drivers is not None:
        raise InputError("train.splits.train_drivers: is what data scaling varies; name numbers with N_DRIVERS=")
    every = splits.of(settings.train, folds)
    least = min(every.trained_on(fold) for fold in range(every.count))
    if bad := [count for count in counts if not 0 < count < least]:
        raise InputError(
            f"N_DRIVERS: each fold has {least} training drivers or more, so expected numbers below {least}, got {bad[0]}; all of "
            "them are the last point anyway"
        )
    made = {}
    for count in sorted(set(counts)):
        chosen = settings.train.splits.model_copy(update={"train_drivers": count})
        train = settings.train.model_copy(update={"splits": chosen})
        made[f"{model}-{count}-drivers"] = settings.model_copy(update={"train": train})
    return {**made, f"{model}-all-drivers": settings}


def amounts_of(run: Run, found: Finished) -> dict[str, Any]:
    """Drivers and images that a fold of the run was trained on: means over folds."""
    split = splits.of(run.settings.train, found.folds)
    drivers = [split.trained_on(fold) for fold in range(split.count)]
    images = [len(split.indices(found.train.drivers, fold)[0]) for fold in range(split.count)]
    return {"drivers": np.mean(drivers), "images": np.mean(images)}


def plot(points: list[ScalingPoint], law: PowerLaw) -> Figure:
    """Log loss over training drivers, both on logarithmic axes: the points, and the law up to twice as many drivers."""
    amounts = np.geomspace(points[0].drivers, 2 * points[-1].drivers, 60)
    fitted, least, most = np.array([law.loss(amount) for amount in amounts]).T
    drivers, losses, lows, highs = np.array([(point.drivers, point.log_loss, *point.interval) for point in points]).T
    with mpl.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot(xscale="log", yscale="log", xlabel="training drivers per fold", ylabel="log loss")
        axes.fill_between(amounts, least, most, alpha=0.15, label="its 90 % interval")
        axes.plot(amounts, fitted, "--", label="power law fitted to the points")
        bars = np.stack([losses - lows, highs - losses])
        axes.errorbar(
            drivers, losses, bars, fmt="o", color=PALETTE["ink"], capsize=4, label="out of fold, 95 % interval"
        )
        ticks = sorted({*map(round, drivers), round(amounts[-1])})
        axes.set_xticks(ticks, map(str, ticks))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend()
    return figure


def page(record: ScalingRecord) -> str:
    """The record as Markdown."""
    table = experiment.markdown_table(COLUMNS, map(experiment.cells, record.points))
    return render("data_scaling.md", record=record, table=table)
