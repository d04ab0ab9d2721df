"""Images that pages show as examples: the worst and the confused ones of a run, and some of the camera, whose look is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import cv2
import numpy as np
import pandas as pd

from driverwatch.config.types import WHOLE
from driverwatch.data import competition
from driverwatch.data.context import Context
from driverwatch.data.images import examine
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference.predict_run import FoldModels
from driverwatch.io.html import jpeg_uri
from driverwatch.report.score_runs import RunScores, confusions, in_words

WORST = 9  # images
STRIPS, OF_EACH = 3, 6  # confusions, and images of each
WIDTHS_PX = 480, 320  # of the worst image, and of the others
JPEG_QUALITY = 78


class Thumbnail(NamedTuple):
    """An image of the data set as a data URI, what to say of it in words, and its fragment of the review page's address."""

    source: str
    alt: str
    says: str
    true: str
    fragment: str


class Strip(NamedTuple):
    """Images of one confusion."""

    title: str
    fragment: str
    thumbnails: list[Thumbnail]


def fragment(**asked: str) -> str:
    """The review page's address of what is asked."""
    return f"#{urlencode(asked, quote_via=quote)}"


def worst_images(
    context: Context, made: RunScores, pack: Pack, regions: list[str]
) -> tuple[list[Thumbnail], list[Strip]]:
    """A run's worst images and confusions.

    Raises:
        InputError, OSError: the pack's images cannot be read, where the data folder has none.
    """
    classes, index = context.settings.classes, {str(name): place for place, name in enumerate(pack.names)}

    def thumbnails(rows: pd.DataFrame, width: int) -> Iterator[Thumbnail]:
        """Pictures from the data folder where they are there, since they are larger, else from the pack."""
        for name, row in zip(rows.index, rows.to_dict("records"), strict=True):
            found = examine(_training_file(context, row["class"], name), None).pixels
            image = whole_frame(pack.pixels[index[name]], regions) if found is None else found
            says, true = (classes[row[key]] or row[key] for key in ("says", "class"))
            words = f"says {says} {row['sure']:.0%}", f"is {true} {row['true']:.0%}"
            where = fragment(run=made.name, image=name, **{"from": "verdict"})
            yield Thumbnail(jpeg_uri(image, width, JPEG_QUALITY), f"{row['driver']}, {name}", *words, where)

    worst = one_per_clip(made.each.sort_values("loss", ascending=False, kind="stable")).head(WORST)
    strips = []
    for pair in confusions(made)[:STRIPS]:
        mistaken = made.each[(made.each["class"] == pair.true) & (made.each["says"] == pair.says)]
        chosen = one_per_clip(mistaken.sort_values("sure", ascending=False, kind="stable")).head(OF_EACH)
        where = fragment(run=made.name, true=pair.true, says=pair.says, view="grid", **{"from": "verdict"})
        strips.append(Strip(in_words(pair, classes), where, list(thumbnails(chosen, WIDTHS_PX[1]))))
    return [*thumbnails(worst.head(1), WIDTHS_PX[0]), *thumbnails(worst.tail(-1), WIDTHS_PX[1])], strips


def one_per_clip(rows: pd.DataFrame) -> pd.DataFrame:
    """The first line of each driver and class: frames of one clip are nearly the same image."""
    return rows[~rows.duplicated(["driver", "class"])]


def _training_file(context: Context, label: str, name: str) -> Path:
    return context.data / context.settings.train_images.format(label=label, image=name)


def whole_frame(image: np.ndarray, regions: list[str]) -> np.ndarray:
    """Of a packed image, uint8 (R * H, W, 3), the whole frame, or where it holds none the first region: uint8 (H, W, 3)."""
    height = image.shape[0] // len(regions)
    top = regions.index(WHOLE) * height if WHOLE in regions else 0
    return image[top : top + height]


SAMPLE = 600  # training images that an image is compared with
SIDES = (16, 12)  # px of the grey thumbnails that are compared
STYLE_PX = (112, 84)  # of images whose detail and colourfulness are compared: no larger than packs
RARE = 1.0  # percent of the camera's own images that the rule takes for another's
SLACK = 1.25  # times as far from training images as those may be: drivers to come differ more than those that are there
STRETCHED = 1.25  # times the camera's ratio of width to height, either way
EXAMPLES = 6
SMALL_PX = 200  # width of an example's picture on the page


