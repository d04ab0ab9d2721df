"""`make report`: one HTML file of whatever a data set has; `report.html` lays out the tables and charts that are made here."""

import time
from collections.abc import Callable
from itertools import starmap
from pathlib import Path
from typing import Any

import pandas as pd

from driverwatch.config.dataset import class_columns
from driverwatch.data.context import Context
from driverwatch.errors import InputError
from driverwatch.experiments.ablations import Ablation
from driverwatch.io.atomic import write_text
from driverwatch.io.console import close
from driverwatch.io.html import (
    EMPTY,
    Chart,
    Form,
    HeatTable,
    Link,
    Missing,
    Table,
    heat_table,
    interval,
    known,
    loss,
    render,
    share,
    short_loss,
    table,
    without_unknown,
)
from driverwatch.report import charts
from driverwatch.report.charts import Dot
from driverwatch.report.collect_runs import SubmissionState
from driverwatch.report.example_images import fragment
from driverwatch.report.report_data import Report
from driverwatch.report.review_page import keep_review
from driverwatch.report.score_runs import RunReport, RunScores

MAX_LINES = 60  # of a heat table; near-duplicate groups, where no driver is named, come in thousands
MAX_DRIVERS = 40  # named in a cell
BOOTSTRAP = "bootstrap over drivers (10,000 resamples)"


def write_report(context: Context) -> Path:
    """Write `<build>/report/index.html` and the review page that it links to, and return its path."""
    start, path = time.monotonic(), context.places.page("index")
    report = Report(context)
    if report.scored:
        try:
            report.review = keep_review(context).name
        except (InputError, OSError) as error:
            report.no_review = str(error)
    write_text(path, render("report.html", report=report, **sections(report)))
    counts = [_counted(len(report.runs), "run"), _counted(len(report.submissions), "submission")]
    counts += ["review.html beside it"] * (report.review is not None)
    counts += [f"{_counted(len(report.unreadable), 'thing')} not readable"] if report.unreadable else []
    words = f"{', '.join(counts)}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser"
    close(path, words, time.monotonic() - start, then=_next(report, context.settings.slug is not None))
    return path


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _next(report: Report, kaggle: bool) -> list[str]:
    """The command that makes the next thing that a report would show."""
    best = report.best_submission
    if report.empty:
        return [one.command for one in report.empty]
    if unfinished := [run for run in report.runs if not run.state.finished]:
        return [report.command("train", unfinished[0].resume)]
    if report.best is None:
        return [report.command("train", "MODEL=<model>")]
    if best is None or report.absent(best):
        return [report.command("ensemble")]
    return [report.command("submit", f"FILE=submissions/{report.dataset}/{best.name}.csv", 'MESSAGE="..."')] * kaggle


def sections(report: Report) -> dict[str, Any]:
    """What the template shows: a value for each section, whose parts are tables, charts, `Missing` or None."""
    return {
        "bootstrap": BOOTSTRAP,
        "interval": interval,
        "no_score": _no_score(report),
        "standing": _standing(report),
        "submissions": _submissions(report),
        "runs": _runs(report),
        "drivers": _maps(report, "driver"),
        "class_losses": _maps(report, "class"),
        "confusions": [_confusion(report, made) for made in _ranked(report)],
        "learning": _learning(report),
        "calibration": _calibration(report),
        "ablations": report.ablations
        if isinstance(report.ablations, Missing)
        else [*starmap(_ablation, report.ablations.items())],
        "unmeasured": Table(["ablation"], [[name] for name in report.unmeasured]),
        "folds": _folds(report),
        "settings": [_settings(run) for run in report.runs],
    }


def _ranked(report: Report) -> list[RunScores]:
    """Runs with scores, the best one first."""
    return sorted(report.scored, key=lambda made: made is not report.best)


def _no_score(report: Report) -> Missing:
    started = [run for run in report.runs if not run.state.unscored and not run.state.finished]
    far = ", ".join(f"{run.name} ({len(run.state.done)} of {len(run.state.folds)} folds)" for run in started)
    words = "No run has an out-of-fold score yet" + (f"; started: {far}." if started else ".")
    return Missing(words, report.command("train", "MODEL=<model>"))


