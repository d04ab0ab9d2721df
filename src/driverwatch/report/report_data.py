"""What the report shows of a data set: runs, submissions, ablations, folds, figures; what is missing, with the command."""

import time
from dataclasses import dataclass
from math import log

import pandas as pd

from driverwatch.artifacts import provenance, read_json
from driverwatch.data.tables import numbers, read_csv
from driverwatch.dataset_settings import class_columns
from driverwatch.errors import InputError
from driverwatch.report.collect_runs import collect_folds, collect_packs, collect_runs
from driverwatch.report.collect_submissions import SubmissionState, collect_submissions
from driverwatch.report.contact_sheets import Figure, example_figures
from driverwatch.report.score_runs import Packs, RunReport, RunScores, report_run
from driverwatch.report.tables import Missing
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.records import Lever, LeversRecord, read_record
from driverwatch.training import run as runs

UNKNOWN = float("nan")


@dataclass(frozen=True)
class Baseline:
    """A private log loss on the competition's leaderboard, or of the uniform guess."""

    team: str
    log_loss: float
    confirmed: bool = True


@dataclass(frozen=True)
class Submission:
    """A submission's scores, as the JSON beside it states them; what it does not state is NaN or empty."""

    state: SubmissionState
    views: dict[str, str]  # by run
    steps: list[str]  # of its post-processing pipeline
    loss: float  # out of fold, nested
    low: float  # 95 % over drivers
    high: float
    accuracy: float
    prediction: tuple[float, float, float]  # prediction interval for new drivers: low, high, level
    optimistic: bool  # a run's epoch was chosen on the validation drivers
    commit: str
    other_folds: bool
    unscored: str  # why it has no score

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def members(self) -> str:
        return ", ".join(f"{run} ({views})" for run, views in self.views.items())


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page shows of one data set."""

    dataset: str
    title: str
    classes: dict[str, str]
    made: str  # when, and by which commit
    baselines: list[Baseline]  # the last one is the uniform guess
    runs: list[RunReport]  # those with scores first, by their loss
    unreadable: list[tuple[str, str]]  # a run's or a submission's name, and why
    submissions: list[Submission]
    ablations: "dict[str, list[Lever]] | Missing"  # by kind
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
        optimistic = {run.name for run in self.runs if run.state.selected_on}
        return min(self.scored, key=lambda made: made.name in optimistic, default=None)

    @property
    def best_submission(self) -> Submission | None:
        """The lowest out-of-fold loss under today's folds, with the same preference."""
        sound = [made for made in self.submissions if made.loss == made.loss and not made.other_folds]
        return min(sound, key=lambda made: (made.optimistic, made.loss, made.name), default=None)

    def absent(self, made: Submission) -> list[str]:
        """Runs of a submission that are not here, so that nothing here can be compared with it."""
        return [name for name in made.views if name not in {run.name for run in self.runs}]

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
    submissions = [_submission(one, folds.digest) for one in made if one.problem is None]
    unreadable = [(state.name, state.problem) for state in states if state.problem]
    unreadable += [(run.name, why) for run in found for why in run.problems]
    unreadable += [("ledger.csv", problem)] if problem else []
    unreadable += [(f"{one.name}.csv", _rewritten(one.problem)) for one in made if one.problem]
    ablations, unmeasured = _ablations(context)
    figures, no_figures = _figures(context, packs, found)
    uniform = Baseline(
        f"uniform guess, 1/{len(context.settings.classes)} for every class", log(len(context.settings.classes))
    )
    return Report(
        context.dataset,
        context.settings.title,
        context.settings.classes,
        f"Made on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC at commit {provenance()['commit'] or 'unknown'}",
        [*(Baseline(bar.who, bar.log_loss, bar.confirmed) for bar in context.settings.board), uniform],
        found,
        [*dict.fromkeys(unreadable)],
        submissions,
        ablations,
        unmeasured,
        _blends(context),
        _folds(context),
        figures,
        no_figures,
        review.name if (review := context.places.page("review")).is_file() else None,
    )


def _rewritten(problem: str) -> str:
    return problem if "make ensemble" in problem else f"{problem}; make ensemble writes it again"


def _submission(state: SubmissionState, folds: str | None) -> Submission:
    facts = state.manifest
    chain, prediction = _mapping(facts.get("chain")), _mapping(facts.get("hope"))
    interval = facts.get("out_of_fold_95%")
    low, high = map(_number, interval) if isinstance(interval, list) and len(interval) == 2 else (UNKNOWN, UNKNOWN)
    return Submission(
        state,
        {run: str(views) for run, views in facts["runs"].items()},
        list(_mapping(chain.get("steps"))) or ["mean"],
        _number(facts.get("out_of_fold_log_loss")),
        low,
        high,
        _number(facts.get("out_of_fold_right")),
        (_number(prediction.get("low")), _number(prediction.get("high")), _number(prediction.get("level"))),
        bool(facts.get("selected_on")),
        str(facts.get("commit") or ""),
        folds is not None and facts.get("folds") != folds,
        "" if "out_of_fold_log_loss" in facts else str(facts.get("out_of_fold") or "a fold's models alone: not scored"),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else UNKNOWN


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _folds(context: Context) -> pd.DataFrame | Missing:
    """The fold file, a line per driver; packs compare it with the images."""
    path, command = context.places.folds, f"make folds DATASET={context.dataset}"
    if not path.is_file():
        return Missing(f"{path}: no fold file.", command)
    expected = ["driver", "fold", "images", *class_columns(context.settings.classes)]
    try:
        frame = read_csv(path, expected)[expected]
        frame[expected[1:]] = numbers(frame[expected[1:]], whole=True)
        return frame.astype(dict.fromkeys(expected[1:], "int64")).sort_values("driver", ignore_index=True)
    except InputError as error:
        return Missing(str(error), command)
    except ValueError as error:
        return Missing(f"{path}: expected whole numbers beside each driver, got {error}.", command)


def _ablations(context: Context) -> tuple[dict[str, list[Lever]] | Missing, list[str]]:
    """Measured ablations by kind, and the names of those that nobody has measured."""
    path, command = context.places.result("levers"), f"make levers DATASET={context.dataset} TRAIN=1"
    try:
        found = read_record(LeversRecord, path)
    except InputError as error:
        return Missing(str(error), command), []
    unmeasured = [one.lever for one in found.unmeasured] if found else []
    if found is None or not found.rows:
        words = f"{path}: no ablation has been measured on this data set."
        if not (named := CONFIGS / "levers" / f"{context.dataset}.yaml").is_file():
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
