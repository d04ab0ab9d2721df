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
from driverwatch.report.score_runs import Packs, RunReport, RunScores, report_run


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
    review: str | None = None  # the review page's address, relative to this page

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
    def best_submission(self) -> SubmissionState | None:
        """The lowest out-of-fold loss under today's folds, with the same preference."""
        sound = [made for made in self.submissions if made.loss == made.loss and OTHER_FOLDS not in made.stale]
        return min(sound, key=lambda made: (made.optimistic, made.loss, made.name), default=None)

    def absent(self, made: SubmissionState) -> list[str]:
        """Runs of a submission that are not here, so that nothing here can be compared with it."""
        return [name for name in made.runs if name not in {run.name for run in self.runs}]

    def command(self, target: str, *words: str) -> str:
        return " ".join([f"make {target}", f"DATASET={self.dataset}", *words])


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
        [one for one in made if one.problem is None],
        ablations,
        unmeasured,
        _blends(context),
        _folds(context, folds),
        figures,
        no_figures,
        review.name if (review := context.places.page("review")).is_file() else None,
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
    """Measured ablations by kind, and the names of those that nobody has measured."""
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


def _figures(context: Context, packs: Packs, found: list[RunReport]) -> tuple[list[Figure], list[Missing]]:
    """Example images of the best run whose packs are there."""
    for each in found:
        run = runs.load(context.places.runs / each.name)
        opened = packs.of(run.settings.input.key)
        if not isinstance(opened, InputError) and len(opened[1]["train"].names) and run.settings.train.splits.scored:
            return example_figures(context, run, opened[0], opened[1]["train"])
    command = f"make preview DATASET={context.dataset} MODEL=<model>"
    return [], [Missing("No run is there whose packed images are, so there is nothing to show here.", command)]
