"""The status as text: a line for each thing, below it why it is stale; as many columns as the terminal has room for."""

import textwrap
from collections.abc import Iterator

from driverwatch.errors import printable
from driverwatch.steps.context import Context
from driverwatch.steps.status import Status, status
from driverwatch.steps.status_made import MadeState
from driverwatch.steps.status_places import Kept, PackState
from driverwatch.steps.status_runs import FitState, RunState
from driverwatch.terminal import say
from driverwatch.wording import duration, painted, table, width

SHOWN = 12  # submissions; the others are counted
EACH = 6  # fits that are told one by one; of more, how many are how far
COLUMNS = {
    "run": False,
    "folds": False,
    "log loss": True,
    "± (folds)": True,
    "views": False,
    "took": True,
    "code": False,
}


def print_status(context: Context, as_json: bool) -> None:
    """Print what there is; nothing is written, and nothing that is broken ends it."""
    found = status(context)
    if as_json:
        say(found.as_json())
        return
    for line in lines(found):
        say(line)


def lines(found: Status) -> Iterator[str]:
    """Everything, a blank line between parts."""
    room = width()
    yield painted(f"{found.dataset}: {found.free_gigabytes:,.1f} GB free", "bold")
    yield from _places(found, room)
    yield ""
    yield from _runs(found.runs, room)
    yield from _made("submission", found.submissions, room)
    yield from _made("taught", found.taught, room)
    for problem in found.broken:
        yield from _why("broken", problem, room)
    if found.others and not found.runs:
        where = f"runs of {', '.join(found.others)} are here: make status DATASET={found.others[0]}"
        yield ""
        yield from _fact("elsewhere", where, room)
    if found.next:
        yield ""
        yield f"{painted('next', 'bold')}  {found.next}"


def _places(found: Status, room: int) -> Iterator[str]:
    photos, folds = found.photos, found.folds
    yield from _fact("photos", f"{photos.training:,} training, {photos.test:,} test in {photos.folder}", room)
    yield from _why("missing", photos.problem, room)
    if folds.digest:
        held = f"{len(folds.images)} folds, {folds.drivers} drivers, {sum(folds.images):,} images"
        yield from _fact("folds", f"{held}, digest {folds.digest[:12]}, {folds.file}", room)
    else:
        yield from _fact("folds", "none", room)
    yield from _why("stale" if folds.digest else "missing", folds.problem, room)
    for pack in found.packs:
        yield from _fact("pack", _pack(pack), room)
        yield from _all_why(pack.stale, pack.problem, room)
    for kept in found.features:
        yield from _fact("features", f"{kept.name}, {kept.megabytes:,.1f} MB", room)
        yield from _all_why(kept.stale, kept.problem, room)
    if found.trunks.files:
        yield from _fact("trunks", _kept(found.trunks), room)


def _fact(name: str, text: str, room: int) -> Iterator[str]:
    first, *rest = _wrapped(f"{name:8}  {text}", room, 10)
    yield first.replace(name, painted(name, "bold"), 1)
    yield from rest


def _wrapped(text: str, room: int, indent: int) -> list[str]:
    wide = max(min(room, 10**6), 2 * indent)
    return textwrap.wrap(text, wide, subsequent_indent=" " * indent, drop_whitespace=True, break_on_hyphens=False)


def _cut(line: str, room: int) -> str:
    """A line of a table, whose first columns stay however narrow it is."""
    return line if len(line) <= room else f"{line[: room - 1]}…"


def _pack(pack: PackState) -> str:
    left = f", {pack.left_out} left out as broken" if pack.left_out else ""
    return f"{pack.size}, {pack.images:,} images{left}, {pack.megabytes:,.1f} MB"


def _kept(kept: Kept) -> str:
    return f"{kept.files} cached outputs of frozen layers, {kept.megabytes:,.1f} MB, {kept.name}"


