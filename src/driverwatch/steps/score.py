"""Scores on the terminal: out of fold for every run, and on the test images where their labels are known."""

import numpy as np
import pandas as pd

from driverwatch.blend import ensemble as blending
from driverwatch.blend import score as scores
from driverwatch.blend.ensemble import Member
from driverwatch.data import competition
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.metrics import KAGGLE_FLOOR, accuracy, kaggle_log_loss, log_loss
from driverwatch.steps.closing import closing
from driverwatch.steps.context import Context
from driverwatch.steps.submit import finished_runs, selected_on
from driverwatch.submission import validate
from driverwatch.terminal import say
from driverwatch.training.predicted import views_there
from driverwatch.training.run import Run
from driverwatch.wording import ending


def print_scores(context: Context, names: list[str]) -> None:
    """Log loss and accuracy per run and view set, and per fold, driver and class of what an ensemble would take."""
    finished, tests, folds, pack = finished_runs(context, names)
    found = [run for run in finished if blending.scored(run)]
    rows = {
        f"{run.name} {views}": blending.out_of_fold(Member(run, test, views), pack, folds)
        for run, test in zip(finished, tests, strict=True)
        if blending.scored(run)
        for views in views_there(run, folds.count)
    }
    honest = [f"{run.name} {blending.honest_views(run)}" for run in found]
    if len(found) > 1 and all(name in rows for name in honest):
        rows[f"mean of {len(found)}"] = blending.mean([rows[name] for name in honest])
    for run in finished:
        if not blending.scored(run):
            say(f"{run.name}: no out-of-fold score: {run.settings.train.splits.unscored}")
    if found:
        _print_out_of_fold(context, found, folds, pack, rows, honest)
    _print_truth(context)
    say(closing(context, finished))
    ending(then=[f"make report DATASET={context.dataset}"])


def _print_out_of_fold(
    context: Context, found: list[Run], folds: FoldTable, pack: Pack, rows: dict[str, np.ndarray], honest: list[str]
) -> None:
    """Tables of `rows` (name: probabilities (N, C)), the detailed ones of those with `honest` views."""
    title = f"Out of fold: {context.dataset}, {folds.count} driver folds"
    say(scores.text(scores.summary(rows, pack.labels, pack.drivers), title))
    _print_notes(context, found)
    chosen = {name: p for name, p in rows.items() if name in honest or name.startswith("mean of")} or rows
    fold_of = np.array([folds.of_driver[driver] for driver in pack.drivers])
    classes = np.array(list(context.settings.classes))[pack.labels]
    for keys, kind in ((fold_of, "fold"), (pack.drivers, "driver"), (classes, "class")):
        say(scores.text(scores.by(chosen, pack.labels, keys, kind, log_loss), f"Log loss by {kind}"))
        say(scores.text(scores.by(chosen, pack.labels, keys, kind, accuracy), f"Right by {kind}", percent=True))


def _print_notes(context: Context, found: list[Run]) -> None:
    if unmirrored := [run.name for run in found if not blending.mirrored(run)]:
        say(
            f"training never mirrored, so the mirrored views of ten_crop, _keep and _swap mislead: {', '.join(unmirrored)}"
        )
    if flattered := selected_on(found):
        say(f"epoch selected on the held-out drivers, so flattered: {', '.join(flattered)}")
    meanings = "  ".join(f"{name} {meaning}" for name, meaning in context.settings.classes.items())
    say(f"classes: {meanings}\n")


def _print_truth(context: Context) -> None:
    """Score every submission of a competition whose test labels are known."""
    truth = competition.read_truth(context.settings, context.data) if context.data.is_dir() else None
    if truth is None:
        return
    labels, lines = np.array(list(truth.values())), []
    for path in matching(context.places.submissions, "*.csv"):
        try:
            rows = validate.read_submission(
                path, list(truth), [context.settings.columns.image, *context.settings.classes]
            )
            lines.append([path.name, kaggle_log_loss(rows, labels), accuracy(rows, labels), len(labels)])
        except InputError as error:
            say(f"not scored: {error}")
    if lines:
        table = pd.DataFrame(lines, columns=["model", "log loss", "right", "images"])
        known = "their labels are known: the competition is drawn"
        say(scores.text(table, f"Unseen test drivers ({known}), scored as Kaggle does, clipped at {KAGGLE_FLOOR:g}"))
