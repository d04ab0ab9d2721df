"""The table of levers: each one's loss out of fold without it and with it, from what finished runs left."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from driverwatch.blend import ensemble as blending
from driverwatch.blend.ensemble import Member
from driverwatch.blend.score import interval
from driverwatch.blend.space import Space
from driverwatch.ensemble_settings import ChainSettings, EnsembleSettings, NeighbourSettings
from driverwatch.errors import InputError
from driverwatch.recipe_settings import LeverSettings, LeversSettings
from driverwatch.setting_types import ViewSet
from driverwatch.settings import PredictSettings
from driverwatch.steps import chains
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.experiments.reproduce import train_runs
from driverwatch.experiments.experiment import Lever, LeversRecord, Unmeasured, begun, change, read_record, write_record
from driverwatch.steps.spaces import make_features, open_space
from driverwatch.steps.submit import Finished, finished_runs
from driverwatch.steps.train import predict
from driverwatch.terminal import say
from driverwatch.training.predicted import views_there
from driverwatch.typed_yaml import load

NAME = STUDY = "levers"
HEADER = (
    "| lever | log loss before | after | difference (95 % over drivers) | minutes | kept | command | trained at |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, eq=False)
class Scored:
    """Losses out of fold (N,) of the images named, nested wherever something was fitted; minutes by run; commits."""

    names: np.ndarray
    losses: np.ndarray
    drivers: np.ndarray
    minutes: dict[str, float]
    commits: set[str]


class Table:
    """Rows of the page, each side scored once."""

    def __init__(self, context: Context, settings: LeversSettings, weights: Path | None) -> None:
        self.context, self.settings, self.weights = context, settings, weights
        self.space = cache(self._space)
        self.finished = cache(self._finished)
        self.known: dict[str, Scored] = {}

    def _space(self, text: str) -> Space:
        make_features(self.context, text, self.weights)
        return open_space(self.context, text)

    def _finished(self, names: tuple[str, ...]) -> Finished:
        own = set(names) <= set(self.settings.runs)
        places = replace(self.context.places, study=STUDY) if own else self.context.places
        return finished_runs(replace(self.context, places=places), list(names))

    def scored(self, side: EnsembleSettings) -> Scored:
        key = side.model_dump_json()
        if key not in self.known:
            self.known[key] = self._scored(side)
        return self.known[key]

    def _scored(self, side: EnsembleSettings) -> Scored:
        found, tests, folds, pack = self.finished(tuple(side.runs))
        members = [
            Member(run, test, side.view_set or blending.honest_views(run))
            for run, test in zip(found, tests, strict=True)
        ]
        rows = blending.labelled_rows(members, pack, folds)
        spaces = {text: self.space(text) for text in side.features}
        made = [[run.manifest(fold) for fold in range(folds.count)] for run in found]
        minutes = {run.name: sum(fold["seconds"] for fold in each) / 60 for run, each in zip(found, made, strict=True)}
        commits = {str(fold["commit"]) for each in made for fold in each}
        losses = chains.fit(side, rows, pack.labels, pack.drivers, spaces).losses
        return Scored(pack.names, losses, pack.drivers, minutes, commits)

    def row(self, kind: str, row: LeverSettings) -> Lever:
        before, after = self.scored(row.before), self.scored(row.after)
        if list(before.names) != list(after.names):
            raise InputError(
                "its two sides are of packs that hold different images; make both packs alike (SKIP_BROKEN=)"
            )
        gain = after.losses - before.losses
        return Lever(
            kind=kind,
            lever=row.lever,
            command=self.command(row),
            before=float(before.losses.mean()),
            after=float(after.losses.mean()),
            change=[float(gain.mean()), *interval(gain, before.drivers)],
            minutes=sum(minutes for name, minutes in after.minutes.items() if name not in before.minutes),
            kept=row.kept,
            why=row.why,
            commits=sorted({commit[:7] for commit in before.commits | after.commits}),
        )

    def command(self, row: LeverSettings) -> str:
        """What makes the row's second side of its first: a training, or a way of putting predictions together."""
        new = [run for run in row.after.runs if run not in row.before.runs and run in self.settings.runs]
        if new:
            return self.trainings(new)
        own, near = set(row.after.runs) <= set(self.settings.runs), row.after.neighbours
        if own or (near and near != NeighbourSettings(features=near.features)):
            return "make levers"  # no ensemble sees a study's runs, and NEIGHBOURS= names features alone
        return ensemble_command(row.after)

    def missing(self, row: LeverSettings) -> str:
        """What trains a row's runs that are not finished, and predicts what finished ones have not.

        Of the data set's own runs nothing is known here.
        """
        asked = [*row.before.runs, *(run for run in row.after.runs if run not in row.before.runs)]
        own = [run for run in asked if run in self.settings.runs]
        finished = [run for run in own if self._is_finished(run)]
        commands = [self.trainings([run]) for run in own if run not in finished]
        for run in finished:
            if views := self.unpredicted(run, [views for name, views in row.views if name == run]):
                commands.append(f'make predict RUN={run} STUDY={STUDY} VIEWS="{" ".join(views)}"')
        return "; ".join(commands)

    def unpredicted(self, name: str, asked: list[ViewSet]) -> list[ViewSet]:
        """Which of the view sets not all folds of a finished run have predicted."""
        found = self.finished((name,))
        there = views_there(found.runs[0], found.folds.count)
        return [views for views in asked if views not in there]

    def trainings(self, names: list[str]) -> str:
        return "; ".join(self.settings.runs[name].command(name, STUDY) for name in names)

    def _is_finished(self, name: str) -> bool:
        try:
            self.finished((name,))
        except InputError:
            return False
        return True


