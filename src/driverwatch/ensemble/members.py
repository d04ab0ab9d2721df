"""Members of an ensemble: finished runs and their predictions, joined by image name, never by position."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driverwatch import run as runs
from driverwatch.config.ensemble import EnsembleSettings, PipelineSettings
from driverwatch.config.loading import load, parse
from driverwatch.config.types import TtaSet
from driverwatch.data.context import CONFIGS, Context, absent, going_on, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.data.tta import flips
from driverwatch.ensemble.transform import FittedTransform, MemberPredictions, apply_transforms
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, default_tta_of, prediction_path
from driverwatch.io.console import say
from driverwatch.io.paths import matching
from driverwatch.run import Run


@dataclass(frozen=True)
class Member:
    """A run, the pack of test images that it was predicted on, and the TTA set it takes part with."""

    run: Run
    test: Pack
    tta: TtaSet


def oof_of_member(run: Run) -> bool:
    """Whether a run has an out-of-fold score: others were not trained on folds, and join averages of test images alone."""
    return run.settings.train.splits.scored


def oof_probabilities(member: Member, pack: Pack, folds: FoldTable) -> np.ndarray:
    """Each labelled image's probabilities from the model that never saw its driver, float32 (N, C), in the pack's order.

    Raises `InputError`: a fold without predictions, or with predictions for other images than its validation drivers';
    a run that was not trained on folds.
    """
    run = member.run
    if not oof_of_member(run):
        raise InputError(f"{run.folder}: no out-of-fold score: {run.settings.train.splits.unscored}; leave it out")
    found = np.full((len(pack.names), len(run.classes)), np.nan, np.float32)
    for fold in range(folds.count):
        _, validation = folds.indices(pack.drivers, fold)
        found[validation] = validation_probabilities(member, fold, list(pack.names[validation]))
    return found


def validation_probabilities(member: Member, fold: int, names: list[str]) -> np.ndarray:
    """A fold's probabilities of its validation images, float32 (len(names), C), in the order of `names`; refuses other images."""
    return _read(member, fold, "validation").aligned_to(names)


def _read(member: Member, fold: int, kind: str) -> Predictions:
    """A fold's predictions, which must be of its weights, and so of the run's classes."""
    path = prediction_path(member.run.fold(fold), kind, member.tta)
    return predictions.read(path, member.run.predicted(fold, member.tta))


def oof_of_members(members: list[Member], pack: Pack, folds: FoldTable) -> MemberPredictions:
    """The members' out-of-fold probabilities in the pack's order; an image's set is the fold that held its driver out."""
    sets = np.array([folds.of_driver[driver] for driver in pack.drivers], np.int64)
    return MemberPredictions(
        pack.names, np.stack([_whole(oof_probabilities(member, pack, folds)) for member in members]), sets
    )


def folds_of_run(members: list[Member], folds: int, only: int | None = None) -> list[list[list[int]]]:
    """Which models each member takes part with, for each fold: its own; a run without folds takes part in each with all it has.

    Where no run has folds there is one such list, and with `only` that fold of every member.
    """
    if only is not None:
        return [[[only]] * len(members)]
    whole = [list(range(member.run.settings.train.splits.models(folds))) for member in members]
    if not any(oof_of_member(member.run) for member in members):
        return [whole]
    return [
        [[fold] if oof_of_member(m.run) else models for m, models in zip(members, whole, strict=True)]
        for fold in range(folds)
    ]


def test_of_members(members: list[Member], names: list[str], models: list[list[int]]) -> MemberPredictions:
    """The members' probabilities of the test images, each the mean of its `models`, without images that no member's pack holds.

    A member whose pack lacks an image that others know (`SKIP_INVALID=1`) takes the mean of the others for it, so that a
    plain mean is theirs.
    """
    stack = np.stack(
        [
            np.mean([_on_test(member, names, fold) for fold in own], axis=0)
            for member, own in zip(members, models, strict=True)
        ]
    )
    known = ~np.isnan(stack[:, :, 0])
    chosen = known.any(axis=0)
    known, stack = known[:, chosen], stack[:, chosen]
    others = np.where(known[..., None], stack, 0).sum(axis=0) / known.sum(axis=0)[:, None]
    sets = np.zeros(int(chosen.sum()), np.int64)
    return MemberPredictions(np.array(names, object)[chosen], np.where(known[..., None], stack, others), sets)


def _on_test(member: Member, names: list[str], fold: int) -> np.ndarray:
    """A fold's test probabilities, float64 (len(names), C); NaN where the member's pack lacks the image."""
    lacked = set(member.test.left_out.names)
    known = np.array([name not in lacked for name in names], bool)
    rows = np.full((len(names), len(member.run.classes)), np.nan)
    rows[known] = _whole(_read(member, fold, "test").aligned_to([name for name in names if name not in lacked]))
    return rows


def _whole(probabilities: np.ndarray) -> np.ndarray:
    """Rows (N, C) divided by their sum in float64: float32 leaves it 1e-7 off."""
    wide = probabilities.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)


def by_fold(folds: list[MemberPredictions], rules: Sequence[FittedTransform], fitted: int) -> np.ndarray:
    """What the rules make of each fold's rows for the same images: float64 (F, N, C), in the order of the first fold's.

    Rules were fitted on rows of single fold models, so they are applied to such, and averaged after (`ensemble/calibration.py`).

    Args:
        fitted: how many members, the first ones, the blend was fitted on; each other one counts as one more in a mean with
            them, since it has no out-of-fold rows to be weighed by.
    """
    return np.stack([_chained(rows.aligned_to(folds[0].names), rules, fitted) for rows in folds])


