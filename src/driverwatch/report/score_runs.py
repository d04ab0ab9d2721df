"""`make score`, and runs as a report shows them: scores, learning curves, settings, times; what is invalid, with the reason."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driverwatch import run as runs
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import TtaSet
from driverwatch.data import competition
from driverwatch.data.context import Context, going_on, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble import calibration
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.members import Finished, Member, caveats, chosen_on_validation, finished_runs
from driverwatch.errors import InputError
from driverwatch.experiments.experiment import paired_change, score_table, score_table_by, table_text
from driverwatch.inference.predictions import default_tta_of, predicted_tta
from driverwatch.io.console import ending, say
from driverwatch.io.paths import matching
from driverwatch.metrics import KAGGLE_FLOOR, accuracy, interval, kaggle_log_loss, log_loss, oof_score
from driverwatch.run import Run
from driverwatch.submission.build import read_submission
from driverwatch.training.checkpoint import read_history
from driverwatch.training.run_summary import RunState

SHOWN = 4  # lines of `make score` on runs: eight with title, heading, test score and next command
HISTORY = ["epoch", "stage", "loss", "val_loss"]


@dataclass(frozen=True, eq=False)
class RunScores:
    """A finished run out of fold, each image by the model that never saw its driver; tables are of the TTA set `tta`.

    `all_tta`: columns `tta`, `log loss`, `low`, `high`, `accuracy`. `drivers`, `classes`: log loss by name (float64).
    `both`: drivers x classes, NaN where a driver has no image of a class. `confusion`: true classes x likeliest classes,
    images. `reliability`: as `calibration.table` makes it. `each`: a line per image by its name: `driver`, `class`, `label`,
    `says` (the likeliest class), `sure` (its probability), `true` (the class's), `loss`, in the order of `probabilities`
    float64 (N, C). `against_centre`: by how much the TTA set changes the centre crop's loss, and 95 % over drivers; NaN: no such.
    """

    name: str
    tta: str
    loss: float
    low: float  # 95 % over drivers, as `high`; NaN of a single driver
    high: float
    accuracy: float
    images: int
    all_tta: pd.DataFrame
    drivers: "pd.Series[float]"
    classes: "pd.Series[float]"
    both: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    calibration_error: float
    each: pd.DataFrame
    probabilities: np.ndarray
    against_centre: list[float]


Packs = Callable[[str], tuple[FoldTable, dict[str, Pack]] | InputError]


def packs_by_size(context: Context) -> Packs:
    """Opens folds and packs by size, each once; a size that cannot be opened is refused alike for each run."""

    @cache
    def opened(size: str) -> tuple[FoldTable, dict[str, Pack]] | InputError:
        try:
            return open_packs(context, size)
        except InputError as error:
            return error

    return opened


class RunReport:
    """A run that `collect_runs` found, and that has no `problem` itself: its scores, learning curves, and what it was made with."""

    def __init__(self, context: Context, state: RunState, packs: Packs) -> None:
        run = runs.load(context.places.runs / state.name)
        self.state, self.name = state, state.name
        self.resume = going_on(run.name)  # variables with which make train resumes it
        problems = [fold.problem for fold in state.folds if fold.problem and fold.state == "invalid"]
        self.histories = dict[int, pd.DataFrame]()  # by fold: epoch, stage, loss, val_loss
        for fold in state.folds:
            path = run.fold(fold.number) / "history.csv"
            try:
                self.histories |= {fold.number: history(path)} if path.is_file() else {}
            except InputError as error:
                problems.append(str(error))
        self.scores: RunScores | None = None
        unscored = list[str]()
        if state.finished and not state.unscored:
            try:
                self.scores, unscored = _scored(run, packs)
            except InputError as error:
                unscored = [str(error)]
        self.problem = "; ".join(unscored)  # why it lacks scores that it should have
        self.problems = (*problems, *unscored)  # all that could not be read
        manifests = {fold.number: run.manifest(fold.number) for fold in state.done}
        self.made_with = made_with(manifests, run)  # backend, versions, machine, seed
        self.times = times(manifests)  # a line per finished fold
        self.settings = settings_of(run)  # what differs from the defaults, as `key: value`

    @property
    def minutes(self) -> float:
        """Of the finished folds."""
        return sum(fold.seconds for fold in self.state.done) / 60

    @property
    def commits(self) -> str:
        """At which its finished folds were trained."""
        return ", ".join(sorted({str(fold.commit) for fold in self.state.done}))

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Sorts runs with scores first, by their loss."""
        return self.scores is None, self.scores.loss if self.scores else 0.0, self.name


def _scored(run: Run, packs: Packs) -> tuple[RunScores, list[str]]:
    """Scores of a finished run, and why some of its TTA sets cannot be read.

    Raises:
        InputError: its packs or all of its predictions cannot be read, or are not those of today.
    """
    opened = packs(run.settings.input.key)
    if isinstance(opened, InputError):
        raise opened
    folds, pair = opened
    run.refuse_other_inputs(folds.checksum, {kind: pack.checksum for kind, pack in pair.items()})
    found, problems = dict[TtaSet, np.ndarray](), list[str]()
    for tta in predicted_tta(run, folds.count, ("validation",)):
        try:
            found[tta] = blending.oof_probabilities(Member(run, pair["test"], tta), pair["train"], folds)
        except InputError as error:
            problems.append(str(error))
    if not found:
        nothing = f"{run.folder}: no TTA set is there that every fold has predicted; run make predict RUN={run.name}"
        raise InputError("; ".join(problems) or nothing)
    default = default_tta_of(run)
    return score_tables(run, default if default in found else list(found)[-1], found, pair["train"]), problems


def score_tables(run: Run, tta: TtaSet, found: dict[TtaSet, np.ndarray], pack: Pack) -> RunScores:
    """Scores of a run's probabilities by TTA set, float64 (N, C) each, in the order of the pack's N images."""
    labels, drivers, classes = pack.labels, pack.drivers, np.array(run.classes)
    each = {name: oof_score(probabilities, labels, drivers) for name, probabilities in found.items()}
    ends, chosen = {name: interval(made.losses, drivers) for name, made in each.items()}, each[tta]
    rows, says = np.asarray(found[tta], np.float64), found[tta].argmax(axis=1)
    frame = pd.DataFrame({"driver": drivers, "class": classes[labels], "label": labels, "says": classes[says]})
    frame = frame.assign(sure=rows.max(axis=1), true=rows[np.arange(len(rows)), labels], loss=chosen.losses)
    counted = pd.crosstab(frame["class"].to_numpy(), frame["says"].to_numpy())
    against = [float("nan")] * 3
    if "centre" in found and tta != "centre":
        against = paired_change(chosen.losses, each["centre"].losses, drivers)
    curve = calibration.table(found[tta], labels, drivers)
    columns = ["tta", "log loss", "low", "high", "accuracy"]
    all_tta = pd.DataFrame([[n, made.log_loss, *ends[n], made.accuracy] for n, made in each.items()], columns=columns)
    return RunScores(
        run.name,
        tta,
        chosen.log_loss,
        *ends[tta],
        chosen.accuracy,
        len(labels),
        all_tta,
        frame.groupby("driver")["loss"].mean(),
        frame.groupby("class")["loss"].mean().reindex(classes),
        frame.pivot_table("loss", "driver", "class").reindex(columns=list(classes)),
        counted.reindex(index=classes, columns=classes, fill_value=0),
        curve,
        calibration.calibration_error(curve),
        frame.set_index(pack.names.astype(str)),
        rows,
        against,
    )


class Confusion(NamedTuple):
    """Images of a class that were taken for another, and all images of that class."""

    true: str
    says: str
    mistaken: int
    images: int


def confusions(made: RunScores) -> list[Confusion]:
    """Every pair of classes that a run confused, the most frequent first."""
    counts = made.confusion
    found = [
        Confusion(str(true), str(says), int(counts.loc[true, says]), int(counts.loc[true].sum()))
        for true in counts.index
        for says in counts.columns
        if true != says and counts.loc[true, says]
    ]
    return sorted(found, key=lambda pair: -pair.mistaken)


def in_words(pair: Confusion, classes: dict[str, str]) -> str:
    """Both classes by their meanings, and how many images were mistaken."""
    true, says = (classes[name] or name for name in (pair.true, pair.says))
    return f"“{true}” taken for “{says}”: {pair.mistaken} of {pair.images} images"


def history(path: Path) -> pd.DataFrame:
    """A fold's epochs: `epoch`, `stage`, `loss`, `val_loss` (NaN where it was not measured).

    Raises:
        InputError: not a whole table of numbers.
    """
    frame = pd.DataFrame(read_history(path)).reindex(columns=HISTORY)
    return frame.astype(float).astype({"epoch": int, "stage": int})


def made_with(manifests: dict[int, dict[str, Any]], run: Run) -> dict[str, str]:
    """Seed, ImageNet weights, backend, commit, machine and versions: each value that any fold's manifest states."""
    facts = {"seed": str(run.settings.train.seed)}
    if run.weights:
        facts["ImageNet weights"] = str(run.weights.get("file", run.weights))
    stated = [(key, str(each[key])) for key in ("backend", "commit", "machine", "cores", "python")
              for each in manifests.values() if each.get(key) is not None]  # fmt: skip
    versions = [each["versions"] for each in manifests.values() if isinstance(each.get("versions"), dict)]
    stated += [(package, str(version)) for each in versions for package, version in each.items()]
    return facts | {key: ", ".join(sorted({value for name, value in stated if name == key})) for key, _ in stated}


def times(manifests: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """A line per finished fold; what its manifest does not state is NaN."""
    frame = pd.DataFrame({"fold": list(manifests)})
    minutes, milliseconds = 1 / 60, 1e3
    columns = [("minutes", "seconds", minutes), ("of training", "training_seconds", minutes)]
    for name, key, factor in [*columns, ("ms per step", "step_seconds", milliseconds)]:
        stated = pd.Series([each.get(key) for each in manifests.values()], dtype=object)
        frame[name] = pd.to_numeric(stated, errors="coerce") * factor
    return frame


def settings_of(run: Run) -> list[str]:
    """What a run's settings say beside the defaults, one `dotted.key: value` each; what has no default is always stated."""
    field = {"pack": run.settings.input.pack, "size": run.settings.input.size}
    needed = {"backbone": run.settings.backbone, "weights": run.settings.weights, "input": field}
    defaults = dict(flat(parse(ModelSettings, needed, "defaults").model_dump()))
    always = {"backbone", "weights", "input.pack", "input.size"}
    found = flat(run.settings.model_dump())
    return [f"{key}: {value}" for key, value in found if key in always or defaults.get(key, "") != value]


def flat(content: object, key: str = "") -> list[tuple[str, str]]:
    """Plain data as dotted keys with their values as text; empty lists and dictionaries are values."""
    if isinstance(content, dict) and content:
        return [pair for name, value in content.items() for pair in flat(value, f"{key}.{name}" if key else str(name))]
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return [pair for number, value in enumerate(content) for pair in flat(value, f"{key}.{number}")]
    return [(key, "null" if content is None else str(content))]


def print_scores(context: Context, names: list[str], details: bool = False) -> None:
    """Print log loss and accuracy of what an ensemble would take of each run, and of the best submission on known test labels.

    With `details` of every TTA set, fold, driver, class and submission.
    """
    found = finished_runs(context, names)
    for run in found.runs:
        if not blending.oof_of_member(run):
            say(f"{run.name}: no out-of-fold score: {run.settings.train.splits.unscored}")
    if any(map(blending.oof_of_member, found.runs)):
        (_print_out_of_fold if details else _print_best)(context, found)
    _print_test_scores(context, details)
    more = f"make score DATASET={context.dataset} DETAILS=1   # by TTA set, fold, driver and class"
    ending(then=[f"make report DATASET={context.dataset}" if details else more])


def _print_best(context: Context, found: Finished) -> None:
    """Print a line for each of the best runs by its default TTA set, and for the mean of all."""
    pack, folds, runs = found.train, found.folds, [run for run in found.runs if blending.oof_of_member(run)]
    chosen = _default_sets(found, {run.name: [default_tta_of(run)] for run in runs})
    table = score_table(chosen, pack.labels, pack.drivers).drop(columns="images").sort_values("log loss")
    optimistic = ", ".join(chosen_on_validation(runs))
    notes = [f"optimistic: epoch chosen on the validation drivers: {optimistic}"] * bool(optimistic)
    best, uniform = table.head(SHOWN - len(notes)), log(len(context.settings.classes))
    images = f"{len(pack.names)} images of {len(set(pack.drivers))} drivers in {folds.count} folds"
    title = (
        f"{context.dataset}, out of fold: best {len(best)} of {len(table)}, {images} (a uniform guess: {uniform:.4f})"
    )
    say("\n".join([table_text(best, title).rstrip("\n"), *notes]))


def _default_sets(found: Finished, sets: dict[str, list[TtaSet]]) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities of runs under TTA sets, by `<run> <set>`; last the mean of their default sets, if several."""
    tests = dict(zip((run.name for run in found.runs), zip(found.runs, found.tests, strict=True), strict=True))
    made = {
        f"{name} {tta}": blending.oof_probabilities(Member(*tests[name], tta), found.train, found.folds)
        for name, there in sets.items()
        for tta in there
    }
    defaults = [f"{name} {default_tta_of(tests[name][0])}" for name in sets]
    if len(defaults) > 1 and made.keys() >= set(defaults):
        made[f"mean of {len(defaults)}"] = blending.mean([made[name] for name in defaults])
    return made


def _print_out_of_fold(context: Context, found: Finished) -> None:
    """Print tables of all TTA sets, and detailed ones of each run's default set and of the mean of these."""
    pack, folds, runs = found.train, found.folds, [run for run in found.runs if blending.oof_of_member(run)]
    made = _default_sets(found, {run.name: predicted_tta(run, folds.count) for run in runs})
    defaults = {f"{run.name} {default_tta_of(run)}" for run in runs}
    chosen = {name: p for name, p in made.items() if name in defaults or name.startswith("mean of ")}
    title = f"Out of fold: {context.dataset}, {folds.count} driver folds"
    say(table_text(score_table(made, pack.labels, pack.drivers), title))
    for caveat in caveats(runs):
        say(caveat)
    meanings = "  ".join(f"{name} {meaning}" for name, meaning in context.settings.classes.items())
    say(textwrap.fill(f"classes: {meanings}", 100) + "\n")
    fold_of = np.array([folds.of_driver[driver] for driver in pack.drivers])
    classes = np.array(list(context.settings.classes))[pack.labels]
    for keys, kind in ((fold_of, "fold"), (pack.drivers, "driver"), (classes, "class")):
        say(table_text(score_table_by(chosen or made, pack.labels, keys, kind, log_loss), f"Log loss by {kind}"))
        table = score_table_by(chosen or made, pack.labels, keys, kind, accuracy)
        say(table_text(table, f"Accuracy by {kind}", percent=True))


def _print_test_scores(context: Context, details: bool) -> None:
    """Print the score of the best submission (with `details` of every one) of a competition whose test labels are known."""
    table, problems = test_scores(context)
    for problem in problems:
        say(f"not scored: {problem}")
    if len(table) and details:
        title = "Unseen test drivers (labels known: the competition is synthetic), scored as Kaggle does, clipped at "
        say(table_text(table, f"{title}{KAGGLE_FLOOR:g}"))
    elif len(table):
        best = table.iloc[int(table["log loss"].argmin())]
        several = f" (best of {len(table)} submissions)" if len(table) > 1 else ""
        say(f"Unseen test drivers: {best.model} log loss {best['log loss']:.4f}, accuracy {best.accuracy:.1%}{several}")


def test_scores(context: Context) -> tuple[pd.DataFrame, list[str]]:
    """`model` (a file's name), `log loss`, `accuracy`, `images` of every submission, where test labels are known; problems."""
    test_labels = competition.read_test_labels(context.settings, context.data) if context.data.is_dir() else None
    lines, problems = list[list[object]](), list[str]()
    names, labels = list(test_labels or {}), np.array(list((test_labels or {}).values()))
    header = [context.settings.columns.image, *context.settings.classes]
    for path in matching(context.places.submissions, "*.csv") if test_labels else []:
        try:
            made = read_submission(path, names, header)
            lines.append([path.name, kaggle_log_loss(made, labels), accuracy(made, labels), len(labels)])
        except InputError as error:
            problems.append(str(error))
    return pd.DataFrame(lines, columns=["model", "log loss", "accuracy", "images"]), problems
