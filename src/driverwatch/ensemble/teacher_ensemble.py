"""Pseudo-labels of a teacher ensemble: what runs, post-processed together, predict for images without labels, kept by fold."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from driverwatch.config.ensemble import EnsembleSettings, PipelineSettings
from driverwatch.config.types import TtaSet
from driverwatch.data.context import Context
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble import members as blending
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.embeddings import open_embeddings
from driverwatch.ensemble.members import Member, chosen_on_validation, members_of
from driverwatch.ensemble.transform import (
    FittedTransform,
    MemberPredictions,
    Transform,
    apply_transforms,
    fit_transforms,
)
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.io.atomic import locked, write_json
from driverwatch.io.console import close, scored
from driverwatch.io.manifests import checksum_of, provenance
from driverwatch.metrics import FLOOR, limited, oof_score
from driverwatch.training.pseudo_labels import EnsembleTeacher, open_teacher_ensemble


def make_pseudo_labels(
    context: Context, names: list[str], name: str, tta: TtaSet | None, changes: dict[str, Any]
) -> None:
    """Write an ensemble's predictions of every fold's validation and test images, under `build/<dataset>/pseudo_labels/<name>`.

    For fold k the post-processing is fitted on the other folds' validation images and applied to fold k's models alone, so no
    label of fold k's validation drivers is fitted to. What leaks is what nested scores share too (`ensemble/transform.py`): the
    models whose predictions it is fitted on were trained on these drivers, of which its few parameters carry little.

    Raises `InputError`: a run that was not trained on folds, or images that not every run knows.

    Args:
        changes: keys of `PipelineSettings` that the caller sets.
    """
    start, folder = time.monotonic(), context.places.pseudo_labels(name)
    members, folds, pack, settings = members_of(context, names, name, tta, changes)
    if unscored := [member.run.name for member in members if not blending.oof_of_member(member.run)]:
        raise InputError(
            f"MODELS: {', '.join(unscored)} was not trained on folds, so it cannot label images fold by fold; leave it out"
        )
    spaces = {text: open_embeddings(context, text) for text in settings.embeddings}
    rows = blending.oof_of_members(members, pack, folds)  # refuses before what is there is touched
    with locked(folder):
        (folder / "manifest.json").unlink(missing_ok=True)
        teacher = EnsembleTeacher(folder, folds.checksum, identity(members, folds, settings, spaces), folds.count, {})
        probabilities = _write_folds(teacher, members, rows, pack, post_processing.steps_of(settings, spaces))
        _, loss, error, _ = oof_score(probabilities, pack.labels, pack.drivers)
        facts = {
            "folds": folds.checksum,
            "runs": {member.run.name: member.tta for member in members},
            "pipeline": settings.model_dump(),
            "identity": teacher.made_of,
            "chosen_on_validation": chosen_on_validation([member.run for member in members]),
            **({"embeddings": {text: space.checksum for text, space in spaces.items()}} if spaces else {}),
            "weights": {member.run.name: member.run.checksums(range(folds.count)) for member in members},
            "out_of_fold_log_loss": round(loss, 4),
        }
        write_json(folder / "manifest.json", facts | provenance())
    score = scored(loss, error, "out of fold, ± over drivers")
    student = f'make train DATASET={context.dataset} MODEL=<student> SET="train.pseudo.labels={folder.name}"'
    close(folder, f"{folds.count} folds", time.monotonic() - start, score, [student])


def is_current(context: Context, name: str, made: EnsembleSettings) -> bool:
    """Whether the pseudo-labels of ensemble `name` are whole, and of today's weights, settings and embeddings."""
    members, folds, _, settings = members_of(context, made.runs, name, made.tta_set, made.pipeline)
    try:
        spaces = {text: open_embeddings(context, text) for text in settings.embeddings}
        teacher = open_teacher_ensemble(context.places, name, folds)
        for fold in range(teacher.count):
            for kind in ("validation", "test"):
                teacher.predictions(fold, kind)
    except InputError:
        return False
    return teacher.made_of == identity(members, folds, settings, spaces)


def identity(
    members: list[Member], folds: FoldTable, settings: PipelineSettings, spaces: Mapping[str, EmbeddingIndex]
) -> str:
    """Checksum of the members' weights, of how they are put together, and of the embeddings that images are compared by."""
    weights = [[m.run.name, m.tta, m.run.manifest(fold)["weights"]] for m in members for fold in range(folds.count)]
    return checksum_of([weights, settings.model_dump(), [spaces[text].checksum for text in settings.embeddings]])


def _write_folds(
    teacher: EnsembleTeacher, members: list[Member], rows: MemberPredictions, pack: Pack, steps: list[Transform]
) -> np.ndarray:
    """Each labelled image's prediction by a pipeline fitted on the other folds, float64 (N, C), unclipped; files hold all."""
    found = np.empty(rows.members.shape[1:])
    for fold in range(teacher.count):
        own = rows.sets == fold
        rules = fit_transforms(steps, rows.at(~own), pack.labels[~own], pack.drivers[~own])
        test = blending.test_of_members(members, list(members[0].test.names), [[fold]] * len(members))
        found[own] = _write(teacher, fold, "validation", rows.at(own), rules)
        _write(teacher, fold, "test", test, rules)
    return found


def _write(
    teacher: EnsembleTeacher, fold: int, kind: str, rows: MemberPredictions, rules: list[FittedTransform]
) -> np.ndarray:
    """A fold's post-processed predictions of one kind of images, float64 (N, C), unclipped; the file holds them clipped."""
    probabilities = apply_transforms(rules, rows).blended
    kept = Predictions(rows.names, limited(probabilities, FLOOR).astype(np.float32), teacher.origin(fold))
    predictions.write(kept, teacher.path(fold, kind))
    return probabilities
