"""`make lr-find`: the range test of a model's last stage on one fold's training images, its plot, and two rates to try."""

import csv
import io
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from driverwatch.data import splits
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.report.lr_find import picture
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, open_packs
from driverwatch.steps.prepare import make_packs
from driverwatch.steps.train import read_augmentation, refuse_fold
from driverwatch.terminal import say
from driverwatch.training.rates import smoothed, suggested
from driverwatch.training.run import Run
from driverwatch.wording import close
from driverwatch.writing import locked, replacing, scratch_beside, write_text

if TYPE_CHECKING:
    from driverwatch.training.range_test import Rise


def find_rates(
    context: Context,
    model: str,
    settings: ModelSettings,
    fold: int,
    between: tuple[float, float],
    points: int,
    weights: Path | None,
) -> None:
    """Train the stages before the last one as they are, then the last one's layers at rising rates; write CSV and picture.

    Nothing is held against held-out drivers, pseudo-labels are left out, and no run is touched.

    Args:
        between: least and greatest rate.
        points: steps.

    Raises:
        InputError: a fold that is not there, rates that do not rise, a last stage that is solved for.
    """  # fmt: skip
    start, last = time.monotonic(), settings.train.stages[-1]
    if not 0 < between[0] < between[1] <= 10:
        raise InputError(f"LOW={between[0]:g} HIGH={between[1]:g}: expected 0 < LOW < HIGH, and 10 at most")
    if last.fit == "logistic":
        raise InputError("train.stages: the last one is solved for (fit: logistic) and has no rate to find")
    found = weight_files.find(settings, weights)
    make_packs(context, settings.input.key, model, "", False, False)
    path = context.places.range_test(model)
    with locked(path.parent, f".{model}.lock", sweep=()), scratch_beside(path) as scratch:
        from driverwatch.models import backend

        backend.start()
        from driverwatch.training.range_test import Rise

        rise = Rise(*between, points)
        losses = _losses(context, _unwatched(settings), fold, rise, found, scratch)
    rates, smooth = rise.rates[: len(losses)], smoothed(losses)
    _write(path, model, fold, rates, losses, smooth)
    close(path, f"{len(losses)} steps, {path.with_suffix('.png').name}", time.monotonic() - start,
          then=_then(context, model, settings, rates, smooth))  # fmt: skip


def _unwatched(settings: ModelSettings) -> ModelSettings:
    """The same without what needs held-out drivers or teachers."""
    plain = {"select": "last", "patience": None, "pseudo": None, "stop_after": None}
    return settings.model_copy(update={"train": settings.train.model_copy(update=plain)})


def _losses(
    context: Context, settings: ModelSettings, fold: int, rise: "Rise", weights: Path | None, scratch: Path
) -> np.ndarray:
    """Losses of the steps (N,)."""
    from driverwatch.models.backend import deterministic
    from driverwatch.models.classifier import build
    from driverwatch.training.fold import FoldTraining
    from driverwatch.training.range_test import range_test
    from driverwatch.training.rows import Rows

    policy = read_augmentation(context, settings)
    folds, packs = open_packs(context, settings.input.key)
    split = splits.of(settings.train, folds)
    refuse_fold(fold, split.count)
    rows = Rows(split.rows(packs["train"].drivers, fold)[0], np.array([], int))
    about, digests = context.settings, {kind: pack.digest for kind, pack in packs.items()}
    run = Run(scratch / "range_test", settings, tuple(about.classes), about.swap(), policy, folds.digest, digests, None,
              regions=about.boxes(settings.input.regions))  # fmt: skip
    deterministic(settings.train.seed)
    classifier = build(settings, len(run.classes), packs["train"].mean, weights)
    before = settings.train.stages[:-1]
    if before:
        first = settings.train.model_copy(update={"stages": before})
        earlier = replace(run, settings=settings.model_copy(update={"train": first}))
        FoldTraining(classifier, earlier, fold, packs, rows, context.places.trunks).train()
    training = FoldTraining(classifier, run, fold, packs, rows, context.places.trunks)
    return range_test(training, training.stages[-1], rise)


def _write(path: Path, model: str, fold: int, rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["learning_rate", "loss", "smoothed"])
    writer.writerows([f"{value:.8g}" for value in row] for row in zip(rates, losses, smooth, strict=True))
    write_text(path, text.getvalue())
    found = suggested(rates, smooth)
    marks = {"steepest": found.steepest, "a tenth of the least": found.tenth_of_least} if found else {}
    with replacing(path.with_suffix(".png")) as temporary:
        title = f"{model}, fold {fold}: range test"
        picture(rates, losses, smooth, marks, title).savefig(temporary, format="png", dpi=110)


def _then(context: Context, model: str, settings: ModelSettings, rates: np.ndarray, smooth: np.ndarray) -> list[str]:
    """Both rates as commands, where the course has them."""
    found = suggested(rates, smooth)
    if found is None:
        say(f"{model}: the loss falls nowhere on its way, so there is nothing to read off; raise POINTS= or HIGH=")
        return []
    last = len(settings.train.stages) - 1
    own = settings.train.stages[last].learning_rate is not None
    key = f"train.stages.{last}.learning_rate" if own else "train.learning_rate"
    now = settings.train.stages[last].learning_rate or settings.train.learning_rate
    say(
        f"{model}: the loss falls fastest at {found.steepest:.2g}; a tenth of where it is least is {found.tenth_of_least:.2g}; "
        f"{key} is {now:g}"
    )
    both = dict.fromkeys(f"{rate:.2g}" for rate in (found.steepest, found.tenth_of_least))
    words = f"make train MODEL={model} DATASET={context.dataset}"
    return [f'{words} RUN={model}-{rate} SET="{key}={rate}"' for rate in both]
