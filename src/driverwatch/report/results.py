"""The page's first half: the verdict, submissions, runs, and where their loss lies by driver and class."""

from typing import Any

import pandas as pd

from driverwatch.report import blocks, charts
from driverwatch.report.blocks import (
    Block,
    Card,
    Cards,
    Chart,
    Folded,
    Grid,
    Group,
    Missing,
    Section,
    Table,
    Text,
    interval,
)
from driverwatch.report.charts import Dot
from driverwatch.report.findings import Findings, RunFacts, Scored, Submission, by_loss

WARNING = (
    "The board's losses are of other drivers than those here, and of models that learnt from the whole training set: "
    "they say where the competition ended, not what these runs would have scored there."
)
MOST = 60  # lines of a heat map; groups of near-duplicates, where no driver is named, come in thousands
OPEN = 2  # confusion matrices that are seen at once
DRIVERS = "drivers drawn anew 10,000 times"
LEAD = "Each cell leads to its photos in the review page, which lies beside this file."
NO_LEAD = "Once there is a review page, each cell leads to its photos. Make it, then this report again:"
KEYS = {"driver": "driver", "class": "true"}  # what the review page calls them


def verdict(found: Findings) -> Section:
    """What a reader wants first."""
    run, made = found.best, found.best_submission
    cards = [*([_run_card(run)] if run else []), *([_submission_card(made, found.absent(made))] if made else [])]
    parts: list[Block] = [Cards([*cards, *_size(run), _nothing(found)])]
    if run is None:
        parts.append(_no_score(found))
    said = [WARNING] if len(found.board) > 1 else []
    if any(not bar.confirmed for bar in found.board):
        said.append("Unconfirmed: no source that we could read states this figure.")
    if len(found.scored) > 1:
        said.append(f"The best of {len(found.scored)} runs is flattered a little by having been chosen.")
    words: list[Block] = [Text(sentence) for sentence in said]
    if lines := _standing(found, run, made):
        caption = f"Log loss, lower is better; bars: 95 % intervals, {DRIVERS}. Hollow: losses from elsewhere."
        words = [Grid([charts.dots(lines, caption, "log loss", log=True), *([Group(words)] if words else [])])]
    return Section("verdict", "Verdict", "Verdict", parts + words)


def _run_card(run: Scored) -> Card:
    note = f"{run.name}, {run.views}. 95 % over drivers: {interval(run.low, run.high)}; {run.right:.1%} right"
    return Card("Best run, log loss out of fold", f"{run.loss:.3f}", note)


def _submission_card(made: Submission, absent: list[str]) -> Card:
    note = f"{made.name}: {made.members}" + (", which is not among the runs here" if absent else "")
    if made.low == made.low:
        note += f". 95 % over drivers: {interval(made.low, made.high)}"
    elif made.hope[0] == made.hope[0]:
        note += f". Hoped for on new drivers ({made.hope[2]:.0%}): {interval(*made.hope[:2])}"
    return Card("Best submission, log loss out of fold", f"{made.loss:.3f}", note)


def _size(run: Scored | None) -> list[Card]:
    if run is None:
        return []
    return [
        Card(
            "Scored on", f"{run.images:,} images", f"of {len(run.drivers)} drivers whose labels the model was not given"
        )
    ]


def _nothing(found: Findings) -> Card:
    bar = found.board[-1]
    return Card("Knowing nothing", f"{bar.log_loss:.3f}", bar.who)


def _no_score(found: Findings) -> Missing:
    begun = [run for run in found.runs if not run.unscored and run.finished < run.fits]
    if begun:
        far = ", ".join(f"{run.name} ({run.finished} of {run.fits} folds)" for run in begun)
        return Missing(f"No run has an out-of-fold score yet; begun: {far}.", found.command("train", "MODEL=<model>"))
    return Missing("No run has an out-of-fold score yet.", found.command("train", "MODEL=<model>"))


def _standing(found: Findings, run: Scored | None, made: Submission | None) -> list[Dot]:
    """The best run and submission among the board's losses, lowest first; of the board alone nothing is drawn."""
    lines = [Dot(f"best run: {run.name}, {run.loss:.3f}", run.loss, run.low, run.high)] if run else []
    if made:
        lines.append(Dot(f"best submission: {made.name}, {made.loss:.3f}", made.loss, made.low, made.high, "s"))
    if not lines:
        return []
    for bar in found.board:
        unsure = "" if bar.confirmed else " [unconfirmed]"
        lines.append(Dot(f"{bar.who}{unsure}, {bar.log_loss:.3f}", bar.log_loss, sign="D"))
    return sorted(lines, key=lambda line: line.value)


