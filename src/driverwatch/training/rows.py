"""Which images a fit is trained on, held against and taught by. Imports no Keras."""

from dataclasses import dataclass

import numpy as np

from driverwatch.errors import InputError
from driverwatch.training.pseudo import Lesson
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Rows:
    """Row numbers in the training pack, and what is learnt from images without labels besides."""

    training: np.ndarray
    held_out: np.ndarray
    lesson: Lesson | None = None

    def refuse_shared(self, drivers: np.ndarray, run: Run, number: int) -> None:
        """Refuse a driver, given each row's, on both sides."""
        if both := set(drivers[self.training]) & set(drivers[self.held_out]):
            raise InputError(
                f"{run.fold(number)}: driver {min(both)} is trained on and held out; restore {run.name}'s fold file"
            )
        if self.lesson is not None and np.isin(self.lesson.rows, self.training).any():
            raise ValueError("a labelled image cannot have a pseudo-label")

    def shown(self) -> np.ndarray:
        """Rows that training shows; those of the test pack are numbered on from the training pack's."""
        return self.training if self.lesson is None else np.concatenate([self.training, self.lesson.rows])

    def guessed(self, count: int) -> np.ndarray:
        """Which of the training pack's `count` rows and the test pack's after them have pseudo-labels, bool."""
        found = np.zeros(count + (self.lesson.tests if self.lesson else 0), bool)
        if self.lesson is not None:
            found[self.lesson.rows] = True
        return found

    def targets(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Label shares float32 by such a row: labels, pseudo-labels, and 0 for images that are not shown.

        Args:
            labels: int (N,), of the training pack.
        """
        found = np.zeros((len(self.guessed(len(labels))), classes), np.float32)
        found[self.training] = np.eye(classes, dtype=np.float32)[labels[self.training]]
        if self.lesson is not None:
            found[self.lesson.rows] = self.lesson.targets
        return found