class ImageStyle(NamedTuple):
    """What images are like by `image_style`: the mean, and the inverse of the covariance."""

    mean: np.ndarray
    precision: np.ndarray

    @classmethod
    def of(cls, styles: np.ndarray) -> "ImageStyle":
        return cls(styles.mean(axis=0), np.linalg.inv(np.cov(styles.T, bias=True) + 1e-4 * np.eye(styles.shape[1])))

    def distances(self, styles: np.ndarray) -> np.ndarray:
        """float64 (N,): Mahalanobis' distances of styles, float64 (N, 6)."""
        away = styles - self.mean
        return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", away, self.precision, away)))


def image_style(image: np.ndarray) -> np.ndarray:
    """float64 (6,): detail (fine, middle, coarse), gradients and colourfulness of an image, uint8 RGB (H, W, 3)."""
    small = cv2.resize(np.ascontiguousarray(image), STYLE_PX, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float64)
    grey = (grey - grey.mean()) / (grey.std() or 1.0)
    details = [(grey - cv2.GaussianBlur(grey, (0, 0), sigma)).std() for sigma in (1.5, 3, 6)]
    saturation = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[..., 1] / 255
    shares = np.array([*details, np.abs(np.diff(grey)).mean()])
    return np.array([*np.log(shares + 1e-3), saturation.mean(), saturation.std()])


@dataclass(frozen=True, eq=False)
class Camera:
    """What its images are like, and how unlike the least usual ones are to those of other drivers.

    Args:
        thumbnails: float64 (N, P), rows of norm 1 and mean 0.
        least: correlation below which an image is remarked upon.
        styles: those of its images.
        farthest: distance from them beyond which an image is remarked upon, too.
        ratio: width to height; None: not known.
    """

    thumbnails: np.ndarray
    least: float
    styles: ImageStyle
    farthest: float
    ratio: float | None

    def remarks(self, image: np.ndarray) -> tuple[str, ...]:
        """What tells an image, uint8 RGB (H, W, 3), from the camera's."""
        height, width = image.shape[:2]
        found = []
        if self.ratio is not None and not 1 / STRETCHED < width / height / self.ratio < STRETCHED:
            found.append(f"{width / height:.2g} times as wide as high, the camera's images {self.ratio:.2g} times")
        alike = float((self.thumbnails @ thumbnail(image)).max()) >= self.least
        if not alike or self.styles.distances(image_style(image)[None])[0] > self.farthest:
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

    An image is unlike them when it is more than `SLACK` times as far from them as 99 % of them are from other drivers' images,
    by 1 less the best correlation with any of them, or by its style.
    """
    made = np.array([thumbnail(frame) for frame in frames])
    others = drivers[:, None] != drivers[None]
    if not others.any():
        return None
    nearest = np.where(others, made @ made.T, -1.0).max(axis=1)
    least = 1 - SLACK * (1 - float(np.percentile(nearest, RARE)))
    styles = np.array([image_style(frame) for frame in frames])
    apart = [ImageStyle.of(styles[drivers != one]).distances(styles[drivers == one]) for one in np.unique(drivers)]
    return Camera(
        made, least, ImageStyle.of(styles), SLACK * float(np.percentile(np.concatenate(apart), 100 - RARE)), ratio
    )


def find_camera(context: Context, models: FoldModels) -> Camera | None:
    """The camera of a run's training pack; None where it is not there."""
    try:
        pack = context.pack(models.run.settings.input.key, "train", models.run.folds)
        rows = np.unique(np.linspace(0, len(pack.names) - 1, SAMPLE).astype(int))
        frames = np.array([whole_frame(pack.pixels[row], models.run.settings.input.regions) for row in rows])
        label = list(context.settings.classes)[pack.labels[0]]
        first = examine(_training_file(context, label, pack.names[0]), None)
    except (InputError, OSError):
        return None
    ratio = first.shape[1] / first.shape[0] if first.pixels is not None else None
    return camera_of(frames, pack.drivers[rows].astype(str), ratio)


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
            path = _training_file(context, classes[label], pack.names[rows[0]])
            yield path, classes[label], f"{some} trained on it"
