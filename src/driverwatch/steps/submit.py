"""From predictions to submissions and scores."""

import time
from pathlib import Path

import numpy as np

from driverwatch.artifacts import digest_of_file, provenance, write_json
from driverwatch.blend import ensemble as blending
from driverwatch.blend import score as scores
from driverwatch.blend.ensemble import Member
from driverwatch.data import competition
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.kaggle import submission
from driverwatch.metrics import accuracy, log_loss
from driverwatch.settings import VIEW_SETS, EnsembleSettings, ViewSet, load
from driverwatch.steps.closing import closing
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.terminal import say
from driverwatch.training import run as runs


def finished_runs(context: Context, names: list[str]) -> tuple[list[runs.Run], FoldTable, Pack]:
    """The named runs (default: every finished one), with the folds and a training pack they all share.

    Raises:
        InputError: none there, one not finished, or runs on other folds or other images.
    """
    folders = [context.places.run(name) for name in names] or [
        p.parent for p in sorted(context.places.runs.glob("*/run.json"))
    ]
    found = [runs.load(folder) for folder in folders]
    if not found:
        raise InputError(f"{context.places.runs}: no run yet; run make train MODEL=... DATASET={context.dataset} first")
    opened = [open_packs(context, run.settings.input.pack) for run in found]
    folds = opened[0][0]
    done = [all(run.finished(k) for k in range(folds.count)) for run in found]
    if names and not all(done):
        raise InputError(
            f"{found[done.index(False)].folder}: not every fold is finished; run make train again, it goes on"
        )
    for run, (_, packs) in zip(found, opened, strict=True):
        _refuse_strangers(context, run, folds, packs)
        if list(packs["train"].names) != list(opened[0][1]["train"].names):
            raise InputError(f"{run.folder}: its pack holds other images than {found[0].folder}'s")
    if not any(done):
        raise InputError(f"{context.places.runs}: no run has finished every fold; run make train again, it goes on")
    kept = [run for run, whole in zip(found, done, strict=True) if whole]
    if left := [run.name for run, whole in zip(found, done, strict=True) if not whole]:
        say(f"left out, not finished: {', '.join(left)}")
    return kept, folds, opened[0][1]["train"]


def _refuse_strangers(context: Context, run: runs.Run, folds: FoldTable, packs: dict[str, Pack]) -> None:
    way_out = "train it anew, or leave it out with MODELS="
    if run.folds != folds.digest:
        raise InputError(f"{run.folder}: was trained on other folds than {context.places.folds}; {way_out}")
    if run.packs != {kind: pack.digest for kind, pack in packs.items()}:
        raise InputError(f"{run.folder}: was trained on another pack than today's; {way_out}")


def make_ensemble(context: Context, names: list[str], name: str, views: ViewSet | None, fold: int | None) -> None:
    """Average runs into a submission (folds, then runs), check it, and record its out-of-fold loss beside it."""
    start = time.monotonic()
    members, folds, pack = _members(context, names, name, views)
    sample = competition.read_sample_submission(context.settings, context.data)
    if not sample:
        raise InputError(
            f"{context.data / context.settings.sample_submission}: names no test image, so there is nothing to submit"
        )
    numbers = list(range(folds.count)) if fold is None else [fold]
    test = blending.mean([blending.on_test(member, sample, numbers) for member in members])
    path = context.places.submissions / f"{name}.csv"
    submission.write(test, sample, [context.settings.columns.image, *context.settings.classes], path)
    facts = {
        "runs": {m.run.name: m.views for m in members},
        "folds": folds.digest,
        "fold_models": numbers,
        "submission": digest_of_file(path),
        "images": len(sample),
    }
    if fold is None:
        held_out = blending.mean([blending.out_of_fold(member, pack, folds) for member in members])
        facts |= {
            "out_of_fold_log_loss": round(log_loss(submission.clipped(held_out), pack.labels), 4),
            "out_of_fold_right": round(accuracy(held_out, pack.labels), 4),
        }
    facts["seconds"] = round(time.monotonic() - start, 1)
    write_json(path.with_suffix(".json"), {**facts, **provenance()})
    said = ", ".join(f"{m.run.name} ({m.views})" for m in members)
    loss = f"out-of-fold log loss {facts['out_of_fold_log_loss']:.4f}, " if fold is None else f"fold {fold} alone, "
    say(f"{path}: {len(sample)} images, mean of {said}; {loss}checked")