def _standing(report: Report) -> Chart | None:
    """The best run and submission among the leaderboard's losses, lowest first; the leaderboard alone is not drawn."""
    run, made = report.best, report.best_submission
    lines = list[Dot]()
    if run:
        label = f"best run of {len(report.honest)}: {run.name}, {run.loss:.3f}"
        lines.append(Dot(label, run.loss, run.low, run.high))
    if made:
        label = f"best submission of {len(report.candidates)}: {made.name}, {made.loss:.3f}"
        lines.append(Dot(label, made.loss, *made.interval, "s"))
    if not lines:
        return None
    for each in report.baselines:
        unconfirmed = "" if each.confirmed else " [unconfirmed]"
        lines.append(Dot(f"{each.team}{unconfirmed}, {each.log_loss:.3f}", each.log_loss, sign="D"))
    caption = f"Log loss, lower is better; bars: 95 % intervals, {BOOTSTRAP}. Hollow: losses from elsewhere."
    return charts.dots(sorted(lines, key=lambda line: line.value), caption, "log loss", log=True)


def _submissions(report: Report) -> dict[str, Table | None]:
    """Submissions with a score, the lowest loss first, those without, and what `make submissions` wrote."""
    ordered = sorted(report.submissions, key=lambda made: (made.loss != made.loss, made.loss, made.name))
    kinds: dict[str, list[SubmissionState]] = {"scored": [], "unscored": [], "diagnostics": []}
    for made in ordered:
        kinds["diagnostics" if made.diagnostic else "unscored" if made.loss != made.loss else "scored"].append(made)
    return {kind: _submission_table(chosen, report) for kind, chosen in kinds.items()}


def _submission_table(chosen: list[SubmissionState], report: Report) -> Table | None:
    if not chosen:
        return None
    best = next((number for number, made in enumerate(chosen) if made is report.best_submission), None)
    frame = pd.DataFrame([_submission_line(made, report) for made in chosen])
    forms: dict[str, Form | str] = {"OOF log loss": loss, "test log loss": loss, "accuracy": share}
    return table(without_unknown(frame), forms, ("members", "steps", "notes"), best)


def _submission_line(made: SubmissionState, report: Report) -> dict[str, object]:
    (low, high), (least, most, level) = made.interval, made.prediction_interval
    notes = [reason for reason in made.stale if not reason.endswith(" is gone")]
    if "out_of_fold_log_loss" not in made.manifest:
        notes.append(str(made.manifest.get("out_of_fold") or "a fold's models alone: not scored"))
    notes += ["optimistic: epochs chosen on the validation drivers"] * made.optimistic
    notes += [f"not among the runs here: {', '.join(absent)}"] if (absent := report.absent(made)) else []
    return {
        "submission": made.name,
        "OOF log loss": made.loss,
        "95 % over drivers": interval(low, high),
        "prediction interval": f"{interval(least, most)} ({level:.0%})" if least == least else EMPTY,
        "accuracy": made.accuracy,
        "test log loss": report.tested.get(f"{made.name}.csv", float("nan")),
        "public": made.public or EMPTY,
        "private": made.private or EMPTY,
        "members": made.members,
        "steps": ", ".join(made.steps),
        "notes": "; ".join(notes) or EMPTY,
        "commit": str(made.manifest.get("commit") or EMPTY),
    }


def _runs(report: Report) -> dict[str, Table | None]:
    """Every run, every TTA set of every run, and what cannot be read."""
    best = next((place for place, run in enumerate(report.runs) if run.scores and run.scores is report.best), None)
    frame = pd.DataFrame([_run_line(run, report) for run in report.runs])
    tta = [made.all_tta.assign(run=made.name) for made in report.scored]
    columns = ["run", "tta", "log loss", "low", "high", "accuracy"]
    forms: dict[str, Form | str] = {"accuracy": share, "minutes": "{:.1f}"}
    forms |= dict.fromkeys(("log loss", "low", "high"), loss)
    unreadable = Table(["name", "why"], [list(pair) for pair in report.unreadable], frozenset({1}))
    return {
        "all": table(frame, forms, ("notes",), best) if report.runs else None,
        "tta": table(pd.concat(tta)[columns], forms) if tta else None,
        "unreadable": unreadable if report.unreadable else None,
    }


