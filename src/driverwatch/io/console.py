"""What commands print: progress, tables and endings, to streams that never fail the work (what is lost is reported at the end)."""

import errno
import io
import os
import select
import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar


class Outlet(io.FileIO):
    """A descriptor that keeps its first failure instead of raising it, and drops what is written after."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while left and self.failure is None:
            try:
                written = super().write(left)
                if written is None:  # a full pipe that does not block
                    select.select([], [self], [])
                left = left[written or 0 :]
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def keep_printing() -> None:
    """Put standard output and error behind outlets, and signs that their encoding lacks as escapes (`\\u2192`).

    A closed one (`>&-`) is the null device, so that no file which is opened later gets its number. What replaced them (a
    notebook's, a test's) is left alone.
    """
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _occupy()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or isinstance(_raw(stream), Outlet):
            continue
        made = _behind_outlet(stream)
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def _occupy() -> None:
    """Fill the closed ones among the descriptors 0, 1 and 2."""
    taken = os.open(os.devnull, os.O_RDWR)
    while taken < 3:
        os.set_inheritable(taken, True)
        taken = os.open(os.devnull, os.O_RDWR)
    os.close(taken)


def _behind_outlet(stream: Any) -> io.TextIOWrapper:
    if stream is None:
        return io.TextIOWrapper(Outlet(os.devnull, "w"), "utf-8", "backslashreplace")
    with suppress(OSError):
        stream.flush()
    outlet = Outlet(stream.fileno(), "w", closefd=False)
    through = stream.write_through
    return io.TextIOWrapper(
        outlet if through else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=through,
    )


def _raw(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def lost() -> str | None:
    """Why something that was printed did not arrive; None where all did, or where the reader has gone (`| head`)."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    failure = getattr(_raw(sys.stdout), "failure", None)
    return None if failure is None or failure.errno == errno.EPIPE else failure.strerror


if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

T = TypeVar("T")
Part = tuple[int, str]  # what a bar says beside itself; the highest number is left out first where it is narrow
LEAST = 6  # columns of a bar
RECENT = 50  # reports that a rate is taken from: the first steps of an epoch compile, and would count for minutes


def say(text: str) -> None:
    """Print a line at once, also into a log file."""
    print(text, flush=True)


def tell(sentence: str) -> None:
    """Print a sentence that ends a command, over lines of 100 columns."""
    say(textwrap.fill(sentence, 100, break_long_words=False, break_on_hyphens=False))


def plain(stream: IO[str]) -> bool:
    """Whether nothing but lines may go there: a file, a pipe, or a terminal that cannot move its cursor."""
    return not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown")


