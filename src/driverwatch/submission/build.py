"""Submissions: blended, post-processed, validated as Kaggle would, and recorded with their out-of-fold loss."""

import gzip
import math
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.config.dataset import class_columns
from driverwatch.config.ensemble import PipelineSettings
from driverwatch.config.types import TtaSet
from driverwatch.data import competition
from driverwatch.data.context import Context, absent
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble import members as blending
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.embeddings import open_embeddings
from driverwatch.ensemble.members import Member, chosen_on_validation, finished_runs, members_of
from driverwatch.ensemble.post_processing import Pipeline
from driverwatch.ensemble.prediction_interval import averaging_gain, prediction_interval
from driverwatch.errors import InputError, printable
from driverwatch.inference.predictions import predicted_tta
from driverwatch.io.atomic import locked, replacing, write_json
from driverwatch.io.console import close, ending, say, scored
from driverwatch.io.csv_tables import numbers, read_csv
from driverwatch.io.manifests import checksum_of_file, provenance
from driverwatch.metrics import FLOOR, interval, limited
from driverwatch.run import SPEED, Run, refuse_fold

SUM_TOLERANCE = 0.01  # of a line's sum to 1: three decimals may miss by 0.005, and Kaggle divides each line by its sum


def make_ensemble(
    context: Context,
    names: list[str],
    name: str,
    tta: TtaSet | None,
    fold: int | None,
    changes: dict[str, Any] | None = None,
    last: bool = True,
) -> None:
    """Blend runs into a submission (members, then folds), check it, and record its out-of-fold loss beside it.

    Args:
        changes: keys of `PipelineSettings` that the caller sets.
        last: whether the command ends with this one, and says so.
    """
    swept = (context.places.submissions, context.places.out_of_fold(name).parent)
    with locked(context.places.build, ".submissions.lock", sweep=swept):
        facts = _make_ensemble(context, names, name, tta, fold, changes or {})
    if last:
        score = None
        if "out_of_fold_log_loss" in facts:
            error = facts["out_of_fold_standard_error"]
            score = scored(facts["out_of_fold_log_loss"], error, "out of fold, ± over drivers")
        target = "submit" if context.settings.slug else "check"  # others are not on Kaggle
        then = f"make {target} DATASET={context.dataset} FILE={context.places.submission(name)}"
        ending(facts["seconds"], score, [then + (' MESSAGE="..."' if context.settings.slug else "")])


