"""`make lr-find`: the learning-rate range test of a model's last stage on one fold's training images, and two rates to try.

Smith 2017, "Cyclical learning rates for training neural networks" (arXiv:1506.01186), section 3.3, with the rate rising
exponentially and the loss smoothed, as fastai does it since. Keras is imported where training starts, after the cheap checks.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from driverwatch.config.model import ModelSettings
from driverwatch.data import splits
from driverwatch.data.context import Context, open_packs
from driverwatch.data.prepare import make_packs
from driverwatch.errors import InputError
from driverwatch.io.atomic import locked, replacing, scratch_beside, write_text
from driverwatch.io.console import Meter, close, say
from driverwatch.io.html import PALETTE, PLOT_STYLE
from driverwatch.models import weight_files
from driverwatch.run import Run, refuse_fold
from driverwatch.training import label_issues
from driverwatch.training.train import read_augmentation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from driverwatch.training.fold import FoldTraining

MEMORY = 0.9  # of the exponential mean: about the last ten steps
DIVERGED_FACTOR = 4.0  # times the lowest smoothed loss so far
SETTLING_STEPS = 20  # before the smoothed course is believed: it begins as the mean of few losses
CLEAR_SHARE = 0.1  # of the lowest loss: a change that counts as a fall or a rise ...
CLEAR_DEVIATIONS = 5.5  # ... unless the smoothed course varies so many standard deviations by itself
CHORD_STEPS = 10  # over which the slope is taken: from one step to the next it is mostly noise
HIGHEST_RATE = 10.0


@dataclass(frozen=True)
class RangeTest:
    """Rates of the steps taken, rising by the same factor each, and the loss of each: float64 (N,)."""

    rates: np.ndarray
    losses: np.ndarray
    uniform: float  # log loss of a uniform guess over the classes: a fall down to it is no learning

    @property
    def smoothed(self) -> np.ndarray:
        return smoothed(self.losses)


def find_rates(
    context: Context,
    model: str,
    settings: ModelSettings,
    fold: int,
    low: float,
    high: float,
    points: int,
    weights: Path | None,
) -> None:
    """Train the stages before the last one as they are, then the last one's layers at rising rates; write CSV and plot.

    No validation driver is looked at, pseudo-labels are left out, and no run is touched.

    Args:
        low, high: lowest and highest rate, of `points` steps.

    Raises:
        InputError: no such fold, rates that do not rise, or a last stage that is a linear probe.
    """
    start, last = time.monotonic(), settings.train.stages[-1]
    if not 0 < low < high <= HIGHEST_RATE:
        raise InputError(f"LR_MIN={low:g} LR_MAX={high:g}: expected 0 < LR_MIN < LR_MAX <= {HIGHEST_RATE:g}")
    if last.fit == "linear_probe":
        raise InputError("train.stages: the last one is solved for (fit: linear_probe) and has no rate to find")
    found = weight_files.ready(settings, weights)
    make_packs(context, settings.input.key, model, "", False, False)
    path = context.places.range_test(model)
    with locked(path.parent, f".{model}.lock", sweep=()), scratch_beside(path) as scratch:
        training = _before_last_stage(context, settings, fold, found, scratch)
        made = range_test(training, np.geomspace(low, high, points))
    columns = {"learning_rate": made.rates, "loss": made.losses, "smoothed": made.smoothed}
    write_text(path, pd.DataFrame(columns).to_csv(index=False, float_format="%.8g", na_rep="nan", lineterminator="\n"))
    figure = plot(made, configured(settings)[1], f"{model}, fold {fold}: range test")
    with replacing(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    close(path, f"{len(made.losses)} steps, {path.with_suffix('.png').name}", time.monotonic() - start,
          then=_commands(context, model, settings, made))  # fmt: skip


def _before_last_stage(
    context: Context, settings: ModelSettings, fold: int, weights: Path | None, scratch: Path
) -> "FoldTraining":
    """A fold's training with all stages but the last one behind it; what it writes is under `scratch`."""
    # without what needs validation drivers or teachers
    alone = {"select": "last", "patience": None, "pseudo": None, "max_epochs": None}
    settings = settings.model_copy(update={"train": settings.train.model_copy(update=alone)})
    preset = read_augmentation(context, settings)
    folds, packs = open_packs(context, settings.input.key)
    split = splits.of(settings.train, folds)
    refuse_fold(fold, split.count)
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models.classifier import build
    from driverwatch.training.fold import FoldTraining
    from driverwatch.training.pseudo_labels import FoldIndices

    doubted = label_issues.identity(context, settings, packs["train"])
    about, checksums = context.settings, {kind: pack.checksum for kind, pack in packs.items()}
    run = Run(scratch / "range_test", settings, tuple(about.classes), about.swap(), preset, folds.checksum, checksums, None,
              {"label_issues": doubted} if doubted else None, about.boxes(settings.input.regions))  # fmt: skip
    training, factors = label_issues.weighted_rows(run, packs, split.indices(packs["train"].drivers, fold)[0])
    rows = FoldIndices(training, np.array([], int), sample_weights=factors)
    backend.deterministic(settings.train.seed)
    classifier = build(settings, len(run.classes), packs["train"].mean, weights)
    if before := settings.train.stages[:-1]:
        first = settings.train.model_copy(update={"stages": before})
        earlier = replace(run, settings=settings.model_copy(update={"train": first}))
        FoldTraining(classifier, earlier, fold, packs, rows, context.places.feature_caches).train()
    return FoldTraining(classifier, run, fold, packs, rows, context.places.feature_caches)


