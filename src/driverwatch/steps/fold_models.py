"""A run's finished folds as they are used together: which there are, whole, and all that building them again takes."""

from dataclasses import dataclass
from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.steps.context import Context
from driverwatch.training import run as runs
from driverwatch.training.run import Run
from driverwatch.vision.mosaic import FRAME, Box


@dataclass(frozen=True)
class FoldModels:
    """One classifier a fold, whose probabilities are averaged."""

    run: Run
    numbers: list[int]  # of the folds
    files: list[Path]  # their weights, each held against its digest
    mean: tuple[float, ...]  # the pack's channel means where the run subtracts them, else 0
    classes: dict[str, str]  # id: name, in output order

    @property
    def title(self) -> str:
        count = len(self.files)
        return (
            f"{self.run.name}, fold {self.numbers[0]}"
            if count == 1
            else f"{self.run.name}, mean of {count} fold models"
        )

    @property
    def boxes(self) -> tuple[Box, ...]:
        """What of a photo the run looks at."""
        return tuple(Box(*corners) for corners in self.run.regions.values()) or (FRAME,)


def fold_models(context: Context, name: str, fold: int | None) -> FoldModels:
    """The finished folds of run `name`, or `fold` alone.

    Raises:
        InputError: no such run, no such finished fold, weights that are not what was trained, a pack that is another.
    """
    run = runs.load(context.places.run(name))
    there = sorted(int(p.parent.name.removeprefix("fold")) for p in run.folder.glob("fold*/manifest.json"))
    if not there or fold not in (None, *there):
        asked = "no fold is finished" if fold is None else f"FOLD={fold} is not finished"
        done = ", ".join(map(str, there)) or "none"
        raise InputError(f"{run.folder}: {asked} (finished: {done}); make train MODEL=... goes on with it")
    numbers = there if fold is None else [fold]
    files = [run.verify(number) for number in numbers]
    classes = {key: context.settings.classes.get(key, "") for key in run.classes}
    return FoldModels(run, numbers, files, channel_mean(context, run), classes)


def channel_mean(context: Context, run: Run) -> tuple[float, ...]:
    """The pack's channel means, where the run subtracts them."""
    if run.settings.mean == "weights":
        return (0.0, 0.0, 0.0)
    pack = context.pack(run.settings.input.key, "train", run.folds)
    run.refuse_strangers(run.folds, {**run.packs, "train": pack.digest})
    return pack.mean
