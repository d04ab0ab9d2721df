"""What finished runs said of one photo, model by model and view by view, and what a chain made of it, step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.artifacts import read_json
from driverwatch.backbones import BACKBONES
from driverwatch.blend import ensemble as blending
from driverwatch.blend.chain import Rows, Rule, fitted
from driverwatch.blend.ensemble import Member
from driverwatch.blend.space import Space
from driverwatch.blend.trace import averaged, place_of, traced
from driverwatch.data.folds import FoldTable
from driverwatch.dataset_settings import class_columns
from driverwatch.ensemble_settings import ChainSettings, kept_settings
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.listing import matching
from driverwatch.metrics import limited, log_loss
from driverwatch.setting_types import ViewSet, pixels
from driverwatch.steps import chains
from driverwatch.steps.context import Context
from driverwatch.steps.spaces import open_space
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.training.predicted import views_there
from driverwatch.training.run import Run
from driverwatch.vision.views import unique, view_set
from driverwatch.wording import table

SHOWN = 12  # classes that a table has room for; of more, the likeliest
SAME = 2e-6  # a submission has seven decimals


def run_lines(context: Context, name: str, kind: str, driver: str, label: int, names: list[str]) -> list[str]:
    """What every finished run was shown of the photo, and what its models said."""
    finished, lines = finished_runs(context, names), list[str]()
    for run, test in zip(finished.runs, finished.tests, strict=True):
        rows = _said(run, finished.folds, name, kind, driver)
        unknown = [f"{run.name} was packed without it"] if kind == "test" and name in test.left_out.names else []
        lines += [f"{run.name}: {_network(run)}", *_shown(run, kind), *unknown]
        lines += (
            _table(context, rows, label, "view set, model") if rows else ["no prediction: every model learnt from it"]
        )
        lines += [""]
    return lines[:-1]


def _network(run: Run) -> str:
    scaling = BACKBONES[run.settings.backbone].scaling
    cut = f" cut at {run.settings.cut}" if run.settings.cut else ""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (scaling.mean, scaling.std))
    network = f"{run.settings.backbone}{cut}, weights {run.settings.weights}"
    return f"{network}; pixels as {scaling.order.upper()}, minus {mean}, by {std}"


def _shown(run: Run, kind: str) -> list[str]:
    field, augment = run.settings.input, run.settings.augment
    views = blending.honest_views(run)
    cuts = view_set(views, pixels(field.pack), pixels(field.size))
    passes = len(unique([views], pixels(field.pack), pixels(field.size)))
    mirrored = sum(view.mirrored for view in cuts)
    lines = [
        f"ensembles take its {views}: {len(cuts)} views of {field.size} out of {field.pack}, {mirrored} of them mirrored, {passes} "
        "forward passes; the mean counts"
    ]
    if kind == "train":
        policy = augment.policy if isinstance(augment.policy, str) else f"{len(run.policy)} transforms"
        mirror = {"none": "never mirrored", "keep": "half mirrored, class kept", "swap": "half mirrored, class swapped"}
        lines.insert(
            0,
            f"shown in training as policy {policy}, {field.crop} patches of {field.size}, {mirror[augment.mirror]}, drawn by (seed "
            f"{run.settings.train.seed}, epoch, row)",
        )
    return lines


def _said(run: Run, folds: FoldTable, name: str, kind: str, driver: str) -> dict[str, np.ndarray]:
    """Rows (C,) by view set and model; of a labelled photo those of models that did not learn from it."""
    count = run.settings.train.splits.fits(folds.count)
    if kind == "test":
        fits = list(range(count))
    else:
        fits = [folds.of_driver[driver]] if blending.scored(run) and driver in folds.of_driver else []
    read = "test" if kind == "test" else "held_out"
    there = [views for views in views_there(run, folds.count, (read,)) if fits]
    honest, found = blending.honest_views(run), dict[str, np.ndarray]()
    there = sorted(there, key=lambda views: views != honest)
    for views in there:
        rows = {fit: row for fit in fits if (row := _row(run, fit, read, views, name)) is not None}
        if views == there[0] or len(rows) == 1:
            found |= {f"{views}, fold {fit}": row for fit, row in rows.items()}
        if len(rows) > 1:
            found[f"{views}, mean"] = np.mean(list(rows.values()), axis=0)
    return found


def _row(run: Run, fit: int, kind: str, views: ViewSet, name: str) -> np.ndarray | None:
    made = predictions.read(prediction_path(run.fold(fit), kind, views), blending.origin(run, fit, views))
    places = np.flatnonzero(made.names == name)
    return made.probabilities[places[0]].astype(np.float64) if len(places) else None


def chain_lines(context: Context, name: str, kind: str, driver: str, label: int, chosen: str | None) -> list[str]:
    """Of a test photo its row in every submission; of both the steps of one submission's chain."""
    found = _manifests(context)
    if chosen is not None and chosen not in found:
        raise InputError(
            f"NAME={chosen}: no such submission; there are: {', '.join(found) or 'none, run make ensemble'}"
        )
    if not found:
        raise InputError(f"{context.places.submissions}: no submission; run make ensemble DATASET={context.dataset}")
    lines = list[str]()
    if kind == "test":
        rows = {f"{one}.csv": _submitted(context, context.places.submission(one), name) for one in found}
        lines += [*_table(context, rows, label, f"rows of {context.places.submissions}"), ""]
    scored = {one: facts["out_of_fold_log_loss"] for one, facts in found.items() if "out_of_fold_log_loss" in facts}
    one = chosen or min(scored, key=lambda key: (scored[key], key), default=next(iter(found)))
    try:
        return lines + _followed(context, one, found[one], (name, kind, driver, label))
    except InputError as error:
        if chosen is not None or not lines:
            raise
        return [*lines, f"the chain of {one} is not followed: {error}"]


