"""Losses of a run on the folds that it was trained on, the fold file's or redrawn ones: each driver is held out once."""

from dataclasses import dataclass

import numpy as np

from driverwatch.blend.ensemble import Member, held_out_rows
from driverwatch.data.pack import Pack
from driverwatch.data.splits import Splits
from driverwatch.metrics import log_losses


@dataclass(frozen=True, eq=False)
class OwnFolds:
    """A run's fits, and the training pack (N images) whose drivers they hold out."""

    member: Member
    pack: Pack
    split: Splits

    def losses(self, fit: int) -> np.ndarray:
        """Log loss of each held-out image of a fit, in the pack's order: float64 (n,)."""
        rows = self._held_out(fit)
        found = held_out_rows(self.member, fit, list(self.pack.names[rows]))
        return log_losses(found, self.pack.labels[rows])

    def all_losses(self) -> np.ndarray:
        """Log loss of every image by the fit that never saw its driver: float64 (N,)."""
        found = np.full(len(self.pack.names), np.nan)
        for fit in range(self.split.count):
            found[self._held_out(fit)] = self.losses(fit)
        return found

    def _held_out(self, fit: int) -> np.ndarray:
        return self.split.rows(self.pack.drivers, fit)[1]
