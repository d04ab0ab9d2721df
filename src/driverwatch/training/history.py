"""A fold's history as `history.csv` and TensorBoard scalars, both derived from what its bundle holds."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

from driverwatch.writing import write_text


class HistoryLog:
    """Keeps `<folder>/history.csv` and `<folder>/tensorboard/` up to date with a growing list of epochs."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        """Begin anew from `history`, so that an epoch that was logged but not kept does not appear twice."""
        from tensorboard.summary import Writer

        self.folder = folder
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = Writer(str(folder / "tensorboard"))
        self.written = 0
        self.write(history)

    def write(self, history: list[dict[str, Any]]) -> None:
        for row in history[self.written :]:
            for name in (name for name in row.keys() - {"epoch", "stage"} if row[name] is not None):
                self.writer.add_scalar(name, row[name], row["epoch"])
        self.writer.flush()
        self.written = len(history)
        if history:
            text = io.StringIO()
            table = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(history)
            write_text(self.folder / "history.csv", text.getvalue())