def submissions(found: Findings) -> Section:
    """Every submission with what its JSON says of it."""
    make = found.command("ensemble")
    if not found.submissions:
        parts: list[Block] = [Missing("No submission has been written.", make)]
        return Section("submissions", "Submissions", "Submissions", parts)
    ordered = sorted(found.submissions, key=lambda made: (made.loss != made.loss, made.loss, made.name))
    best = found.best_submission
    said = (
        "Out of fold: of single fold models, and nested (fitted on the other folds) wherever something was fitted. "
        "Hoped for: what single fold models may lose on drivers nobody has seen, said before Kaggle says it."
    )
    forms = {"out of fold": blocks.loss, "right": blocks.share}
    known = [made for made in ordered if made.loss == made.loss]
    rank = next((number for number, made in enumerate(known) if made is best), None)
    parts = [Text(said)]
    for chosen, place in ((known, rank), ([made for made in ordered if made not in known], None)):
        frame = blocks.told(pd.DataFrame([_submission_line(made, found.absent(made)) for made in chosen]))
        made = blocks.table(frame, forms, ("members", "steps", "notes"), place)
        title = f"{len(chosen)} without a score of their own"
        parts += ([made] if chosen is known else [Folded(title, [made])]) if chosen else []
    return Section("submissions", "Submissions", "Submissions", parts)


def _submission_line(made: Submission, absent: list[str]) -> dict[str, object]:
    low, high, level = made.hope
    notes = [made.notes] * bool(made.notes) + ["selected on held-out drivers"] * made.selected_on
    notes += [f"not among the runs here: {', '.join(absent)}"] * bool(absent)
    return {
        "submission": made.name,
        "out of fold": made.loss,
        "95 % over drivers": interval(made.low, made.high),
        "hoped for": f"{interval(low, high)} ({level:.0%})" if low == low else blocks.EMPTY,
        "right": made.right,
        "public": made.public or blocks.EMPTY,
        "private": made.private or blocks.EMPTY,
        "members": made.members,
        "steps": made.steps,
        "notes": "; ".join(notes) or blocks.EMPTY,
        "commit": made.commit or blocks.EMPTY,
    }


def runs(found: Findings) -> Section:
    """Every run there is: scored, not scored, not finished, not readable."""
    make, parts = found.command("train", "MODEL=<model>"), list[Block]()
    if not found.runs:
        parts.append(Missing("No run is there.", make))
    else:
        rows = [_run_line(run, found) for run in sorted(found.runs, key=by_loss)]
        best = next((number for number, row in enumerate(rows) if found.best and row["run"] == found.best.name), None)
        forms = {"log loss": blocks.loss, "right": blocks.share, "minutes": blocks.minutes}
        parts.append(blocks.table(pd.DataFrame(rows), forms, ("notes",), best))
        parts.append(Text(f"Log loss out of fold, clipped as submissions are; intervals: {DRIVERS}."))
    if found.scored:
        views = [made.all_views.assign(run=made.name) for made in found.scored]
        frame = pd.concat(views)[["run", "views", "log loss", "low", "high", "right"]]
        forms = {"log loss": blocks.loss, "low": blocks.loss, "high": blocks.loss, "right": blocks.share}
        parts.append(Folded("Every view set of every run", [blocks.table(frame, forms, ())]))
    if found.unreadable:
        lines = [[name, reason] for name, reason in found.unreadable]
        parts += [Text("Not readable, and left out of everything here:"), Table(["name", "why"], lines, frozenset({1}))]
    return Section("runs", "Runs", "Runs", parts)


def _run_line(run: RunFacts, found: Findings) -> dict[str, object]:
    made, unknown = run.scored, float("nan")
    notes = ["selected on: its epoch was chosen on the held-out drivers, which flatters"] * run.selected_on
    notes += [f"not scored: {run.unscored}"] * bool(run.unscored)
    if run.finished < run.fits:
        again = found.command("train", run.again)
        notes.append(f"not finished: {run.finished} of {run.fits} folds; {again} goes on")
    notes += [run.problem] * bool(run.problem) + list(made.problems if made else ())
    return {
        "run": run.name,
        "views": made.views if made else blocks.EMPTY,
        "log loss": made.loss if made else unknown,
        "95 % over drivers": interval(made.low, made.high) if made else blocks.EMPTY,
        "right": made.right if made else unknown,
        "minutes": run.minutes if run.finished else unknown,
        "commit": run.commits or blocks.EMPTY,
        "notes": "; ".join(notes) or blocks.EMPTY,
    }


