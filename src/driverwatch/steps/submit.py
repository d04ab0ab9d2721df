"""From predictions to submissions."""

import gzip
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driverwatch.artifacts import digest_of_file, provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.blend.hope import averaging_gain, hope
from driverwatch.blend.score import interval
from driverwatch.data import competition
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.dataset_settings import class_columns
from driverwatch.ensemble_settings import ChainSettings, EnsembleSettings
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.setting_types import ViewSet
from driverwatch.steps import chains
from driverwatch.steps.chains import Chain
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.steps.spaces import open_space
from driverwatch.steps.train import refuse_fold
from driverwatch.submission import validate
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.training.predicted import views_there
from driverwatch.typed_yaml import load, parse
from driverwatch.vision.views import mirrors
from driverwatch.wording import close, ending, scored
from driverwatch.writing import locked, replacing, write_json


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
        p.parent for p in matching(context.places.runs, "*/run.json")
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
    if all(run.finished(number) for number in range(run.settings.train.splits.fits(context.settings.folds))):
        return True
    if named:
        raise InputError(f"{run.folder}: not every fold is finished; repeat the make train that began it, it goes on")
    say(f"left out, not finished: {run.name}")
    return False


def make_ensemble(
    context: Context,
    names: list[str],
    name: str,
    views: ViewSet | None,
    fold: int | None,
    changes: dict[str, Any] | None = None,
    last: bool = True,
) -> None:
    """Blend runs into a submission (members, then folds), check it, and record its out-of-fold loss beside it.

    Args:
        changes: keys of `ChainSettings` that the caller sets.
        last: whether the command ends with this one, and says so.
    """
    swept = (context.places.submissions, context.places.out_of_fold(name).parent)
    with locked(context.places.build, ".submissions.lock", sweep=swept):
        facts = _make_ensemble(context, names, name, views, fold, changes or {})
    if last:
        score = None
        if "out_of_fold_log_loss" in facts:
            error = facts["out_of_fold_standard_error"]
            score = scored(facts["out_of_fold_log_loss"], error, "out of fold, ± over drivers")
        ending(facts["seconds"], score, _after(context, context.places.submission(name)))


def _after(context: Context, file: Path) -> list[str]:
    """What there is to do with a submission: a competition that is not on Kaggle's list has nowhere to send it."""
    check = f"make check DATASET={context.dataset} FILE={file}"
    return [f'make submit DATASET={context.dataset} FILE={file} MESSAGE="..."' if context.settings.slug else check]