def _members(
    context: Context, names: list[str], name: str, views: ViewSet | None
) -> tuple[list[Member], FoldTable, Pack]:
    recipe = CONFIGS / "ensembles" / f"{name}.yaml"
    if not names and recipe.is_file():
        settings = load(EnsembleSettings, recipe.parent, name)
        names, views = settings.runs, views or (None if settings.views == "auto" else settings.views)
    found, folds, pack = finished_runs(context, names)
    members = [Member(run, views or blending.honest_views(run)) for run in found]
    for member in members:
        if member.views == "ten_crop" and member.run.settings.augment.mirror == "none":
            say(f"{member.run.name}: ten_crop averages mirrored views, but training never mirrored; compare five_crop")
    return members, folds, pack


def make_submissions(context: Context, names: list[str]) -> None:
    """Every view set of each run as a submission, and each of its fold models alone."""
    found, folds, _ = finished_runs(context, names)
    for run in found:
        for views in blending.views_there(run, folds.count):
            make_ensemble(context, [run.name], f"{run.name}-{views}", views, None)
        for fold in range(folds.count):
            make_ensemble(context, [run.name], f"{run.name}-fold{fold}", None, fold)


def check_submission(context: Context, path: Path) -> None:
    sample = competition.read_sample_submission(context.settings, context.data)
    submission.check(path, sample, [context.settings.columns.image, *context.settings.classes])
    say(f"{path}: {len(sample)} images, ready to go up")


def print_scores(context: Context, names: list[str]) -> None:
    """Out-of-fold tables for every run and view set and for the mean of all; the drawn competition's truth where known."""
    found, folds, pack = finished_runs(context, names)
    rows = {
        f"{run.name} {views}": blending.out_of_fold(Member(run, views), pack, folds)
        for run in found
        for views in blending.views_there(run, folds.count)
    }
    honest = [f"{run.name} {blending.honest_views(run)}" for run in found]
    if len(found) > 1 and all(name in rows for name in honest):
        rows[f"mean of {len(found)}"] = blending.mean([rows[name] for name in honest])
    chosen = {name: p for name, p in rows.items() if name in honest or name.startswith("mean of")} or rows
    say(
        scores.text(
            scores.summary(rows, pack.labels, pack.drivers),
            f"Out of fold: {context.dataset}, {folds.count} driver folds",
        )
    )
    fold_of = np.array([folds.of_driver[driver] for driver in pack.drivers])
    labels = np.array(context.settings.classes and list(context.settings.classes))[pack.labels]
    for keys, title in ((fold_of, "fold"), (pack.drivers, "driver"), (labels, "class")):
        say(scores.text(scores.by(chosen, pack.labels, keys, title, sorted(set(keys))), f"Log loss by {title}"))
    selected = [run.name for run in found if run.settings.train.select == "best"]
    if selected:
        say(f"selected on the held-out drivers (so flattered): {', '.join(selected)}")
    _print_truth(context)
    say(closing(context, found))


def _print_truth(context: Context) -> None:
    """Score every submission of a competition whose test labels are known."""
    truth = competition.read_truth(context.settings, context.data) if context.data.is_dir() else None
    if truth is None:
        return
    header = [context.settings.columns.image, *context.settings.classes]
    lines = {}
    for path in sorted(context.places.submissions.glob("*.csv")):
        frame = competition.read_csv(path, header).set_index(header[0])
        if set(frame.index) == set(truth):
            lines[path.name] = frame.loc[list(truth), header[1:]].to_numpy(dtype=np.float64)
    if lines:
        labels = np.array(list(truth.values()))
        table = scores.summary(lines, labels, np.arange(len(labels))).drop(columns="± (drivers)")
        say(scores.text(table, "Unseen test drivers (their labels are known: the competition is drawn)"))


def views_of(name: str | None) -> ViewSet | None:
    """A view set's name from the command line, or None."""
    if name is None:
        return None
    if name not in VIEW_SETS:
        raise InputError(f"VIEWS={name}: expected one of {', '.join(VIEW_SETS)}")
    return name
