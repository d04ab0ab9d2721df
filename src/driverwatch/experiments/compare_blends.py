"""Every blend and calibration side by side: log loss in-sample and by nested cross-validation, and reliability."""

from typing import Any

from driverwatch.artifacts import provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend import reliability
from driverwatch.blend.chain import Rows, applied
from driverwatch.data.pack import Pack
from driverwatch.ensemble_settings import BLEND_NAMES, CALIBRATION_NAMES, BlendName, ChainSettings
from driverwatch.experiments.experiment import members_of_runs, prediction_files, text_table
from driverwatch.metrics import log_loss
from driverwatch.setting_types import ViewSet
from driverwatch.steps import chains
from driverwatch.steps.context import Context
from driverwatch.steps.submit import finished_runs
from driverwatch.terminal import say
from driverwatch.writing import locked, write_json

COLUMNS = {
    "blend": "{blend}",
    "calibrated by": "{calibrate}",
    "in-sample": "{fitted_here:.4f}",
    "nested CV": "{nested:.4f}",
    "against mean": "{difference:+.4f}",
    "95 % over drivers": "{95%[0]:+.4f} to {95%[1]:+.4f}",
    "ECE": "{ece_before:.3f} -> {ece:.3f}",
    "clip fitted too": "{nested_clip_fitted:.4f}",
}


def compare_blends(context: Context, names: list[str], views: list[ViewSet]) -> None:
    """Print a table of all blends and calibrations, write it as JSON, and draw a reliability curve for each blend.

    Args:
        views: each run takes part once with each of these TTA sets; none: with its default set.
    """
    found = finished_runs(context, names)
    members, folds, pack = members_of_runs(found, views), found.folds, found.train
    rows = blending.labelled_rows(members, pack, folds)
    path = context.places.blends
    with locked(context.places.build, ".blends.lock", sweep=(context.places.calibration("mean").parent,)):
        lines = [line for blend in BLEND_NAMES for line in _lines(context, blend, rows, pack)]
        made_of = {"members": prediction_files(members, folds), "folds": folds.digest}
        write_json(path, {**made_of, "blends": lines, **provenance()})
    say(f"Blends of {', '.join(f'{m.run.name} ({m.views})' for m in members)}: log loss, {folds.count} driver folds")
    say(text_table(COLUMNS, lines))
    say(
        "in-sample: on the images it is fitted on, so it is optimistic. nested CV: each fold by a pipeline fitted on the others. "
        f"The best of {len(lines)} is a little optimistic too. ECE: nested CV, before and after calibration.\n"
        f"{path}, {context.places.calibration('<blend>')}"
    )


def _lines(context: Context, blend: BlendName, rows: Rows, pack: Pack) -> list[dict[str, Any]]:
    """A line for each calibration of a blend, whose reliability curves are drawn together."""

    def fit(**settings: Any) -> chains.Chain:
        return chains.fit(ChainSettings(blend=blend, **settings), rows, pack.labels, pack.drivers)

    made = {calibrate: fit(calibrate=calibrate) for calibrate in CALIBRATION_NAMES}
    curves = {name: reliability.table(chain.rows, pack.labels, pack.drivers) for name, chain in made.items()}
    reliability.draw(curves, f"{context.dataset}: {blend}, out of fold", context.places.calibration(blend))
    lines = []
    for calibrate, chain in made.items():
        in_sample = applied(list(chain.rules.values()), rows).blended
        lines.append(
            {
                "blend": blend,
                "calibrate": calibrate,
                "fitted_here": round(log_loss(in_sample, pack.labels, chain.level), 4),
                "nested": chain.score["out_of_fold_log_loss"],
                **chain.score["against_plain_mean"],
                "ece_before": round(reliability.calibration_error(curves["none"]), 4),
                "ece": round(reliability.calibration_error(curves[calibrate]), 4),
                "nested_clip_fitted": fit(calibrate=calibrate, clip="fitted").score["out_of_fold_log_loss"],
                "steps": chain.facts["steps"],
            }
        )
    return lines
