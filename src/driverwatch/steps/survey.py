"""Every run of a data set as a report tells of it: what can be read is scored, what cannot be is named with the reason."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.blend import ensemble as blending
from driverwatch.blend import reliability
from driverwatch.blend import score as scores
from driverwatch.blend.ensemble import Member
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.metrics import accuracy, log_losses
from driverwatch.report.findings import RunFacts, Scored
from driverwatch.setting_types import ViewSet
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, going_on, open_packs
from driverwatch.training import run as runs
from driverwatch.training.history import read_history
from driverwatch.training.predicted import views_there
from driverwatch.training.run import Run
from driverwatch.typed_yaml import parse

HISTORY = ["epoch", "stage", "loss", "held_out_loss"]


class Survey:
    """Runs by name; packs are opened once per size, and a size that cannot be opened is refused alike for each run."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.packs = cache(self._packs)
        self.unreadable: list[tuple[str, str]] = []

    def _packs(self, size: str) -> tuple[FoldTable, dict[str, Pack]] | InputError:
        try:
            return open_packs(self.context, size)
        except InputError as error:
            return error

    def runs(self) -> list[RunFacts]:
        """All whose `run.json` can be read; the others, and unreadable parts of these, come into `unreadable`."""
        found = []
        for path in matching(self.context.places.runs, "*/run.json"):
            try:
                run = runs.load(path.parent)
            except InputError as error:
                self.unreadable.append((path.parent.name, str(error)))
                continue
            found.append(self._facts(run))
        return found

    def _facts(self, run: Run) -> RunFacts:
        splits = run.settings.train.splits
        fits = splits.fits(self.context.settings.folds)
        made = self._manifests(run, fits)
        scored, problem = self._scored(run, fits, len(made)) if splits.scored else (None, "")
        if problem:
            self.unreadable.append((run.name, problem))
        self.unreadable += [(run.name, reason) for reason in (scored.problems if scored else ())]
        return RunFacts(
            run.name,
            len(made),
            fits,
            sum(float(each.get("seconds") or 0) for each in made.values()) / 60,
            ", ".join(sorted({str(each.get("commit")) for each in made.values()})),
            run.looks_at_held_out,
            "" if splits.scored else splits.unscored,
            self._histories(run, fits),
            made_with(made, run),
            times(made),
            settings_of(run),
            scored,
            problem,
            going_on(run.name),
        )

    def _manifests(self, run: Run, fits: int) -> dict[int, dict[str, Any]]:
        """Of the finished fits; one that cannot be read is noted."""
        made: dict[int, dict[str, Any]] = {}
        for number in range(fits):
            try:
                made |= {number: run.manifest(number)} if run.finished(number) else {}
            except InputError as error:
                self.unreadable.append((run.name, str(error)))
        return made

    def _histories(self, run: Run, fits: int) -> dict[int, pd.DataFrame]:
        found: dict[int, pd.DataFrame] = {}
        for number in range(fits):
            path = run.fold(number) / "history.csv"
            try:
                found |= {number: history(path)} if path.is_file() else {}
            except InputError as error:
                self.unreadable.append((run.name, str(error)))
        return found

    def _scored(self, run: Run, fits: int, finished: int) -> tuple[Scored | None, str]:
        """A finished run's scores, or why it has none; neither where it is only not finished."""
        if finished < fits:
            return None, ""
        opened = self.packs(run.settings.input.key)
        if isinstance(opened, InputError):
            return None, str(opened)
        folds, packs = opened
        try:
            run.refuse_strangers(folds.digest, {kind: pack.digest for kind, pack in packs.items()})
        except InputError as error:
            return None, str(error)
        return scored_run(run, folds, packs)


def scored_run(run: Run, folds: FoldTable, packs: dict[str, Pack]) -> tuple[Scored | None, str]:
    """Scores of every view set that can be read, with tables of the one that an ensemble would take."""
    pack, rows, problems = packs["train"], dict[ViewSet, np.ndarray](), list[str]()
    for views in views_there(run, folds.count, ("held_out",)):
        try:
            rows[views] = blending.out_of_fold(Member(run, packs["test"], views), pack, folds)
        except InputError as error:
            problems.append(str(error))
    if not rows:
        nothing = f"{run.folder}: no view set is there that every fold has predicted; run make predict RUN={run.name}"
        return None, "; ".join(problems) or nothing
    honest = blending.honest_views(run)
    return _tables(run, honest if honest in rows else list(rows)[-1], rows, pack, tuple(problems)), ""


