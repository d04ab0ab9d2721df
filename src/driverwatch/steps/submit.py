"""From predictions to submissions."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driverwatch.artifacts import digest_of_file, provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.data import competition
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.kaggle import submission
from driverwatch.metrics import accuracy, log_loss
from driverwatch.settings import EnsembleSettings, ViewSet
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.steps.train import refuse_fold
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.typed_yaml import load
from driverwatch.writing import locked, write_json


class Finished(NamedTuple):
    """Finished runs, each one's pack of test images, and the folds and a training pack they all share."""

    runs: list[runs.Run]
    tests: list[Pack]
    folds: FoldTable
    train: Pack


def finished_runs(context: Context, names: list[str]) -> Finished:
    """The named runs (default: every finished one).

    Raises:
        InputError: none there, a named one not finished or named twice, or runs on other folds or other images.
    """
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"MODELS: {', '.join(sorted(twice))} is named twice")
    paths = [context.places.run(name) for name in names] or [
        p.parent for p in sorted(context.places.runs.glob("*/run.json"))
    ]
    found = [run for path in paths if (run := _loaded(path, bool(names))) and _is_finished(context, run, bool(names))]
    if not found:
        raise InputError(
            f"{context.places.runs}: no run is there that has finished every fold; run make train MODEL=... "
            f"DATASET={context.dataset}, or again: it goes on"
        )
    opened = [open_packs(context, run.settings.input.key) for run in found]
    folds, first = opened[0][0], opened[0][1]["train"]
    for run, (_, packs) in zip(found, opened, strict=True):
        run.refuse_strangers(folds.digest, {kind: pack.digest for kind, pack in packs.items()})
        if list(packs["train"].names) != list(first.names):
            raise InputError(
                f"{run.folder}: its pack holds other images than {found[0].folder}'s; leave one out with MODELS="
            )
    return Finished(found, [packs["test"] for _, packs in opened], folds, first)


def _loaded(path: Path, named: bool) -> runs.Run | None:
    try:
        return runs.load(path)
    except InputError as error:
        if named:
            raise
        say(f"left out: {error}")
        return None


def _is_finished(context: Context, run: runs.Run, named: bool) -> bool:
    if all(run.finished(number) for number in range(context.settings.folds)):
        return True
    if named:
        raise InputError(f"{run.folder}: not every fold is finished; repeat the make train that began it, it goes on")
    say(f"left out, not finished: {run.name}")
    return False


def make_ensemble(context: Context, names: list[str], name: str, views: ViewSet | None, fold: int | None) -> None:
    """Average runs into a submission (folds, then runs), check it, and record its out-of-fold loss beside it."""
    with locked(context.places.build, ".submissions.lock", sweep=(context.places.submissions,)):
        _make_ensemble(context, names, name, views, fold)


def _make_ensemble(context: Context, names: list[str], name: str, views: ViewSet | None, fold: int | None) -> None:
    start, path = time.monotonic(), context.places.submission(name)
    members, folds, pack = _members(context, names, name, views)
    refuse_fold(fold, folds)
    sample = competition.read_sample_submission(context.settings, context.data)
    if not sample:
        raise InputError(
            f"{context.data / context.settings.sample_submission}: names no test image, so there is nothing to submit"
        )
    numbers = list(range(folds.count)) if fold is None else [fold]
    left_out = _left_out(members)
    prior = np.bincount(pack.labels, minlength=len(context.settings.classes)) / len(pack.labels)
    test = blending.completed([blending.on_test(member, sample, numbers) for member in members], prior)
    submission.write(test, sample, [context.settings.columns.image, *context.settings.classes], path)
    facts: dict[str, Any] = {
        "runs": {m.run.name: m.views for m in members},
        "folds": folds.digest,
        "fold_models": numbers,
    }
    facts |= {"submission": digest_of_file(path), "images": len(sample)}
    facts |= {"class_prior": left_out} if left_out else {}
    facts |= _out_of_fold(members, pack, folds) if fold is None else {}
    write_json(path.with_suffix(".json"), {**facts, "seconds": round(time.monotonic() - start, 1), **provenance()})
    said = ", ".join(f"{m.run.name} ({m.views})" for m in members)
    loss = f"fold {fold} alone" if fold is not None else f"out-of-fold log loss {facts['out_of_fold_log_loss']:.4f}"
    flattered = f" (selected on: {', '.join(facts['selected_on'])})" if facts.get("selected_on") else ""
    guessed = f", {len(left_out)} broken ones at the class prior" if left_out else ""
    say(f"{path}: {len(sample)} images{guessed}, mean of {said}; {loss}{flattered}, checked")


def _left_out(members: list[Member]) -> dict[str, str]:
    """Test images that every member's pack was made without (`SKIP_BROKEN=1`), and why."""
    each = [dict(zip(m.test.left_out.names, m.test.left_out.reasons, strict=True)) for m in members]
    return {image: reason for image, reason in each[0].items() if all(image in left for left in each)}


def _out_of_fold(members: list[Member], pack: Pack, folds: FoldTable) -> dict[str, Any]:
    """Score the same average, clipped as it is submitted, on drivers that each model had not seen."""
    rows = submission.clipped(blending.mean([blending.out_of_fold(member, pack, folds) for member in members]))
    return {
        "out_of_fold_log_loss": round(log_loss(rows, pack.labels), 4),
        "out_of_fold_right": round(accuracy(rows, pack.labels), 4),
        "selected_on": selected_on([m.run for m in members]),
    }


def selected_on(members: list[runs.Run]) -> list[str]:
    """Runs whose epoch was chosen on the held-out drivers, so that their out-of-fold loss flatters."""
    return [run.name for run in members if run.settings.train.looks_at_held_out]


def _members(
    context: Context, names: list[str], name: str, views: ViewSet | None
) -> tuple[list[Member], FoldTable, Pack]:
    recipe = CONFIGS / "ensembles" / f"{name}.yaml"
    if not names and recipe.is_file():
        settings = load(EnsembleSettings, recipe.parent, name)
        names, views = settings.runs, views or (None if settings.views == "auto" else settings.views)
    found, tests, folds, pack = finished_runs(context, names)
    members = [Member(run, test, views or blending.honest_views(run)) for run, test in zip(found, tests, strict=True)]
    for member in members:
        if member.views == "ten_crop" and not blending.mirrored(member.run):
            say(f"{member.run.name}: training never mirrored, so ten_crop's mirrored views mislead; compare five_crop")
    return members, folds, pack


def make_submissions(context: Context, names: list[str]) -> None:
    """Every view set of each run as a submission, and each of its fold models alone."""
    found, _, folds, _ = finished_runs(context, names)
    for run in found:
        for views in blending.views_there(run, folds.count):
            make_ensemble(context, [run.name], f"{run.name}-{views}", views, None)
        for fold in range(folds.count):
            make_ensemble(context, [run.name], f"{run.name}-fold{fold}", None, fold)


def check_submission(context: Context, path: Path) -> None:
    sample = competition.read_sample_submission(context.settings, context.data)
    submission.check(path, sample, [context.settings.columns.image, *context.settings.classes])
    say(f"{path}: {len(sample)} images, ready to go up")
