"""Which images a fit is trained on, held against and taught by. Imports no Keras."""

from dataclasses import dataclass

import numpy as np

from driverwatch.errors import InputError
from driverwatch.training.pseudo import Lesson
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Rows:
    """Row numbers in the training pack, and what is learnt from the test pack besides."""

    training: np.ndarray
    held_out: np.ndarray
    lesson: Lesson | None = None

    def refuse_shared(self, drivers: np.ndarray, run: Run, number: int) -> None:
        """Refuse a driver, given each row's, on both sides."""
        if both := set(drivers[self.training]) & set(drivers[self.held_out]):
            raise InputError(
                f"{run.fold(number)}: driver {min(both)} is trained on and held out; restore {run.name}'s fold file"
            )

    def shown(self, labelled: int) -> np.ndarray:
        """Rows that training shows, those of the test pack numbered on from the `labelled` images of the training pack."""
        return self.training if self.lesson is None else np.concatenate([self.training, labelled + self.lesson.rows])

    def targets(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Label shares float32 by such a row; 0 for test images that are not shown.

        Args:
            labels: int (N,), of the training pack.
        """
        known = np.eye(classes, dtype=np.float32)[labels]
        if self.lesson is None:
            return known
        guessed = np.zeros((self.lesson.offered, classes), np.float32)
        guessed[self.lesson.rows] = self.lesson.targets
        return np.concatenate([known, guessed])
