"""`make bench`: rows one after the other, in an order in which none disturbs the next; the table as it grows."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    cache,
    crops,
    end_to_end,
    engine,
    growth,
    imports,
    knn,
    leakage,
    load,
    pack,
    precision,
    result,
    train,
)
from benchmarks.result import Result
from benchmarks.workload import Bench
from driverwatch.errors import InputError, nearest
from driverwatch.io.atomic import replacing
from driverwatch.io.console import say

# Training's deterministic kernels, once asked for, slow tf.data down too: rows with that baseline come before those that train
ROWS: dict[str, Callable[[Bench], list[Result]]] = {
    "imports": imports.results,
    "memory": growth.memory_results,
    "knn": knn.results,
    "leakage": leakage.results,
    "pack": pack.results,
    "load": load.results,
    "crops": crops.results,
    "engine": engine.results,
    "precision": precision.results,
    "train": train.results,
    "cache": cache.results,
}
BY_NAME = {"end_to_end": end_to_end.results, "growth": growth.results}  # minutes each: only when asked for
PAGE = Path("docs/dev/benchmarks.md")


def chosen(words: list[str]) -> list[str]:
    """Rows by name, each once, in the order above; none named: all but `BY_NAME`.

    Raises:
        InputError: a name that is no row.
    """
    known = [*ROWS, *BY_NAME]
    for word in words:
        if word not in known:
            raise InputError(f"BENCHMARKS={word}: expected some of {', '.join(known)}{nearest(word, known)}")
    return [row for row in known if row in (words or ROWS)]


def run(bench: Bench, words: list[str], documented: bool) -> None:
    """Measure rows, print each as it comes, keep them in `build/<dataset>/bench.json`, and in `PAGE` if asked to."""
    rows, path, before = chosen(words), bench.context.places.build / "bench.json", result.load()
    asked = {"benchmarks": " ".join(words), "dataset": bench.context.dataset, "model": bench.model, "images": bench.asked.images,
             "repeat": bench.asked.repeat, "full": int(bench.asked.full)}  # fmt: skip
    if warned := result.busy_warning(before):
        say(f"warning: {warned}")
    entries = []
    for row in rows:
        entries = result.keep(path, (ROWS | BY_NAME)[row](bench), asked, (before, result.load()))
        say(result.table([entry for entry in entries if entry["row"] == row]) + "\n")
    say(result.table([entry for entry in entries if entry["row"] in rows]))
    if documented:
        result.document(PAGE, entries)
        plot = bench.context.places.build / "growth.png"
        if plot.is_file():
            with replacing(PAGE.with_name(plot.name)) as temporary:
                temporary.write_bytes(plot.read_bytes())
        say(f"{PAGE}: the table is written")
    missed = [entry["key"] for entry in entries if entry["row"] in rows and entry["met"] is False]
    say(f"{path}: every repetition; {len(missed)} targets not met; docs/dev/benchmarks.md says how to read a row")
