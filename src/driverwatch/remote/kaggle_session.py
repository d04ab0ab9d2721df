"""A session on Kaggle's machine, as the notebook's cells call it: places found, verbs run, an end before Kaggle's own.

Photos and attached files are read where they are mounted, packs lie in the scratch folder, and runs alone in the output,
which Kaggle keeps up to 20 GB of.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from driverwatch.artifacts import Places
from driverwatch.dataset_settings import DatasetSettings
from driverwatch.errors import InputError
from driverwatch.inference.paths import prediction_path
from driverwatch.listing import is_of_tools
from driverwatch.paths import user_path
from driverwatch.remote import project_file
from driverwatch.remote.notebook_settings import Plan
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.typed_yaml import load, parse
from driverwatch.wording import duration

DEPTH = 5  # folders below the input: notebooks/<account>/<slug>/runs/<run>; older sessions have <slug>/ alone
CHECKS = ("processor", "memory", "disk", "libraries", "accelerator", "data set")  # of make doctor


@dataclass(frozen=True)
class Session:
    """Where everything lies, and when to stop (`time.monotonic()`)."""

    plan: Plan
    root: Path  # the project: settings, folds, packs
    files: Path  # the attached data set, weights among its files
    data: Path  # the competition
    output: Path
    earlier: list[Path]  # what earlier versions left of this run
    commit: str
    ends: float

    @property
    def options(self) -> list[str]:
        return ["--dataset", self.plan.dataset, "--data", str(self.data)]

    @property
    def run(self) -> Path:
        return self.output / "runs" / self.plan.run

    def look(self) -> None:
        """What this machine is; nothing that is found ends the notebook."""
        asked = ["--interpreter", sys.executable, "--accelerator", "cuda", "--only", *CHECKS]
        self._said(["-m", "driverwatch.doctor", *self.options, *asked])

    def pack(self) -> None:
        """Hold the folds against the photos, and pack these at the model's size."""
        self._whole("folds", *self.options)
        self._whole("pack", "--model", self.plan.model, "--set", self.plan.overrides, *self.options)

    def take(self) -> None:
        """Go on from what earlier versions left, if any is attached."""
        for folder in self.earlier:
            self._whole("take", str(folder), *self.options)
        if not self.earlier:
            say("no earlier version is attached: the run begins here")

    def train(self) -> bool:
        """Train and predict fold by fold until all is done (True) or the session's hours are used up."""
        plan = self.plan
        asked = ["--run", plan.run, "--set", plan.overrides, "--weights", str(self.files)]
        done = self.verb("train", plan.model, *asked, *self.options)
        if done and plan.views:
            done = self.verb("predict", plan.run, "--dataset", plan.dataset, "--views", plan.views)
        if not done:
            say(
                f"{plan.run}: stopped after {plan.hours:g} hours; the next version goes on from its last finished epoch"
            )
        return done

    def close(self) -> None:
        """How far the run is, how much of the output it takes, and what to do next."""
        self._said(["-m", "driverwatch", "status", *self.options])
        size = sum(path.stat().st_size for path in self.output.rglob("*") if path.is_file())
        say(f"\n{self.output}: {size / 1e9:.2f} GB")
        for line in self._next():
            say(line)

    def _next(self) -> list[str]:
        plan = self.plan
        where = f"build/{plan.dataset}/from_kaggle"
        if not (self.run / "run.json").is_file():
            return ["nothing was trained yet: see what stands above"]
        run = runs.load(self.run)
        count = run.settings.train.splits.fits(settings_of(self.root, plan.dataset).folds)
        done = sum(run.finished(number) for number in range(count))
        said = f"{done} of {count} folds finished"
        unseen = [views for views in plan.views.split() if not _predicted(run, count, views)]
        if unseen and done == count:
            said += f", {', '.join(unseen)} not predicted by all"
        if unseen or done < count:
            return [
                f"{said}. Next version, at home:",
                f"  make notebook MODEL={plan.model} ... EARLIER={plan.notebook}   # and the two commands it prints",
            ]
        return [
            f"{said}. At home:",
            f"  .venv-kaggle/bin/kaggle kernels output {plan.notebook} -p {where}",
            f"  make take FROM={where} DATASET={plan.dataset}",
        ]

    def verb(self, *arguments: str) -> bool:
        """Run a verb in the project, its words as they come; False if the session's hours ended it.

        Raises:
            InputError: it failed; its own words stand above.
        """
        status = self._said(["-m", "driverwatch", *arguments], max(self.ends - time.monotonic(), 0.0))
        if status and time.monotonic() >= self.ends:
            return False
        if status:
            raise InputError(f"{arguments[0]}: ended with status {status}; its own words stand above")
        return True

    def _whole(self, *arguments: str) -> None:
        """A verb that nothing can be done without."""
        if not self.verb(*arguments):
            raise InputError(
                f"{arguments[0]}: not done within {self.plan.hours:g} hours; give the notebook more with HOURS="
            )

    def _said(self, arguments: list[str], seconds: float | None = None) -> int:
        """Run this Python in the project and repeat what it says; its exit status.

        After `seconds` it is ended: what it writes is whole or not there, and a fold's process ends with the one that trains.
        """
        known = {"PYTHONUNBUFFERED": "1", "DRIVERWATCH_COMMIT": self.commit}
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=os.environ | known,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            timer = Timer(seconds if seconds is not None else 600.0, process.terminate)
            timer.start()
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                return process.wait()
            except BaseException:  # the notebook's stop button
                process.terminate()
                raise
            finally:
                timer.cancel()


