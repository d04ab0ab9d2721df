"""What the data set's camera sees: whether an image is like its images, and a few of them whose class is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from driverwatch.data import competition
from driverwatch.data.context import Context
from driverwatch.data.images import examine
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference.predict_run import FoldModels
from driverwatch.io.html import jpeg_uri
from driverwatch.report.worst_images import whole_frame

SAMPLE = 600  # training images that an image is compared with
SIDES = (16, 12)  # px of the grey thumbnails that are compared
RARE = 1.0  # percent of the camera's own images that the rule takes for another's
SLACK = 1.5  # times as far from a training image as those may be: drivers to come differ more than those that are there
STRETCHED = 1.25  # times the camera's ratio of width to height, either way
EXAMPLES = 6
SMALL_PX = 200  # width of an example's picture on the page


@dataclass(frozen=True, eq=False)
class Camera:
    """Thumbnails of its images, and how alike the least usual ones are to those of other drivers.

    Args:
        thumbnails: float64 (N, P), rows of norm 1 and mean 0.
        least: correlation below which an image is remarked upon.
        ratio: width to height; None: not known.
    """

    thumbnails: np.ndarray
    least: float
    ratio: float | None

    def remarks(self, image: np.ndarray) -> tuple[str, ...]:
        """What tells an image, uint8 RGB (H, W, 3), from the camera's."""
        height, width = image.shape[:2]
        found = []
        if self.ratio is not None and not 1 / STRETCHED < width / height / self.ratio < STRETCHED:
            found.append(f"{width / height:.2g} times as wide as high, the camera's images {self.ratio:.2g} times")
        if float((self.thumbnails @ thumbnail(image)).max()) < self.least:
            found.append("unlike the camera's images, so that the answer is worth nothing")
        return tuple(found)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Where an image, uint8 RGB (H, W, 3), is light and dark: float64 (P,) of mean 0 and norm 1 (a flat one: 0)."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, SIDES, interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return np.asarray(small / (np.linalg.norm(small) or 1.0))


def camera_of(frames: np.ndarray, drivers: np.ndarray, ratio: float | None) -> Camera | None:
    """The camera that took images, uint8 RGB (N, H, W, 3), of drivers (N,); None of fewer than two drivers.

    The distance of an image is 1 less its best correlation with any of them; it is unlike when that is more than `SLACK` times
    what 99 % of them have from other drivers' images.
    """
    made = np.array([thumbnail(frame) for frame in frames])
    others = drivers[:, None] != drivers[None]
    if not others.any():
        return None
    nearest = np.where(others, made @ made.T, -1.0).max(axis=1)
    return Camera(made, 1 - SLACK * (1 - float(np.percentile(nearest, RARE))), ratio)


def find_camera(context: Context, models: FoldModels) -> Camera | None:
    """The camera of a run's training pack; None where it is not there."""
    try:
        pack = context.pack(models.run.settings.input.key, "train", models.run.folds)
        rows = np.unique(np.linspace(0, len(pack.names) - 1, SAMPLE).astype(int))
        frames = np.array([whole_frame(pack.pixels[row], models.run.settings.input.regions) for row in rows])
        first = examine(_training_file(context, pack, 0), None)
    except (InputError, OSError):
        return None
    ratio = first.shape[1] / first.shape[0] if first.pixels is not None else None
    return camera_of(frames, pack.drivers[rows].astype(str), ratio)


def _training_file(context: Context, pack: Pack, row: int) -> Path:
    label = list(context.settings.classes)[pack.labels[row]]
    return context.data / context.settings.train_images.format(label=label, image=pack.names[row])


@dataclass(frozen=True)
class Example:
    """An image of known class: its file, its picture for the page, and who has seen its driver."""

    path: Path
    picture: str
    truth: str
    note: str


def find_examples(context: Context, models: FoldModels) -> list[Example]:
    """Images of different classes, of the test set where its classes are known, else of the training set; those that are there."""
    found = []
    for path, truth, note in _known(context, models):
        image = examine(path, None)
        if image.pixels is not None:
            found.append(Example(path, jpeg_uri(image.pixels, SMALL_PX, 75), truth, note))
    return found


def _known(context: Context, models: FoldModels) -> Iterator[tuple[Path, str, str]]:
    settings, classes = context.settings, list(context.settings.classes)
    chosen = np.unique(np.linspace(0, len(classes) - 1, EXAMPLES).astype(int))
    try:
        labels = competition.read_test_labels(settings, context.data) if context.data.is_dir() else None
        pack = None if labels else context.pack(models.run.settings.input.key, "train", models.run.folds)
    except (InputError, OSError):
        return
    for label in map(int, chosen):
        if labels:
            names = [name for name, known in labels.items() if known == label]
            if names:
                path = context.data / settings.test_images.format(image=names[7 * label % len(names)])
                yield path, classes[label], "no model was trained on its driver"
        elif pack is not None and len(rows := np.flatnonzero(pack.labels == label)):
            some = "most of these models were" if len(models.numbers) > 1 else "this model may have been"
            yield _training_file(context, pack, int(rows[0])), classes[label], f"{some} trained on it"
