"""Ablations: each change's out-of-fold log loss without it and with it, from what finished runs predicted."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from driverwatch.config.ensemble import EnsembleSettings, KnnSettings, PipelineSettings
from driverwatch.config.experiments import AblationSettings, AblationsSettings
from driverwatch.config.loading import Strict, load
from driverwatch.config.model import PredictSettings
from driverwatch.config.types import TtaSet
from driverwatch.data.context import CONFIGS, Context
from driverwatch.ensemble import members as blending
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.embeddings import make_embeddings, open_embeddings
from driverwatch.ensemble.members import Finished, finished_runs
from driverwatch.errors import InputError
from driverwatch.experiments import experiment
from driverwatch.experiments.experiment import Change, Number, Record
from driverwatch.inference.predict_run import predict
from driverwatch.inference.predictions import predicted_tta
from driverwatch.io.atomic import write_text
from driverwatch.io.console import say
from driverwatch.io.html import render

NAME = STUDY = "ablations"
COLUMNS = {
    "ablation": "{ablation}",
    "log loss before": "{before:.3f}",
    "after": "{after:.3f}",
    "difference (95 % over drivers)": "{difference}",
    "minutes": "{minutes:.0f}",
    "adopted": "{adopted}",
}
BOOKKEEPING = ("kind", "ablation", "command", "commits")  # columns of the CSV beside the page


class Ablation(Strict):
    """A row of the table; minutes are those of its new runs, on the machine that trained them."""

    kind: str
    ablation: str
    command: str
    before: Number
    after: Number
    change: Change
    minutes: Number
    kept: bool
    why: str
    commits: list[str]


class Unmeasured(Strict):
    ablation: str
    reason: str


class AblationsRecord(Record):
    rows: list[Ablation]
    unmeasured: list[Unmeasured]


@dataclass(frozen=True, eq=False)
class Side:
    """One side of an ablation: finished runs, and the out-of-fold losses (N,) of what is made of them, nested if it is fitted."""

    found: Finished
    losses: np.ndarray


class AblationStudy:
    """The ablations that the settings name, each side scored once."""

    def __init__(self, context: Context, settings: AblationsSettings, weights: Path | None) -> None:
        self.context, self.settings, self.weights = context, settings, weights
        self.space, self.finished = cache(self._space), cache(self._finished)
        self.sides: dict[str, Side] = {}

    def _space(self, text: str) -> EmbeddingIndex:
        make_embeddings(self.context, text, self.weights)
        return open_embeddings(self.context, text)

    def _finished(self, names: tuple[str, ...]) -> Finished:
        own = set(names) <= set(self.settings.runs)
        return finished_runs(experiment.in_study(self.context, STUDY) if own else self.context, list(names))

    def scored(self, settings: EnsembleSettings) -> Side:
        """One side of an ablation. Raises `InputError` for runs that are not finished, or have not predicted its TTA set."""
        key = settings.model_dump_json()
        if key not in self.sides:
            found = self.finished(tuple(settings.runs))
            members = experiment.members_of_runs(found, [settings.tta_set] if settings.tta_set else [])
            rows = blending.oof_of_members(members, found.train, found.folds)
            spaces = {text: self.space(text) for text in settings.embeddings}
            fitted = post_processing.fit(settings, rows, found.train.labels, found.train.drivers, spaces)
            self.sides[key] = Side(found, fitted.losses)
        return self.sides[key]

    def measured(self, kind: str, ablation: AblationSettings) -> Ablation:
        """The ablation's row. Raises `InputError` as `scored`, and for sides of different images."""
        before, after = self.scored(ablation.before), self.scored(ablation.after)
        pack, folds = before.found.train, before.found.folds.count
        if list(pack.names) != list(after.found.train.names):
            raise InputError(
                "its two sides are of packs that hold different images; make both packs alike (SKIP_INVALID=)"
            )
        new = [run for run in after.found.runs if run.name not in ablation.before.runs]
        commits = experiment.commits_of([*before.found.runs, *after.found.runs], folds)
        return Ablation(
            kind=kind,
            ablation=ablation.ablation,
            command=self.command(ablation),
            before=float(before.losses.mean()),
            after=float(after.losses.mean()),
            change=experiment.paired_change(after.losses, before.losses, pack.drivers),
            minutes=sum(experiment.minutes_of(run, folds) for run in new),
            kept=ablation.kept,
            why=ablation.why,
            commits=sorted({commit[:7] for commit in commits}),
        )

    def command(self, ablation: AblationSettings) -> str:
        """The command that makes the second side from the first: a training, or an ensemble."""
        before, after = ablation.before.runs, ablation.after.runs
        if new := [run for run in after if run not in before and run in self.settings.runs]:
            return self.trainings(new)
        own, knn = set(after) <= set(self.settings.runs), ablation.after.knn
        if own or (knn and knn != KnnSettings(embeddings=knn.embeddings)):
            return "make ablation"  # no ensemble takes a study's runs, and KNN= names features alone
        return ensemble_command(ablation.after)

    def trainings(self, names: list[str]) -> str:
        """Commands that train the study's runs of these names."""
        return "; ".join(self.settings.runs[name].command(name, STUDY) for name in names)

    def missing(self, ablation: AblationSettings) -> str:
        """Commands that train the study's unfinished runs of an ablation, and predict with the others what it lacks."""
        commands = []
        for run in dict.fromkeys([*ablation.before.runs, *ablation.after.runs]):
            if run in self.settings.runs:
                try:
                    asked = self.unpredicted(run)
                    commands += [f'make predict RUN={run} STUDY={STUDY} TTA="{" ".join(asked)}"'] if asked else []
                except InputError:  # not finished
                    commands.append(self.trainings([run]))
        return "; ".join(sorted(commands, key=lambda command: command.startswith("make predict")))

    def unpredicted(self, name: str) -> list[TtaSet]:
        """TTA sets asked of a run that not all its folds have predicted. Raises `InputError` if they are not finished."""
        found = self.finished((name,))
        there = predicted_tta(found.runs[0], found.folds.count)
        return [tta for tta in self.settings.tta.get(name, []) if tta not in there]

    def train(self) -> None:
        """Train the study's runs that are not finished, and predict with the TTA sets that its ablations ask for."""
        own, wanted = experiment.in_study(self.context, STUDY), experiment.load_runs(self.settings.runs)
        experiment.train_missing(own, wanted, self.weights, self.settings.pseudo_labels)
        for name in self.settings.tta:
            if tta := self.unpredicted(name):
                predict(own, name, PredictSettings(tta=tta), None)