def _manifests(context: Context) -> dict[str, dict[str, Any]]:
    paths = matching(context.places.submissions, "*.json")
    return {path.stem: read_json(path) for path in paths if path.with_suffix(".csv").is_file()}


def _submitted(context: Context, path: Path, name: str) -> np.ndarray:
    """The row of a submission, float64 (C,)."""
    frame = pd.read_csv(path)
    row = frame.loc[frame[context.settings.columns.image] == name, list(context.settings.classes)]
    if len(row) != 1:
        raise InputError(f"{path}: expected one row of {name}, got {len(row)}; make check says what is wrong with it")
    return row.to_numpy(np.float64)[0]


def _followed(context: Context, one: str, facts: dict[str, Any], photo: tuple[str, str, str, int]) -> list[str]:
    """The steps of a submission's chain, fitted anew by the settings that its JSON keeps."""
    name, kind, driver, label = photo
    beside = context.places.submission(one).with_suffix(".json")
    settings, runs = kept_settings(facts.get("chain"), beside), facts["runs"]
    finished = finished_runs(context, list(runs))
    members = [Member(run, test, runs[run.name]) for run, test in zip(finished.runs, finished.tests, strict=True)]
    if not all(blending.scored(member.run) for member in members):
        return [f"{one}: its chain is not followed, since not all of its runs were trained on folds"]
    spaces = {text: open_space(context, text) for text in settings.features}
    _refuse_others(spaces, facts.get("embeddings") or {}, beside)
    of = ", ".join(f"{run} ({views})" for run, views in runs.items())
    if kind == "train":
        steps = _nested(spaces, members, finished, settings, name, driver)
        whose = f"fitted on the other folds, applied to the rows of fold {finished.folds.of_driver[driver]}"
    else:
        steps = _unseen(spaces, members, finished, settings, name)
        whose = "fitted on all labelled photos, applied to each fold's rows of the test photos; their mean"
    lines = [f"the chain of {one}, of {of}: {whose}", *_table(context, steps, label, "run or step")]
    if kind == "test":
        off = np.abs(steps["clip, and the mean"] - _submitted(context, context.places.submission(one), name)).max()
        same = (
            f"as in {one}.csv"
            if off < SAME
            else f"{one}.csv differs by {off:.2g}: it was made of other rows, or changed since"
        )
        lines.append(same)
    return lines