def _tables(run: Run, views: ViewSet, rows: dict[ViewSet, np.ndarray], pack: Pack, problems: tuple[str, ...]) -> Scored:
    """Everything that the report shows of a run, by image name joined already: rows are in the pack's order."""
    labels, drivers, classes = pack.labels, pack.drivers, np.array(run.classes)
    chosen = rows[views]
    losses = log_losses(chosen, labels)
    low, high = interval_of(losses, drivers)
    by = {title: scores.by({"loss": chosen}, labels, keys, title) for title, keys in
          (("driver", drivers), ("class", classes[labels]))}  # fmt: skip
    both = pd.DataFrame({"driver": drivers, "class": classes[labels], "loss": losses})
    curve = reliability.table(chosen, labels, drivers)
    taken = chosen.argmax(axis=1)
    counted = pd.crosstab(classes[labels], classes[taken]).reindex(index=classes, columns=classes, fill_value=0)
    return Scored(
        run.name,
        views,
        float(losses.mean()),
        low,
        high,
        accuracy(chosen, labels),
        len(labels),
        pd.DataFrame([_view_line(name, p, labels, drivers) for name, p in rows.items()]),
        by["driver"].set_index("driver")["loss"],
        by["class"].set_index("class")["loss"].reindex(classes),
        both.pivot_table("loss", "driver", "class").reindex(columns=list(classes)),
        counted,
        curve,
        reliability.calibration_error(curve),
        losses,
        problems,
    )


def _view_line(name: str, rows: np.ndarray, labels: np.ndarray, drivers: np.ndarray) -> dict[str, object]:
    losses = log_losses(rows, labels)
    low, high = interval_of(losses, drivers)
    return {
        "views": name,
        "log loss": losses.mean(),
        "low": low,
        "high": high,
        "right": accuracy(rows, labels),
    }


def interval_of(losses: np.ndarray, drivers: np.ndarray) -> tuple[float, float]:
    """95 % over drivers; of a single driver nothing can be said."""
    unknown = float("nan")
    return scores.interval(losses, drivers) if len(set(drivers)) > 1 else (unknown, unknown)


def history(path: Path) -> pd.DataFrame:
    """A fold's epochs: `epoch`, `stage`, `loss`, `held_out_loss` (NaN where it was not measured).

    Raises:
        InputError: not a whole table of numbers.
    """
    frame = pd.DataFrame(read_history(path)).reindex(columns=HISTORY)
    return frame.astype(float).astype({"epoch": int, "stage": int})


def made_with(made: dict[int, dict[str, Any]], run: Run) -> dict[str, str]:
    """Backend, versions, machine, weights and seed, each value that any fold's manifest states."""
    facts: dict[str, str] = {"seed": str(run.settings.train.seed)}
    if run.weights:
        facts["ImageNet weights"] = str(run.weights.get("file", run.weights))
    versions = [each["versions"] for each in made.values() if isinstance(each.get("versions"), dict)]
    for key in ("backend", "commit", "machine", "cores", "python"):
        if values := sorted({str(each[key]) for each in made.values() if each.get(key) is not None}):
            facts[key] = ", ".join(values)
    for package in dict.fromkeys(name for each in versions for name in each):
        facts[package] = ", ".join(sorted({str(each[package]) for each in versions if package in each}))
    return facts


def times(made: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """A line per finished fold; what a manifest does not say is NaN."""
    names = {
        "minutes": ("seconds", 1 / 60),
        "of training": ("training_seconds", 1 / 60),
        "ms per step": ("step_seconds", 1e3),
    }
    lines = []
    for number, each in made.items():
        stated = {name: each.get(key) for name, (key, _) in names.items()}
        line = {
            name: float(v) * names[name][1] if isinstance(v, int | float) else float("nan")
            for name, v in stated.items()
        }
        lines.append({"fold": number, **line})
    return pd.DataFrame(lines, columns=["fold", *names])


def settings_of(run: Run) -> list[str]:
    """What a run's settings say beside the defaults, one `dotted.key: value` each; what has no default is always said."""
    needed = {"backbone": run.settings.backbone, "weights": run.settings.weights}
    field = {"pack": run.settings.input.pack, "size": run.settings.input.size}
    plain = parse(ModelSettings, {**needed, "input": field}, "defaults").model_dump()
    mine = run.settings.model_dump()
    always = {"backbone", "weights", "input.pack", "input.size"}
    return [f"{key}: {value}" for key, value in flat(mine) if key in always or dict(flat(plain)).get(key, "") != value]


def flat(content: object, key: str = "") -> list[tuple[str, str]]:
    """Plain data as dotted keys with their values as text; empty lists and dictionaries are values."""
    if isinstance(content, dict) and content:
        return [pair for name, value in content.items() for pair in flat(value, f"{key}.{name}" if key else str(name))]
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return [pair for number, value in enumerate(content) for pair in flat(value, f"{key}.{number}")]
    return [(key, "null" if content is None else str(content))]
