"""What the report shows of a data set: runs, submissions, figures, its first sentences; what is missing, with the command."""

import time
from collections.abc import Iterator
from math import log
from typing import NamedTuple

import numpy as np
import pandas as pd

from driverwatch import run as runs
from driverwatch.config.dataset import LeaderboardSettings
from driverwatch.data.context import CONFIGS, Context
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble.calibration import temperature
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.errors import InputError
from driverwatch.experiments.ablations import Ablation, AblationsRecord
from driverwatch.experiments.experiment import paired_change, read_record
from driverwatch.io.html import Missing, interval
from driverwatch.io.manifests import provenance, read_json
from driverwatch.metrics import log_losses
from driverwatch.report.collect_runs import (
    OTHER_FOLDS,
    SubmissionState,
    collect_folds,
    collect_packs,
    collect_runs,
    collect_submissions,
)
from driverwatch.report.contact_sheets import Figure, example_figures
from driverwatch.report.example_images import Strip, Thumbnail, worst_images
from driverwatch.report.score_runs import (
    RunReport,
    RunScores,
    confusions,
    in_words,
    packs_by_size,
    test_scores,
)
from driverwatch.report.status import status
from driverwatch.run import Run

WORST_DRIVERS = 3
SMALL = 0.02  # calibration error that is not worth a temperature


class Sentence(NamedTuple):
    """A finding, and the id of the section that it is about."""

    text: str
    section: str


