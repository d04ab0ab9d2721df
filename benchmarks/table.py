"""Lines on the terminal, in JSON, and in docs/performance.md between two markers."""

import os
import shlex
from pathlib import Path
from typing import Any

from benchmarks.result import Line
from driverwatch.artifacts import provenance, read_json
from driverwatch.errors import InputError
from driverwatch.writing import write_json, write_text

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
HEADER = ("row", "against", "figure", "least to most", "aim", "", "seconds, ours and theirs")
BUSY = 0.25  # of a core: what a machine that does nothing else may be busy with before we begin


def load() -> float:
    """Processes that wanted a core in the last minute."""
    return os.getloadavg()[0]


def warning(before: float) -> str | None:
    """What to say of a machine that was busy before anything was measured."""
    if before <= BUSY * (os.cpu_count() or 1):
        return None
    return f"the machine is busy (load {before:.1f} on {os.cpu_count()} cores): sides are timed in turn, but ratios will be noisy"


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """Lines that were measured before, by key."""
    return {entry["key"]: entry for entry in read_json(path).get("lines", [])} if path.is_file() else {}


def keep(path: Path, lines: list[Line], asked: dict[str, Any], load: tuple[float, float]) -> list[dict[str, Any]]:
    """Write lines into the JSON beside those of other rows, each with what it was measured under; all of them, in order.

    Args:
        asked: what was asked for, by option.
        load: before and after measuring.
    """
    there = kept(path)
    for row in {line.row for line in lines}:
        there = {key: entry for key, entry in there.items() if entry["row"] != row}
    made = {"asked": asked, "load_average": list(load), **provenance()}
    for line in lines:
        there[line.key] = {"key": line.key, **line.plain, "made": made}
    entries = list(there.values())
    write_json(path, {"lines": entries})
    return entries


def cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One line as text, `HEADER`'s columns."""
    if entry["figure"] is None:
        return (entry["row"], entry["against"], "-", "-", _aim(entry), "not measured", entry["skipped"] or "")
    figure, times = entry["figure"], entry["timings"].values()
    spread = "once" if not times else f"{_number(figure['low'])} to {_number(figure['high'])}"
    seconds = ", ".join(f"{name} {_median(taken):.3g}" for name, taken in entry["timings"].items())
    seconds = seconds or _sizes(entry["facts"])
    met = {True: "met", False: "NOT MET", None: ""}[entry["met"]]
    return (entry["row"], entry["against"], _number(figure["median"]), spread, _aim(entry), met, seconds)


def _sizes(facts: dict[str, Any]) -> str:
    """Seconds and memory at each size, of a line that has several."""
    if "exponent_of_memory" not in facts:
        return ""
    found = zip(facts["images"], facts["seconds"], facts["MiB"], strict=True)
    told = "; ".join(f"{images:,}: {seconds:g} s, {memory:g} MiB" for images, seconds, memory in found)
    return f"{told} (memory's exponent {facts['exponent_of_memory']:.2f})"


def _aim(entry: dict[str, Any]) -> str:
    if entry["aim"] is None:
        return f"{entry['better']} is better"
    return f"at {'least' if entry['better'] == 'higher' else 'most'} {entry['aim']:g}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _median(taken: dict[str, Any]) -> float:
    ordered = sorted(taken["seconds"])
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2


def told(entries: list[dict[str, Any]]) -> str:
    """Lines as an aligned table."""
    rows = [HEADER, *map(cells, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def section(entries: list[dict[str, Any]]) -> str:
    """Lines as Markdown, with what they were measured on."""
    rows = [HEADER, ("---",) * len(HEADER), *map(cells, entries)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    places = dict.fromkeys(map(_made, entries))
    return "\n".join([table, "", *(f"- {place}" for place in places)])


def _made(entry: dict[str, Any]) -> str:
    made = entry["made"]
    rows = " ".join(f"{key.upper()}={shlex.quote(str(value))}" for key, value in made["asked"].items() if value)
    before, after = made["load_average"]
    versions = ", ".join(
        f"{package} {made['versions'][package]}" for package in ("tensorflow", "keras") if package in made["versions"]
    )
    return (
        f"`make bench {rows}` at commit {made['commit']}, {made['cores']} cores ({made['machine']}), load {before:.1f} "
        f"before and {after:.1f} after, {versions}"
    )


def document(path: Path, entries: list[dict[str, Any]]) -> None:
    """Put lines between the markers of a page.

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
    write_text(path, f"{before}{BEGIN}\n\n{section(entries)}\n\n{END}{after}")
