"""What runs, put together, make of images without labels: kept by fold, for students to learn from (`train.pseudo.taught`)."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from driverwatch.artifacts import digest_of, provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend.chain import Rows, Rule, applied, fitted
from driverwatch.blend.ensemble import Member
from driverwatch.blend.space import Space
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble_settings import ChainSettings
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.metrics import FLOOR, limited, oof_score
from driverwatch.setting_types import ViewSet
from driverwatch.steps import chains
from driverwatch.steps.context import Context
from driverwatch.steps.spaces import open_space
from driverwatch.steps.submit import members_of, selected_on
from driverwatch.training.pseudo import TaughtTeacher
from driverwatch.wording import close, scored
from driverwatch.writing import locked, write_json


def teach(context: Context, names: list[str], name: str, views: ViewSet | None, changes: dict[str, Any]) -> None:
    """Write what a chain makes of every fold's held-out and test images, under `build/<dataset>/taught/<name>`.

    For fold k the chain is fitted on the other folds' held-out images and asks fold k's models alone, so that no label of fold
    k's held-out drivers is fitted to. What is left is what nested scores share too (`blend/chain.py`): the models whose rows a
    chain is fitted on had seen these drivers, of which the chain's few numbers carry little.

    Raises:
        InputError: a run without folds, or images that not every run knows.
    """
    start, folder = time.monotonic(), context.places.taught(name)
    members, folds, pack, settings = members_of(context, names, name, views, changes)
    if unscored := [member.run.name for member in members if not blending.scored(member.run)]:
        raise InputError(
            f"MODELS: {', '.join(unscored)} was not trained on folds, so that no fold can be taught by it; leave it out"
        )
    spaces = {text: open_space(context, text) for text in settings.features}
    steps = chains.steps_of(settings, spaces)
    rows = blending.labelled_rows(members, pack, folds)
    made = np.empty(rows.members.shape[1:])
    with locked(folder):
        (folder / "manifest.json").unlink(missing_ok=True)
        teacher = TaughtTeacher(folder, folds.digest, identity(members, folds, settings, spaces), folds.count, {})
        for fold in range(folds.count):
            own = rows.sets == fold
            rules = fitted(steps, rows.at(~own), pack.labels[~own], pack.drivers[~own])
            made[own] = _say(teacher, fold, rules, {"held_out": rows.at(own), "test": _test(members, fold)})
        facts = {"folds": folds.digest, "runs": {m.run.name: m.views for m in members}, "chain": settings.model_dump()}
        facts |= {"identity": teacher.made_of, "selected_on": selected_on([m.run for m in members])}
        facts |= {"embeddings": {text: space.digest for text, space in spaces.items()}} if spaces else {}
        facts["weights"] = {m.run.name: m.run.digests(range(folds.count)) for m in members}
        _, loss, error, _ = oof_score(made, pack.labels, pack.drivers)
        write_json(folder / "manifest.json", {**facts, "out_of_fold_log_loss": round(loss, 4), **provenance()})
    score = scored(loss, error, "out of fold, ± over drivers")
    student = f'make train DATASET={context.dataset} MODEL=<student> SET="train.pseudo.taught={folder.name}"'
    close(folder, f"{folds.count} folds", time.monotonic() - start, score, [student])


def _say(teacher: TaughtTeacher, fold: int, rules: list[Rule], asked: dict[str, Rows]) -> np.ndarray:
    """Write what the rules make of each kind of images; returns that of the held-out ones, (N, C), unclipped."""
    said = {kind: applied(rules, rows).blended for kind, rows in asked.items()}
    for kind, found in said.items():
        about = Predictions(asked[kind].names, limited(found, FLOOR).astype(np.float32), teacher.origin(fold))
        predictions.write(about, teacher.path(fold, kind))
    return said["held_out"]


def identity(members: list[Member], folds: FoldTable, settings: ChainSettings, spaces: Mapping[str, Space]) -> str:
    """Digest of the weights that speak, of how they are put together, and of the features that images are compared by."""
    weights = [[m.run.name, m.views, m.run.manifest(fold)["weights"]] for m in members for fold in range(folds.count)]
    return digest_of([weights, settings.model_dump(), [spaces[text].digest for text in settings.features]])


def _test(members: list[Member], fold: int) -> Rows:
    """A fold's models on all test images."""
    names: Pack = members[0].test
    return blending.unseen_rows(members, list(names.names), [[fold]] * len(members))
