"""All jobs in one view: on a terminal a table of those that run, elsewhere their lines, each with the job's name before it."""

import sys
import time
from contextlib import ExitStack
from statistics import mean
from typing import TYPE_CHECKING

from driverwatch.cluster.jobs import Begun, End, Epoch, Event, Job, Said
from driverwatch.terminal import clock, plain, say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

COLUMNS = ("", "machine", "epoch", "loss", "held out", "s/epoch", "left")


class View:
    """A context that shows events. Whatever ends it leaves a clean terminal."""

    def __init__(self) -> None:
        self.machines: dict[Job, str] = {}  # of those that run
        self.rows: dict[Job, dict[str, str]] = {}  # their last epochs
        self.known: set[Job] = set()
        self.finished = 0
        self.start = time.monotonic()
        self.open = ExitStack()
        self.table = not plain(sys.stderr)

    def __enter__(self) -> "View":
        if self.table:
            from rich.console import Console
            from rich.live import Live

            live = Live(
                console=Console(stderr=True), get_renderable=lambda: self, redirect_stdout=sys.stdout.isatty(),
                refresh_per_second=2, transient=True,
            )  # fmt: skip
            self.open.enter_context(live)
        return self

    def __exit__(self, *ended: object) -> None:
        self.open.close()

    def asked(self, jobs: list[Job]) -> None:
        """Count jobs that were asked for."""
        self.known |= set(jobs)

    def show(self, event: Event) -> None:
        """Keep what the table needs, and print what is to stay."""
        if isinstance(event, Begun):
            self.machines[event.job] = event.machine
            say(f"{event.job.name}: begins on {event.machine}")
        elif isinstance(event, Epoch):
            self.rows[event.job] = event.row
        elif isinstance(event, Said):
            said, name = event.text, event.job.name
            say(said if said.startswith(name.split()[0]) else f"{name}: {said}")
        elif isinstance(event, End):
            self._end(event)

    def _end(self, end: End) -> None:
        self.machines.pop(end.job, None)
        self.finished += end.error is None
        how = f"finished, {end.seconds:.0f} s after it was asked for" if end.error is None else end.error
        say(f"{end.job.name}: {how} ({self.finished} of {len(self.known)} finished)")

    def left(self) -> float:
        """Seconds to the end of all planned epochs, at the pace of those seen; 0 where none was."""
        paces = [float(row["seconds"]) for row in self.rows.values()]
        if not paces or not self.machines:
            return 0.0
        behind = sum(self._epoch(job) for job in self.rows)
        return mean(paces) * (sum(job.epochs for job in self.known) - behind) / len(self.machines)

    def _epoch(self, job: Job) -> int:
        return int(self.rows.get(job, {}).get("epoch", 0))

    def cells(self, job: Job) -> list[str]:
        """What the table says of one job that runs."""
        row = self.rows.get(job, {})
        numbers = [f"{float(value):.3f}" if (value := row.get(key)) else "" for key in ("loss", "held_out_loss")]
        pace = float(row.get("seconds") or 0)
        left = pace * (job.epochs - self._epoch(job))
        times = [f"{pace:.0f}", clock(left)] if row else ["", ""]
        return [
            job.name,
            self.machines[job],
            f"{self._epoch(job)}/{job.epochs}" if job.epochs else "",
            *numbers,
            *times,
        ]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.table import Table

        shown = Table(*COLUMNS, box=None, pad_edge=False)
        for job in list(self.machines):
            shown.add_row(*self.cells(job))
        yield shown
        waiting = len(self.known) - self.finished - len(self.machines)
        said = f"{self.finished} of {len(self.known)} finished, {len(self.machines)} at work, {waiting} waiting"
        left = f", about {clock(self.left())} left" if self.left() else ""
        yield f"{said}; {clock(time.monotonic() - self.start)} so far{left}"
