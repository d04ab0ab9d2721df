"""The core of every experiment: train what is missing, score it out of fold, compare pairs over drivers, record, render."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field

from driverwatch import run as runs
from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.experiments import RecipeSettings, RunSettings
from driverwatch.config.loading import Strict, load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import TtaSet
from driverwatch.data.context import CONFIGS, Context
from driverwatch.data.folds import FoldTable
from driverwatch.data.prepare import make_packs
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.embeddings import make_embeddings
from driverwatch.ensemble.members import Finished, Member, finished_runs
from driverwatch.ensemble.teacher_ensemble import is_current, make_pseudo_labels
from driverwatch.errors import InputError
from driverwatch.inference.predictions import default_tta_of, prediction_path
from driverwatch.io.atomic import write_json, write_text
from driverwatch.io.console import close
from driverwatch.io.manifests import checksum_of_file, provenance, read_json
from driverwatch.metrics import FLOOR, interval, log_loss, log_losses, oof_score
from driverwatch.models import weight_files
from driverwatch.run import Run
from driverwatch.submission.build import make_ensemble
from driverwatch.training.train import TrainRequest, read_augmentation, train

Ensembles = Mapping[str, EnsembleSettings]
Line = Mapping[str, Any]
Number = Annotated[float, Field(strict=False)]  # JSON writes a whole one without its point
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]  # low, high
Change = Annotated[list[Number], Field(min_length=3, max_length=3)]  # a mean difference of losses, and its interval


class Record(Strict):
    """What every experiment's record says of the images that it was scored on."""

    dataset: str
    images: int
    drivers: int
    folds: int
    clip: Number = FLOOR  # lowest probability under its log losses
    made: dict[str, Any] | None = None  # what wrote it; null where that was not kept


class StudyRecord(Record):
    """A record of runs that were trained for it."""

    fold_file: str  # checksum, or its beginning
    commits: list[str]  # at which the runs were trained


class StudyRow(Strict):
    """A run's out-of-fold log loss with its interval, and the paired change to the run that it is compared with, if any."""

    log_loss: Number
    interval: Interval
    change: Change | None


R = TypeVar("R", bound=Record)


def record_facts(context: Context, images: int, drivers: Iterable[str], folds: int) -> dict[str, Any]:
    """The values of `Record`, for so many images, each one's driver, and a number of folds."""
    facts = {"dataset": context.dataset, "images": images, "drivers": len(set(drivers))}
    return {**facts, "folds": folds, "made": provenance()}


def read_record(kind: type[R], path: Path) -> R | None:
    """The record at `path`, None where there is none. Raises `InputError` for one that is damaged or of another version."""
    return parse(kind, read_json(path), str(path)) if path.is_file() else None


def write_record(path: Path, record: R, page: Callable[[R], str]) -> Path:
    """The path of the Markdown page, written beside the JSON record at `path` from that record alone."""
    write_json(path, record.model_dump())
    beside = path.with_suffix(".md")
    write_text(beside, page(record))
    return beside


def in_study(context: Context, study: str) -> Context:
    """The context in which `study`'s runs lie, apart from those that ensembles take."""
    return replace(context, places=replace(context.places, study=study))


def load_runs(wanted: Mapping[str, RunSettings]) -> dict[str, ModelSettings]:
    """Whole settings of runs by name, from `configs/models` and what each changes."""
    return {name: load(ModelSettings, CONFIGS / "models", run.model, run.set) for name, run in wanted.items()}


def train_missing(
    context: Context,
    wanted: dict[str, ModelSettings],
    weights: Path | None,
    teacher_ensembles: Ensembles = MappingProxyType({}),
) -> None:
    """Pack, train and predict with each run that is not finished, in turn; every misfit is found before the first one.

    Pseudo-labels of an ensemble in `teacher_ensembles`, by name, are made before its first student is trained.
    """
    _refuse_late_teachers(context, wanted, teacher_ensembles)
    for settings in wanted.values():
        read_augmentation(context, settings)
    refuse_misfits(wanted, weights)
    for size in {settings.input.key for settings in wanted.values()}:
        make_packs(context, size, None, "", False, False)
    for name, settings in wanted.items():
        teacher = (settings.train.pseudo.labels if settings.train.pseudo else None) or ""
        made_by = teacher_ensembles.get(teacher)
        if made_by and not is_current(context, teacher, made_by):
            make_all_features(context, made_by.embeddings, weights)
            make_pseudo_labels(context, made_by.runs, teacher, made_by.tta_set, made_by.pipeline)
        train(TrainRequest(context=context, settings=settings, name=name, weights=weights))


