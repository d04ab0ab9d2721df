"""The page's second half: how runs learnt, whether they mean what they say, levers, folds, pictures, settings and times."""

import pandas as pd

from driverwatch.dataset_settings import class_columns
from driverwatch.report import blocks, charts
from driverwatch.report.blocks import Block, Folded, Grid, Group, Missing, Section, Table, Text
from driverwatch.report.charts import Dot
from driverwatch.report.findings import Findings, RunFacts, by_loss

NAMED = 40  # drivers in a cell
SIGNS = ("D", "o")  # of a lever that is not kept, and of one that is


def learning(found: Findings) -> Section:
    """Learning curves of every run that kept a history; those of a single epoch as a table."""
    drawn = [
        run for run in sorted(found.runs, key=by_loss) if any(len(history) > 1 for history in run.histories.values())
    ]
    parts: list[Block] = []
    if drawn:
        said = (
            "Solid: loss on the held-out drivers, with the fold's number at its end; dashed: loss in training, measured on "
            "augmented images (and with dropout), so the two do not compare. Upright lines: another stage begins."
        )
        parts = [Text(said), Grid([_curves(run) for run in drawn])]
    solved = [run for run in found.runs if run not in drawn and run.histories]
    if solved:
        frames = [h.assign(run=run.name, fold=fold) for run in solved for fold, h in run.histories.items()]
        frame = pd.concat(frames)[["run", "fold", "epoch", "loss", "held_out_loss"]]
        frame = frame.rename(columns={"loss": "training loss", "held_out_loss": "held-out loss"})
        made = blocks.table(frame, {"training loss": blocks.loss, "held-out loss": blocks.loss})
        parts += [Text("Runs of one epoch, which make no curve:"), made]
    if not parts:
        parts = [Missing("No run has finished an epoch.", found.command("train", "MODEL=<model>"))]
    return Section("learning", "Learning curves", "Learning", parts)


def _curves(run: RunFacts) -> blocks.Chart:
    far = f", {run.finished} of {run.fits} folds finished" if run.finished < run.fits else ""
    return charts.curves(run.histories, run.name, f"Loss by epoch of {run.name}{far}.")


def calibration(found: Findings) -> Section:
    """Whether the best run means what it says, everybody's calibration error, and what blends and calibrations score."""
    best, parts = found.best, list[Block]()
    if best is None:
        parts.append(Missing("No run has an out-of-fold score yet.", found.command("train", "MODEL=<model>")))
    else:
        caption = (
            f"{best.name}, {best.views}: how often it is right, by how sure it is. Below the dashed line it is surer than it "
            "should be. Bars: standard error over drivers; bins of about equally many images."
        )
        title = f"calibration error {best.calibration_error:.3f}"
        errors = [[made.name, made.views, f"{made.calibration_error:.3f}", f"{made.loss:.4f}"] for made in found.scored]
        said = "Expected calibration error of the likeliest class: the mean distance of the curve from the line, over images."
        ranked = Table(["run", "views", "calibration error", "log loss"], errors)
        parts.append(Grid([charts.reliability(best.reliability, title, caption), Group([Text(said), ranked])]))
    if isinstance(found.blends, Missing):
        parts.append(found.blends)
    else:
        forms = {"nested": blocks.loss, "fitted here": blocks.loss, "ECE before": blocks.loss, "ECE": blocks.loss}
        said = "Every blend and calibration of the runs of the last make blends; nested: fitted on the other folds."
        parts.append(Folded("Blends and calibrations", [Text(said), blocks.table(found.blends, forms)]))
    return Section("calibration", "Calibration", "Calibration", parts)


def levers(found: Findings) -> Section:
    """What each lever is worth: a chart per kind."""
    if isinstance(found.levers, Missing):
        return Section("levers", "Levers", "Levers", [found.levers])
    said = (
        "Difference in log loss out of fold with the lever and without it, each image paired with itself; left of the dashed "
        "line it helps. Filled: kept; hollow: not kept. Bars: 95 % intervals, drivers drawn anew."
    )
    parts: list[Block] = [Text(said), Grid([_levers(kind, rows) for kind, rows in found.levers.items()])]
    if found.unmeasured:
        lines = [[lever] for lever in found.unmeasured]
        title = f"{len(lines)} levers that nobody has measured yet"
        parts.append(
            Folded(title, [Table(["lever"], lines), Missing("To measure them:", found.command("levers", "TRAIN=1"))])
        )
    return Section("levers", "Levers", "Levers", parts)


