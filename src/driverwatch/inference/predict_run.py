"""A run's finished folds as they are used together: which there are, what they are built from, and which answer for an image."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driverwatch import run as runs
from driverwatch.config.model import PredictSettings
from driverwatch.config.types import pixels
from driverwatch.data import splits
from driverwatch.data.context import Context, going_on
from driverwatch.data.images import LOOK, cut_out, pixel_hash
from driverwatch.data.pack import Pack, as_keys, pixel_hashes
from driverwatch.data.regions import FRAME, Box
from driverwatch.errors import InputError
from driverwatch.io.atomic import locked, sweep_partials
from driverwatch.io.console import ending, say
from driverwatch.run import Run, open_run, refuse_fold


@dataclass(frozen=True)
class FoldModels:
    """One classifier a fold, whose probabilities are averaged."""

    run: Run
    numbers: list[int]  # of the folds
    files: list[Path]  # their weights, each held against its checksum
    mean: tuple[float, ...]  # the pack's channel means where the run subtracts them, else 0
    classes: dict[str, str]  # id: name, in output order

    @property
    def title(self) -> str:
        count = len(self.files)
        return f"{self.run.name}, " + (f"fold {self.numbers[0]}" if count == 1 else f"mean of {count} fold models")

    @property
    def boxes(self) -> tuple[Box, ...]:
        """What of an image the run looks at."""
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
        raise InputError(f"{run.folder}: {asked} (finished: {done}); make train {going_on(name)} resumes with it")
    numbers = there if fold is None else [fold]
    files = [run.verify(number) for number in numbers]
    classes = {key: context.settings.classes.get(key, "") for key in run.classes}
    return FoldModels(run, numbers, files, channel_mean(context, run), classes)


def channel_mean(context: Context, run: Run) -> tuple[float, ...]:
    """The pack's channel means, where the run subtracts them."""
    if run.settings.mean == "weights":
        return (0.0, 0.0, 0.0)
    pack = context.pack(run.settings.input.key, "train", run.folds)
    run.refuse_other_inputs(run.folds, {**run.packs, "train": pack.checksum})
    return pack.mean


def predict(context: Context, name: str, options: PredictSettings, fold: int | None) -> None:
    """Predict with an existing run's folds under other views; the settings are those the run was trained with."""
    from driverwatch.models import backend

    start = time.monotonic()
    run, split, packs, numbers = asked_to_predict(context, name, options, fold)
    backend.start()
    from driverwatch.inference.predict import predict_together, write_predictions

    with locked(run.folder):
        for number in numbers:
            sweep_partials(run.fold(number))
        together, predictors = predictors_of(run, numbers, packs, options)
        if together is not None:
            predict_together(together, run, numbers, packs["test"])
        for number, predictor in zip(numbers, predictors, strict=True):
            _, validation = split.indices(packs["train"].drivers, number)
            losses = write_predictions(predictor, run, number, packs, validation)
            found = ", ".join(f"{k} {v:.4f}" for k, v in losses.items())
            say(f"{run.name} fold {number}: " + (f"validation log loss {found}" if found else "test images predicted"))
    ending(time.monotonic() - start, None, [f"make tta DATASET={context.dataset} RUN={run.name}"])


def asked_to_predict(
    context: Context, name: str, options: PredictSettings, fold: int | None
) -> tuple[runs.Run, splits.Splits, dict[str, Pack], list[int]]:
    """A run, its split and packs, and those of its finished folds that are asked to predict.

    Raises `InputError`: none is finished, or views that cannot be had: before Keras starts.
    """
    run, folds, packs = open_run(context, name)
    split = splits.of(run.settings.train, folds)
    refuse_fold(fold, split.count)
    run.columns.sets_of(options.tta)
    numbers = [number for number in range(split.count) if run.finished(number) and fold in (None, number)]
    if not numbers:
        raise InputError(f"{run.folder}: no finished fold to predict with; make train {going_on(run.name)} first")
    return run, split, packs, numbers


def predictors_of(
    run: Run, numbers: list[int], packs: dict[str, Pack], options: PredictSettings
) -> tuple[Any, Iterator[Any]]:
    """Of the models of finished folds: a predictor of all together (None where there is one alone), and then of each in turn.

    Keras must have been started. By the images of all packs every part of a run's predictions chooses the same engine.
    """
    from driverwatch.inference.predict import whole_predictor
    from driverwatch.models.backend import load_state
    from driverwatch.models.classifier import build
    from driverwatch.models.split_network import FoldEnsemble

    classifiers = []
    for number in numbers:
        classifiers.append(build(run.settings, len(run.classes), packs["train"].mean, None, load=False))
        load_state(run.verify(number), {"model": classifiers[-1].weights})
    images = sum(len(pack.names) for pack in packs.values())
    asked: Any = (run, options.tta, options.batch_size, options.engine, images)
    together = whole_predictor(FoldEnsemble(classifiers), *asked) if len(numbers) > 1 else None
    return together, (whole_predictor(classifier, *asked) for classifier in classifiers)


class Asked(NamedTuple):
    """Which of a run's fold models answer for an image, by their places; none: all of them. `said`: why, in a sentence."""

    places: tuple[int, ...] = ()
    said: tuple[str, ...] = ()


Recogniser = Callable[[np.ndarray], Asked]  # of an upright image, uint8 RGB (H, W, 3)


def recogniser(context: Context, models: FoldModels) -> Recogniser:
    """Finds labelled images by the checksum of their packed pixels; without the run's pack every image is a new one."""
    try:
        run, folds, packs = open_run(replace(context, maker=None), models.run.name)
        pack, split = packs["train"], splits.of(run.settings.train, folds)
        row_of = {bytes(key): row for row, key in enumerate(pixel_hashes(Path(pack.images.path)))}
    except InputError:
        return lambda _: Asked()
    size, whole = pixels(run.settings.input.pack), models.boxes == (FRAME,)

    def ask(image: np.ndarray) -> Asked:
        found = pixel_hash(cut_out(image, (FRAME,), size) if whole else image)
        row = row_of.get(bytes(as_keys(np.frombuffer(found, np.uint8, LOOK)[None])[0]))
        if row is None:
            return Asked()
        driver, key = pack.drivers[row], run.classes[pack.labels[row]]
        label = f"labelled {models.classes[key] or key} ({key}), driver {driver}"
        trained = [driver not in split.validation[k] | split.unused[k] for k in models.numbers]
        places = tuple(place for place, seen in enumerate(trained) if not seen)
        if not places:
            return Asked((), (f"{label}: in the training set of every model asked, so the answer is optimistic",))
        numbers = " and ".join(str(models.numbers[place]) for place in places)
        return Asked(places, (f"{label}: answered by fold {numbers} alone, which never saw this driver",))

    return ask