def reproduce(context: Context, weights: Path | None, name: str | None = None) -> None:
    """Train what is not finished of `configs/recipes/<name>.yaml` (the data set's name), then write its submissions."""
    start, recipe = time.monotonic(), load(RecipeSettings, CONFIGS / "recipes", name or context.dataset)
    train_missing(context, load_runs(recipe.runs), weights, recipe.pseudo_labels)
    for submission, made in recipe.submissions.items():
        make_all_features(context, made.embeddings, weights)
        make_ensemble(context, made.runs, submission, made.tta_set, None, made.pipeline, last=False)
    then = [f'make submit DATASET={context.dataset} FILE=<one of them> MESSAGE="..."']
    close(context.places.submissions, ", ".join(recipe.submissions), time.monotonic() - start, then=then)


def make_all_features(context: Context, features: Iterable[str], weights: Path | None) -> None:
    """Make the embeddings that images are compared by, unless they are there; named as in `EMBEDDINGS=`."""
    for text in features:
        make_embeddings(context, text, weights)


def refuse_misfits(wanted: Mapping[str, ModelSettings], weights: Path | None) -> None:
    """Raise `InputError` for the first run, by name, with unknown layers, an illegal truncation or missing weights.

    Asked before the first of them trains for hours.
    """
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models.describe import described

    for name, settings in wanted.items():
        try:
            weight_files.find(settings, weights)
            described(settings)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def _refuse_late_teachers(context: Context, wanted: dict[str, ModelSettings], ensembles: Ensembles) -> None:
    """Raise `InputError` for the first run, by name, whose teachers would be missing when it is its turn."""
    before: list[str] = []
    for name, settings in wanted.items():
        if settings.train.pseudo is not None:
            asked = settings.train.pseudo
            ensemble = ensembles.get(asked.labels or "")
            teachers = ensemble.runs if ensemble else asked.runs
            if late := [teacher for teacher in teachers if teacher in wanted and teacher not in before]:
                raise InputError(
                    f"{name}: its teachers {', '.join(late)} are not trained before it; list it below them"
                )
            for teacher in (teacher for teacher in teachers if teacher not in wanted):
                runs.load(context.places.run(teacher))  # raises if it is not there
            if asked.labels and not ensemble and not context.places.pseudo_labels(asked.labels).is_dir():
                raise InputError(f"{name}: train.pseudo.labels={asked.labels} is neither listed here nor made; list it")
        before.append(name)
    for name, made_by in ensembles.items():
        if unscored := [run for run in made_by.runs if not wanted[run].train.splits.scored]:
            raise InputError(
                f"pseudo_labels.{name}: {', '.join(unscored)} is not trained on folds, so it cannot label images fold by fold"
            )


def settings_as_trained(run: Run) -> dict[str, Any]:
    """A run's settings as plain data, and how fold 0 predicted if it is finished: `run.json` leaves out what decides speed."""
    content: dict[str, Any] = run.settings.model_dump()
    return content | ({"predict": run.manifest(0)["settings"]["predict"]} if run.finished(0) else {})


def members_of_runs(found: Finished, tta: Sequence[TtaSet] = ()) -> list[Member]:
    """Finished runs as ensemble members, each once with every TTA set of `tta`; none: with its own default set."""
    return [
        Member(run, test, chosen)
        for run, test in zip(found.runs, found.tests, strict=True)
        for chosen in tta or [default_tta_of(run)]
    ]


class ScoredRun(NamedTuple):
    """A run under a TTA set: its out-of-fold log losses float64 (N,), in nats and in the pack's order; its accuracy (0 to 1)."""

    run: Run
    tta: TtaSet
    losses: np.ndarray
    accuracy: float

    def facts(self, against: "ScoredRun | None", drivers: np.ndarray) -> dict[str, Any]:
        """The values of `StudyRow`, given each image's driver (N,)."""
        change = None if against is None else paired_change(self.losses, against.losses, drivers)
        return {"log_loss": self.losses.mean(), "interval": list(interval(self.losses, drivers)), "change": change}


def score_runs(found: Finished, tta: Sequence[TtaSet] = ()) -> list[ScoredRun]:
    """Out-of-fold scores of the members that `members_of_runs` makes."""
    scored = []
    for member in members_of_runs(found, tta):
        probabilities = blending.oof_probabilities(member, found.train, found.folds)
        losses, _, _, right = oof_score(probabilities, found.train.labels, found.train.drivers)
        scored.append(ScoredRun(member.run, member.tta, losses, right))
    return scored