def _run_line(run: RunReport, report: Report) -> dict[str, object]:
    made, state, unknown = run.scores, run.state, float("nan")
    notes = ["optimistic: its epoch was chosen on the validation drivers"] * state.chosen_on_validation
    notes += [f"not scored: {state.unscored}"] if state.unscored else []
    if not state.finished:
        resume = report.command("train", run.resume)
        notes.append(f"not finished: {len(state.done)} of {len(state.folds)} folds; {resume} resumes it")
    notes += [run.problem] if run.problem else []
    return {
        "run": run.name,
        "tta": made.tta if made else EMPTY,
        "log loss": made.loss if made else unknown,
        "95 % over drivers": interval(made.low, made.high) if made else EMPTY,
        "accuracy": made.accuracy if made else unknown,
        "minutes": run.minutes if state.done else unknown,
        "commit": run.commits or EMPTY,
        "notes": "; ".join(notes) or EMPTY,
    }


def _link(report: Report, section: str, key: Callable[[str, str], dict[str, str]]) -> Link | None:
    """The review page's address of a cell, filtered by what `key` makes of its line and column; None: there is no page."""
    if report.review is None:
        return None
    return lambda line, column: f"{report.review}{fragment(**key(line, column), **{'from': section})}"


def _maps(report: Report, kind: str) -> list[HeatTable]:
    """Log loss by driver or class and run, the worst first; drivers also by class of the best run."""
    best, ranked = report.best, _ranked(report)
    if best is None:
        return []
    frame = pd.DataFrame({made.name: made.drivers if kind == "driver" else made.classes for made in ranked})
    shown, some = worst(frame, best.name)
    section = "drivers" if kind == "driver" else "confusions"
    key = {"driver": "driver", "class": "true"}[kind]  # as the review page calls it
    link = _link(report, section, lambda line, run: {"run": run, key: line})
    caption = f"Log loss of each {kind}{some} by run, the best run first; the highest of {best.name} on top."
    found = [heat_table(shown, caption, (kind, ""), short_loss, _title(report, frame), link, report.classes)]
    if kind == "driver":
        link = _link(report, section, lambda line, name: {"run": best.name, "driver": line, "true": name})
        caption = f"Log loss of each driver{some} and class by {best.name}. A dash: no such image."
        both = best.both.reindex(shown.index)
        names = _title(report, best.both)
        found.append(heat_table(both, caption, ("driver", "class"), short_loss, names, link, report.classes))
    return found


def worst(frame: pd.DataFrame, by: str) -> tuple[pd.DataFrame, str]:
    """As many lines as a page has room for, the highest in a column first; and that in words."""
    some = f" (the {MAX_LINES} worst of {len(frame)})" if len(frame) > MAX_LINES else ""
    return frame.sort_values(by, ascending=False, kind="stable").head(MAX_LINES), some


def _title(report: Report, values: pd.DataFrame) -> Link:
    """What a cell says in full: its line, its column and four places of its loss."""
    lines, columns = list(map(str, values.index)), list(map(str, values.columns))

    def title(line: str, name: str) -> str:
        found = values.to_numpy()[lines.index(line), columns.index(name)]
        return ", ".join(report.classes.get(key) or key for key in (line, name)) + f": {loss(found)}"

    return title


def _confusion(report: Report, made: RunScores) -> HeatTable:
    counts = made.confusion
    sums = counts.sum(axis=1)
    percent = counts.div(sums.replace(0, float("nan")), axis=0) * 100
    caption = f"{made.name}: how many percent of the images of each class (lines) it took for which (columns)."

    def title(line: str, name: str) -> str:
        is_it, taken = (report.classes[key] or key for key in (line, name))
        what = "recognised" if line == name else f"taken for {taken}"
        mistaken = int(counts[name].to_dict()[line])
        return f"{is_it} {what}: {mistaken} of {int(sums.to_dict()[line])}"

    link = _link(
        report, "confusions", lambda line, name: {"run": made.name, "true": line, "says": name, "view": "grid"}
    )
    form = known(lambda value: "" if value == 0 else "<1" if value < 0.5 else f"{value:.0f}")
    return heat_table(percent, caption, ("is", "taken for"), form, title, link, report.classes, 100.0)