def ensemble_command(side: EnsembleSettings) -> str:
    """What makes a submission of one side of a row, as typed in a shell; only what differs from the defaults."""
    words = ["make ensemble", f'MODELS="{" ".join(side.runs)}"']
    words += [f"VIEWS={side.views}"] if side.views != "auto" else []
    plain, near = ChainSettings(), side.neighbours
    for key in ("blend", "balance", "calibrate", "clip"):
        words += [f"{key.upper()}={getattr(side, key)}"] if getattr(side, key) != getattr(plain, key) else []
    return " ".join([*words, *([f"NEIGHBOURS={near.features}"] if near else [])])


def write_levers(context: Context, training: bool, weights: Path | None) -> None:
    """Write the levers' record and page from finished runs; what is not finished is named with the command that trains it.

    A row that the record has already, of runs that are not built here, stays as it is with the commits it was trained at.

    Args:
        training: train that first.
    """
    settings = load(LeversSettings, CONFIGS / "levers", context.dataset)
    if training:
        _train(context, settings, weights)
    table, place = Table(context, settings, weights), context.places.result(NAME)
    earlier = read_record(LeversRecord, place)
    before = {(row.kind, row.lever, row.command): row for row in (earlier.rows if earlier else ())}
    rows, missing, kept = list[Lever](), list[Unmeasured](), list[Unmeasured]()
    for kind, row in ((kind, row) for kind, each in settings.rows.items() for row in each):
        try:
            rows.append(table.row(kind, row))
        except InputError as error:
            command = table.missing(row)
            reason = Unmeasured(lever=row.lever, reason=f"{error}" + (f"; `{command}`" if command else ""))
            old = before.get((kind, row.lever, table.command(row)))
            rows += [old] if old else []
            (kept if old else missing).append(reason)
    if not table.known:
        raise InputError(
            f"{CONFIGS / 'levers'}: no row's runs are finished; make levers TRAIN=1 trains them:\n"
            + "\n".join(f"- {one.lever}: {one.reason}" for one in [*kept, *missing])
        )
    one = next(iter(table.known.values()))
    facts = begun(context.places, len(one.losses), len(set(one.drivers)), context.settings.folds)
    written = write_record(place, LeversRecord(**facts, rows=rows, unmeasured=missing), page)
    say(f"{written}: {len(rows)} rows, {len(kept)} of them as they were before, {len(missing)} not measured")


def _train(context: Context, settings: LeversSettings, weights: Path | None) -> None:
    """Train what rows ask for and is not finished, and predict with the views that they ask for."""
    own = replace(context, places=replace(context.places, study=STUDY))
    train_runs(own, settings.runs, weights, settings.taught)
    table = Table(context, settings, weights)
    for name, asked in settings.views.items():
        if views := table.unpredicted(name, asked):
            predict(own, name, PredictSettings(views=views), None)


def page(record: LeversRecord) -> str:
    """The record as Markdown."""
    about = (
        f"Written by `make levers DATASET={record.dataset}`; the rows are named in `configs/levers/{record.dataset}.yaml`. "
        f"{record.images} photos of {record.drivers} drivers, {record.folds} driver folds; log loss out of "
        "fold, of single fold models, and nested (fitted on the other folds) wherever something was fitted to labels. Intervals: "
        "drivers drawn anew 10,000 times. Minutes: what the manifests of the row's new runs say of training and predicting all "
        f"folds, on the machine they were trained on. Commands lack `DATASET={record.dataset}`, `DATA=` and `WEIGHTS=`. Rows of "
        "runs that are not built where this was last written stand as they were, with the commits that they were trained at."
    )
    parts = [f"# Levers\n\n{about}\n"]
    for kind in dict.fromkeys(row.kind for row in record.rows):
        parts.append(f"## {kind}\n\n{HEADER}\n" + "".join(f"{_line(row)}\n" for row in record.rows if row.kind == kind))
    missing = "".join(f"- {one.lever}: {one.reason}\n" for one in record.unmeasured)
    return "\n".join([*parts, *([f"## Not measured\n\n{missing}"] if missing else [])])


def _line(row: Lever) -> str:
    kept = ("yes" if row.kept else "no") + (f": {row.why}" if row.why else "")
    return (
        f"| {row.lever} | {row.before:.3f} | {row.after:.3f} | {change(row.change)} | {row.minutes:.0f} | {kept} | "
        f"`{row.command}` | {', '.join(row.commits)} |"
    )
