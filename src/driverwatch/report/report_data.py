"""What the report shows of a data set: runs, submissions, ablations, folds, figures; what is missing, with the command."""

import time
from dataclasses import dataclass
from math import log

import pandas as pd

from driverwatch import run as runs
from driverwatch.config.dataset import LeaderboardSettings
from driverwatch.data.context import CONFIGS, Context
from driverwatch.errors import InputError
from driverwatch.experiments.ablations import Ablation, AblationsRecord
from driverwatch.experiments.experiment import read_record
from driverwatch.io.html import Missing
from driverwatch.io.manifests import provenance, read_json
from driverwatch.report.collect_runs import (
    OTHER_FOLDS,
    FoldsState,
    SubmissionState,
    collect_folds,
    collect_packs,
    collect_runs,
    collect_submissions,
)
from driverwatch.report.contact_sheets import Figure, example_figures
from driverwatch.report.score_runs import Packs, RunReport, RunScores, report_run, test_scores
from driverwatch.report.status import status
from driverwatch.report.verdict import Sentence, verdict
from driverwatch.report.worst_images import Strip, Thumbnail, worst_images


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page shows of one data set."""

    dataset: str
    title: str
    classes: dict[str, str]
    made: str  # when, and by which commit
    baselines: list[LeaderboardSettings]  # the last one is the uniform guess
    runs: list[RunReport]  # those with scores first, by their loss
    unreadable: list[tuple[str, str]]  # a run's or a submission's name, and why
    submissions: list[SubmissionState]
    ablations: "dict[str, list[Ablation]] | Missing"  # by kind
    unmeasured: list[str]  # ablations
    blends: pd.DataFrame | Missing
    folds: pd.DataFrame | Missing  # driver, fold, images, then a column per class
    figures: list[Figure]
    no_figures: list[Missing]
    sentences: list[Sentence]
    thumbnails: list[Thumbnail]  # of most loss
    strips: list[Strip]  # of the most frequent confusions
    tests: pd.DataFrame  # as `test_scores`
    empty: list[Missing]  # what to do where nothing is built at all
    review: str | None = None  # the review page's address, relative to this page
    no_review: str = ""  # why there is none

    @property
    def scored(self) -> list[RunScores]:
        """Runs with an out-of-fold score, the lowest loss first."""
        return [run.scores for run in self.runs if run.scores]

    @property
    def best(self) -> RunScores | None:
        """The lowest out-of-fold loss; a run whose epoch was chosen on the validation drivers only where there is no other."""
        optimistic = {run.name for run in self.runs if run.state.chosen_on_validation}
        return min(self.scored, key=lambda made: made.name in optimistic, default=None)

    @property
    def candidates(self) -> list[SubmissionState]:
        """Submissions with a score under today's folds; diagnostics only where there is nothing else."""
        return candidates(self.submissions)

    @property
    def best_submission(self) -> SubmissionState | None:
        """The lowest out-of-fold loss of the candidates, with the same preference."""
        return min(self.candidates, key=lambda made: (made.optimistic, made.loss, made.name), default=None)

    @property
    def tested(self) -> dict[str, float]:
        """Log loss on test labels by a submission's file name."""
        return dict(zip(self.tests["model"], self.tests["log loss"], strict=True)) if len(self.tests) else {}

    def absent(self, made: SubmissionState) -> list[str]:
        """Runs of a submission that are not here, so that nothing here can be compared with it."""
        return [name for name in made.runs if name not in {run.name for run in self.runs}]

    def command(self, target: str, *words: str) -> str:
        return " ".join([f"make {target}", f"DATASET={self.dataset}", *words])


def candidates(submissions: list[SubmissionState]) -> list[SubmissionState]:
    sound = [made for made in submissions if made.loss == made.loss and OTHER_FOLDS not in made.stale]
    return [made for made in sound if not made.diagnostic] or sound


def collect_report(context: Context) -> Report:
    """Read and score all that is there; nothing of it need be."""
    folds = collect_folds(context)
    states = [run for run in collect_runs(context, folds, collect_packs(context, folds)) if run.study is None]
    packs = Packs(context)
    found = [report_run(context, state, packs) for state in states if state.problem is None]
    found = sorted(found, key=lambda run: run.rank)
    made, problem = collect_submissions(context, folds, {state.name: state for state in states})
    made = [one for one in made if context.places.submission(one.name).is_file()]
    unreadable = [(state.name, state.problem) for state in states if state.problem]
    unreadable += [(run.name, why) for run in found for why in run.problems]
    unreadable += [("ledger.csv", problem)] if problem else []
    unreadable += [(f"{one.name}.csv", _rewritten(one.problem)) for one in made if one.problem]
    ablations, unmeasured = _ablations(context)
    figures, no_figures = _figures(context, packs, found)
    thumbnails, strips, no_thumbnails = _thumbnails(context, packs, found)
    tests, untested = _test_scores(context)
    sound = [one for one in made if one.problem is None]
    classes = len(context.settings.classes)
    uniform = LeaderboardSettings(team=f"uniform guess, 1/{classes} for every class", log_loss=log(classes))
    return Report(
        context.dataset,
        context.settings.title,
        context.settings.classes,
        f"Made on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC at commit {provenance()['commit'] or 'unknown'}",
        [*context.settings.leaderboard, uniform],
        found,
        [*dict.fromkeys(unreadable)],
        sound,
        ablations,
        unmeasured,
        _blends(context),
        _folds(context, folds),
        figures,
        [*no_figures, *no_thumbnails, *untested],
        _sentences(context, packs, found, sound, tests),
        thumbnails,
        strips,
        tests,
        [] if states or made or context.places.result("ablations").exists() else _nothing(context),
    )


