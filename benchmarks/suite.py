"""`make bench`: rows one after the other, in an order in which none disturbs the next; the table as it grows."""

from importlib import import_module
from pathlib import Path

from benchmarks import table
from benchmarks.result import Line
from benchmarks.workload import Bench
from driverwatch.errors import InputError, nearest
from driverwatch.terminal import say
from driverwatch.writing import replacing

# Training's deterministic kernels, once asked for, slow tf.data down too: rows with that rival come before those that train
ROWS = ("imports", "memory", "neighbours", "pack", "load", "crops", "train", "cache")
BY_NAME = ("growth",)  # no ratio beside a rival, and long: only when asked for
PAGE = Path("docs/performance.md")


def chosen(words: list[str]) -> list[str]:
    """Rows by name, each once, in the order above; none named: all but `BY_NAME`.

    Raises:
        InputError: a name that is no row.
    """
    known = [*ROWS, *BY_NAME]
    for word in words:
        if word not in known:
            raise InputError(f"ROWS={word}: expected some of {', '.join(known)}{nearest(word, known)}")
    return [row for row in known if row in (words or ROWS)]


def run(bench: Bench, words: list[str], documented: bool) -> None:
    """Measure rows, print each as it comes, keep them in `build/<dataset>/bench.json`, and in `PAGE` if asked to."""
    rows, path, before = chosen(words), bench.context.places.build / "bench.json", table.load()
    asked = {"rows": " ".join(words), "dataset": bench.context.dataset, "model": bench.model, "images": bench.asked.images,
             "repeat": bench.asked.repeat, "full": int(bench.asked.full)}  # fmt: skip
    if warned := table.warning(before):
        say(f"warning: {warned}")
    entries = []
    for row in rows:
        found: list[Line] = import_module(f"benchmarks.{row}").lines(bench)
        entries = table.keep(path, found, asked, (before, table.load()))
        say(table.told([entry for entry in entries if entry["row"] == row]) + "\n")
    say(table.told([entry for entry in entries if entry["row"] in rows]))
    if documented:
        table.document(PAGE, entries)
        plot = bench.context.places.build / "growth.png"
        if plot.is_file():
            with replacing(PAGE.with_name(plot.name)) as temporary:
                temporary.write_bytes(plot.read_bytes())
        say(f"{PAGE}: the table is written")
    missed = [entry["key"] for entry in entries if entry["row"] in rows and entry["met"] is False]
    say(f"{path}: every repetition; {len(missed)} aims not met; docs/performance.md says how to read a row")
