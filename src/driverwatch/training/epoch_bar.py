"""An epoch of gradient steps as a bar, fed by Keras."""

from typing import Any

import keras

from driverwatch.terminal import Meter, Part
from driverwatch.training.remaining import Ahead

MINUTES = 60.0  # seconds of half an epoch from which on a log gets a line at half way


class EpochBar(keras.callbacks.Callback):
    """Reports each step of one `fit` of one epoch to a `Meter`, which the caller opens."""

    def __init__(self, meter: Meter, batch: int, ahead: Ahead, history: list[dict[str, Any]], stage: int) -> None:
        """Prepare for an epoch.

        Args:
            batch: images in a step.
            history: a line per finished epoch of the fold, as `Ahead.fold` takes it.
        """
        super().__init__()
        self.meter, self.images, self.ahead = meter, batch, ahead
        self.history, self.stage = history, stage

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count a step; the loss, the epoch's mean so far, is only asked of the device when it is shown."""
        loss = (logs or {}).get("loss")

        def notes() -> list[Part]:
            said: list[Part] = [] if loss is None else [(1, f"loss {float(loss):.3f}")]
            if self.meter.known and self.meter.rate:
                whole = self.meter.total / self.meter.rate
                said += self.ahead.parts(self.history, self.stage, whole, self.meter.left)
            return said

        self.meter.at((batch + 1) * self.images, notes)
