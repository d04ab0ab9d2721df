"""What smoothing over neighbours is worth: for each space of features and number of neighbours, on drivers left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.artifacts import provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend.chain import Rows, fitted, nested
from driverwatch.blend.ensemble import Member
from driverwatch.blend.score import interval
from driverwatch.blend.space import Space
from driverwatch.data.pack import Pack
from driverwatch.ensemble_settings import NeighbourSettings
from driverwatch.metrics import accuracy, log_losses
from driverwatch.experiments.compare_blends import prediction_files
from driverwatch.steps.chains import smoothing
from driverwatch.steps.context import Context
from driverwatch.steps.spaces import make_features, open_space
from driverwatch.steps.submit import finished_runs
from driverwatch.terminal import say
from driverwatch.writing import locked, write_json

COUNTS = (2, 5, 10, 20, 50)  # fixed ones in the table, beside what is chosen


def compare_neighbours(context: Context, features: list[str], names: list[str], weights: Path | None) -> None:
    """Compute each trunk's features, then print and write what smoothing in them scores for each run and their mean."""
    features = list(dict.fromkeys(features))
    for text in features:
        make_features(context, text, weights)
    found, tests, folds, pack = finished_runs(context, names)
    members = [Member(run, test, blending.honest_views(run)) for run, test in zip(found, tests, strict=True)]
    rows = blending.labelled_rows(members, pack, folds)
    each = {f"{m.run.name} {m.views}": rows.changed(rows.members[i : i + 1]) for i, m in enumerate(members)}
    if len(members) > 1:
        each[f"mean of {len(members)}"] = rows.changed(rows.members.mean(axis=0, keepdims=True))
    lines = []
    for text in features:
        space = open_space(context, text)
        for name, one in each.items():
            made = _lines(space, one, pack)
            lines += [{"predictions": name, "features": text, **line} for line in made]
            say(_text(made, f"{name}, neighbours by {text}, {folds.count} driver folds"))
    with locked(context.places.build, ".neighbours.lock", sweep=()):
        made_of = {"members": prediction_files(members, folds), "folds": folds.digest}
        write_json(context.places.neighbours, {**made_of, "neighbours": lines, **provenance()})
    say(
        "Neighbours among the held-out images of one fold alone; everything that is chosen, on the other folds. same: neighbours "
        f"of the same driver and class. The best line flatters a little.\n{context.places.neighbours}"
    )


WAYS: dict[str, dict[str, Any]] = {
    "none": {"k": 0},
    **{str(k): {"k": k} for k in COUNTS},
    "chosen": {},
    "clusters": {"method": "clusters"},
}


def _lines(space: Space, rows: Rows, pack: Pack) -> list[dict[str, Any]]:
    """A line without neighbours, for each fixed number of them, for the chosen one, and for clusters."""
    plain = log_losses(rows.blended, pack.labels)
    near = space.near(rows, max(COUNTS)).indices
    clips = np.unique(
        [f"{driver} {label}" for driver, label in zip(pack.drivers, pack.labels, strict=True)], return_inverse=True
    )[1]
    lines = []
    for way, content in WAYS.items():
        step = smoothing(NeighbourSettings(features=space.what, **content), space)
        line = {"way": way, **_scored(nested([step], rows, pack.labels, pack.drivers), plain, pack)}
        line["same"] = round(same(near[:, : content["k"]], clips), 4) if content.get("k") else None
        lines.append({**line, "fitted": fitted([step], rows, pack.labels, pack.drivers)[0].facts})
    return lines


def _scored(made: np.ndarray, plain: np.ndarray, pack: Pack) -> dict[str, Any]:
    """Loss of rows (N, C), and what it is less than `plain` (N,), with its interval when drivers are drawn anew."""
    losses = log_losses(made, pack.labels)
    low, high = interval(losses - plain, pack.drivers)
    return {
        "nested": round(float(losses.mean()), 4),
        "difference": round(float((losses - plain).mean()), 4),
        "95%": [round(low, 4), round(high, 4)],
        "right": round(accuracy(made, pack.labels), 4),
    }


def same(indices: np.ndarray, clips: np.ndarray) -> float:
    """Share of neighbours int (N, k), -1 where there is none, that are of an image's own driver and class (N,)."""
    there = indices >= 0
    return float((clips[indices] == clips[:, None])[there].mean()) if there.any() else float("nan")


def _text(lines: list[dict[str, Any]], title: str) -> str:
    table = pd.DataFrame(
        {
            "neighbours": line["way"],
            "nested log loss": f"{line['nested']:.4f}",
            "difference": f"{line['difference']:+.4f}",
            "95 % over drivers": "{:+.4f} to {:+.4f}".format(*line["95%"]),
            "right": f"{line['right']:.1%}",
            "same": "" if line["same"] is None else f"{line['same']:.0%}",
            "on all": _facts(line["fitted"]),
        }
        for line in lines
    )
    return f"{title}\n{table.to_string(index=False)}\n"


def _facts(facts: dict[str, Any]) -> str:
    """What was fitted on all labelled images, in a few words."""
    left = ("features", "method", "fitted_log_loss")
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in facts.items()
        if key not in left
    )
