"""A run's TTA sets side by side: out-of-fold log loss, its change to the centre crop, and cost; from predictions alone."""

from statistics import median
from typing import Any

import pandas as pd

from driverwatch.artifacts import provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend import score as scores
from driverwatch.ensemble.score_members import caveats
from driverwatch.errors import InputError
from driverwatch.experiments.experiment import members_of_runs
from driverwatch.setting_types import VIEW_SETS, ViewSet, pixels
from driverwatch.settings import PredictSettings
from driverwatch.steps.context import Context
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.terminal import say
from driverwatch.training.predicted import views_there
from driverwatch.training.run import Run
from driverwatch.typed_yaml import parse
from driverwatch.vision.views import held_by, unique
from driverwatch.writing import write_json

CENTRE: ViewSet = "centre"
LEGEND = """\
passes: forward passes per image, the cost relative to the centre crop
against centre: each image's loss less its loss under the centre crop; below 0 is better
low, high: 95 % interval of that difference, bootstrap over drivers (10,000 resamples)
a set chosen by this table has an optimistic loss in it"""


def compare_tta(context: Context, name: str) -> None:
    """Print the TTA sets that a run has predicted, and write them to `views.json` beside it.

    Raises:
        InputError: no such run, a fold not finished, or no TTA set that every fold has predicted.
    """
    found = finished_runs(context, [name])
    run = found.runs[0]
    there = views_there(run, found.folds.count, ("held_out",))
    missing = [
        views for views in VIEW_SETS if views not in there and (views != "ten_crop_swap" or run.columns.can_swap)
    ]
    command = f'make predict RUN={run.name} DATASET={context.dataset} VIEWS="{" ".join(fewest_sets(missing))}"'
    if not there:
        raise InputError(f"{run.folder}: no TTA set is there that every fold has predicted; {command} makes them")
    table, rate, path = _table(found, there), _rate(found), run.folder / "views.json"
    say(scores.text(table, f"TTA sets of {run.name}: {context.dataset}, {found.folds.count} driver folds, out of fold"))
    passes = "when it was trained, {0} took {passes} passes an image, {images_per_second} images/s ({from})"
    speed = [passes.format(" and ".join(rate["views"]), **rate)] if rate else []
    say("\n".join([LEGEND, *speed, *caveats([run])]))
    if missing:
        say(f"not predicted yet: {', '.join(missing)}; {command} makes them")
    write_json(path, _facts(found, table) | {"missing": missing, "prediction": rate} | provenance())
    say(f"{path}: written")


def fewest_sets(wanted: list[ViewSet]) -> list[ViewSet]:
    """The fewest sets to predict so that all `wanted` are there: none that another one contains."""
    chosen: list[ViewSet] = []
    for views in reversed(VIEW_SETS):
        if views in wanted and views not in held_by(*chosen):
            chosen.append(views)
    return chosen[::-1]


def _table(found: Finished, there: list[ViewSet]) -> pd.DataFrame:
    """A line per TTA set."""
    pack, run = found.train, found.runs[0]
    members = members_of_runs(found, there)
    made = {str(member.views): blending.out_of_fold(member, pack, found.folds) for member in members}
    table = scores.compared(made, pack.labels, pack.drivers, CENTRE).rename(columns={"model": "TTA"})
    table.insert(1, "passes", [_passes(run, [views]) for views in there])
    return table


def _passes(run: Run, views: list[ViewSet]) -> int:
    """Forward passes per image: different views of the sets."""
    field = run.settings.input
    return len(unique(views, pixels(field.pack), pixels(field.size)))


def _rate(found: Finished) -> dict[str, Any] | None:
    """Images per second of the prediction that ended training, from the folds' manifests; None where they do not say it.

    Seconds of different machines and hours do not compare: between TTA sets only their passes do.
    """
    run, rates = found.runs[0], []
    for fold in range(found.folds.count):
        made = run.manifest(fold)
        asked = parse(PredictSettings, made["settings"].get("predict", {}), f"{run.fold(fold)}/manifest.json").views
        spent = made.get("seconds", 0) - made.get("training_seconds", 0)
        images = len(found.folds.rows(found.train.drivers, fold)[1]) + len(found.tests[0].names)
        if spent > 0:
            rates.append((images / spent, asked))
    if not rates or any(asked != rates[0][1] for _, asked in rates):
        return None
    return {
        "views": rates[0][1],
        "passes": _passes(run, run.columns.sets_of(rates[0][1])),
        "images_per_second": round(median(rate for rate, _ in rates), 2),
        "from": "median over the folds' manifests: seconds less training_seconds",
    }


def _facts(found: Finished, table: pd.DataFrame) -> dict[str, Any]:
    """The content of `views.json`; null stands for what cannot be known."""
    run = found.runs[0]
    names = {"± (drivers)": "standard_error", f"against {CENTRE}": "against_centre", "log loss": "log_loss"}
    lines = table.rename(columns=names).drop(columns="images").set_index("TTA").astype(object)
    return {
        "run": run.name,
        "folds": found.folds.digest,
        "weights": [run.manifest(fold)["weights"] for fold in range(found.folds.count)],
        "images": len(found.train.names),
        "drivers": len(set(found.train.drivers)),
        "views": lines.where(lines.notna(), None).to_dict("index"),
    }