def _chained(rows: MemberPredictions, rules: Sequence[FittedTransform], fitted: int) -> np.ndarray:
    members = rows.members[fitted:]
    if fitted:
        blended = apply_transforms(rules[:1], rows.changed(rows.members[:fitted])).blended
        members = np.concatenate([np.repeat(blended[None], fitted, axis=0), members])
    return apply_transforms(rules[1:], rows.changed(members.mean(axis=0, keepdims=True))).blended


def completed(probabilities: np.ndarray, known: np.ndarray, names: list[str], prior: np.ndarray) -> np.ndarray:
    """Rows (K, C) of the images `known` (K,) put in the order of `names`, the class prior (C,) for the others: float64 (N, C)."""
    made = np.tile(np.asarray(prior, np.float64), (len(names), 1))
    position = {name: i for i, name in enumerate(names)}
    made[[position[name] for name in known]] = probabilities
    return made


def mean(parts: list[np.ndarray]) -> np.ndarray:
    """Arithmetic mean of equally shaped probabilities, rows divided by their sum: float64 (N, C)."""
    average = np.stack(parts).mean(axis=0, dtype=np.float64)
    return average / average.sum(axis=1, keepdims=True)


class Finished(NamedTuple):
    """Finished runs, each one's pack of test images, and the folds and a training pack they all share."""

    runs: list[Run]
    tests: list[Pack]
    folds: FoldTable
    train: Pack


def finished_runs(context: Context, names: list[str]) -> Finished:
    """The named runs (default: every finished one).

    Raises `InputError`: none there, a named one not finished or named twice, or runs on other folds or other images.
    """
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"MODELS: {', '.join(sorted(twice))} is named twice")
    paths = [context.places.run(name) for name in names] or [
        p.parent for p in matching(context.places.runs, "*/run.json")
    ]
    found = [run for path in paths if (run := _finished(context, path, bool(names)))]
    if not found:
        resume = f"run make train MODEL=... DATASET={context.dataset}, or again: it resumes"
        finished = " that has finished every fold" if paths else ""
        raise InputError(f"{context.dataset}: no run is there{finished}; {absent(context) or resume}")
    opened = [open_packs(context, run.settings.input.key) for run in found]
    folds, first = opened[0][0], opened[0][1]["train"]
    for run, (_, packs) in zip(found, opened, strict=True):
        run.refuse_other_inputs(folds.checksum, {kind: pack.checksum for kind, pack in packs.items()})
        if list(packs["train"].names) != list(first.names):
            raise InputError(
                f"{run.folder}: its pack holds other images than {found[0].folder}'s; leave one out with MODELS="
            )
    return Finished(found, [packs["test"] for _, packs in opened], folds, first)


def _finished(context: Context, path: Path, named: bool) -> Run | None:
    """The run in a folder; None, and a line, where it is damaged or not finished, which a named one may not be."""
    try:
        run = runs.load(path)
    except InputError as error:
        if named:
            raise
        say(f"left out: {error}")
        return None
    if all(run.finished(number) for number in range(run.settings.train.splits.models(context.settings.folds))):
        return run
    if named:
        raise InputError(f"{run.folder}: not every fold is finished; make train {going_on(run.name)} resumes it")
    say(f"left out, not finished: {run.name}")
    return None


def chosen_on_validation(members: list[Run]) -> list[str]:
    """Runs whose epoch, or a teacher's, was chosen on the validation drivers, so that their out-of-fold loss is optimistic."""
    return [run.name for run in members if run.uses_validation]


def members_of(
    context: Context, names: list[str], name: str, tta: TtaSet | None, changes: dict[str, Any]
) -> tuple[list[Member], FoldTable, Pack, PipelineSettings]:
    """Who takes part in an ensemble, those with out-of-fold rows first, and how they are put together."""
    recipe, kept = CONFIGS / "ensembles" / f"{name}.yaml", {}
    if not names and recipe.is_file():
        settings = load(EnsembleSettings, recipe.parent, name)
        names, tta = settings.runs, tta or settings.tta_set
        kept = settings.pipeline
    pipeline = parse(PipelineSettings, {**kept, **changes}, "BLEND, CLASS_BALANCE, KNN, CALIBRATE or CLIP")
    found, tests, folds, pack = finished_runs(context, names)
    members = [Member(run, test, tta or default_tta_of(run)) for run, test in zip(found, tests, strict=True)]
    for member in members:
        if flips(member.tta) and not member.run.settings.trains_with_flips:
            say(
                f"{member.run.name}: training never flipped, so {member.tta}'s flipped views mislead; compare five_crop"
            )
    return sorted(members, key=lambda member: not oof_of_member(member.run)), folds, pack, pipeline


def caveats(runs: list[Run]) -> list[str]:
    """What to bear in mind of the runs' scores, a sentence each with the runs that it is about."""
    about = {
        "trained without flips, so the flipped views of ten_crop, _keep and _swap mislead": [
            run.name for run in runs if not run.settings.trains_with_flips
        ],
        "optimistic: epoch chosen on the validation drivers": chosen_on_validation(runs),
    }
    return [f"{caveat}: {', '.join(names)}" for caveat, names in about.items() if names]