def _make_ensemble(
    context: Context, names: list[str], name: str, views: ViewSet | None, fold: int | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Returns what stands in the manifest."""
    start, path = time.monotonic(), context.places.submission(name)
    members, folds, pack, settings = members_of(context, names, name, views, changes)
    for member in members:
        refuse_fold(fold, member.run.settings.train.splits.fits(folds.count))
    sample = competition.read_sample_submission(context.settings, context.data)
    if not sample:
        raise InputError(
            f"{context.data / context.settings.sample_submission}: names no test image, so there is nothing to submit"
        )
    chain, embeddings = _chain(context, members, pack, folds, settings)
    fits = blending.fits_of(members, folds.count, fold)
    unseen = [blending.unseen_rows(members, sample, each) for each in fits]
    made = blending.by_fold(unseen, list(chain.rules.values()), sum(blending.scored(m.run) for m in members))
    prior = np.bincount(pack.labels, minlength=len(context.settings.classes)) / len(pack.labels)
    test = blending.completed(blending.mean(list(made)), unseen[0].names, sample, prior)
    validate.write_submission(
        test, sample, [context.settings.columns.image, *context.settings.classes], path, chain.level
    )
    left_out = _left_out(members)
    facts: dict[str, Any] = {
        "runs": {m.run.name: m.views for m in members},
        "folds": folds.digest,
        "fold_models": {m.run.name: own for m, own in zip(members, _all_fits(fits), strict=True)},
    }
    facts["weights"] = {m.run.name: m.run.digests(facts["fold_models"][m.run.name]) for m in members}
    facts |= {"submission": digest_of_file(path), "images": len(sample)}
    facts |= {"class_prior": left_out} if left_out else {}
    facts |= {"embeddings": embeddings} if embeddings else {}
    facts["chain"] = {"settings": settings.model_dump(), **chain.facts}
    facts |= _worth(context, members, chain, pack, made, fold is None)
    if isinstance(chain, Chain) and fold is None:
        facts["out_of_fold_rows"] = _write_out_of_fold(context, name, chain, pack, folds)
    else:
        context.places.out_of_fold(name).unlink(missing_ok=True)
    facts |= {"seconds": round(time.monotonic() - start, 1), **provenance()}
    write_json(path.with_suffix(".json"), facts)
    guessed = f", {len(left_out)} broken ones at the class prior" if left_out else ""
    say(f"{path}: {len(sample)} images{guessed}, {_said(members, settings, fold, facts)}, checked")
    return facts


def _write_out_of_fold(context: Context, name: str, chain: Chain, pack: Pack, folds: FoldTable) -> str:
    """Write `submissions/<dataset>/out_of_fold/<name>.csv.gz`; returns the file's digest.

    One line per labelled image: its name, driver, class and fold, and a probability per class, by models and a chain that
    were fitted on the other folds, clipped as the submission is. Their mean log loss is the manifest's `out_of_fold_log_loss`.
    """
    classes = list(context.settings.classes)
    frame = pd.DataFrame(chain.rows, columns=class_columns(classes))
    frame.insert(0, context.settings.columns.image, pack.names)
    frame.insert(1, "driver", pack.drivers)
    frame.insert(2, "class", [classes[label] for label in pack.labels])
    frame.insert(3, "fold", [folds.of_driver[driver] for driver in pack.drivers])
    text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    path = context.places.out_of_fold(name)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same bytes whenever it is written
    return digest_of_file(path)


def _all_fits(fits: list[list[list[int]]]) -> list[list[int]]:
    """By member, from what `fits_of` says by fold."""
    return [sorted({fit for own in each for fit in own}) for each in zip(*fits, strict=True)]


def _chain(
    context: Context, members: list[Member], pack: Pack, folds: FoldTable, settings: ChainSettings
) -> tuple[Chain | chains.Unfitted, dict[str, str]]:
    """Fitted on the members that have out-of-fold rows; where none has, nothing can be fitted, nor scored.

    Beside it the checksums of the embeddings that images are compared by, by their names in the settings.
    """
    scored = [member for member in members if blending.scored(member.run)]
    if not scored:
        return chains.unfitted(settings), {}
    spaces = {text: open_space(context, text) for text in settings.features}
    rows = blending.labelled_rows(scored, pack, folds)
    fitted = chains.fit(settings, rows, pack.labels, pack.drivers, spaces)
    return fitted, {text: space.digest for text, space in spaces.items()}


def _worth(
    context: Context, members: list[Member], chain: Chain | chains.Unfitted, pack: Pack, made: np.ndarray, whole: bool
) -> dict[str, Any]:
    """The out-of-fold score, if the submission is of all folds' models, and what to hope for: of each fold (F, N, C) `made`."""
    unscored = {m.run.name: m.run.settings.train.splits.unscored for m in members if not blending.scored(m.run)}
    facts: dict[str, Any] = {"not_scored": unscored} if unscored else {}
    if isinstance(chain, chains.Unfitted):
        return facts | {"out_of_fold": f"no out-of-fold score: {', '.join(sorted(set(unscored.values())))}"}
    if whole:
        drawn = [round(bound, 4) for bound in interval(chain.losses, pack.drivers)]  # of drivers, as reports show it
        error = round(chain.standard_error, 4)
        facts |= {**chain.score, "out_of_fold_standard_error": None if math.isnan(error) else error}
        facts |= {"out_of_fold_95%": drawn, "selected_on": selected_on([m.run for m in members])}
    hoped = hope(chain.losses, pack.drivers, context.settings.test_drivers)
    return {**facts, "hope": {**hoped.facts, "averaging_gain": round(averaging_gain(made, chain.level), 4)}}


def _said(members: list[Member], settings: ChainSettings, fold: int | None, facts: dict[str, Any]) -> str:
    """What was blended, its loss out of fold, and what is hoped for."""
    of = ", ".join(f"{m.run.name} ({m.views})" for m in members)
    steps = [settings.blend] + ["balanced within drivers"] * (settings.balance is not None)
    steps += ["smoothed over neighbours"] * (settings.neighbours is not None)
    steps += [f"calibrated by {settings.calibrate}"] * (settings.calibrate != "none")
    steps += [f"clipped at {level}" for level in [facts["chain"]["clip"]] if level != ChainSettings().clip]
    said = f"{', '.join(steps)} of {of}; " + (f"fold {fold} alone" if fold is not None else _loss(facts))
    if "hope" not in facts:
        return said
    hoped = facts["hope"]
    saved = f"; averaging folds may save {hoped['averaging_gain']:.3f} of it" if fold is None else ""
    return (
        f"{said}; hoped for on {hoped['unseen_drivers']} new drivers: "
        f"{hoped['low']:.3f} to {hoped['high']:.3f} ({hoped['level']:.0%}) by a fold's models{saved}"
    )


def _loss(facts: dict[str, Any]) -> str:
    """The out-of-fold loss in words, whom it flatters, and whose it is not."""
    if "out_of_fold_log_loss" not in facts:
        return str(facts["out_of_fold"])
    flattered = f" (selected on: {', '.join(facts['selected_on'])})" if facts.get("selected_on") else ""
    rest = "".join(f", without {name} ({why})" for name, why in facts.get("not_scored", {}).items())
    return f"out-of-fold log loss {facts['out_of_fold_log_loss']:.4f}{flattered}{rest}"


def _left_out(members: list[Member]) -> dict[str, str]:
    """Test images that every member's pack was made without (`SKIP_BROKEN=1`), and why."""
    each = [dict(zip(m.test.left_out.names, m.test.left_out.reasons, strict=True)) for m in members]
    return {image: reason for image, reason in each[0].items() if all(image in left for left in each)}


def selected_on(members: list[runs.Run]) -> list[str]:
    """Runs whose epoch, or a teacher's, was chosen on the held-out drivers, so that their out-of-fold loss flatters."""
    return [run.name for run in members if run.looks_at_held_out]


def members_of(
    context: Context, names: list[str], name: str, views: ViewSet | None, changes: dict[str, Any]
) -> tuple[list[Member], FoldTable, Pack, ChainSettings]:
    """Who takes part in an ensemble, those with out-of-fold rows first, and how they are put together."""
    recipe, kept = CONFIGS / "ensembles" / f"{name}.yaml", {}
    if not names and recipe.is_file():
        settings = load(EnsembleSettings, recipe.parent, name)
        names, views = settings.runs, views or settings.view_set
        kept = settings.chain
    chain = parse(ChainSettings, {**kept, **changes}, "BLEND, BALANCE, NEIGHBOURS, CALIBRATE or CLIP")
    found, tests, folds, pack = finished_runs(context, names)
    members = [Member(run, test, views or blending.honest_views(run)) for run, test in zip(found, tests, strict=True)]
    for member in members:
        if mirrors(member.views) and not blending.mirrored(member.run):
            say(
                f"{member.run.name}: training never mirrored, so {member.views}'s mirrored views mislead; compare five_crop"
            )
    return sorted(members, key=lambda member: not blending.scored(member.run)), folds, pack, chain


def make_submissions(context: Context, names: list[str]) -> None:
    """Every view set of each run as a submission, and each of its fold models alone."""
    start, (found, _, folds, _) = time.monotonic(), finished_runs(context, names)
    for run in found:
        for views in views_there(run, folds.count):
            make_ensemble(context, [run.name], f"{run.name}-{views}", views, None, last=False)
        for fold in range(run.settings.train.splits.fits(folds.count)):
            make_ensemble(context, [run.name], f"{run.name}-fold{fold}", None, fold, last=False)
    ending(time.monotonic() - start, None, [f"make score DATASET={context.dataset}"])


def check_submission(context: Context, path: Path) -> None:
    sample = competition.read_sample_submission(context.settings, context.data)
    validate.read_submission(path, sample, [context.settings.columns.image, *context.settings.classes])
    send = f'make submit DATASET={context.dataset} FILE={path} MESSAGE="..."'
    close(path, f"{len(sample)} images, ready to go up", then=[send] if context.settings.slug else [])