class Report:
    """All that the page shows of one data set, read and scored; nothing of it need be there."""

    review: str | None = None  # the review page's address, relative to this page
    no_review = ""  # why there is none

    def __init__(self, context: Context) -> None:
        self.context, self.dataset, self.classes = context, context.dataset, context.settings.classes
        self.title, self.packs, self.fold_file = context.settings.title, packs_by_size(context), collect_folds(context)
        found = collect_runs(context, self.fold_file, collect_packs(context, self.fold_file))
        states = [run for run in found if run.study is None]
        reported = [RunReport(context, state, self.packs) for state in states if state.problem is None]
        self.runs = sorted(reported, key=lambda run: run.rank)  # those with scores first, by their loss
        made, problem = collect_submissions(context, self.fold_file, {state.name: state for state in states})
        made = [one for one in made if context.places.submission(one.name).is_file()]
        self.submissions = [one for one in made if one.problem is None]
        unreadable = [(state.name, state.problem) for state in states if state.problem]
        unreadable += [(run.name, why) for run in self.runs for why in run.problems]
        unreadable += [("ledger.csv", problem)] if problem else []
        again = "; make ensemble writes it again"
        problems = [(one.name, one.problem) for one in made if one.problem]
        unreadable += [(f"{name}.csv", why if "make ensemble" in why else f"{why}{again}") for name, why in problems]
        self.unreadable = [*dict.fromkeys(unreadable)]  # a run's or a submission's name, and why
        self.made = f"Made on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC at commit "
        self.made += provenance()["commit"] or "unknown"
        self.ablations, self.unmeasured = self._ablations()
        self.blends, self.folds = self._blends(), self._folds()
        self.figures, no_figures = self._figures()
        self.thumbnails, self.strips, no_thumbnails = self._thumbnails()
        self.tests, untested = self._test_scores()
        self.no_figures = [*no_figures, *no_thumbnails, *untested]
        self.sentences = self._sentences()
        built = states or made or context.places.result("ablations").exists()
        self.empty = [] if built else self._nothing()

    @property
    def baselines(self) -> list[LeaderboardSettings]:
        """The leaderboard's, and last the uniform guess."""
        uniform = f"uniform guess, 1/{len(self.classes)} for every class"
        guess = LeaderboardSettings(team=uniform, log_loss=log(len(self.classes)))
        return [*self.context.settings.leaderboard, guess]

    @property
    def scored(self) -> list[RunScores]:
        """Runs with an out-of-fold score, the lowest loss first."""
        return [run.scores for run in self.runs if run.scores]

    @property
    def honest(self) -> list[RunScores]:
        """Of `scored`, runs whose epoch was not chosen on the validation drivers; all where there is no other."""
        optimistic = {run.name for run in self.runs if run.state.chosen_on_validation}
        return [made for made in self.scored if made.name not in optimistic] or self.scored

    @property
    def best(self) -> RunScores | None:
        """The lowest out-of-fold loss of honest runs."""
        return next(iter(self.honest), None)

    @property
    def candidates(self) -> list[SubmissionState]:
        """Submissions with a score under today's folds; diagnostics and optimistic ones only where there is nothing else."""
        sound = [made for made in self.submissions if made.loss == made.loss and OTHER_FOLDS not in made.stale]
        sound = [made for made in sound if not made.diagnostic] or sound
        return [made for made in sound if not made.optimistic] or sound

    @property
    def best_submission(self) -> SubmissionState | None:
        """The lowest out-of-fold loss of the candidates."""
        return min(self.candidates, key=lambda made: (made.loss, made.name), default=None)

    @property
    def tested(self) -> dict[str, float]:
        """Log loss on test labels by a submission's file name."""
        return dict(zip(self.tests["model"], self.tests["log loss"], strict=True)) if len(self.tests) else {}

    def absent(self, made: SubmissionState) -> list[str]:
        """Runs of a submission that are not here, so that nothing here can be compared with it."""
        return [name for name in made.runs if name not in {run.name for run in self.runs}]

    def command(self, target: str, *words: str) -> str:
        return " ".join([f"make {target}", f"DATASET={self.dataset}", *words])

    def _opened(self, name: str) -> tuple[Run, FoldTable, Pack] | None:
        """A run with the folds and the packed training images that it is of; None where these cannot be opened."""
        run = runs.load(self.context.places.runs / name)
        opened = self.packs(run.settings.input.key)
        return None if isinstance(opened, InputError) else (run, opened[0], opened[1]["train"])

    def _folds(self) -> pd.DataFrame | Missing:
        """The fold file, a line per driver: driver, fold, images, then a column per class; packs compare it with the images."""
        if self.fold_file.checksum is None:
            return Missing(str(self.fold_file.problem), self.command("folds"))
        frame = pd.read_csv(self.fold_file.file, dtype={"driver": str}, keep_default_na=False, encoding="utf-8-sig")
        return frame.sort_values("driver", ignore_index=True)

    def _ablations(self) -> tuple[dict[str, list[Ablation]] | Missing, list[str]]:
        """Measured ablations by kind, and the names of those that are not measured."""
        path, command = self.context.places.result("ablations"), self.command("ablation", "TRAIN=1")
        try:
            found = read_record(AblationsRecord, path)
        except InputError as error:
            return Missing(str(error), command), []
        unmeasured = [one.ablation for one in found.unmeasured] if found else []
        if found is None or not found.rows:
            words = f"{path}: no ablation has been measured on this data set."
            if not (named := CONFIGS / "ablations" / f"{self.dataset}.yaml").is_file():
                words += f" Name some in {named} (statefarm_mini.yaml beside it is an example), then:"
            return Missing(words, command), unmeasured
        kinds = dict.fromkeys(row.kind for row in found.rows)
        return {kind: [row for row in found.rows if row.kind == kind] for kind in kinds}, unmeasured

    def _blends(self) -> pd.DataFrame | Missing:
        """What `make blends` wrote, line by line."""
        path, command = self.context.places.blends, self.command("blends")
        if not path.is_file():
            return Missing("Blends and calibrations have not been compared.", command)
        names = {"blend": "blend", "calibrate": "calibrated by", "fitted_here": "in-sample", "nested": "nested CV"}
        names |= {"ece_before": "ECE before", "ece": "ECE"}
        try:
            return pd.DataFrame(read_json(path)["blends"])[list(names)].rename(columns=names)
        except InputError as error:
            return Missing(str(error), command)
        except (LookupError, TypeError, ValueError) as error:
            return Missing(f"{path}: expected what make blends writes, {error} is missing.", command)

    def _sentences(self) -> list[Sentence]:
        """The verdict on honest runs, or on all where there are no others."""
        if self.best is None:
            return []
        tested, best, opened = None, self.best_submission, self._opened(self.best.name)
        for line in self.tests.itertuples(index=False):
            if best is not None and line[0] == f"{best.name}.csv":
                tested = best, float(line[1]), float(line[2]), int(line[3])
        return verdict(self.honest, self.classes, dict(opened[1].of_driver) if opened else {}, tested)

    def _thumbnails(self) -> tuple[list[Thumbnail], list[Strip], list[Missing]]:
        """Pictures of most loss and of the most frequent confusions of the best run; why there are none."""
        if self.best is None or (opened := self._opened(self.best.name)) is None:
            return [], [], []
        try:
            return *worst_images(self.context, self.best, opened[2], opened[0].settings.input.regions), []
        except (InputError, OSError) as error:
            return [], [], [Missing(f"The worst images of {self.best.name} cannot be shown: {error}")]

    def _test_scores(self) -> tuple[pd.DataFrame, list[Missing]]:
        """As `test_scores`; why there are none."""
        try:
            return test_scores(self.context)[0], []
        except InputError as error:
            return pd.DataFrame(), [Missing(f"Submissions are not scored on test labels: {error}")]

    def _nothing(self) -> list[Missing]:
        """What to do first, where no run and no submission is there."""
        found = status(self.context)
        there = [Missing(f"The data set {name} has runs here:", f"make report DATASET={name}") for name in found.others]
        first = "The data is not here." if found.images.problem else "The data is here."
        return [*there, Missing(f"{first} The next step for {self.dataset}:", found.next or "")]

    def _figures(self) -> tuple[list[Figure], list[Missing]]:
        """Example images of the best run whose packs are there."""
        for each in self.runs:
            opened = self._opened(each.name)
            if opened and len(opened[2].names) and opened[0].settings.train.splits.scored:
                return example_figures(self.context, *opened)
        command = self.command("preview", "MODEL=<model>")
        return [], [Missing("No run is there whose packed images are, so there is nothing to show here.", command)]


