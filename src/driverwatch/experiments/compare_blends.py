"""Every blend and calibration side by side: what it scores where it was fitted, and on drivers left out."""

from typing import Any

import numpy as np
import pandas as pd

from driverwatch.artifacts import digest_of_file, provenance
from driverwatch.blend import ensemble as blending
from driverwatch.blend import reliability
from driverwatch.blend.chain import Rows, applied
from driverwatch.blend.ensemble import Member
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble_settings import BLEND_NAMES, CALIBRATION_NAMES, BlendName, ChainSettings
from driverwatch.inference.paths import prediction_path
from driverwatch.metrics import log_loss
from driverwatch.setting_types import ViewSet
from driverwatch.steps import chains
from driverwatch.steps.chains import Chain
from driverwatch.steps.context import Context
from driverwatch.steps.submit import finished_runs
from driverwatch.terminal import say
from driverwatch.writing import locked, write_json


def compare_blends(context: Context, names: list[str], views: list[ViewSet]) -> None:
    """Print a table of all blends and calibrations, write it as JSON, and draw a reliability curve for each blend.

    Args:
        views: each run takes part once with each of them; none: with its honest views.
    """
    found, tests, folds, pack = finished_runs(context, names)
    members = [
        Member(run, test, chosen)
        for run, test in zip(found, tests, strict=True)
        for chosen in views or [blending.honest_views(run)]
    ]
    rows = blending.labelled_rows(members, pack, folds)
    path = context.places.blends
    with locked(context.places.build, ".blends.lock", sweep=(context.places.calibration("mean").parent,)):
        lines = [line for blend in BLEND_NAMES for line in _lines(context, blend, rows, pack)]
        write_json(
            path, {"members": prediction_files(members, folds), "folds": folds.digest, "blends": lines, **provenance()}
        )
    say(f"Blends of {', '.join(f'{m.run.name} ({m.views})' for m in members)}: log loss, {folds.count} driver folds")
    say(_table(lines).to_string(index=False))
    say(
        "fitted here: on the rows it is scored on, so it flatters. nested: each fold by a chain fitted on the others. "
        f"The best of {len(lines)} flatters a little too. ECE: nested, before and after calibration.\n"
        f"{path}, {context.places.calibration('<blend>')}"
    )


def _lines(context: Context, blend: BlendName, rows: Rows, pack: Pack) -> list[dict[str, Any]]:
    """A line for each calibration of a blend; their reliability is drawn on the way."""
    made = {
        calibrate: chains.fit(ChainSettings(blend=blend, calibrate=calibrate), rows, pack.labels, pack.drivers)
        for calibrate in CALIBRATION_NAMES
    }
    curves = {name: reliability.table(chain.rows, pack.labels, pack.drivers) for name, chain in made.items()}
    reliability.draw(curves, f"{context.dataset}: {blend}, out of fold", context.places.calibration(blend))
    lines = []
    for calibrate, chain in made.items():
        clipped = ChainSettings(blend=blend, calibrate=calibrate, clip="fitted")
        lines.append(
            {
                "blend": blend,
                "calibrate": calibrate,
                "fitted_here": round(_where_fitted(chain, rows, pack.labels), 4),
                "nested": chain.score["out_of_fold_log_loss"],
                **chain.score["against_plain_mean"],
                "ece_before": round(reliability.calibration_error(curves["none"]), 4),
                "ece": round(reliability.calibration_error(curves[calibrate]), 4),
                "nested_clip_fitted": chains.fit(clipped, rows, pack.labels, pack.drivers).score[
                    "out_of_fold_log_loss"
                ],
                "steps": chain.facts["steps"],
            }
        )
    return lines


def _where_fitted(chain: Chain, rows: Rows, labels: np.ndarray) -> float:
    """Loss of the fitted chain on the rows that it was fitted on."""
    return log_loss(applied(list(chain.rules.values()), rows).blended, labels, chain.level)


def prediction_files(members: list[Member], folds: FoldTable) -> dict[str, dict[str, str]]:
    """The prediction files that a table is made of, with their digests."""
    made: dict[str, dict[str, str]] = {}
    for member in members:
        paths = [prediction_path(member.run.fold(fold), "held_out", member.views) for fold in range(folds.count)]
        made[f"{member.run.name} {member.views}"] = {str(path): digest_of_file(path) for path in paths}
    return made


def _table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "blend": line["blend"],
            "calibrated by": line["calibrate"],
            "fitted here": f"{line['fitted_here']:.4f}",
            "nested": f"{line['nested']:.4f}",
            "against mean": f"{line['difference']:+.4f}",
            "95 % over drivers": "{:+.4f} to {:+.4f}".format(*line["95%"]),
            "ECE": f"{line['ece_before']:.3f} -> {line['ece']:.3f}",
            "clip fitted too": f"{line['nested_clip_fitted']:.4f}",
        }
        for line in lines
    )
