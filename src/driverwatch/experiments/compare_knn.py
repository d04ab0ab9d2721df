"""k-NN smoothing compared: for each feature space and number of neighbours, its out-of-fold gain by nested cross-validation."""

from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend.chain import Rows
from driverwatch.blend.space import Space
from driverwatch.data.pack import Pack
from driverwatch.ensemble_settings import ChainSettings, NeighbourSettings
from driverwatch.experiments.experiment import make_all_features, members_of_runs, prediction_files, text_table
from driverwatch.steps import chains
from driverwatch.steps.context import Context
from driverwatch.steps.spaces import open_space
from driverwatch.steps.submit import finished_runs
from driverwatch.terminal import say
from driverwatch.writing import locked, write_json

COUNTS = (2, 5, 10, 20, 50)  # fixed ones in the table, beside the chosen one
WAYS: dict[str, dict[str, Any]] = {
    "none": {"k": 0},
    **{str(k): {"k": k} for k in COUNTS},
    "chosen": {},
    "clusters": {"method": "clusters"},
}
COLUMNS = {
    "neighbours": "{way}",
    "nested CV log loss": "{nested:.4f}",
    "difference": "{difference:+.4f}",
    "95 % over drivers": "{95%[0]:+.4f} to {95%[1]:+.4f}",
    "accuracy": "{right:.1%}",
    "same driver+class": "{same_text}",
    "fit on all": "{parameters}",
}


def compare_knn(context: Context, features: list[str], names: list[str], weights: Path | None) -> None:
    """Compute each backbone's embeddings, then print and write what smoothing by them scores for each run and their mean.

    Args:
        features: backbones as `FEATURES=` names them.
    """
    features = list(dict.fromkeys(features))
    make_all_features(context, features, weights)
    found = finished_runs(context, names)
    members, folds, pack = members_of_runs(found), found.folds, found.train
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
            say(f"{name}, neighbours by {text}, {folds.count} driver folds")
            say(f"{text_table(COLUMNS, map(_cells, made))}\n")
    with locked(context.places.build, ".neighbours.lock", sweep=()):
        made_of = {"members": prediction_files(members, folds), "folds": folds.digest}
        write_json(context.places.neighbours, {**made_of, "neighbours": lines, **provenance()})
    say(
        "Neighbours are validation images of one fold alone; whatever is chosen is chosen on the other folds. same driver+class: "
        f"share of such neighbours. The best line is a little optimistic.\n{context.places.neighbours}"
    )


def _lines(space: Space, rows: Rows, pack: Pack) -> list[dict[str, Any]]:
    """A line without neighbours, for each fixed number of them, for the chosen one, and for clusters."""
    near = space.near(rows, max(COUNTS)).indices
    clips = np.unique(
        [f"{driver} {label}" for driver, label in zip(pack.drivers, pack.labels, strict=True)], return_inverse=True
    )[1]
    lines = []
    for way, content in WAYS.items():
        settings = ChainSettings(neighbours=NeighbourSettings(features=space.what, **content))
        pipeline = chains.fit(settings, rows, pack.labels, pack.drivers, {space.what: space})
        *_, fitted = pipeline.facts["steps"].values()
        lines.append(
            {
                "way": way,
                "nested": pipeline.score["out_of_fold_log_loss"],
                **pipeline.score["against_plain_mean"],
                "right": pipeline.score["out_of_fold_right"],
                "same": round(share_of_same(near[:, : content["k"]], clips), 4) if content.get("k") else None,
                "fitted": fitted,
            }
        )
    return lines


def share_of_same(indices: np.ndarray, clips: np.ndarray) -> float:
    """Share of neighbours int (N, k), -1 where there is none, that are of an image's own driver and class (N,)."""
    there = indices >= 0
    return float((clips[indices] == clips[:, None])[there].mean()) if there.any() else float("nan")


def _cells(line: dict[str, Any]) -> dict[str, Any]:
    """The line with its share as text, and what was fitted on all labelled images in a few words."""
    fitted_on_all = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in line["fitted"].items()
        if key not in ("features", "method", "fitted_log_loss")
    ]
    same = "" if line["same"] is None else f"{line['same']:.0%}"
    return {**line, "same_text": same, "parameters": ", ".join(fitted_on_all)}