def _make_ensemble(
    context: Context, names: list[str], name: str, tta: TtaSet | None, fold: int | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Returns what stands in the manifest."""
    start, path = time.monotonic(), context.places.submission(name)
    members, folds, pack, settings = members_of(context, names, name, tta, changes)
    for member in members:
        refuse_fold(fold, member.run.settings.train.splits.models(folds.count))
    sample = competition.read_sample_submission(context.settings, context.data)
    if not sample:
        table = context.data / context.settings.sample_submission
        raise InputError(f"{table}: names no test image, so there is nothing to submit")
    pipeline, embeddings = _pipeline(context, members, pack, folds, settings)
    models = blending.folds_of_run(members, folds.count, fold)
    unseen = [blending.test_of_members(members, sample, each) for each in models]
    made = blending.by_fold(unseen, list(pipeline.rules.values()), sum(blending.oof_of_member(m.run) for m in members))
    prior = np.bincount(pack.labels, minlength=len(context.settings.classes)) / len(pack.labels)
    test = blending.completed(blending.mean(list(made)), unseen[0].names, sample, prior)
    write_submission(test, sample, [context.settings.columns.image, *context.settings.classes], path, pipeline.level)
    left_out = _left_out(members)
    facts = _made_of(members, folds, models) | {"submission": checksum_of_file(path), "images": len(sample)}
    facts |= {"class_prior": left_out} if left_out else {}
    facts |= {"embeddings": embeddings} if embeddings else {}
    facts["pipeline"] = {"settings": settings.model_dump(), **pipeline.facts}
    facts |= _worth(context, members, pipeline, pack, made, fold is None)
    if isinstance(pipeline, Pipeline) and fold is None:
        facts["out_of_fold_rows"] = _write_out_of_fold(context, name, pipeline, pack, folds)
    else:
        context.places.out_of_fold(name).unlink(missing_ok=True)
    facts |= {"seconds": round(time.monotonic() - start, 1), **provenance()}
    write_json(path.with_suffix(".json"), facts)
    guessed = f", {len(left_out)} broken ones at the class prior" if left_out else ""
    said = _said(members, settings, fold, facts).split("; ")
    say("\n  ".join([f"{path}: {len(sample)} images{guessed}, checked", *said]))
    return facts


def _write_out_of_fold(context: Context, name: str, pipeline: Pipeline, pack: Pack, folds: FoldTable) -> str:
    """Write `submissions/<dataset>/out_of_fold/<name>.csv.gz`; returns the file's checksum.

    One line per labelled image: its name, driver, class and fold, and a probability per class, by models and a pipeline that
    were fitted on the other folds, clipped as the submission is. Their mean log loss is the manifest's `out_of_fold_log_loss`.
    """
    classes = list(context.settings.classes)
    frame = pd.DataFrame(pipeline.probabilities, columns=class_columns(classes))
    frame.insert(0, context.settings.columns.image, pack.names)
    frame.insert(1, "driver", pack.drivers)
    frame.insert(2, "class", [classes[label] for label in pack.labels])
    frame.insert(3, "fold", [folds.of_driver[driver] for driver in pack.drivers])
    text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    path = context.places.out_of_fold(name)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same bytes whenever it is written
    return checksum_of_file(path)


def _made_of(members: list[Member], folds: FoldTable, models: list[list[list[int]]]) -> dict[str, Any]:
    """Runs, the folds whose models each takes part with (from `folds_of_run`), their weights' checksums and training."""
    used = [sorted({fold for own in each for fold in own}) for each in zip(*models, strict=True)]
    return {
        "runs": {m.run.name: m.tta for m in members},
        "folds": folds.checksum,
        "fold_models": {m.run.name: own for m, own in zip(members, used, strict=True)},
        "weights": {m.run.name: m.run.checksums(own) for m, own in zip(members, used, strict=True)},
        "trained": {m.run.name: _trained(m.run, own) for m, own in zip(members, used, strict=True)},
    }


def _trained(run: Run, numbers: Iterable[int]) -> dict[str, Any]:
    """How folds of a run were trained: settings that are not the defaults, weights they began with, machines, seconds, commits."""
    made = [run.manifest(number) for number in numbers]
    machines = {
        ", ".join(
            [*one.get("accelerators", []), one.get("processor") or f"{one.get('machine')}", f"{one.get('cores')} cores"]
        )
        for one in made
    }
    return {
        "settings": run.settings.model_dump(exclude=SPEED, exclude_defaults=True),
        "pretrained": run.weights,
        "machines": sorted(machines),
        "seconds": round(sum(one.get("seconds") or 0 for one in made)),
        "training_seconds": round(sum(one.get("training_seconds") or 0 for one in made)),
        "commits": sorted({one.get("commit") or "unknown" for one in made}),
    }


def _pipeline(
    context: Context, members: list[Member], pack: Pack, folds: FoldTable, settings: PipelineSettings
) -> tuple[Pipeline | post_processing.Unfitted, dict[str, str]]:
    """Fitted on the members that have out-of-fold rows; where none has, nothing can be fitted, nor scored.

    Beside it the checksums of the embeddings that images are compared by, by their names in the settings.
    """
    scored = [member for member in members if blending.oof_of_member(member.run)]
    if not scored:
        return post_processing.unfitted(settings), {}
    spaces = {text: open_embeddings(context, text) for text in settings.embeddings}
    rows = blending.oof_of_members(scored, pack, folds)
    fitted = post_processing.fit(settings, rows, pack.labels, pack.drivers, spaces)
    return fitted, {text: space.checksum for text, space in spaces.items()}


def _worth(
    context: Context,
    members: list[Member],
    pipeline: Pipeline | post_processing.Unfitted,
    pack: Pack,
    made: np.ndarray,
    whole: bool,
) -> dict[str, Any]:
    """The OOF score, if the submission is of all folds' models, and its prediction interval: of each fold (F, N, C) `made`."""
    unscored = {m.run.name: m.run.settings.train.splits.unscored for m in members if not blending.oof_of_member(m.run)}
    facts: dict[str, Any] = {"not_scored": unscored} if unscored else {}
    if isinstance(pipeline, post_processing.Unfitted):
        return facts | {"out_of_fold": f"no out-of-fold score: {', '.join(sorted(set(unscored.values())))}"}
    if whole:
        drawn = [round(bound, 4) for bound in interval(pipeline.losses, pack.drivers)]  # of drivers, as reports show it
        error = round(pipeline.standard_error, 4)
        facts |= {**pipeline.score, "out_of_fold_standard_error": None if math.isnan(error) else error}
        facts |= {"out_of_fold_95%": drawn, "chosen_on_validation": chosen_on_validation([m.run for m in members])}
    predicted = prediction_interval(pipeline.losses, pack.drivers, context.settings.test_drivers).facts
    gain = round(averaging_gain(made, pipeline.level), 4)
    return {**facts, "prediction_interval": {**predicted, "averaging_gain": gain}}


def _said(members: list[Member], settings: PipelineSettings, fold: int | None, facts: dict[str, Any]) -> str:
    """What was blended, its loss out of fold, and what is predicted."""
    of = ", ".join(f"{m.run.name} ({m.tta})" for m in members)
    steps = [settings.blend] + ["balanced within drivers"] * (settings.class_balance is not None)
    steps += ["smoothed over neighbours"] * (settings.knn is not None)
    steps += [f"calibrated by {settings.calibrate}"] * (settings.calibrate != "none")
    steps += [f"clipped at {level}" for level in [facts["pipeline"]["clip"]] if level != PipelineSettings().clip]
    said = f"{', '.join(steps)} of {of}; " + (f"fold {fold} alone" if fold is not None else _loss(facts))
    if "prediction_interval" not in facts:
        return said
    predicted = facts["prediction_interval"]
    saved = f"; averaging folds may save {predicted['averaging_gain']:.3f} of the loss" if fold is None else ""
    return (
        f"{said}; {predicted['level']:.0%} prediction interval for {predicted['unseen_drivers']} unseen drivers: "
        f"{predicted['low']:.3f} to {predicted['high']:.3f} by a fold's models{saved}"
    )


def _loss(facts: dict[str, Any]) -> str:
    """The out-of-fold loss in words, for which runs it is optimistic, and which have none."""
    if "out_of_fold_log_loss" not in facts:
        return str(facts["out_of_fold"])
    optimistic = ""
    if names := facts.get("chosen_on_validation"):
        optimistic = f" (optimistic, epoch chosen on the validation drivers: {', '.join(names)})"
    rest = "".join(f", without {name} ({why})" for name, why in facts.get("not_scored", {}).items())
    return f"out-of-fold log loss {facts['out_of_fold_log_loss']:.4f}{optimistic}{rest}"


def _left_out(members: list[Member]) -> dict[str, str]:
    """Test images that every member's pack was made without (`SKIP_INVALID=1`), and why."""
    each = [dict(zip(m.test.left_out.names, m.test.left_out.reasons, strict=True)) for m in members]
    return {image: reason for image, reason in each[0].items() if all(image in left for left in each)}


def make_submissions(context: Context, names: list[str]) -> None:
    """Every TTA set of each run as a submission, and each of its fold models alone."""
    start, (found, _, folds, _) = time.monotonic(), finished_runs(context, names)
    for run in found:
        for tta in predicted_tta(run, folds.count):
            make_ensemble(context, [run.name], f"{run.name}-{tta}", tta, None, last=False)
        for fold in range(run.settings.train.splits.models(folds.count)):
            make_ensemble(context, [run.name], f"{run.name}-fold{fold}", None, fold, last=False)
    ending(time.monotonic() - start, None, [f"make score DATASET={context.dataset}"])


def check_submission(context: Context, path: Path) -> None:
    """Print that a submission file could go up. Raises `InputError` as `read_submission`, or where the images are not here."""
    if sentence := absent(context):
        raise InputError(sentence)
    sample = competition.read_sample_submission(context.settings, context.data)
    read_submission(path, sample, [context.settings.columns.image, *context.settings.classes])
    send = f'make submit DATASET={context.dataset} FILE={path} MESSAGE="..."'
    close(path, f"{len(sample)} images, ready to go up", then=[send] if context.settings.slug else [])


def write_submission(
    probabilities: np.ndarray, names: list[str], header: list[str], path: Path, level: float = FLOOR
) -> None:
    """Write `header` (`img,c0,..`), one line per name; it is read back before it replaces what is there.

    Args:
        probabilities: float (N, C), in the order of `names`; limited to [`level`, 1].
    """
    frame = pd.DataFrame(limited(probabilities, level), columns=header[1:])
    frame.insert(0, header[0], names)
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.7f", lineterminator="\n")
        read_submission(temporary, names, header)


def read_submission(path: Path, names: list[str], header: list[str]) -> np.ndarray:
    """The probabilities in a submission file, float64 (N, C), in the order of `names`.

    Raises:
        InputError: what Kaggle would refuse (another header, images missing, repeated or unknown, values that are no
            probabilities), and lines that do not sum to about 1.
    """
    frame = read_csv(path, header)
    if list(frame.columns) != header:
        raise InputError(f"{path}: expected the header {','.join(header)}, got {','.join(frame.columns)}")
    found = list(frame[header[0]])
    if sorted(found) != sorted(names):
        missing, unknown = set(names) - set(found), set(found) - set(names)
        raise InputError(
            f"{path}: expected the sample submission's {len(names)} images once each, got {len(found)} rows, "
            f"{len(missing)} missing ({', '.join(sorted(missing)[:3])}), {len(unknown)} unknown "
            f"({', '.join(sorted(unknown)[:3])}), {len(found) - len(set(found))} repeated; write it again"
        )
    try:
        values = numbers(frame[header[1:]])
    except ValueError as error:
        raise InputError(f"{path}: expected numbers in every cell, got {error}; write it again") from error
    wrong = ~(np.isfinite(values) & (values >= 0) & (values <= 1)).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{path}: line {int(np.argmax(wrong)) + 2}: expected probabilities from 0 to 1; write it again"
        )
    off = np.abs(values.sum(axis=1) - 1)
    if len(off) and off.max() > SUM_TOLERANCE:
        raise InputError(
            f"{path}: line {int(np.argmax(off)) + 2}: expected a row that sums to 1, got "
            f"{values[np.argmax(off)].sum():.6f}; write it again"
        )
    return values[pd.Index(found).get_indexer(pd.Index(names))]