def score_table(probabilities: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """One line per entry of `probabilities` (name: probabilities (N, C)): log loss, standard error over drivers, accuracy.

    `groups`: (N,), each row's driver: frames of one are not independent, so an error that counts frames would be too small.
    """
    lines = []
    for name, p in probabilities.items():
        _, loss, error, right = oof_score(p, labels, groups)
        lines.append({"model": name, "log loss": loss, "± (drivers)": error, "accuracy": right, "images": len(labels)})
    return pd.DataFrame(lines)


def paired_table(
    probabilities: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, against: str
) -> pd.DataFrame:
    """One line per entry of `probabilities` (name: probabilities (N, C)), each image's loss paired with that under `against`.

    `score_table`'s columns, then the mean difference (below 0: better than `against`) and its 95 % interval over groups, which
    says more than two intervals side by side: what makes a driver hard is in both. NaN where `against` is not among the
    rows, and for the interval where there is one group alone.
    """
    table, first = score_table(probabilities, labels, groups), probabilities.get(against)
    unknown = float("nan")
    lines = []
    for p in probabilities.values():
        gain = np.full(len(labels), unknown) if first is None else log_losses(p, labels) - log_losses(first, labels)
        low, high = (unknown, unknown) if first is None else interval(gain, groups)
        lines.append({f"against {against}": float(gain.mean()), "low": low, "high": high})
    return pd.concat([table, pd.DataFrame(lines, index=table.index)], axis=1)


Metric = Callable[[np.ndarray, np.ndarray], float]


def score_table_by(
    probabilities: dict[str, np.ndarray], labels: np.ndarray, keys: np.ndarray, title: str, metric: Metric = log_loss
) -> pd.DataFrame:
    """`metric` of each entry of `probabilities` within each value of `keys` (N,), in their order, with the number of images."""
    lines = []
    for key in sorted(set(keys)):
        chosen = keys == key
        found = {name: metric(p[chosen], labels[chosen]) for name, p in probabilities.items()}
        lines.append({title: str(key), "images": int(chosen.sum()), **found})
    return pd.DataFrame(lines)


def table_text(table: pd.DataFrame, title: str, percent: bool = False) -> str:
    """A table of scores as aligned text: losses to four places, shares (`accuracy`, or all with `percent`) in percent."""
    shown = table.copy()
    for column in shown.columns:
        if pd.api.types.is_float_dtype(shown[column]):
            form = "{:.1%}" if percent or column == "accuracy" else "{:.4f}"
            shown[column] = [form.format(value) for value in shown[column]]
    return f"{title}\n{shown.to_string(index=False)}\n"


def study_runs(
    context: Context, study: str, wanted: dict[str, ModelSettings], weights: Path | None
) -> tuple[Finished, dict[str, Any]]:
    """A study's runs, trained as far as they are not finished, where no ensemble takes them; and the values of `StudyRecord`."""
    if unscored := [name for name, settings in wanted.items() if not settings.train.splits.scored]:
        raise InputError(f"{unscored[0]}: a study compares out-of-fold scores; train.splits must be folds")
    own = in_study(context, study)
    train_missing(own, wanted, weights)
    found = finished_runs(own, list(wanted))
    facts = {"fold_file": found.folds.checksum, "commits": commits_of(found.runs, found.folds.count)}
    pack = found.train
    return found, record_facts(context, len(pack.names), pack.drivers, found.folds.count) | facts


def paired_change(losses: np.ndarray, baseline: np.ndarray, drivers: np.ndarray) -> list[float]:
    """[mean, low, high] of `losses` less `baseline` (N,), image by image: below 0 is better; 95 % bootstrap over drivers (N,)."""
    gain = losses - baseline
    return [float(gain.mean()), *interval(gain, drivers)]


def commits_of(trained: Sequence[Run], folds: int) -> list[str]:
    """Commits at which the runs' folds were trained, sorted."""
    return sorted({str(run.manifest(fold)["commit"]) for run in trained for fold in range(folds)})


def minutes_of(run: Run, folds: int) -> float:
    """Minutes that training and predicting a run's folds took."""
    return float(sum(run.manifest(fold)["seconds"] for fold in range(folds)) / 60)


def prediction_files(members: list[Member], folds: FoldTable) -> dict[str, dict[str, str]]:
    """SHA-256 of each prediction file that a table is made of, by member and path."""
    made: dict[str, dict[str, str]] = {}
    for member in members:
        paths = [prediction_path(member.run.fold(fold), "validation", member.tta) for fold in range(folds.count)]
        made[f"{member.run.name} {member.tta}"] = {str(path): checksum_of_file(path) for path in paths}
    return made


def cells(row: Any, **more: object) -> dict[str, object]:
    """What a page's table is filled in from: a row's values, `more`, and its change: `-0.149 (-0.316 to -0.010)` or empty."""
    change = "" if row.change is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*row.change)
    return {**row.model_dump(), "difference": change, **more}


def markdown_table(columns: Mapping[str, str], lines: Iterable[Line]) -> str:
    """A Markdown table without a line break at its end; `columns` are format strings by heading, filled in from each line."""
    cells = [list(columns), ["---"] * len(columns), *_cells(columns, lines)]
    return "\n".join(f"|{'|'.join(row)}|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in cells)


def text_table(columns: Mapping[str, str], lines: Iterable[Line]) -> str:
    """The same for the terminal: aligned columns."""
    return pd.DataFrame(_cells(columns, lines), columns=list(columns)).to_string(index=False)


def _cells(columns: Mapping[str, str], lines: Iterable[Line]) -> list[list[str]]:
    return [[cell.format(**line) for cell in columns.values()] for line in lines]
