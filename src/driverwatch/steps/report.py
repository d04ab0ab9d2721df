"""The report of a data set: one HTML file of whatever is built, with what is missing said in its place."""

import time
from math import log
from pathlib import Path
from typing import Any

import pandas as pd

from driverwatch.artifacts import provenance, read_json
from driverwatch.data.folds import FoldTable
from driverwatch.data.tables import numbers, read_csv
from driverwatch.dataset_settings import class_columns
from driverwatch.errors import InputError
from driverwatch.report.blocks import Missing, Picture
from driverwatch.report.findings import Bar, Findings, RunFacts, by_loss
from driverwatch.report.overview import page
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.specimens import specimens
from driverwatch.steps.submitted import submitted
from driverwatch.steps.survey import Survey
from driverwatch.training import run as runs
from driverwatch.wording import close
from driverwatch.writing import write_text


def write_report(context: Context) -> Path:
    """Write `<build>/report/index.html`, whatever is there to be told."""
    start, path = time.monotonic(), context.places.page("index")
    found = findings(context)
    write_text(path, page(found))
    broken = f", {_counted(len(found.unreadable), 'thing')} not readable" if found.unreadable else ""
    said = f"{_counted(len(found.runs), 'run')}, {_counted(len(found.submissions), 'submission')}{broken}"
    said += f", {path.stat().st_size / 1e6:.1f} MB; open it in a browser"
    close(path, said, time.monotonic() - start, then=_next(found, context.settings.slug is not None))
    return path


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _next(found: Findings, kaggle: bool) -> list[str]:
    """What makes the next thing that a report would tell of, and the page that it would lead to."""
    review = [found.command("review")] if found.scored and found.review is None else []
    best = found.best_submission
    if unfinished := [run for run in found.runs if run.finished < run.fits]:
        return [found.command("train", unfinished[0].again), *review]
    if found.best is None:
        return [found.command("train", "MODEL=<model>")]
    if best is None or found.absent(best):
        return [found.command("ensemble"), *review]
    send = found.command("submit", f"FILE=submissions/{found.dataset}/{best.name}.csv", 'MESSAGE="..."')
    return [send] * kaggle + review


def findings(context: Context) -> Findings:
    """Read and score all that is there; nothing of it need be."""
    survey = Survey(context)
    found = survey.runs()
    folds, digest = _folds(context)
    made, strange = submitted(context, digest)
    levers, unmeasured = _levers(context)
    pictures, no_pictures = _pictures(context, survey, found)
    classes = context.settings.classes
    guess = Bar(f"every class 1/{len(classes)}, for every image", log(len(classes)))
    return Findings(
        context.dataset,
        context.settings.title,
        classes,
        f"Made on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC at commit {provenance()['commit'] or 'unknown'}",
        [*(Bar(bar.who, bar.log_loss, bar.confirmed) for bar in context.settings.board), guess],
        found,
        [*dict.fromkeys([*survey.unreadable, *strange])],
        made,
        levers,
        unmeasured,
        _blends(context),
        folds,
        pictures,
        no_pictures,
        review.name if (review := context.places.page("review")).is_file() else None,
    )


def _folds(context: Context) -> tuple[pd.DataFrame | Missing, str | None]:
    """The fold file as it is (packs hold it against the photos), and its digest."""
    path, command = context.places.folds, f"make folds DATASET={context.dataset}"
    if not path.is_file():
        return Missing(f"{path}: no fold file.", command), None
    expected = ["driver", "fold", "images", *class_columns(context.settings.classes)]
    try:
        frame = read_csv(path, expected)[expected]
        frame[expected[1:]] = numbers(frame[expected[1:]], whole=True)
        frame = frame.astype(dict.fromkeys(expected[1:], "int64")).sort_values("driver", ignore_index=True)
    except InputError as error:
        return Missing(str(error), command), None
    except ValueError as error:
        return Missing(f"{path}: expected whole numbers beside each driver, got {error}.", command), None
    return frame, FoldTable(frame).digest


def _levers(context: Context) -> tuple[dict[str, pd.DataFrame] | Missing, list[str]]:
    path, command = context.places.result("levers"), f"make levers DATASET={context.dataset} TRAIN=1"
    try:
        found = read_json(path) if path.is_file() else {"rows": [], "unmeasured": []}
        frames: dict[str, list[dict[str, Any]]] = {}
        for row in found["rows"]:
            moved = dict(zip(("difference", "low", "high"), row["change"], strict=True))
            cells = {key: row[key] for key in ("lever", "before", "after", "minutes", "why")}
            frames.setdefault(row["kind"], []).append(cells | {"kept": "yes" if row["kept"] else "no"} | moved)
        unmeasured = [one["lever"] for one in found["unmeasured"]]
    except InputError as error:
        return Missing(str(error), command), []
    except (LookupError, TypeError, ValueError) as error:
        return Missing(f"{path}: expected what make levers writes, {error} is missing.", command), []
    if not frames:
        said = f"{path}: no lever has been measured on this data set."
        if not (named := CONFIGS / "levers" / f"{context.dataset}.yaml").is_file():
            said += f" Name some in {named} (statefarm_mini.yaml beside it is an example), then:"
        return Missing(said, command), unmeasured
    return {kind: pd.DataFrame(rows) for kind, rows in frames.items()}, unmeasured


def _blends(context: Context) -> pd.DataFrame | Missing:
    """What `make blends` wrote, line by line."""
    path, command = context.places.blends, f"make blends DATASET={context.dataset}"
    if not path.is_file():
        return Missing("Blends and calibrations have not been compared.", command)
    names = {"blend": "blend", "calibrate": "calibrated by", "fitted_here": "fitted here", "nested": "nested"}
    names |= {"ece_before": "ECE before", "ece": "ECE"}
    try:
        return pd.DataFrame(read_json(path)["blends"])[list(names)].rename(columns=names)
    except InputError as error:
        return Missing(str(error), command)
    except (LookupError, TypeError, ValueError) as error:
        return Missing(f"{path}: expected what make blends writes, {error} is missing.", command)


def _pictures(context: Context, survey: Survey, found: list[RunFacts]) -> tuple[list[Picture], list[Missing]]:
    """Of the best run that can be drawn, else of the first one whose pack is there."""
    command = f"make preview DATASET={context.dataset} MODEL=<model>"
    for facts in sorted(found, key=by_loss):
        run = runs.load(context.places.runs / facts.name)
        opened = survey.packs(run.settings.input.key)
        if not isinstance(opened, InputError) and len(opened[1]["train"].names) and run.settings.train.splits.scored:
            return specimens(context, run, opened[0], opened[1]["train"])
    return [], [Missing("No run is there whose packed photos are, so there is nothing to show here.", command)]
