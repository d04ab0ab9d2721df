"""How long a fold and its run have still to go, from what its finished epochs and folds took. Imports no Keras."""

from contextlib import suppress
from dataclasses import dataclass
from statistics import mean
from typing import Any

from driverwatch.artifacts import read_json
from driverwatch.errors import InputError
from driverwatch.terminal import Part, clock
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Ahead:
    """What stands behind and before a fold in training.

    Seconds are those of whole epochs, held-out drivers included; later stages are taken to last as long per epoch as this one.
    """

    planned: tuple[int, ...]  # epochs by stage
    others: int  # folds that the same command trains after this one
    each: float | None  # seconds that a finished fold of the run took, predictions included; None: none is finished

    def fold(self, history: list[dict[str, Any]], stage: int, epoch: float, left: float) -> float:
        """Seconds to the fold's last epoch's end.

        Args:
            history: a line per finished epoch, with `stage` and `seconds`.
            epoch: seconds of the epoch that runs, as far as can be told.
            left: seconds that it has still to go.
        """
        behind = [row["seconds"] for row in history if row["stage"] == stage]
        here = max(self.planned[stage] - len(behind) - 1, 0)
        return left + (here + sum(self.planned[stage + 1 :])) * (mean(behind) if behind else epoch)

    def run(self, history: list[dict[str, Any]], epoch: float, left: float, fold: float) -> float:
        """Seconds to the end of the last fold that this command trains; `fold`: those of this one."""
        each = self.each or sum(row["seconds"] for row in history) + epoch - left + fold
        return fold + self.others * each

    def parts(self, history: list[dict[str, Any]], stage: int, epoch: float, left: float) -> list[Part]:
        """The same in words, for a bar."""
        fold = self.fold(history, stage, epoch, left)
        said = [(4, f"fold {clock(fold)}")]
        return said + ([(3, f"run {clock(self.run(history, epoch, left, fold))}")] if self.others else [])


def ahead(run: Run, others: int) -> Ahead:
    """What is before a fold of `run`, with `others` to come after it."""
    known = []
    for path in run.folder.glob("fold*/manifest.json"):
        with suppress(InputError):  # an estimate can do without; who uses that fold will say what is wrong with it
            seconds = read_json(path).get("seconds")
            known += [float(seconds)] if isinstance(seconds, int | float) else []
    return Ahead(tuple(run.settings.train.planned), others, mean(known) if known else None)