def begin(plan: dict[str, Any], places: tuple[str, str, str], begun: float) -> Session:
    """Find what is attached, and lay the project out.

    Args:
        plan: as `Plan`.
        places: folders of input (read only), output (kept) and scratch (not kept).
        begun: `time.monotonic()` when the notebook began.

    Raises:
        InputError: something that must be attached is not.
    """
    mine = parse(Plan, plan, "PLAN in the first cell")
    attached, output, scratch = (user_path(place).absolute() for place in places)  # verbs run in the project
    files = only(attached, lambda f: (f / project_file.FILE).is_file(), f"{project_file.FILE}: its data set")
    root = scratch / "driverwatch"
    facts = project_file.unpack(files / project_file.FILE, root)
    settings = settings_of(root, mine.dataset)
    tables = (settings.table, settings.sample_submission)
    data = only(
        attached, lambda f: all((f / name).is_file() for name in tables), f"{' and '.join(tables)}: {settings.title}"
    )
    _link(Places(mine.dataset, root).runs, output / "runs")
    earlier = [
        f for f in folders(attached) if f.name == mine.run and f.parent.name == "runs" and (f / "run.json").is_file()
    ]
    session = Session(
        mine, root, files, data, output, earlier, str(facts.get("commit") or ""), begun + mine.hours * 3600
    )
    said = {"photos": data, "attached files": files, "project": root, "runs": session.run.parent}
    for name, path in [*said.items(), *(("earlier version", folder) for folder in earlier)]:
        say(f"{name:15} {path}")
    say(f"{'stops after':15} {duration(session.ends - time.monotonic())}")
    return session


def _predicted(run: runs.Run, count: int, views: str) -> bool:
    """Whether every fold has a view set's probabilities of held-out and of test images."""
    paths = [prediction_path(run.fold(fold), kind, views) for fold in range(count) for kind in ("held_out", "test")]
    return all(path.is_file() for path in paths)


def settings_of(root: Path, dataset: str) -> DatasetSettings:
    return load(DatasetSettings, root / "configs" / "datasets", dataset)


def folders(top: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Every folder up to `depth` below `top`, the highest first, without those of photos."""
    level = [top]
    for _ in range(depth):
        level = [Path(entry.path) for folder in level for entry in _children(folder)]
        yield from level


def _children(folder: Path) -> list["os.DirEntry[str]"]:
    """Folders in a folder, by name, but those of photos, which a mounted disk lists slowly."""
    with os.scandir(folder) as entries:
        return sorted(
            (e for e in entries if e.is_dir() and e.name not in ("imgs", "test", "train") and not is_of_tools(e.name)),
            key=lambda e: e.name,
        )


def only(top: Path, fits: Callable[[Path], bool], what: str) -> Path:
    """The one attached folder that fits.

    Raises:
        InputError: none, or several.
    """
    found = [folder for folder in folders(top) if fits(folder)]
    if len(found) != 1:
        got = ", ".join(map(str, found)) or "nothing of the kind"
        raise InputError(
            f"{top}: expected one folder with {what}, attached to this notebook, got {got}; mend its inputs"
        )
    return found[0]


def _link(link: Path, target: Path) -> None:
    """Let what is written to `link` lie in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(target.resolve(), target_is_directory=True)