def _refuse_others(spaces: dict[str, Space], kept: dict[str, str], beside: Path) -> None:
    """Refuse embeddings that are not those whose checksums a submission's JSON keeps; of old ones nothing is known."""
    if other := [text for text, checksum in kept.items() if text in spaces and spaces[text].digest != checksum]:
        raise InputError(
            f"{beside}: was made with other embeddings of {', '.join(other)} than today's, which were computed again since; make "
            "ensemble writes it with these"
        )


def _fitted(
    spaces: dict[str, Space], settings: ChainSettings, rows: Rows, finished: Finished, chosen: np.ndarray
) -> dict[str, Rule]:
    """The chain's rules by step, fitted on `chosen` labelled photos, bool (N,)."""
    steps = chains.steps_of(settings, spaces)
    labels, drivers = finished.train.labels[chosen], finished.train.drivers[chosen]
    return dict(zip([step.name for step in steps], fitted(steps, rows.at(chosen), labels, drivers), strict=True))


def _nested(
    spaces: dict[str, Space], members: list[Member], finished: Finished, settings: ChainSettings, name: str, driver: str
) -> dict[str, np.ndarray]:
    rows = blending.labelled_rows(members, finished.train, finished.folds)
    mine = rows.sets == finished.folds.of_driver[driver]
    rules = _fitted(spaces, settings, rows, finished, ~mine)
    return _clipped(_begun(members, rows.at(mine), name) | traced(rules, rows.at(mine), name), settings, "clip")


def _unseen(
    spaces: dict[str, Space], members: list[Member], finished: Finished, settings: ChainSettings, name: str
) -> dict[str, np.ndarray]:
    rows = blending.labelled_rows(members, finished.train, finished.folds)
    rules = _fitted(spaces, settings, rows, finished, np.ones(len(rows.names), bool))
    traces = []
    for fits in blending.fits_of(members, finished.folds.count):
        unseen = blending.unseen_rows(members, list(finished.tests[0].names), fits)
        traces.append(_begun(members, unseen, name) | traced(rules, unseen, name))
    return _clipped(averaged(traces), settings, "clip, and the mean")


def _begun(members: list[Member], rows: Rows, name: str) -> dict[str, np.ndarray]:
    """Each run's own row, before anything is done."""
    return {member.run.name: rows.members[i, place_of(name, rows)] for i, member in enumerate(members)}


def _clipped(steps: dict[str, np.ndarray], settings: ChainSettings, last: str) -> dict[str, np.ndarray]:
    """The steps, and the floor that every row ends with."""
    if settings.clip == "fitted":
        return {key if key != "clip" else last: row for key, row in steps.items()}
    return steps | {last: limited(list(steps.values())[-1], float(settings.clip))}


def _table(context: Context, rows: dict[str, np.ndarray], label: int, title: str) -> list[str]:
    """Lines of a table: probabilities (C,) in percent, and the log loss where the class is known."""
    columns = class_columns(context.settings.classes)
    likeliest = np.argsort(-np.mean(list(rows.values()), axis=0), kind="stable")[:SHOWN]
    chosen = sorted(likeliest.tolist())
    shown = {f"{title}, %": False} | {columns[i]: True for i in chosen} | ({"log loss": True} if label >= 0 else {})
    lines = [
        [
            key,
            *(f"{100 * row[i]:.1f}" for i in chosen),
            *([f"{log_loss(row[None], np.array([label])):.3f}"] * (label >= 0)),
        ]
        for key, row in rows.items()
    ]
    return table(shown, lines, shown, 0)[0]