def range_test(training: "FoldTraining", rates: np.ndarray) -> RangeTest:
    """Train the last stage, which the fold has not entered yet, a step at each of `rates` (N,), whole batches alone.

    Ends with the last rate, or where the loss is NaN or inf or its smoothed course has diverged.
    """
    import keras

    from driverwatch.training.checkpoint import Progress
    from driverwatch.training.optimizer import compile_at, lr_multipliers

    stage, points = training.stages[-1], len(rates)
    epoch = sum(training.settings.planned[: stage.number])
    training.begin_stage(stage)
    rising = keras.optimizers.schedules.ExponentialDecay(rates[0], points - 1, rates[-1] / rates[0])
    compile_at(training.learner, training.settings, rising, lr_multipliers(training.classifier, stage))
    losses: list[float] = []
    with training.loader, Meter("range test", points, "steps", whose=training.run.name) as meter:
        while len(losses) < points and not diverged(losses):
            training.progress = Progress(epoch)  # the images of an epoch depend on its number
            epoch += 1
            for loss in _epoch_losses(training, points - len(losses)):
                losses.append(loss)
                meter.at(len(losses))
                if diverged(losses):
                    break
    return RangeTest(rates[: len(losses)], np.array(losses), math.log(len(training.run.classes)))


def _epoch_losses(training: "FoldTraining", most: int) -> Iterator[float]:
    """Losses of an epoch's whole batches (a smaller last one would weigh as much), `most` of them."""
    whole = max(len(training.shown) // training.settings.batch_size, 1)
    with closing(training.batches()) as batches:
        for step in range(min(whole, most)):
            training.learner.reset_metrics()  # or the loss would be the epoch's mean so far
            images, targets, weights = batches[step]
            yield float(training.learner.train_on_batch(images, targets, weights, return_dict=True)["loss"])


def smoothed(losses: np.ndarray | list[float]) -> np.ndarray:
    """Exponential mean after each loss without the bias towards 0 of its start (Kingma & Ba 2015, section 3): float64 (N,)."""
    return pd.Series(losses, dtype=np.float64).ewm(alpha=1 - MEMORY).mean().to_numpy()


def diverged(losses: list[float]) -> bool:
    """Whether the last loss is NaN or inf, or the smoothed course has left its minimum far below."""
    if losses and not math.isfinite(losses[-1]):
        return True
    smooth = smoothed(losses)
    return len(losses) > SETTLING_STEPS and bool(smooth[-1] > DIVERGED_FACTOR * smooth.min())


def clear_change(losses: np.ndarray, lowest: float) -> float:
    """The least change of the smoothed course of `losses` (N,) near `lowest` that is no noise.

    An exponential mean of independent values has (1 - m) / (1 + m) of their variance, which the differences of neighbours
    have twice; they hardly see a trend.
    """
    deviation = float(np.diff(losses).std()) / math.sqrt(2) if len(losses) > 2 else 0.0
    return max(CLEAR_SHARE * lowest, CLEAR_DEVIATIONS * deviation * math.sqrt((1 - MEMORY) / (1 + MEMORY)))


def usable_steps(made: RangeTest) -> int:
    """Steps before the first clear rise of the smoothed loss over its lowest so far; what comes after is no fall of its own."""
    losses = made.losses[: int(np.isfinite(made.losses).cumprod().sum())]
    settled = smoothed(losses)[SETTLING_STEPS:]
    lowest = np.minimum.accumulate(settled)
    for step, (now, low) in enumerate(zip(settled, lowest, strict=True), start=SETTLING_STEPS):
        if now - low > clear_change(losses[: step + 1], low):
            return step
    return len(losses)


def suggested(made: RangeTest) -> dict[str, float] | None:
    """Two rates to try, `steepest` and `a tenth of the lowest`; None where the loss falls nowhere clearly.

    Only what comes before the first clear rise counts, and only a fall below a uniform guess: from scratch a loss begins
    above it, and falls down to it at rates that teach nothing. The steepest fall is that of a chord over `CHORD_STEPS`, by
    logarithm of the rate. The smoothed course lags behind by some steps, so that both rates are rather high.
    """
    usable, half = usable_steps(made), CHORD_STEPS // 2
    smooth = np.minimum(made.smoothed[:usable], made.uniform)
    lowest = SETTLING_STEPS + int(smooth[SETTLING_STEPS:].argmin()) if usable > SETTLING_STEPS else 0
    middles = np.arange(SETTLING_STEPS, lowest - half + 1)
    if not len(middles) or smooth[SETTLING_STEPS] - smooth[lowest] < clear_change(made.losses[:usable], smooth[lowest]):
        return None
    run = np.log(made.rates[middles + half]) - np.log(made.rates[middles - half])
    slopes = (smooth[middles + half] - smooth[middles - half]) / run
    steepest = float(made.rates[middles[slopes.argmin()]])
    return {"steepest": steepest, "a tenth of the lowest": float(made.rates[lowest]) / 10}


def plot(made: RangeTest, own: float, title: str) -> "Figure":
    """The loss of each step by its rate, its smoothed course, grey from the first clear rise on; vertical lines: rates.

    Args:
        own: the rate that the settings have.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    usable, smooth, found = usable_steps(made), made.smoothed, suggested(made) or {}
    seen = smooth[min(SETTLING_STEPS, usable - 1) : usable] if usable else np.array([made.uniform])
    low, high = float(seen.min()), float(seen.max())
    room = 0.12 * (high - low) + 0.02
    rates = {"configured": own, **found}
    styles: Any = (("ink", ":"), ("c1", "-"), ("c2", (0, (5, 3))))
    parts = {"smoothed": (slice(usable), PALETTE["c0"])}
    if usable < len(smooth):
        parts["after the first clear rise"] = slice(max(usable - 1, 0), None), PALETTE["c7"]
    with mpl.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="training loss")
        for label, (part, colour) in parts.items():
            axes.plot(made.rates[part], made.losses[part], color=colour, alpha=0.35, linewidth=1)
            axes.plot(made.rates[part], smooth[part], color=colour, linewidth=2, label=label)
        for (label, rate), (colour, dash) in zip(rates.items(), styles, strict=False):
            axes.axvline(rate, color=PALETTE[colour], linestyle=dash, label=f"{label}: {rate:.2g}")
        axes.set(title=title if found else f"{title}: no clear range", ylim=(low - room, high + room))
        axes.legend()
    return figure


def configured(settings: ModelSettings) -> tuple[str, float]:
    """The setting that the last stage's rate is read from, and the rate."""
    stage = len(settings.train.stages) - 1
    own = settings.train.stages[stage].learning_rate
    if own is None:
        return "train.learning_rate", settings.train.learning_rate
    return f"train.stages.{stage}.learning_rate", own


def _commands(context: Context, model: str, settings: ModelSettings, made: RangeTest) -> list[str]:
    """Say which rates are suggested; the commands that train at them."""
    (key, own), found = configured(settings), suggested(made)
    if found is None:
        say(f"{model}: no clear range: the loss nowhere falls clearly before it rises; {key}={own:g} stays")
        words = f"make lr-find MODEL={model} DATASET={context.dataset}"
        return [f"{words} LR_STEPS={4 * len(made.rates)}   # a slower rise shows smaller falls"]
    steepest, tenth = (f"{rate:.2g}" for rate in found.values())
    lowest = f"a tenth of the rate of the lowest loss is {tenth}"
    say(f"{model}: the loss falls fastest at {steepest}; {lowest}; {key} is {own:g}")
    words = f"make train MODEL={model} DATASET={context.dataset}"
    return [f'{words} RUN={model}-{rate} SET="{key}={rate}"' for rate in dict.fromkeys((steepest, tenth))]
