"""Scores of ensemble members: out of fold per run, TTA set, fold, driver and class; on test images whose labels are known."""

import numpy as np
import pandas as pd

from driverwatch.blend import ensemble as blending
from driverwatch.blend import score as scores
from driverwatch.blend.ensemble import Member
from driverwatch.data import competition
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.metrics import KAGGLE_FLOOR, accuracy, kaggle_log_loss, log_loss
from driverwatch.steps.context import Context
from driverwatch.steps.submit import Finished, finished_runs, selected_on
from driverwatch.steps.summary import seconds_and_places
from driverwatch.submission import validate
from driverwatch.terminal import say
from driverwatch.training.predicted import views_there
from driverwatch.training.run import Run
from driverwatch.wording import ending


def print_scores(context: Context, names: list[str]) -> None:
    """Print log loss and accuracy per run and TTA set; per fold, driver and class of what an ensemble would take."""
    found = finished_runs(context, names)
    for run in found.runs:
        if not blending.scored(run):
            say(f"{run.name}: no out-of-fold score: {run.settings.train.splits.unscored}")
    if any(map(blending.scored, found.runs)):
        _print_out_of_fold(context, found)
    _print_test_scores(context)
    say(seconds_and_places(context, found.runs))
    ending(then=[f"make report DATASET={context.dataset}"])


def _print_out_of_fold(context: Context, found: Finished) -> None:
    """Print tables of all TTA sets, and detailed ones of each run's default set and of the mean of these."""
    pack, folds = found.train, found.folds
    pairs = [pair for pair in zip(found.runs, found.tests, strict=True) if blending.scored(pair[0])]
    runs = [run for run, _ in pairs]
    made = {
        f"{run.name} {views}": blending.out_of_fold(Member(run, test, views), pack, folds)
        for run, test in pairs
        for views in views_there(run, folds.count)
    }
    defaults = [f"{run.name} {blending.honest_views(run)}" for run in runs]
    chosen = {name: p for name, p in made.items() if name in defaults}
    if len(runs) > 1 and len(chosen) == len(runs):
        mean = {f"mean of {len(runs)}": blending.mean([chosen[name] for name in defaults])}
        made, chosen = made | mean, chosen | mean
    title = f"Out of fold: {context.dataset}, {folds.count} driver folds"
    say(scores.text(scores.summary(made, pack.labels, pack.drivers), title))
    for caveat in caveats(runs):
        say(caveat)
    meanings = "  ".join(f"{name} {meaning}" for name, meaning in context.settings.classes.items())
    say(f"classes: {meanings}\n")
    fold_of = np.array([folds.of_driver[driver] for driver in pack.drivers])
    classes = np.array(list(context.settings.classes))[pack.labels]
    for keys, kind in ((fold_of, "fold"), (pack.drivers, "driver"), (classes, "class")):
        say(scores.text(scores.by(chosen or made, pack.labels, keys, kind, log_loss), f"Log loss by {kind}"))
        table = scores.by(chosen or made, pack.labels, keys, kind, accuracy)
        say(scores.text(table, f"Accuracy by {kind}", percent=True))


def caveats(runs: list[Run]) -> list[str]:
    """What to bear in mind of the runs' scores, a sentence each with the runs that it is about."""
    about = {
        "training never flipped images, so the flipped views of ten_crop, _keep and _swap mislead": [
            run.name for run in runs if not blending.mirrored(run)
        ],
        "optimistic: epoch chosen on the validation drivers": selected_on(runs),
    }
    return [f"{caveat}: {', '.join(names)}" for caveat, names in about.items() if names]


def _print_test_scores(context: Context) -> None:
    """Print the score of every submission of a competition whose test labels are known."""
    truth = competition.read_truth(context.settings, context.data) if context.data.is_dir() else None
    if truth is None:
        return
    labels, lines = np.array(list(truth.values())), []
    for path in matching(context.places.submissions, "*.csv"):
        try:
            made = validate.read_submission(
                path, list(truth), [context.settings.columns.image, *context.settings.classes]
            )
            lines.append([path.name, kaggle_log_loss(made, labels), accuracy(made, labels), len(labels)])
        except InputError as error:
            say(f"not scored: {error}")
    if lines:
        table = pd.DataFrame(lines, columns=["model", "log loss", "right", "images"])
        title = "Unseen test drivers (labels known: the competition is synthetic), scored as Kaggle does, clipped at "
        say(scores.text(table, f"{title}{KAGGLE_FLOOR:g}"))
