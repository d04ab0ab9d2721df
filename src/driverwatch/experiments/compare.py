"""Tables from predictions alone: a run's TTA sets, an ensemble's blends and calibrations, k-NN smoothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.config.ensemble import BLEND_NAMES, CALIBRATION_NAMES, BlendName, KnnSettings, PipelineSettings
from driverwatch.config.types import TTA_SETS, TtaSet, pixels
from driverwatch.data.context import Context
from driverwatch.data.pack import Pack
from driverwatch.data.tta import held_by, unique
from driverwatch.ensemble import calibration, post_processing
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.embeddings import open_embeddings
from driverwatch.ensemble.members import Finished, caveats, finished_runs
from driverwatch.ensemble.transform import MemberPredictions, apply_transforms
from driverwatch.errors import InputError
from driverwatch.experiments.experiment import (
    make_all_features,
    members_of_runs,
    paired_table,
    prediction_files,
    table_text,
    text_table,
)
from driverwatch.inference.predictions import predicted_tta
from driverwatch.io.atomic import locked, write_json
from driverwatch.io.console import ending, say, tell
from driverwatch.io.manifests import provenance
from driverwatch.metrics import log_loss

CENTRE: TtaSet = "centre"
LEGEND = """\
passes: forward passes per image, the cost relative to the centre crop
against centre: each image's loss less its loss under the centre crop; below 0 is better
low, high: 95 % interval of that difference, bootstrap over drivers (10,000 resamples)
a set chosen by this table has an optimistic loss in it"""


def compare_tta(context: Context, name: str) -> None:
    """Print the TTA sets that a run has predicted, and write them to `tta.json` beside it.

    Raises `InputError`: no such run, a fold not finished, or no TTA set that every fold has predicted.
    """
    found = finished_runs(context, [name])
    run = found.runs[0]
    there = predicted_tta(run, found.folds.count, ("validation",))
    missing = [tta for tta in TTA_SETS if tta not in there and (tta != "ten_crop_swap" or run.columns.can_swap)]
    command = f'make predict RUN={run.name} DATASET={context.dataset} TTA="{" ".join(fewest_sets(missing))}"'
    if not there:
        raise InputError(f"{run.folder}: no TTA set is there that every fold has predicted; {command} makes them")
    table, path = _table(found, there), run.folder / "tta.json"
    say(table_text(table, f"TTA sets of {run.name}: {context.dataset}, {found.folds.count} driver folds, out of fold"))
    say("\n".join([LEGEND, *caveats([run])]))
    if missing:
        say(f"not predicted yet: {', '.join(missing)}\n  {command} makes them")
    write_json(path, _facts(found, table) | {"missing": missing} | provenance())
    chosen, sentence = tta_verdict(table)
    blend = f"make ensemble MODELS={run.name} TTA={chosen} DATASET={context.dataset}"
    say(f"{path}: written")
    tell(sentence)
    ending(then=[blend] if chosen else [command] * bool(missing))


def tta_verdict(table: pd.DataFrame) -> tuple[str | None, str]:
    """The set to predict with, and why in a sentence; None where only one set, or no centre crop, is there."""
    key = f"against {CENTRE}"
    rest = [line for line in table.to_dict("records") if line["TTA"] != CENTRE and line[key] == line[key]]
    if not rest:
        return None, "There is no second TTA set to compare with the centre crop yet."
    best = min(rest, key=lambda line: float(line["log loss"]))
    gain = f"{best[key]:+.4f} log loss against the centre crop"
    if not (best["low"] > 0 or best["high"] < 0):  # unknown, with a single driver
        return CENTRE, f"{best['TTA']} changes nothing for certain ({gain}): the centre crop costs least."
    if best["high"] < 0:
        return str(best["TTA"]), f"{best['TTA']} helps: {gain}."
    return CENTRE, f"Averaging views does not help this run: even {best['TTA']} has {gain}."


def fewest_sets(wanted: list[TtaSet]) -> list[TtaSet]:
    """The fewest sets to predict so that all `wanted` are there: none that another one contains."""
    chosen: list[TtaSet] = []
    for tta in reversed(TTA_SETS):
        if tta in wanted and tta not in held_by(*chosen):
            chosen.append(tta)
    return chosen[::-1]


def _table(found: Finished, there: list[TtaSet]) -> pd.DataFrame:
    """A line per TTA set."""
    pack, run = found.train, found.runs[0]
    members = members_of_runs(found, there)
    made = {str(member.tta): blending.oof_probabilities(member, pack, found.folds) for member in members}
    table = paired_table(made, pack.labels, pack.drivers, CENTRE).rename(columns={"model": "TTA"})
    field = run.settings.input
    sizes = pixels(field.pack), pixels(field.size)
    table.insert(1, "passes", [len(unique([tta], *sizes)) for tta in there])
    return table


def _facts(found: Finished, table: pd.DataFrame) -> dict[str, Any]:
    """The content of `tta.json`; null stands for what cannot be known."""
    run = found.runs[0]
    names = {"± (drivers)": "standard_error", f"against {CENTRE}": "against_centre", "log loss": "log_loss"}
    lines = table.rename(columns=names).drop(columns="images").set_index("TTA").astype(object)
    return {
        "run": run.name,
        "folds": found.folds.checksum,
        "weights": [run.manifest(fold)["weights"] for fold in range(found.folds.count)],
        "images": len(found.train.names),
        "drivers": len(set(found.train.drivers)),
        "tta": lines.where(lines.notna(), None).to_dict("index"),
    }


BLEND_COLUMNS = {
    "blend": "{blend}",
    "calibrated by": "{calibrate}",
    "in-sample": "{fitted_here:.4f}",
    "nested CV": "{nested:.4f}",
    "against mean": "{difference:+.4f}",
    "95 % over drivers": "{95%[0]:+.4f} to {95%[1]:+.4f}",
    "ECE": "{ece_before:.3f} -> {ece:.3f}",
    "clip fitted too": "{nested_clip_fitted:.4f}",
}


def compare_blends(context: Context, names: list[str], tta: list[TtaSet]) -> None:
    """Print a table of all blends and calibrations, write it as JSON, and draw a reliability curve for each blend.

    `tta`: each run takes part once with each of these TTA sets; none: with its default set.
    """
    found = finished_runs(context, names)
    members, folds, pack = members_of_runs(found, tta), found.folds, found.train
    rows = blending.oof_of_members(members, pack, folds)
    path = context.places.blends
    with locked(context.places.build, ".blends.lock", sweep=(context.places.calibration("mean").parent,)):
        lines = [line for blend in BLEND_NAMES for line in _blend_lines(context, blend, rows, pack)]
        made_of = {"members": prediction_files(members, folds), "folds": folds.checksum}
        write_json(path, {**made_of, "blends": lines, **provenance()})
    say(f"Blends of {', '.join(f'{m.run.name} ({m.tta})' for m in members)}: log loss, {folds.count} driver folds")
    say(text_table(BLEND_COLUMNS, sorted(lines, key=lambda line: line["nested"])))
    say(
        "in-sample: on the images it is fitted on, so it is optimistic\n"
        "nested CV: each fold by a pipeline fitted on the others; ECE: the same, before and after calibration\n"
        f"{path}, {context.places.calibration('<blend>')}"
    )
    asked, sentence = blend_verdict(lines)
    words = [f'MODELS="{" ".join(names)}"'] * bool(names) + [f"TTA={each}" for each in tta if len(tta) == 1]
    tell(sentence)
    ending(then=[" ".join([f"make ensemble DATASET={context.dataset}", *words, asked])])


def _blend_lines(
    context: Context, blend: BlendName, predictions: MemberPredictions, pack: Pack
) -> list[dict[str, Any]]:
    """A line for each calibration of a blend, whose reliability curves are drawn together."""

    def fit(**settings: Any) -> post_processing.Pipeline:
        return post_processing.fit(PipelineSettings(blend=blend, **settings), predictions, pack.labels, pack.drivers)

    made = {calibrate: fit(calibrate=calibrate) for calibrate in CALIBRATION_NAMES}
    curves = {
        name: calibration.table(pipeline.probabilities, pack.labels, pack.drivers) for name, pipeline in made.items()
    }
    calibration.draw(curves, f"{context.dataset}: {blend}, out of fold", context.places.calibration(blend))
    lines = []
    for calibrate, pipeline in made.items():
        in_sample = apply_transforms(list(pipeline.rules.values()), predictions).blended
        lines.append(
            {
                "blend": blend,
                "calibrate": calibrate,
                "fitted_here": round(log_loss(in_sample, pack.labels, pipeline.level), 4),
                "nested": pipeline.score["out_of_fold_log_loss"],
                **pipeline.score["against_plain_mean"],
                "ece_before": round(calibration.calibration_error(curves["none"]), 4),
                "ece": round(calibration.calibration_error(curves[calibrate]), 4),
                "nested_clip_fitted": fit(calibrate=calibrate, clip="fitted").score["out_of_fold_log_loss"],
                "steps": pipeline.facts["steps"],
            }
        )
    return lines


def blend_verdict(lines: list[dict[str, Any]]) -> tuple[str, str]:
    """The variables of the pipeline to take, and why in a sentence: the least nested loss, where the gain is no chance."""
    best = min(lines, key=lambda line: line["nested"])
    low, high = best["95%"]
    gain = f"nested CV log loss {best['nested']:.4f}, {best['difference']:+.4f} ({low:+.4f} to {high:+.4f}) against the mean"
    name = f"{best['blend']} calibrated by {best['calibrate']}"
    if high < 0:
        return (
            f"BLEND={best['blend']} CALIBRATE={best['calibrate']}",
            f"Best of {len(lines)}, so a little optimistic: {name}, {gain}.",
        )
    return "BLEND=mean", f"No pipeline is better than the plain mean for certain: the best, {name}, has {gain}."


COUNTS = (2, 5, 10, 20, 50)  # fixed ones in the table, beside the chosen one
WAYS: dict[str, dict[str, Any]] = {
    "none": {"k": 0},
    **{str(k): {"k": k} for k in COUNTS},
    "chosen": {},
    "clusters": {"method": "clusters"},
}
KNN_COLUMNS = {
    "knn": "{way}",
    "nested CV log loss": "{nested:.4f}",
    "difference": "{difference:+.4f}",
    "95 % over drivers": "{95%[0]:+.4f} to {95%[1]:+.4f}",
    "accuracy": "{accuracy:.1%}",
    "same driver+class": "{same_text}",
    "fit on all": "{parameters}",
}


def compare_knn(context: Context, features: list[str], names: list[str], weights: Path | None) -> None:
    """Compute each backbone's embeddings, then print and write what smoothing by them scores for each run and their mean.

    `features`: backbones as `EMBEDDINGS=` names them.
    """
    features = list(dict.fromkeys(features))
    make_all_features(context, features, weights)
    found = finished_runs(context, names)
    members, folds, pack = members_of_runs(found), found.folds, found.train
    rows = blending.oof_of_members(members, pack, folds)
    each = {f"{m.run.name} {m.tta}": rows.changed(rows.members[i : i + 1]) for i, m in enumerate(members)}
    if len(members) > 1:
        each[f"mean of {len(members)}"] = rows.changed(rows.members.mean(axis=0, keepdims=True))
    lines = []
    for text in features:
        space = open_embeddings(context, text)
        for name, one in each.items():
            made = _knn_lines(space, one, pack)
            lines += [{"predictions": name, "embeddings": text, **line} for line in made]
            say(f"{name}, neighbours by {text}, {folds.count} driver folds")
            say(f"{text_table(KNN_COLUMNS, map(_cells, made))}\n")
    with locked(context.places.build, ".neighbours.lock", sweep=()):
        made_of = {"members": prediction_files(members, folds), "folds": folds.checksum}
        write_json(context.places.knn, {**made_of, "knn": lines, **provenance()})
    say(
        "Neighbours are validation images of one fold alone; whatever is chosen is chosen on the others.\n"
        f"same driver+class: share of such neighbours. The best line is optimistic.\n{context.places.knn}"
    )
    asked, sentence = knn_verdict(lines)
    tell(sentence)
    words = [f'MODELS="{" ".join(names)}"'] * bool(names)
    ending(then=[" ".join([f"make ensemble DATASET={context.dataset}", *words, asked])])


def knn_verdict(lines: list[dict[str, Any]]) -> tuple[str, str]:
    """`KNN=` for an ensemble of the last predictions, and why in a sentence: `none` where a gain may be chance."""
    last = [line for line in lines if line["predictions"] == lines[-1]["predictions"] and line["way"] == "chosen"]
    best = min(last, key=lambda line: line["nested"])
    low, high = best["95%"]
    gain = (
        f"{best['embeddings']} changes {best['predictions']} by {best['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
    )
    if high < 0:
        return f"KNN={best['embeddings']}", f"Smoothing over neighbours helps: {gain}."
    return "KNN=none", f"Smoothing over neighbours helps for certain by no embeddings: {gain}."


def _knn_lines(space: EmbeddingIndex, predictions: MemberPredictions, pack: Pack) -> list[dict[str, Any]]:
    """A line without neighbours, for each fixed number of them, for the chosen one, and for clusters."""
    near = space.near(predictions, max(COUNTS)).indices
    clips = np.unique(
        [f"{driver} {label}" for driver, label in zip(pack.drivers, pack.labels, strict=True)], return_inverse=True
    )[1]
    lines = []
    for way, content in WAYS.items():
        settings = PipelineSettings(knn=KnnSettings(embeddings=space.what, **content))
        pipeline = post_processing.fit(settings, predictions, pack.labels, pack.drivers, {space.what: space})
        *_, fitted = pipeline.facts["steps"].values()
        lines.append(
            {
                "way": way,
                "nested": pipeline.score["out_of_fold_log_loss"],
                **pipeline.score["against_plain_mean"],
                "accuracy": pipeline.score["out_of_fold_accuracy"],
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
        if key not in ("embeddings", "method", "fitted_log_loss")
    ]
    same = "" if line["same"] is None else f"{line['same']:.0%}"
    return {**line, "same_text": same, "parameters": ", ".join(fitted_on_all)}
