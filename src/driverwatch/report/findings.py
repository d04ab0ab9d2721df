"""What a report is of: plain names, numbers and frames, read and computed elsewhere, so that drawing asks no file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import numpy as np
import pandas as pd

from driverwatch.report.blocks import Missing, Picture


@dataclass(frozen=True)
class Bar:
    """A private log loss on the competition's board, or of a prediction that everybody could make."""

    who: str
    log_loss: float
    confirmed: bool = True


@dataclass(frozen=True, eq=False)
class Scored:
    """A finished run out of fold, each image by the model that never saw its driver.

    `views`: the view set that its tables are of. `all_views`: columns `views`, `log loss`, `low`, `high`, `right`.
    `drivers`, `classes`: log loss by name (float64 series). `both`: drivers x classes, NaN where a driver has no image of a class.
    `confusion`: true classes x likeliest classes, images. `reliability`: as `blend.reliability.table` makes it.
    """

    name: str
    views: str
    loss: float
    low: float  # 95 % over drivers, as `high`
    high: float
    right: float
    images: int
    all_views: pd.DataFrame
    drivers: "pd.Series[float]"
    classes: "pd.Series[float]"
    both: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    calibration_error: float
    losses: np.ndarray = field(repr=False)  # (N,)
    problems: tuple[str, ...] = ()  # view sets that could not be read, and why


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run whose `run.json` can be read: how far it is, what it took, what it was made with."""

    name: str
    finished: int  # fits
    fits: int
    minutes: float  # of the finished fits
    commits: str
    selected_on: bool
    unscored: str  # why there can be no out-of-fold score; empty: there can
    histories: dict[int, pd.DataFrame]  # by fold: epoch, stage, loss, held_out_loss, ...
    made_with: dict[str, str]  # backend, versions, machine, seed
    times: pd.DataFrame  # a line per finished fold
    settings: list[str]  # what differs from the defaults, as `key: value`
    scored: Scored | None = None
    problem: str = ""  # why a run that should have a score has none
    again: str = ""  # the variables with which make train goes on


def by_loss(run: RunFacts) -> tuple[bool, float, str]:
    """Sorts scored runs first, the lowest loss before the others."""
    return (run.scored is None, run.scored.loss if run.scored else 0.0, run.name)


@dataclass(frozen=True)
class Submission:
    """A submission's own words, from the JSON beside it."""

    name: str
    members: str
    steps: str
    loss: float  # out of fold, NaN: not known
    low: float  # 95 % over drivers, NaN: not recorded
    high: float
    right: float
    hope: tuple[float, float, float]  # low, high, level; NaN: not recorded
    selected_on: bool
    commit: str
    public: str  # on Kaggle's board, where the ledger knows
    private: str
    runs: tuple[str, ...]
    notes: str  # why its score is none, or is not of today's folds


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a page tells of one data set. `commands` are complete but for `DATA=` and `WEIGHTS=`."""

    dataset: str
    title: str
    classes: dict[str, str]
    made: str  # when, and by which commit
    board: list[Bar]
    runs: list[RunFacts]
    unreadable: list[tuple[str, str]]  # a run's or a submission's name, and why
    submissions: list[Submission]
    levers: "dict[str, pd.DataFrame] | Missing"  # by kind: lever, before, after, difference, low, high, minutes, kept
    unmeasured: list[str]  # levers
    blends: pd.DataFrame | Missing
    folds: pd.DataFrame | Missing  # driver, fold, images, then a column per class
    pictures: list[Picture]
    no_pictures: list[Missing]
    review: str | None = None  # where the review page lies, as seen from this one

    @property
    def scored(self) -> list[Scored]:
        """Runs with an out-of-fold score, the lowest loss first."""
        return sorted((run.scored for run in self.runs if run.scored), key=lambda made: (made.loss, made.name))

    @property
    def best(self) -> Scored | None:
        """The lowest out-of-fold loss, among runs whose epochs nobody chose on the held-out drivers if there are any."""
        flattered = {run.name for run in self.runs if run.selected_on}
        return next(iter(sorted(self.scored, key=lambda made: made.name in flattered)), None)

    def absent(self, made: Submission) -> list[str]:
        """Runs of a submission that are not here, so that nothing here can be held against it."""
        return [name for name in made.runs if name not in {run.name for run in self.runs}]

    @property
    def best_submission(self) -> Submission | None:
        """The lowest out-of-fold loss under today's folds, with the same preference."""
        sound = [made for made in self.submissions if made.loss == made.loss and not made.notes]
        return min(sound, key=lambda made: (made.selected_on, made.loss, made.name), default=None)

    def leads(self, values: pd.DataFrame, asked: Callable[[str, str], dict[str, str]]) -> pd.DataFrame | None:
        """Addresses of the review page, of the shape of `values`: filtered as `asked` by line and column; "" for 0 and NaN."""
        if self.review is None:
            return None
        return pd.DataFrame(
            [
                [
                    f"{self.review}#{urlencode(asked(str(line), str(column)), quote_via=quote)}" if value > 0 else ""
                    for column, value in zip(values.columns, row, strict=True)
                ]
                for line, row in zip(values.index, values.to_numpy().tolist(), strict=True)
            ],
            values.index,
            values.columns,
        )

    def command(self, target: str, *words: str) -> str:
        return " ".join([f"make {target}", f"DATASET={self.dataset}", *words])