def ensemble_command(side: EnsembleSettings) -> str:
    """The shell command that makes a submission of one side: what differs from the defaults."""
    words = ["make ensemble", f'MODELS="{" ".join(side.runs)}"']
    words += [f"TTA={side.tta}"] if side.tta != "auto" else []
    plain, knn = PipelineSettings(), side.knn
    for key in ("blend", "class_balance", "calibrate", "clip"):
        words += [f"{key.upper()}={getattr(side, key)}"] if getattr(side, key) != getattr(plain, key) else []
    return " ".join([*words, *([f"KNN={knn.embeddings}"] if knn else [])])


def run_ablations(context: Context, training: bool, weights: Path | None) -> None:
    """Write the ablations' record and page from finished runs; what is not finished is listed with the command that trains it.

    A row of an earlier record whose runs are not built here stays as it is, with the commits it was trained at.

    Raises `InputError`: no ablation's runs are finished.

    Args:
        training: train that first.
    """
    settings = load(AblationsSettings, CONFIGS / "ablations", context.dataset)
    study, place = AblationStudy(context, settings, weights), context.places.result(NAME)
    if training:
        study.train()
    earlier = experiment.read_record(AblationsRecord, place)
    before = {(row.kind, row.ablation, row.command): row for row in (earlier.rows if earlier else ())}
    rows, unmeasured, kept = list[Ablation](), list[Unmeasured](), list[Unmeasured]()
    for kind, ablation in ((kind, one) for kind, ablations in settings.rows.items() for one in ablations):
        try:
            rows.append(study.measured(kind, ablation))
        except InputError as error:
            command = study.missing(ablation)
            reason = Unmeasured(ablation=ablation.ablation, reason=f"{error}" + (f"; `{command}`" if command else ""))
            old = before.get((kind, ablation.ablation, study.command(ablation)))
            rows += [old] if old else []
            (kept if old else unmeasured).append(reason)
    if not study.sides:
        raise InputError(
            f"{CONFIGS / 'ablations'}: no ablation's runs are finished; make ablation TRAIN=1 trains them:\n"
            + "\n".join(f"- {one.ablation}: {one.reason}" for one in [*kept, *unmeasured])
        )
    pack = next(iter(study.sides.values())).found.train
    facts = experiment.record_facts(context, len(pack.names), pack.drivers, context.settings.folds)
    record = AblationsRecord(**facts, rows=rows, unmeasured=unmeasured)
    written = experiment.write_record(place, record, page)
    write_text(place.with_suffix(".csv"), bookkeeping(record))
    named = {(kind, one.ablation, study.command(one)) for kind, ablations in settings.rows.items() for one in ablations}
    for row in before.keys() - named:
        say(f"{written}: no longer holds {row[1]} ({row[2]}): {CONFIGS / 'ablations'} names no such row")
    say(f"{written}: {len(rows)} rows, {len(kept)} of them unchanged, {len(unmeasured)} not measured")


def page(record: AblationsRecord) -> str:
    """The record as Markdown."""
    rows: dict[str, list[dict[str, object]]] = {}
    for row in record.rows:
        adopted = ("yes" if row.kept else "no") + (f": {row.why}" if row.why else "")
        rows.setdefault(row.kind, []).append(experiment.cells(row, adopted=adopted))
    tables = {kind: experiment.markdown_table(COLUMNS, cells) for kind, cells in rows.items()}
    return render("ablations.md", record=record, tables=tables)


def bookkeeping(record: AblationsRecord) -> str:
    """As CSV: the command that makes each row, and the commits that its runs were trained at."""
    lines = [(row.kind, row.ablation, row.command, " ".join(row.commits)) for row in record.rows]
    return pd.DataFrame(lines, columns=BOOKKEEPING).to_csv(index=False, lineterminator="\n")
