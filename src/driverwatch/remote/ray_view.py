"""All tasks of a cluster in one view: on a terminal a table of those that run, elsewhere their lines."""

import csv
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from driverwatch.io.console import clock, plain, say
from driverwatch.remote.ray_files import Task

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

COLUMNS = ("", "machine", "epoch", "loss", "val loss", "s/epoch", "left")


class View:
    """A context that shows what tasks do, and keeps their logs. Whatever ends it leaves a clean terminal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tasks: dict[str, Task] = {}
        self.submission: dict[str, float] = {}  # seconds, by task
        self.machines: dict[str, list[str]] = {}  # names, by task that runs; the last one has it now
        self.finished = 0
        self.start = time.monotonic()
        self.open = ExitStack()

    def __enter__(self) -> "View":
        if not plain(sys.stderr):
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

    def submitted(self, task: Task) -> None:
        """Count a task, and begin its part of the log."""
        self.tasks[task.name], self.submission[task.name] = task, time.monotonic()
        self.log(task, [f"-- submitted, {time.strftime('%Y-%m-%d %H:%M:%S')}"])

    def show(self, news: Sequence[tuple[str, str, Any]]) -> None:
        """Print and log news of tasks (`Home.news`)."""
        for name, kind, value in news:
            if kind == "machine":
                self._started(self.tasks[name], value)
                continue
            self.log(self.tasks[name], value)
            for line in value:
                say(line if line.startswith(name.split()[0]) else f"{name}: {line}")

    def _started(self, task: Task, machine: str) -> None:
        known = self.machines.setdefault(task.name, [])
        text = f"starts on {machine}"
        if known:
            text = f"lost on {known[-1]}; resumes on {machine} from its last finished epoch"
        known.append(machine)
        self.log(task, [f"-- {text}"])
        say(f"{task.name}: {text}")

    def ended(self, task: Task, error: str | None) -> None:
        """Print how a task ended: well, unless there is an `error`."""
        seconds = time.monotonic() - self.submission[task.name]
        self.finished += error is None
        text = error or f"finished, {seconds:.0f} s after it was submitted"
        self.log(task, [f"-- {text}"])
        self.machines.pop(task.name, None)
        say(f"{task.name}: {text} ({self.finished} of {len(self.tasks)} finished)")

    def log(self, task: Task, lines: list[str]) -> None:
        """Append lines to a task's log."""
        if task.log:
            path = self.root / task.log
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    def epochs(self, task: Task) -> list[dict[str, str]]:
        """A task's finished epochs: lines of its history.csv, as text."""
        try:
            with (self.root / task.folders[0] / "history.csv").open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file)) if task.epochs else []
        except FileNotFoundError:
            return []

    def seconds_left(self) -> float:
        """Seconds to the end of all planned epochs, at the mean pace of those seen; 0 where none was."""
        seen = {name: self.epochs(task) for name, task in self.tasks.items()}
        paces = [float(rows[-1]["seconds"]) for rows in seen.values() if rows]
        if not paces or not self.machines:
            return 0.0
        planned = sum(task.epochs for task in self.tasks.values())
        return mean(paces) * (planned - sum(map(len, seen.values()))) / len(self.machines)

    def cells(self, task: Task) -> list[str]:
        """The table's line of a task that runs."""
        rows = self.epochs(task)
        last = rows[-1] if rows else {}
        numbers = [f"{float(value):.3f}" if (value := last.get(key)) else "" for key in ("loss", "val_loss")]
        pace = float(last.get("seconds") or 0)
        times = [f"{pace:.0f}", clock(pace * (task.epochs - len(rows)))] if rows else ["", ""]
        epoch = f"{len(rows)}/{task.epochs}" if task.epochs else ""
        return [task.name, self.machines[task.name][-1], epoch, *numbers, *times]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.table import Table

        shown = Table(*COLUMNS, box=None, pad_edge=False)
        for name in list(self.machines):
            shown.add_row(*self.cells(self.tasks[name]))
        yield shown
        waiting = len(self.tasks) - self.finished - len(self.machines)
        text = f"{self.finished} of {len(self.tasks)} finished, {len(self.machines)} running, {waiting} waiting"
        left = f", about {clock(left)} left" if (left := self.seconds_left()) else ""
        yield f"{text}; {clock(time.monotonic() - self.start)} so far{left}"