def _runs(runs: list[RunState], room: int) -> Iterator[str]:
    if not runs:
        yield "no run yet"
        return
    made, left_out = table(COLUMNS, [_row(run) for run in runs], ("run", "folds"), room)
    yield painted(_cut(made[0], room), "bold")
    for line, run in zip(made[1:], runs, strict=True):
        yield _cut(line, room)
        for reason in run.stale:
            yield from _why("stale", reason, room)
        for problem in run.problems:
            yield from _why("broken", problem, room)
        if run.differs:
            more = f", and {len(run.differs) - 3} more" if len(run.differs) > 3 else ""
            said = f"configs/models/{run.name}.yaml says otherwise today: {', '.join(run.differs[:3])}{more}"
            yield from _why("differs", said, room)
    shown = COLUMNS.keys() - set(left_out)
    legend = ["log loss: out of fold" + ", under the view set in [ ]" * ("views" in shown)]
    legend = legend if any(run.scored_by for run in runs) else []
    legend += ["! chosen on the held-out drivers"] if any(run.selected_on for run in runs) else []
    legend += ["> at work now"] if any(run.writer for run in runs) else []
    legend += ["* src/ was changed since"] if "code" in shown and any(run.older_code for run in runs) else []
    legend += [f"a wider terminal also shows {', '.join(left_out)}"] if left_out else []
    yield from _wrapped("; ".join(legend), room, 0)


def _row(run: RunState) -> list[str]:
    if run.problem:
        return [run.label, "broken", *[""] * (len(COLUMNS) - 2)]
    done = [fit for fit in run.fits if fit.state == "finished"]
    partly = " so far" if done and len(done) < len(run.fits) and run.log_loss is not None else ""
    commits = sorted({fit.commit for fit in done if fit.commit})
    return [
        run.label,
        fits(run.fits, run.writer is not None),
        "" if run.log_loss is None else f"{run.log_loss:.4f}{partly}" + "!" * run.selected_on,
        "" if run.standard_error is None else f"{run.standard_error:.4f}",
        " ".join(f"[{view}]" if view == run.scored_by else view for view in run.views),
        duration(sum(fit.seconds for fit in done)) if done else "",
        " ".join(commit[:8] + "+" * commit.endswith("+") + "*" * (commit in run.older_code) for commit in commits[:2]),
    ]


def fits(found: list[FitState], running: bool) -> str:
    """How far each fit is, in their order: `done`, `2/5` epochs, `predict`, `-`; `>` before the one that is at work."""
    if all(fit.state == "finished" for fit in found):
        return f"all {len(found)} done" if len(found) != 1 else "done"
    if len(found) > EACH:
        count = sum(fit.state == "finished" for fit in found)
        rest = [f"{fit.number}: {_fit(fit)}" for fit in found if fit.state not in ("finished", "not begun")]
        return ", ".join([f"{count} of {len(found)} done", *rest]) + (" >" if running else "")
    told = " ".join((">" if fit.writer else "") + _fit(fit) for fit in found)
    return told + (" >" if running and not any(fit.writer for fit in found) else "")


def _fit(fit: FitState) -> str:
    epochs = f"{fit.epoch}/{fit.epochs}"
    return {"finished": "done", "not begun": "-", "broken": "broken", "trained": "predict", "training": epochs}[
        fit.state
    ]


def _made(kind: str, made: list[MadeState], room: int) -> Iterator[str]:
    """A line each; below the table each reason once, with the names it holds for."""
    if not made:
        return
    yield ""
    columns = {kind: False, "log loss": True, "state": False, "uploaded": False, "of": False}
    rows = [_made_row(one) for one in made[:SHOWN]]
    told, _ = table(columns, rows, (kind, "log loss", "state"), room)
    yield painted(_cut(told[0], room), "bold")
    yield from (_cut(line, room) for line in told[1:])
    if len(made) > SHOWN:
        yield f"and {len(made) - SHOWN} more (JSON=1 names them all)"
    whose: dict[tuple[str, str], list[str]] = {}
    for one in made:
        for why in [("stale", reason) for reason in one.stale] + [("broken", one.problem)] * bool(one.problem):
            whose.setdefault((why[0], str(why[1])), []).append(one.name)
    for (word, reason), names in whose.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield from _why(word, f"{reason} ({', '.join(names[:4])}{more})", room)


def _made_row(one: MadeState) -> list[str]:
    loss = "" if one.log_loss is None else f"{one.log_loss:.4f}"
    state = "broken" if one.problem else "stale" if one.stale else "checked"
    return [one.name, loss, state, "; ".join(one.uploads), " ".join(one.runs)]


def _all_why(stale: list[str], problem: str | None, room: int) -> Iterator[str]:
    for reason in stale:
        yield from _why("stale", reason, room)
    yield from _why("broken", problem, room)


def _why(kind: str, reason: str | None, room: int) -> Iterator[str]:
    """A reason below what it is about, wrapped to the terminal."""
    if reason is None:
        return
    text = printable(" ".join(reason.split()), 2000)
    first, *rest = _wrapped(f"  {kind}: {text}", room, 4)
    yield first.replace(kind, painted(kind, "red" if kind in ("broken", "missing") else "yellow"), 1)
    yield from rest