def _rewritten(problem: str) -> str:
    return problem if "make ensemble" in problem else f"{problem}; make ensemble writes it again"


def _folds(context: Context, folds: FoldsState) -> pd.DataFrame | Missing:
    """The fold file, a line per driver; packs compare it with the images."""
    if folds.checksum is None:
        return Missing(str(folds.problem), f"make folds DATASET={context.dataset}")
    frame = pd.read_csv(folds.file, dtype={"driver": str}, keep_default_na=False, encoding="utf-8-sig")
    return frame.sort_values("driver", ignore_index=True)


def _ablations(context: Context) -> tuple[dict[str, list[Ablation]] | Missing, list[str]]:
    """Measured ablations by kind, and the names of those that are not measured."""
    path, command = context.places.result("ablations"), f"make ablation DATASET={context.dataset} TRAIN=1"
    try:
        found = read_record(AblationsRecord, path)
    except InputError as error:
        return Missing(str(error), command), []
    unmeasured = [one.ablation for one in found.unmeasured] if found else []
    if found is None or not found.rows:
        words = f"{path}: no ablation has been measured on this data set."
        if not (named := CONFIGS / "ablations" / f"{context.dataset}.yaml").is_file():
            words += f" Name some in {named} (statefarm_mini.yaml beside it is an example), then:"
        return Missing(words, command), unmeasured
    kinds = dict.fromkeys(row.kind for row in found.rows)
    return {kind: [row for row in found.rows if row.kind == kind] for kind in kinds}, unmeasured


def _blends(context: Context) -> pd.DataFrame | Missing:
    """What `make blends` wrote, line by line."""
    path, command = context.places.blends, f"make blends DATASET={context.dataset}"
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


def _scored(found: list[RunReport]) -> list[RunReport]:
    """Runs with scores, honest ones first, each kind by its loss."""
    scored = [run for run in found if run.scores]
    return sorted(scored, key=lambda run: (run.state.chosen_on_validation, *run.rank))


def _sentences(
    context: Context, packs: Packs, found: list[RunReport], made: list[SubmissionState], tests: pd.DataFrame
) -> list[Sentence]:
    """The verdict on honest runs, or on all where there are no others."""
    scored = _scored(found)
    honest = [run for run in scored if not run.state.chosen_on_validation] or scored
    ranked = [run.scores for run in honest if run.scores]
    if not ranked:
        return []
    best = min(candidates(made), key=lambda one: (one.optimistic, one.loss, one.name), default=None)
    tested = None
    for line in tests.itertuples(index=False):
        if best is not None and line[0] == f"{best.name}.csv":
            tested = best, float(line[1]), float(line[2]), int(line[3])
    opened = packs.of(runs.load(context.places.runs / ranked[0].name).settings.input.key)
    fold_of = {} if isinstance(opened, InputError) else dict(opened[0].of_driver)
    return verdict(ranked, context.settings.classes, fold_of, tested)


def _thumbnails(
    context: Context, packs: Packs, found: list[RunReport]
) -> tuple[list[Thumbnail], list[Strip], list[Missing]]:
    """Pictures of the best run's mistakes, or why there are none."""
    for each in _scored(found)[:1]:
        run = runs.load(context.places.runs / each.name)
        opened = packs.of(run.settings.input.key)
        if each.scores and not isinstance(opened, InputError):
            try:
                thumbnails, strips = worst_images(context, each.scores, opened[1]["train"], run.settings.input.regions)
                return thumbnails, strips, []
            except (InputError, OSError) as error:
                return [], [], [Missing(f"The worst images of {each.name} cannot be shown: {error}")]
    return [], [], []


def _test_scores(context: Context) -> tuple[pd.DataFrame, list[Missing]]:
    try:
        return test_scores(context)[0], []
    except InputError as error:
        return pd.DataFrame(), [Missing(f"Submissions are not scored on test labels: {error}")]


def _nothing(context: Context) -> list[Missing]:
    """What to do first, where no run and no submission is there."""
    found = status(context)
    there = [Missing(f"The data set {name} has runs here:", f"make report DATASET={name}") for name in found.others]
    first = "The data is not here." if found.images.problem else "The data is here."
    return [*there, Missing(f"{first} The next step for {context.dataset}:", found.next or "")]


def _figures(context: Context, packs: Packs, found: list[RunReport]) -> tuple[list[Figure], list[Missing]]:
    """Example images of the best run whose packs are there."""
    for each in found:
        run = runs.load(context.places.runs / each.name)
        opened = packs.of(run.settings.input.key)
        if not isinstance(opened, InputError) and len(opened[1]["train"].names) and run.settings.train.splits.scored:
            return example_figures(context, run, opened[0], opened[1]["train"])
    command = f"make preview DATASET={context.dataset} MODEL=<model>"
    return [], [Missing("No run is there whose packed images are, so there is nothing to show here.", command)]
