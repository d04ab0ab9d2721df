"""Labelled images that a run's models are asked about again: who answers for them, so that no answer is in-sample."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from driverwatch.config.types import pixels
from driverwatch.data import splits
from driverwatch.data.context import Context
from driverwatch.data.images import LOOK, cut_out, pixel_hash
from driverwatch.data.pack import as_keys, pixel_hashes
from driverwatch.data.regions import FRAME
from driverwatch.errors import InputError
from driverwatch.inference.predict_run import FoldModels
from driverwatch.run import open_run


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