def by_driver(found: Findings) -> Section:
    """Heat maps: drivers by runs, drivers by classes of the best run."""
    if found.best is None:
        return Section("drivers", "Loss by driver", "Drivers", [_no_score(found)])
    way = Text(LEAD) if found.review else Missing(NO_LEAD, found.command("review"))
    return Section("drivers", "Loss by driver", "Drivers", [way, *_maps(found, "driver")])


def by_class(found: Findings) -> Section:
    """Heat map: classes by runs."""
    return Section("classes", "Loss by class", "Classes", _maps(found, "class") if found.best else [_no_score(found)])


def _maps(found: Findings, kind: str) -> list[Block]:
    scored, best = found.scored, found.best
    assert best is not None
    ranked = [best, *(made for made in scored if made is not best)]
    frame = pd.DataFrame({made.name: made.drivers if kind == "driver" else made.classes for made in ranked})
    frame = frame.reindex(list(found.classes)) if kind == "class" else frame.sort_index()
    numbers = {name: str(number) for number, name in enumerate(frame.columns, start=1)}
    said = "; ".join(f"{number}: {name}" for name, number in numbers.items())
    shown, some = worst(frame, best.name)
    caption = f"Log loss of each {kind}{some} by run, the best run first. {said}. The stronger the colour, the worse."
    leads = found.leads(frame, lambda line, name: {"run": name, KEYS[kind]: line})
    data = blocks.labelled(frame, kind, blocks.loss, leads)
    maps: list[Block] = [
        charts.heat_map(shown.rename(columns=numbers), caption, kind, data, links=_of(leads, shown.index))
    ]
    if kind == "class":
        meanings = [[name, meaning] for name, meaning in found.classes.items()]
        return [Grid([*maps, Table(["class", "what the driver does"], meanings, frozenset({1}))])]
    caption = f"Log loss of each driver{some} and class by {best.name}. A dash: no such image."
    leads = found.leads(best.both, lambda line, name: {"run": best.name, "driver": line, "true": name})
    data = blocks.labelled(best.both, "driver", blocks.loss, leads)
    both = charts.heat_map(best.both.reindex(shown.index), caption, "driver", data, links=_of(leads, shown.index))
    return [Grid([*maps, both])]


def _of(leads: pd.DataFrame | None, lines: "pd.Index[Any]") -> pd.DataFrame | None:
    return None if leads is None else leads.reindex(lines)


def worst(frame: pd.DataFrame, by: str) -> tuple[pd.DataFrame, str]:
    """As many lines as a chart has room for, the highest in a column, in the frame's order; and that in words."""
    if len(frame) <= MOST:
        return frame, ""
    chosen = frame[by].sort_values(ascending=False, kind="stable").index[:MOST]
    return frame[frame.index.isin(chosen)], f" (of the {MOST} worst among {len(frame)})"


def confusions(found: Findings) -> Section:
    """The best run's confusion matrix; the others' on demand."""
    best = found.best
    if best is None:
        return Section("confusions", "Confusions", "Confusions", [_no_score(found)])
    ranked = [best, *(made for made in found.scored if made is not best)]
    parts: list[Block] = [Text(LEAD)] if found.review else []
    parts.append(Grid([_confusion(found, made) for made in ranked[:OPEN]]))
    if others := ranked[OPEN:]:
        parts.append(Folded(f"Of {len(others)} more", [Grid([_confusion(found, made) for made in others])]))
    return Section("confusions", "Confusions", "Confusions", parts)


def _confusion(found: Findings, made: Scored) -> Chart:
    counts = made.confusion
    shares = counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0) * 100
    caption = (
        f"{made.name}: of the images of each class (lines), how many percent it took for which (columns); empty: none. "
        "The table has the counts."
    )
    leads = found.leads(counts, lambda line, name: {"run": made.name, "true": line, "says": name})
    data = blocks.labelled(counts, "true class", blocks.plain, leads)
    return charts.heat_map(shares, caption, "true class", data, _percent, 100.0, leads)


def _percent(value: float) -> str:
    if value != value:
        return blocks.EMPTY
    return "" if value == 0 else "<1" if value < 0.5 else f"{value:.0f}"