def _levers(kind: str, rows: pd.DataFrame) -> blocks.Chart:
    records = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    lines = [
        Dot(
            f"{row['lever']}, {row['difference']:+.3f}",
            row["difference"],
            row["low"],
            row["high"],
            SIGNS[row["kept"] == "yes"],
        )
        for row in records
    ]
    made = charts.dots(lines, kind, "difference in log loss", middle=0.0)
    shown = rows.assign(interval=[blocks.interval(row["low"], row["high"], "{:+.3f}") for row in records])
    shown = shown[["lever", "before", "after", "difference", "interval", "minutes", "kept", "why"]]
    shown = shown.rename(columns={"interval": "95 % over drivers"})
    short = blocks.known("{:.3f}".format)
    forms = {"before": short, "after": short, "difference": blocks.signed, "minutes": blocks.known("{:.0f}".format)}
    return blocks.Chart(made.svg, kind, blocks.table(shown, forms, ("lever", "why")))


def folds(found: Findings) -> Section:
    """Who is held out by which fold, and how many images of each class that is."""
    if isinstance(found.folds, Missing):
        return Section("folds", "Folds", "Folds", [found.folds])
    frame, classes = found.folds, class_columns(found.classes)
    each = frame.groupby("fold").agg({"driver": _named, "images": "sum", **dict.fromkeys(classes, "sum")})
    summed = each.reset_index().rename(columns={"driver": "drivers"})[["fold", "images", *classes, "drivers"]]
    said = (
        f"{len(frame)} drivers in {len(each)} folds: a driver lies in one fold alone, so that no model is scored on anybody it "
        "has learnt from. Images of each class:"
    )
    whole = Folded("Every driver", [blocks.table(frame, {})])
    return Section("folds", "Folds", "Folds", [Text(said), blocks.table(summed, {}, ("drivers",)), whole])


def _named(drivers: "pd.Series[str]") -> str:
    """The drivers of a fold, as far as a cell has room for them."""
    rest = len(drivers) - NAMED
    return " ".join(drivers[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def pictures(found: Findings) -> Section:
    """Contact sheets of augmentation and of the views."""
    parts: list[Block] = [*found.pictures, *found.no_pictures]
    if found.pictures:
        parts.append(
            Text("These are photos of the data set: its terms say whether the page may be passed on with them.")
        )
    return Section("pictures", "What networks see", "Pictures", parts)


def making(found: Findings) -> Section:
    """Times and settings of each run."""
    if not found.runs:
        return Section(
            "making",
            "Settings and times",
            "Settings",
            [Missing("No run is there.", found.command("train", "MODEL=<model>"))],
        )
    said = "What differs from the defaults (docs/settings.md has all), what each run was made with, and what its folds took."
    return Section(
        "making",
        "Settings and times",
        "Settings",
        [Text(said), *(_made(run) for run in sorted(found.runs, key=by_loss))],
    )


def _made(run: RunFacts) -> Folded:
    forms = {"minutes": blocks.minutes, "of training": blocks.minutes, "ms per step": blocks.known("{:.0f}".format)}
    facts = [[key, value] for key, value in run.made_with.items()]
    lines = [list(line.split(": ", 1)) for line in run.settings]
    parts: list[Block] = [Table(["setting", "here"], lines, frozenset({1}))]
    parts += [Table(["made with", ""], facts, frozenset({1}))] if facts else []
    parts += [blocks.table(run.times, forms)] if len(run.times) else [Missing("No fold is finished.")]
    took = f", {run.minutes:.1f} minutes" if run.finished else ""
    return Folded(f"{run.name}: {run.finished} of {run.fits} folds{took}", parts)