def read_out_of_fold(context: Context, name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """A submission's out-of-fold file: columns image, driver, fold and label; probabilities float64 (N, C), rows summing to 1."""
    path, classes = context.places.out_of_fold(name), list(context.settings.classes)
    if not path.is_file():
        way_out = absent(context) or f"make ensemble NAME={name} DATASET={context.dataset} writes them"
        raise InputError(f"{path}: no out-of-fold probabilities; {way_out}")
    image, columns = context.settings.columns.image, class_columns(classes)
    text = dict.fromkeys([image, "driver", "class"], str)
    try:
        frame = pd.read_csv(path, dtype=text, keep_default_na=False)
        if missing := {*text, "fold", *columns} - set(frame):
            raise ValueError(f"no column {min(missing)}")
        rows = frame[columns].to_numpy(np.float64)
        if unknown := sorted(set(frame["class"]) - set(classes)):
            raise ValueError(f"class {unknown[0]}")
        if not (np.isfinite(rows).all() and (rows >= 0).all() and (rows.sum(axis=1) > 0).all()):
            raise ValueError("a row without probabilities")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: expected probabilities by image, got {printable(str(error))}; make the submission again"
        ) from None
    label = frame["class"].map({name: number for number, name in enumerate(classes)})
    made = frame[["driver", "fold"]].assign(image=frame[image], label=label)
    return made, rows / rows.sum(axis=1, keepdims=True)