def show_cursor() -> None:
    """Give a terminal its cursor back: a process that drew a bar may have ended without doing so."""
    if not plain(sys.stderr):
        print("\x1b[?25h", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:05`."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def live(shown: Any, refresh_per_second: float, transient: bool) -> AbstractContextManager[Any]:
    """A context in which stderr shows something of rich's, where it is a terminal; what is printed meanwhile goes above it."""
    if plain(sys.stderr):
        return nullcontext()
    from rich.console import Console
    from rich.live import Live

    above = sys.stdout.isatty()  # a file gets what is printed itself
    return Live(
        console=Console(stderr=True), get_renderable=lambda: shown, redirect_stdout=above,
        refresh_per_second=refresh_per_second, transient=transient,
    )  # fmt: skip


def fitting(parts: Sequence[Part], room: int) -> list[str]:
    """Texts in their order, without those of the highest numbers, as many as it takes for them and two blanks each to fit."""
    kept = list(parts)
    while kept and sum(len(text) + 2 for _, text in kept) > room:
        kept.remove(max(kept, key=lambda part: part[0]))
    return [text for _, text in kept]


class Meter:
    """Something long that tells how far it is: as a bar on stderr, or off a terminal as lines on stdout.

    Use it as a context; whatever ends that leaves a clean terminal.
    """

    def __init__(
        self, label: str, total: int, unit: str = "images", whose: str = "", patience: float = 0.0, end: bool = True
    ) -> None:
        """Prepare to count to `total`.

        Args:
            whose: goes before `label`, where there is room.
            patience: seconds that must have gone by at half way for a line about it.
            end: whether the end gets a line too; otherwise a bar is gone then.
        """
        self.label, self.whose, self.total, self.unit = label, whose, total, unit
        self.patience, self.end = patience, end
        self.done, self.start, self.said_half = 0, time.monotonic(), False
        self.reports: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self.notes: Callable[[], Sequence[Part]] = tuple
        self.open = ExitStack()
        self.bar = not plain(sys.stderr)

    def __enter__(self) -> "Meter":
        self.start = time.monotonic()
        self.open.enter_context(live(self, refresh_per_second=5, transient=not self.end))
        return self

    def __exit__(self, *ended: object) -> None:
        self.open.close()

    @property
    def rate(self) -> float:
        """Units per second, of late; before the second report, since the start."""
        since, first = self.reports[0] if len(self.reports) > 1 else (self.start, 0)
        now, last = self.reports[-1] if self.reports else (self.start, 0)
        return (last - first) / max(now - since, 1e-9)

    @property
    def known(self) -> bool:
        """Whether the rate is one of steps alone: the first report's would be that of compiling and filling caches."""
        return len(self.reports) > 1

    @property
    def left(self) -> float:
        """Seconds to the end at this rate; 0 where nothing is known."""
        return (self.total - self.done) / self.rate if self.rate else 0.0

    def at(self, done: int, notes: Callable[[], Sequence[Part]] = tuple) -> None:
        """Report `done` of `total`; `notes` is called for what else there is to say, only when something is shown."""
        self.done, self.notes = min(done, self.total), notes
        self.reports.append((time.monotonic(), self.done))
        if not self.bar and self.total:
            self._line()

    def _line(self) -> None:
        elapsed = time.monotonic() - self.start
        half = not self.said_half and self.total <= 2 * self.done < 2 * self.total and elapsed >= self.patience
        if half or (self.end and self.done == self.total):
            self.said_half = True
            whose = f"{self.whose} " if self.whose else ""
            pace = f"{self.rate:.0f} {self.unit}/s, {self.left:.0f} s left"
            notes = "".join(f", {text}" for _, text in self.notes())
            say(f"{whose}{self.label}: {self.done}/{self.total} {self.unit}, {pace}{notes}")

    def beside(self, width: int) -> tuple[str, str]:
        """What stands before and after a bar of at least `LEAST` columns in a terminal `width` columns wide."""
        rate = f"{self.rate:.{int(self.rate < 10)}f}" + (f" {self.unit}" if width >= 100 else "") + "/s"
        pace = [(2, rate), (0, f"{clock(self.left)} left")] if self.known else [(0, "starting")]
        parts = [(5, f"{self.done}/{self.total}"), *pace, *self.notes()]
        label = self.label[: max(width - LEAST - 2, 1)]
        after = "  ".join(fitting(parts, width - len(label) - LEAST - 2))
        whose = f"{self.whose} "
        fits = self.whose and len(whose) + len(label) + LEAST + 2 + len(after) + 2 <= width
        return (whose if fits else "") + label, after

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        before, after = self.beside(options.max_width)
        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(Text(before), ProgressBar(max(self.total, 1), self.done), Text(after))
        yield line


def track(items: Iterable[T], total: int, label: str, unit: str = "images", step: int = 1) -> Iterator[T]:
    """Yield `items`, reporting progress; each item counts for `step` units of `total`."""
    with Meter(label, total, unit) as meter:
        for done, item in enumerate(items, start=1):
            yield item
            meter.at(done * step)


def width() -> int:
    """Columns that a line on stdout may take: the terminal's; without end in a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def bold(text: str) -> str:
    """Text in bold on a terminal that can, unless NO_COLOR is set (no-color.org)."""
    return text if os.environ.get("NO_COLOR") or plain(sys.stdout) or not text else f"\x1b[1m{text}\x1b[0m"


def table(
    columns: dict[str, bool], rows: Sequence[Sequence[str]], keep: Iterable[str], room: int
) -> tuple[list[str], list[str]]:
    """Lines of a table, heading first, without the last columns where they do not fit into `room`; and those columns' names.

    Args:
        columns: name: whether its cells stand at the right.
        keep: names of the first columns, which stay however narrow it is.
    """
    names, kept = list(columns), len(columns)
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    while kept > len(list(keep)) and sum(widths[:kept]) + 2 * (kept - 1) > room:
        kept -= 1
    lines = []
    for row in [names, *rows]:
        cells = zip(row[:kept], widths[:kept], columns.values(), strict=False)
        lines.append("  ".join(cell.rjust(wide) if right else cell.ljust(wide) for cell, wide, right in cells).rstrip())
    return lines, names[kept:]


def duration(seconds: float) -> str:
    """`0.4 s`, `47 s`, `12 min`, `1 h 40 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def scored(loss: float, error: float | None, over: str) -> str:
    """`log loss 0.412 ± 0.051 (over 5 folds)`; without an error where there is none (a single fold)."""
    known = error is not None and error == error
    return f"log loss {loss:.4f}" + (f" ± {error:.4f}" if known else "") + f" ({over})"


def ending(seconds: float | None = None, score: str | None = None, then: Sequence[str] = ()) -> None:
    """Say, below what was made and where, its score, how long it took, and what to run next: how every command ends."""
    facts = [("score", score)] if score else []
    facts += [("took", duration(seconds))] if seconds is not None else []
    facts += zip(["next", *[""] * len(then)], then, strict=False)
    for name, fact in facts:
        say(f"  {bold(f'{name:5}')}  {fact}")


def close(
    where: object, what: str, seconds: float | None = None, score: str | None = None, then: Sequence[str] = ()
) -> None:
    """Say what was made and where (a page by an address that a terminal makes a link of), and the `ending`."""
    if isinstance(where, Path) and where.suffix == ".html":
        where = where.absolute().as_uri()
    say(f"{where}: {what}")
    ending(seconds, score, then)
