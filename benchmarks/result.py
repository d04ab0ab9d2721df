"""A result of the bench, one figure of ours against a baseline or a limit: as JSON, as a line of text, as a line of a page."""

import csv
import io
import os
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.timing import Spread, Timing, speed
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json, write_text
from driverwatch.io.manifests import provenance, read_json

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
HEADER = ("row", "against", "figure", "least to most", "target", "", "seconds, ours and theirs")
MADE = ("command", "commit", "machine", "load_before", "load_after", "versions")  # further columns of the CSV
IDLE_LOAD = 0.25  # of a core: what a machine that does nothing else may be busy with before the bench starts


@dataclass(frozen=True)
class Result:
    """What was measured, and which way is better; docs/dev/benchmarks.md explains each row.

    Args:
        row: the family it belongs to, as BENCHMARKS= names it.
        against: the other side.
        better: which way is.
        target: the least (or most) that is wanted; None: nothing is.
        figure: None where it could not be measured.
        timings: of each side.
        facts: whatever else was counted.
        skipped: why there is no figure.
    """

    row: str
    against: str
    better: Literal["higher", "lower"]
    target: float | None = None
    figure: Spread | None = None
    timings: dict[str, Timing] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None where there is no target or no figure."""
        if self.target is None or self.figure is None:
            return None
        return self.figure.median >= self.target if self.better == "higher" else self.figure.median <= self.target

    @property
    def entry(self) -> dict[str, Any]:
        """JSON-able, with every repetition's seconds."""
        figure = None if self.figure is None else self.figure._asdict()
        return {"key": f"{self.row}: {self.against}", **asdict(self), "figure": figure, "met": self.met}


class Baseline(NamedTuple):
    """One of several sides that ours is timed in turn with."""

    side: str  # its name among the timings
    against: str
    target: float  # of our images per second over its


def beside(row: str, baselines: Iterable[Baseline], timed: dict[str, Timing], facts: dict[str, Any]) -> list[Result]:
    """A result for each baseline at the same work: our images per second (`timed["ours"]`) over its."""
    return [
        Result(row, against, "higher", target, speed(timed["ours"], timed[side]),
               {name: timed[name] for name in ("ours", side)}, facts)
        for side, against, target in baselines
    ]  # fmt: skip


def once(value: float) -> Spread:
    """The spread of a figure that was measured once."""
    return Spread(value, value, value)


def load() -> float:
    """Processes that wanted a core in the last minute."""
    return os.getloadavg()[0]


def busy_warning(before: float) -> str | None:
    """What to say of a machine that was busy before anything was measured."""
    if before <= IDLE_LOAD * (os.cpu_count() or 1):
        return None
    return f"the machine is busy (load {before:.1f} on {os.cpu_count()} cores): sides are timed in turn, but ratios will be noisy"


def keep(path: Path, results: list[Result], asked: dict[str, Any], loads: tuple[float, float]) -> list[dict[str, Any]]:
    """All entries of the JSON at `path`, after the results' rows in it were replaced, each with what it was measured under.

    Args:
        asked: what was asked for, by option.
        loads: before and after measuring.
    """
    before = read_json(path).get("lines", []) if path.is_file() else []
    made = {"asked": asked, "load_average": list(loads), **provenance()}
    rows = {result.row for result in results}
    entries = [entry for entry in before if entry["row"] not in rows]
    entries += [{**result.entry, "made": made} for result in results]
    write_json(path, {"lines": entries})
    return entries


def cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One entry as text, `HEADER`'s columns."""
    figure, row = entry["figure"], (entry["row"], entry["against"])
    target = f"{entry['better']} is better"
    if entry["target"] is not None:
        target = f"at {'least' if entry['better'] == 'higher' else 'most'} {entry['target']:g}"
    if figure is None:
        return (*row, "-", "-", target, "not measured", entry["skipped"] or "")
    timings = entry["timings"].items()
    ranged = f"{_number(figure['low'])} to {_number(figure['high'])}" if timings else "once"
    seconds = ", ".join(f"{name} {statistics.median(taken['seconds']):.3g}" for name, taken in timings)
    met = {True: "met", False: "NOT MET", None: ""}[entry["met"]]
    said = seconds or _sizes(entry["facts"])
    return (*row, _number(figure["median"]), ranged, target, met, said + _losses(entry["facts"]))


def _losses(facts: dict[str, Any]) -> str:
    """Median log losses of both sides, of a result that has them."""
    found = facts.get("log_loss", {}).items()
    return "".join(f"; log loss of {name} {statistics.median(losses):.4f}" for name, losses in found)


def _sizes(facts: dict[str, Any]) -> str:
    """Seconds and memory at each size, of a result that has several."""
    if "exponent_of_memory" not in facts:
        return ""
    found = zip(facts["images"], facts["seconds"], facts["MiB"], strict=True)
    each = "; ".join(f"{images:,}: {seconds:g} s, {memory:g} MiB" for images, seconds, memory in found)
    return f"{each} (memory's exponent {facts['exponent_of_memory']:.2f})"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def table(entries: list[dict[str, Any]]) -> str:
    """Entries as an aligned table."""
    return aligned([HEADER, *map(cells, entries)])


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Cells as text, columns below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def section(lines: Sequence[Sequence[str]]) -> str:
    """Lines of the CSV as a Markdown table, `HEADER`'s columns without the seconds."""
    shown = len(HEADER) - 1
    cut = [HEADER[:shown], ("---",) * shown, *(line[:shown] for line in lines)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in cut)


def bookkeeping(lines: Sequence[Sequence[str]]) -> str:
    """Lines as CSV: `HEADER`'s columns, and what they were measured on (`MADE`)."""
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    written.writerow((*HEADER[:5], "met", "seconds", *MADE))
    written.writerows(lines)
    return text.getvalue()


def _made(made: dict[str, Any]) -> tuple[str, ...]:
    """`MADE`'s columns."""
    words = " ".join(f"{key.upper()}={shlex.quote(str(value))}" for key, value in made["asked"].items() if value)
    before, after = made["load_average"]
    versions = ", ".join(
        f"{name} {made['versions'][name]}" for name in ("tensorflow", "keras") if name in made["versions"]
    )
    machine = f"{made['cores']} cores ({made['machine']})"
    return f"make bench {words}", str(made["commit"]), machine, f"{before:.1f}", f"{after:.1f}", versions


def document(path: Path, entries: list[dict[str, Any]]) -> None:
    """Put entries between the markers of a page, and all about them into the CSV of the page's name beside it.

    Rows of that CSV that are not among the entries, as they were measured elsewhere, stay in both.

    Raises:
        InputError: no such page, or not one with both markers.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(
            f"{path}: expected a page with {BEGIN} and {END}, to put the table between; restore it (git checkout)"
        )
    lines = [[*cells(entry), *_made(entry["made"])] for entry in entries]
    rows = {line[0] for line in lines}
    lines = [line for line in documented(path) if line[0] not in rows] + lines
    write_text(path, f"{before}{BEGIN}\n\n{section(lines)}\n\n{END}{after}")
    write_text(path.with_suffix(".csv"), bookkeeping(lines))


def documented(path: Path) -> list[list[str]]:
    """Lines of the CSV beside a page, without its header; none where there is no such file."""
    table = path.with_suffix(".csv")
    return list(csv.reader(io.StringIO(table.read_text(encoding="utf-8"))))[1:] if table.is_file() else []