def verdict(
    ranked: list[RunScores],
    classes: dict[str, str],
    fold_of: dict[str, int],
    tested: tuple[SubmissionState, float, float, int] | None,
) -> list[Sentence]:
    """What is worth knowing of scored runs.

    Args:
        ranked: at least one, the best first; the others honest, lowest loss first.
        classes: names by id.
        fold_of: each driver's fold; a temperature is fitted on the others.
        tested: a submission's loss, accuracy and number of test images, whose labels are known.
    """
    best = ranked[0]
    found = [_winner(ranked), *_drivers(best)]
    for pair in confusions(best)[:1]:
        share = f"{in_words(pair, classes)} ({pair.mistaken / pair.images:.0%})"
        found.append(Sentence(f"The most frequent confusion: {share}.", "confusions"))
    found += [_calibration(best, fold_of), *_averaging(ranked)]
    if tested:
        made, loss, accuracy, images = tested
        text = f"On the {images:,} test images, of other drivers, {made.name}.csv has a log loss of {loss:.3f}"
        text += f" and an accuracy of {accuracy:.1%}. Their labels are known: the data set is synthetic."
        found.append(Sentence(text, "submissions"))
    return found


def against_noise(low: float, high: float) -> str:
    """What a 95 % interval of a difference says of it."""
    if low != low:
        return "one driver alone gives no interval"
    noise = "beyond noise" if low > 0 or high < 0 else "within noise"
    return f"{noise}: 95 % over drivers {interval(low, high, '{:+.3f}')}"


def _winner(ranked: list[RunScores]) -> Sentence:
    best = ranked[0]
    if len(ranked) == 1:
        over = "" if best.low != best.low else f", 95 % over drivers {interval(best.low, best.high)}"
        text = f"{best.name} has an OOF log loss of {best.loss:.3f}{over}; accuracy {best.accuracy:.1%}."
        return Sentence(text, "runs")
    other = ranked[1]
    text = f"{best.name} has the lowest OOF log loss of {len(ranked)} runs, {best.loss:.3f}"
    names = best.each.index.intersection(other.each.index)
    more, low, high = paired_change(
        other.each["loss"][names].to_numpy(), best.each["loss"][names].to_numpy(), best.each["driver"][names].to_numpy()
    )
    return Sentence(f"{text}. The next, {other.name}, is {more:.3f} higher ({against_noise(low, high)}).", "runs")


