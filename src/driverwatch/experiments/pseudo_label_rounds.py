"""Rounds of pseudo-labels: each round's student has the round before as its teacher, and is compared with round 0 out of fold."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from driverwatch import run as runs
from driverwatch.config.loading import overridden, parse
from driverwatch.config.model import ModelSettings
from driverwatch.data import competition
from driverwatch.data.context import Context
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.members import Finished, Member, finished_runs
from driverwatch.errors import InputError
from driverwatch.experiments import experiment
from driverwatch.io.atomic import write_text
from driverwatch.io.console import say
from driverwatch.io.paths import plain_name
from driverwatch.metrics import log_loss
from driverwatch.run import Run
from driverwatch.training.train import TrainRequest, train

LEGEND = """\
change: to round 0, on drivers that neither was trained on, with its 95 % interval over drivers
images, confidence: mean over folds; the confidence is the teachers'
steps: per epoch, relative to round 0. More steps alone change a loss: before crediting pseudo-labels, train round 0 for as many
test log loss: """


def run_rounds(context: Context, name: str, rounds: int, overrides: str, weights: Path | None) -> None:
    """Finish run `name`, train `<name>-round1` and so on as far as they are not finished, and tabulate them.

    Writes `build/<dataset>/pseudo/<name>.csv`.

    Raises `InputError`: round 0 was never started, or has no out-of-fold score to compare with.

    Args:
        overrides: what a round's settings have other than round 0's, `train.pseudo` among them.
    """
    first = runs.load(context.places.run(name))
    if not blending.oof_of_member(first):
        raise InputError(
            f"{first.folder}: no out-of-fold score: {first.settings.train.splits.unscored}; make pseudo-rounds compares such scores"
        )
    names = [name, *(plain_name(f"{name}-round{number}", "RUN") for number in range(1, rounds + 1))]
    settings = parse(ModelSettings, experiment.settings_as_trained(first), str(first.folder))
    train(TrainRequest(context=context, settings=settings, name=name, weights=weights))
    for teacher, student in pairwise(names):
        changed = student_settings(settings, teacher, overrides)
        train(TrainRequest(context=context, settings=changed, name=student, weights=weights))
    table = compared_rounds(context, finished_runs(context, names))
    path = context.places.build / "pseudo" / f"{name}.csv"
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
    known = "known, since the competition is synthetic" if "test log loss" in table else "unknown"
    say(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
    say(f"\n{LEGEND}{known}\n{path}: written")


def student_settings(settings: ModelSettings, teacher: str, overrides: str) -> ModelSettings:
    """Round 0's settings, changed by `overrides`, with the run `teacher` as the one teacher."""
    content = settings.model_dump()
    kept = {k: v for k, v in (content["train"]["pseudo"] or {}).items() if k not in ("runs", "labels")}
    content["train"]["pseudo"] = {"runs": [teacher], **kept}
    overridden(content, overrides, ModelSettings)
    train = content["train"]  # whatever SET= made of it
    pseudo = train.get("pseudo") if isinstance(train, dict) else None
    if not isinstance(pseudo, dict) or pseudo.get("runs") != [teacher]:
        raise InputError(
            "SET train.pseudo.runs: make pseudo-rounds names each round's teacher itself; make train takes others"
        )
    return parse(ModelSettings, content, f"a round with teacher {teacher}")


def compared_rounds(context: Context, found: Finished) -> pd.DataFrame:
    """A line per round: pseudo-labels per fold, out-of-fold loss and accuracy, paired change to round 0 with its interval."""
    folds, drivers = found.folds.count, found.train.drivers
    scored, lines = experiment.score_runs(found), []
    for number, (each, member) in enumerate(zip(scored, experiment.members_of_runs(found), strict=True)):
        change = experiment.paired_change(each.losses, scored[0].losses, drivers) if number else [None] * 3
        lines.append({
            "round": number, "run": each.run.name, **_pseudo_labels(each.run, folds, len(drivers)),
            "log loss": each.losses.mean(), "accuracy": each.accuracy,
            **dict(zip(("change", "from", "to"), change, strict=True)),
            "minutes": experiment.minutes_of(each.run, folds),
            **_test_loss(context, member, folds),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _pseudo_labels(run: Run, folds: int, labelled: int) -> dict[str, float | None]:
    """Means over folds: images with a pseudo-label, their teachers' confidence, and steps per epoch relative to none.

    `labelled`: images of all folds; each is trained on in all folds but one.
    """
    made = [run.manifest(fold).get("pseudo_labels") or {} for fold in range(folds)]
    columns = (("images", "images"), ("confidence", "mean_confidence"))
    found = {column: sum(each[key] for each in made) / folds if all(made) else None for column, key in columns}
    return found | {"steps": 1 + (found["images"] or 0) * folds / (labelled * (folds - 1))}


def _test_loss(context: Context, member: Member, folds: int) -> dict[str, float]:
    """Log loss on the test images of a synthetic competition, whose labels are known: a check, not a choice."""
    labels = competition.read_test_labels(context.settings, context.data) if context.data.is_dir() else None
    if labels is None or set(labels) != set(member.test.names):
        return {}
    test = blending.test_of_members([member], list(labels), [list(range(folds))]).blended
    return {"test log loss": log_loss(test, np.array(list(labels.values())))}