def _learning(report: Report) -> dict[str, Any]:
    """Learning curves of every run that kept a history; those of a single epoch as a table."""
    drawn = [run for run in report.runs if any(len(history) > 1 for history in run.histories.values())]
    curves = []
    for run in drawn:
        done = len(run.state.done)
        far = "" if run.state.finished else f", {done} of {len(run.state.folds)} folds finished"
        curves.append(charts.curves(run.histories, run.name, f"Loss by epoch of {run.name}{far}."))
    short = [run for run in report.runs if run not in drawn]
    frames = [history.assign(run=run.name, fold=fold) for run in short for fold, history in run.histories.items()]
    if not frames:
        return {"curves": curves, "one_epoch": None}
    names = {"loss": "training loss", "val_loss": "validation loss"}
    shown = pd.concat(frames)[["run", "fold", "epoch", *names]].rename(columns=names)
    return {"curves": curves, "one_epoch": table(shown, dict.fromkeys(names.values(), loss))}


def _calibration(report: Report) -> dict[str, Any]:
    """The best run's reliability diagram, every run's calibration error, and what blends and calibrations score."""
    best, chart, forms = report.best, None, dict.fromkeys(("nested CV", "in-sample", "ECE before", "ECE"), loss)
    if best is not None:
        caption = (
            f"{best.name}, {best.tta}: accuracy by confidence. Below the dashed line it is overconfident. "
            "Bars: standard error over drivers; bins of about equally many images."
        )
        title = f"calibration error {best.calibration_error:.3f}"
        chart = charts.reliability(best.reliability, title, caption)
    errors = [[made.name, made.tta, f"{made.calibration_error:.3f}", f"{made.loss:.4f}"] for made in report.scored]
    return {
        "chart": chart,
        "errors": Table(["run", "tta", "calibration error", "log loss"], errors),
        "blends": report.blends if isinstance(report.blends, Missing) else table(report.blends, forms),
    }


def _ablation(kind: str, rows: list[Ablation]) -> Chart:
    """What each ablation of a kind is worth."""
    lines = []
    for row in rows:
        difference, low, high = row.change
        lines.append(Dot(f"{row.ablation}, {difference:+.3f}", difference, low, high, "o" if row.kept else "D"))
    made = charts.dots(lines, kind, "difference in log loss", middle=0.0)
    cells = [
        {
            "ablation": row.ablation,
            "before": f"{row.before:.3f}",
            "after": f"{row.after:.3f}",
            "difference": f"{row.change[0]:+.3f}",
            "95 % over drivers": interval(row.change[1], row.change[2], "{:+.3f}"),
            "minutes": f"{row.minutes:.0f}",
            "adopted": "yes" if row.kept else "no",
            "why": row.why,
        }
        for row in rows
    ]
    return Chart(made.svg, kind, table(pd.DataFrame(cells), {}, ("ablation", "why")))


def _folds(report: Report) -> Missing | dict[str, Any]:
    """Drivers and images of each fold and class, and every driver's."""
    if isinstance(report.folds, Missing):
        return report.folds
    frame, classes = report.folds, class_columns(report.classes)
    each = frame.groupby("fold").agg({"driver": _named, "images": "sum", **dict.fromkeys(classes, "sum")})
    summed = each.reset_index().rename(columns={"driver": "drivers"})[["fold", "images", *classes, "drivers"]]
    names = {key: name for key, name in zip(classes, report.classes.values(), strict=True) if name}
    summed, drivers = (some.rename(columns=names) for some in (summed, frame))
    return {"folds": len(each), "summed": table(summed, {}, ("drivers",)), "drivers": table(drivers, {})}


def _named(drivers: "pd.Series[str]") -> str:
    """The drivers of a fold, as far as a cell has room for them."""
    rest = len(drivers) - MAX_DRIVERS
    return " ".join(drivers[:MAX_DRIVERS]) + (f" and {rest} more" if rest > 0 else "")


def _settings(run: RunReport) -> dict[str, Any]:
    """A run's settings, what it was made with, and what its folds took."""
    forms = {"minutes": "{:.1f}", "of training": "{:.1f}", "ms per step": "{:.0f}"}
    made_with = Table(["made with", "value"], [list(pair) for pair in run.made_with.items()], frozenset({1}))
    return {
        "run": run,
        "settings": Table(["setting", "here"], [line.split(": ", 1) for line in run.settings], frozenset({1})),
        "made_with": made_with if run.made_with else None,
        "times": table(run.times, forms) if len(run.times) else None,
    }
