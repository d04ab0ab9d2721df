"""Rounds of pseudo-labels: each round's students are taught by the round before, and compared with round 0 out of fold."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.artifacts import plain_name
from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.blend.score import interval
from driverwatch.data import competition
from driverwatch.errors import InputError
from driverwatch.metrics import log_loss, oof_score
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.steps.train import train
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.training.run import Run
from driverwatch.typed_yaml import overridden, parse
from driverwatch.writing import write_text


def run_rounds(context: Context, name: str, rounds: int, overrides: str, weights: Path | None) -> None:
    """Finish run `name`, train `<name>-round1` and so on as far as they are not finished, and tabulate them.

    Writes `build/<dataset>/pseudo/<name>.csv`.

    Args:
        overrides: what a round's settings have other than round 0's, `train.pseudo` among them.

    Raises:
        InputError: round 0 was never begun, or has no out-of-fold score to compare with.
    """
    first = runs.load(context.places.run(name))
    if not blending.scored(first):
        raise InputError(
            f"{first.folder}: no out-of-fold score: {first.settings.train.splits.unscored}; make pseudo compares such scores"
        )
    names = [name, *(plain_name(f"{name}-round{number}", "RUN") for number in range(1, rounds + 1))]
    begun = _as_begun(first)
    train(context, begun, name, weights, None, False)
    for teacher, student in pairwise(names):
        train(context, student_settings(begun, teacher, overrides), student, weights, None, False)
    table = effects(context, finished_runs(context, names))
    path = context.places.build / "pseudo" / f"{name}.csv"
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
    say(f"{table.to_string(index=False, float_format='{:.4f}'.format, na_rep='')}\n\n{_note(table)}\n{path}: written")


def _as_begun(run: Run) -> ModelSettings:
    """The settings of a run, and how its first fold was predicted: `run.json` leaves out what decides speed alone."""
    if not run.finished(0):
        return run.settings
    content = run.settings.model_dump() | {"predict": run.manifest(0)["settings"]["predict"]}
    return parse(ModelSettings, content, str(run.fold(0) / "manifest.json"))


def student_settings(settings: ModelSettings, teacher: str, overrides: str) -> ModelSettings:
    """Round 0's settings, changed by `overrides`, with `teacher` as the one teacher."""
    content: dict[str, Any] = settings.model_dump()
    content["train"]["pseudo"] = {
        "runs": [teacher],
        **{k: v for k, v in (content["train"]["pseudo"] or {}).items() if k not in ("runs", "taught")},
    }
    overridden(content, overrides, ModelSettings)
    train = content["train"]  # whatever SET= made of it
    pseudo = train.get("pseudo") if isinstance(train, dict) else None
    if not isinstance(pseudo, dict) or pseudo.get("runs") != [teacher]:
        raise InputError(
            "SET train.pseudo.runs: make pseudo names each round's teacher itself; make train takes others"
        )
    return parse(ModelSettings, content, f"a round taught by {teacher}")


def effects(context: Context, found: Finished) -> pd.DataFrame:
    """One line per round: images taken per fold, out-of-fold loss, its paired difference to round 0 with the 95 % interval.

    The difference is taken image by image, and drivers, not images, are drawn anew for its interval.
    """
    labels, drivers = found.train.labels, found.train.drivers
    lines, base = [], None
    for number, (run, test) in enumerate(zip(found.runs, found.tests, strict=True)):
        member = Member(run, test, blending.honest_views(run))
        rows = blending.out_of_fold(member, found.train, found.folds)
        losses, loss, _, right = oof_score(rows, labels, drivers)
        base = losses if base is None else base
        low, high = interval(losses - base, drivers) if number else (None, None)
        lines.append({
            "round": number, "run": run.name, **_taken(run, found.folds.count, len(labels)),
            "log loss": loss, "right": right,
            "change": (losses - base).mean() if number else None, "from": low, "to": high,
            "minutes": sum(run.manifest(fold)["seconds"] for fold in range(found.folds.count)) / 60,
            **_truth(context, member, found.folds.count),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _taken(run: Run, folds: int, labelled: int) -> dict[str, float | None]:
    """Mean over folds of what each learnt from test images; `steps` per epoch against those without them.

    Args:
        labelled: images of all folds; each is trained on in all folds but one.
    """
    made = [run.manifest(fold).get("pseudo_labels") or {} for fold in range(folds)]
    columns = (("images", "images"), ("confidence", "mean_confidence"))
    found = {column: sum(each[key] for each in made) / folds if all(made) else None for column, key in columns}
    return found | {"steps": 1 + (found["images"] or 0) * folds / (labelled * (folds - 1))}


def _truth(context: Context, member: Member, folds: int) -> dict[str, float]:
    """Log loss on the test images, where the competition is drawn and their labels are known: a check, not a choice."""
    truth = competition.read_truth(context.settings, context.data) if context.data.is_dir() else None
    if truth is None or set(truth) != set(member.test.names):
        return {}
    names = list(truth)
    rows = blending.unseen_rows([member], names, [list(range(folds))]).blended
    return {"test log loss": log_loss(rows, np.array(list(truth.values())))}


def _note(table: pd.DataFrame) -> str:
    known = "the competition is drawn, so their loss is known" if "test log loss" in table else "unknown"
    return (
        "change: to round 0, on drivers that neither had seen, with its 95 % interval over drivers; images and confidence: "
        "mean over folds, the confidence being the teachers'; steps: per epoch, against those without pseudo-labels. More steps "
        "alone change a loss: train round 0 with so many times the epochs before crediting pseudo-labels. How right they are on "
        f"test images: {known}."
    )