def _drivers(best: RunScores) -> Iterator[Sentence]:
    losses = best.each.groupby("driver")["loss"].agg(["sum", "mean", "size"]).sort_values("mean", ascending=False)
    if len(losses) <= WORST_DRIVERS:
        return
    worst = losses.head(WORST_DRIVERS)
    share, images = worst["sum"].sum() / losses["sum"].sum(), worst["size"].sum() / losses["size"].sum()
    easiest = f"{losses.index[-1]}, the easiest driver, has {losses['mean'].iloc[-1]:.2f}"
    names = f"{', '.join(worst.index[:-1])} and {worst.index[-1]}"
    text = f"Of {len(losses)} drivers, {names} carry {share:.0%} of the loss with {images:.0%} of the images"
    least_to_most = f"{worst['mean'].iloc[-1]:.2f} to {worst['mean'].iloc[0]:.2f} each"
    yield Sentence(f"{text}: {least_to_most}, where {easiest}.", "drivers")


def _calibration(best: RunScores, fold_of: dict[str, int]) -> Sentence:
    """How sure the run is beside how often it is right, and the loss with a temperature that was fitted on other folds."""
    error, sure = best.calibration_error, float(best.each["sure"].mean())
    text = f"Its calibration error is {error:.3f}"
    if error < SMALL:
        return Sentence(f"{text}: the probabilities mean what they say.", "calibration")
    how = "too timid" if sure < best.accuracy else "too sure"
    text += f": {how}, {sure:.0%} sure on average where {best.accuracy:.0%} are correct."
    folds = np.array([fold_of.get(driver, 0) for driver in best.each["driver"]])
    if len(set(folds)) > 1:
        made = nested_temperature(best, folds)
        text += f" A temperature, fitted on the other folds, gives {made:.3f} instead of {best.loss:.3f}."
    return Sentence(text, "calibration")


def nested_temperature(made: RunScores, folds: np.ndarray) -> float:
    """A run's log loss where each fold's rows (`folds`: int (N,)) have the temperature that fits the other folds best."""
    names, labels = made.each.index.to_numpy(), made.each["label"].to_numpy()
    rows = MemberPredictions(names, made.probabilities[None] / made.probabilities.sum(axis=1)[:, None], folds)
    losses = np.empty(len(labels))
    for fold in np.unique(folds):
        rest, own = folds != fold, folds == fold
        fitted = temperature(rows.at(rest), labels[rest], made.each["driver"].to_numpy()[rest])
        losses[own] = log_losses(fitted(rows.at(own)).blended, labels[own])
    return float(losses.mean())


def _averaging(ranked: list[RunScores]) -> Iterator[Sentence]:
    """Whether test-time augmentation helped the best run, and whether the mean of all runs is better than that."""
    best, parts = ranked[0], list[str]()
    gain, low, high = best.against_centre
    if gain == gain:
        moves = "lowers" if gain < 0 else "raises"
        parts.append(f"{best.tta} {moves} the loss of its centre crop by {abs(gain):.3f} ({against_noise(low, high)}).")
    alike = [made for made in ranked if made.each.index.equals(best.each.index)]
    if len(alike) > 1:
        losses = log_losses(np.mean([made.probabilities for made in alike], axis=0), best.each["label"].to_numpy())
        gain, low, high = paired_change(losses, best.each["loss"].to_numpy(), best.each["driver"].to_numpy())
        moves = "lowers" if gain < 0 else "raises"
        text = f"Averaging {len(alike)} runs {moves} the loss of the best one by {abs(gain):.3f}"
        parts.append(f"{text}, to {losses.mean():.3f} ({against_noise(low, high)}).")
    if parts:
        yield Sentence(" ".join(parts), "runs")
