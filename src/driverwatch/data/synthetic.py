"""A synthetic competition in Kaggle's exact layout: runs anywhere, costs no download, and its test labels are known.

Frames come in clips of near-duplicates and test drivers are nowhere in training, so it teaches leakage as the real one does: a
nearest-neighbour classifier looks perfect on a random split and fails on a driver split.
"""

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.types import SIZE, pixels
from driverwatch.data import synthetic_driver
from driverwatch.data.synthetic_driver import POSES, Driver, draw
from driverwatch.errors import InputError
from driverwatch.io.atomic import making, replacing_folder, write_json
from driverwatch.io.console import close, track
from driverwatch.io.manifests import checksum_of, checksum_of_file, provenance, read_json
from driverwatch.io.paths import is_empty
from driverwatch.io.prefetch import in_threads, one_opencv_thread


@dataclass(frozen=True)
class SyntheticOptions:
    """How much is drawn: `drivers` in training, `test_drivers` in test, each with `clips` clips of `frames` frames per class."""

    drivers: int = 27
    test_drivers: int = 8
    clips: int = 1
    frames: int = 3
    size: str = "240x320"
    seed: int = 0


@dataclass(frozen=True)
class Shot:
    """One image to draw."""

    name: str
    driver: int
    label: int
    clip: int
    frame: int
    test: bool


def write(options: SyntheticOptions, settings: DatasetSettings, data: Path, force: bool = False) -> None:
    """Draw a competition into `data`: whole or not at all; the same options give the same bytes.

    Raises:
        InputError: options that draw nothing, more than ten classes, or something else in the way (without `force`).
    """
    _check(options, settings)
    if data.name in ("", ".."):
        expected = "a folder of its own for the synthetic competition, like build/demo/data"
        raise InputError(f"DATA={data}: expected {expected}")
    layout = settings.model_dump(include={"classes", "columns", "table", "train_images", "test_images", "test_labels"})
    drawing = checksum_of_file(Path(synthetic_driver.__file__))
    wanted = {"options": asdict(options), "drawing": drawing, "layout": checksum_of(layout)}
    with making(data):
        if _is_synthetic(data, wanted, force):
            return close(data, f"up to date (seed {options.seed})")
        start, shots = time.monotonic(), plan(options, len(settings.classes))
        with replacing_folder(data) as partial:
            _draw_all(shots, options, settings, partial)
            _write_tables(shots, settings, partial)
            seconds = round(time.monotonic() - start, 1)
            write_json(partial / "sample.json", {**wanted, "seconds": seconds, **provenance()})
    test = sum(shot.test for shot in shots)
    said = f"{len(shots) - test} labelled images of {options.drivers} drivers, {test} test images of "
    return close(data, f"{said}{options.test_drivers} others", seconds)


def _is_synthetic(data: Path, wanted: dict[str, Any], force: bool) -> bool:
    """Whether `data` is what is wanted already; anything else that must not be replaced is refused."""
    manifest = data / "sample.json"
    if manifest.is_file() and not force and wanted.items() <= read_json(manifest).items():
        return True
    if data.exists() and not is_empty(data) and not (force and manifest.is_file()):
        again = "make synthetic FORCE=1 draws again, make clean forgets all that is built"
        way = again if manifest.is_file() else "it was not drawn by make synthetic and is left alone"
        raise InputError(f"{data}: holds something else; name another DATA= folder ({way})")
    return False


def _check(options: SyntheticOptions, settings: DatasetSettings) -> None:
    counts = {key: value for key, value in asdict(options).items() if isinstance(value, int) and key != "seed"}
    if wrong := [key.upper() for key, value in counts.items() if value < 1]:
        raise InputError(f"{', '.join(wrong)} must be at least 1")
    if options.seed < 0:
        raise InputError(f"SEED={options.seed} must be at least 0")
    if settings.test_labels is None:
        raise InputError(
            "synthetic: this data set's YAML names no test_labels, so it is not synthetic; use DATASET=demo"
        )
    if not re.fullmatch(SIZE, options.size):
        raise InputError(f"SIZE={options.size} must be <height>x<width>, like 240x320")
    if (classes := len(settings.classes)) > len(POSES):
        raise InputError(f"synthetic: draws at most {len(POSES)} classes, but the dataset's YAML lists {classes}")


def plan(options: SyntheticOptions, classes: int = len(POSES)) -> list[Shot]:
    """Every image with its name; names are shuffled numbers, so that they tell nothing."""
    shots = list(np.ndindex(options.drivers + options.test_drivers, classes, options.clips, options.frames))
    numbers = np.random.default_rng((options.seed, 1)).permutation(len(shots)) + 1
    return [
        Shot(f"img_{number}.jpg", driver, label, clip, frame, driver >= options.drivers)
        for number, (driver, label, clip, frame) in zip(numbers, shots, strict=True)
    ]


def picture(shot: Shot, options: SyntheticOptions) -> np.ndarray:
    """Draw one image: uint8 RGB; a pure function of options and shot."""

    def random(*key: int) -> np.random.Generator:
        return np.random.default_rng((options.seed, *key))

    driver = Driver.drawn_by(random(2, shot.driver))
    clip = random(3, shot.driver, shot.label, shot.clip)
    frame = random(4, shot.driver, shot.label, shot.clip, shot.frame)
    return draw(driver, shot.label, clip, frame, pixels(options.size))


def _draw_all(shots: list[Shot], options: SyntheticOptions, settings: DatasetSettings, folder: Path) -> None:
    classes = list(settings.classes)
    for label in classes:
        (folder / settings.train_images.format(label=label, image="x")).parent.mkdir(parents=True, exist_ok=True)
    (folder / settings.test_images.format(image="x")).parent.mkdir(parents=True, exist_ok=True)

    def one(shot: Shot) -> None:
        template = settings.test_images if shot.test else settings.train_images
        path = template.format(label=classes[shot.label], image=shot.name)
        drawn, encoded = cv2.imencode(".jpg", picture(shot, options)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        if not drawn:
            raise InputError(f"{folder / path}: could not be encoded as JPEG")
        (folder / path).write_bytes(encoded.tobytes())

    with one_opencv_thread():
        for _ in track(in_threads(one, shots), len(shots), "draw"):
            pass


def _write_tables(shots: list[Shot], settings: DatasetSettings, folder: Path) -> None:
    import pandas as pd  # half a second, for who draws

    columns, classes = settings.columns, list(settings.classes)
    uniform: dict[str, Any] = dict.fromkeys(classes, round(1 / len(classes), 6))
    train = sorted((shot for shot in shots if not shot.test), key=lambda s: (s.driver, s.label, s.name))
    test = sorted((shot for shot in shots if shot.test), key=lambda s: s.name)
    drivers = [{columns.driver: f"p{s.driver:03d}"} if columns.driver else {} for s in train]
    labelled = [{columns.label: classes[s.label], columns.image: s.name} for s in train]
    tables: dict[str, list[dict[str, Any]]] = {}
    tables[settings.table] = [driver | image for driver, image in zip(drivers, labelled, strict=True)]
    tables[settings.sample_submission] = [{columns.image: s.name, **uniform} for s in test]
    if settings.test_labels:
        tables[settings.test_labels] = [{columns.image: s.name, columns.label: classes[s.label]} for s in test]
    for name, lines in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(folder / name, index=False, lineterminator="\n")
