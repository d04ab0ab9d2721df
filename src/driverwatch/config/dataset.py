"""Settings of a data set: where its files are, its classes, regions and folds; the defaults are Kaggle's layout."""

import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from driverwatch.config.loading import Strict
from driverwatch.config.types import WHOLE, Region
from driverwatch.errors import InputError, nearest

TABLE = "driver_imgs_list.csv"  # one line per labelled image
TRAIN_IMAGES = "imgs/train/{label}/{image}"
TEST_IMAGES = "imgs/test/{image}"
SAMPLE_SUBMISSION = "sample_submission.csv"


def folder_of(template: str) -> Path:
    """The folder below which all files of a template are: `imgs/train` of `imgs/train/{label}/{image}`."""
    return Path(f"{template.split('{')[0]}x").parent


class Columns(Strict):
    """What the table's columns are called; the defaults are Kaggle's."""

    image: str = "img"  # the image's file name, unique
    label: str = "classname"  # one of `classes`
    driver: str | None = "subject"  # what folds keep together; null: near-duplicate images, found by their looks

    @property
    def named(self) -> list[str]:
        """Those that the table has, the driver's first."""
        return [column for column in (self.driver, self.label, self.image) if column]


def _template(*fields: str) -> AfterValidator:
    """A path below the data folder, with these `{fields}` and no others."""

    def check(text: str) -> str:
        try:
            found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise ValueError(f"must be a path like imgs/test/{{image}} ({error})") from error
        if "image" not in found or not found <= set(fields):
            raise ValueError(f"must hold {{image}} and no other fields than {', '.join(f'{{{f}}}' for f in fields)}")
        return _below(text)

    return AfterValidator(check)


def _below(text: str) -> str:
    if text.startswith(("/", "~", "\\")) or ".." in re.split(r"[/\\]", text) or ":" in text:
        raise ValueError("must be a path below the data folder, without ..")
    return text


def _class_name(name: str) -> str:
    if not re.fullmatch(r"[^\s,\"/\\\0{}][^,\"/\\\0\r\n{}]*", name) or name != name.strip() or name in (".", ".."):
        raise ValueError(f"class {name!r} must be plain: it names a column and may name a folder")
    return name


def _box(corners: list[float]) -> list[float]:
    top, left, bottom, right = corners
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError("must be [top, left, bottom, right] as shares of the frame, like [0, 0.2, 0.6, 0.8]")
    return [float(share) for share in corners]


Below = Annotated[str, AfterValidator(_below)]
Class = Annotated[str, AfterValidator(_class_name)]
Corners = Annotated[list[float], Field(min_length=4, max_length=4), AfterValidator(_box)]
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


# of tables that have a column per class as well
OWN_COLUMNS = ("driver", "drivers", "fold", "images", "class", "log loss")


def class_columns(classes: Iterable[str]) -> list[str]:
    """What classes are called as columns of our own tables: by their names, or `class driver` where a column of ours has that."""
    return [f"class {name}" if name in OWN_COLUMNS else name for name in classes]


class Expected(Strict):
    """What the full download must hold; `make data` and `make submit` hold everything against it."""

    train: Annotated[int, Field(ge=1)]  # labelled images
    test: Annotated[int, Field(ge=1)]  # test images, so also rows of a submission
    gigabytes: Annotated[float, Field(gt=0, le=1000)]  # of the archive, and about the same again unpacked


class LeaderboardSettings(Strict):
    """A private log loss of the competition's board, for comparison."""

    team: str  # as the leaderboard names it
    log_loss: Annotated[float, Field(gt=0)]  # private, as the source states it
    confirmed: bool = True  # whether a source that could be read states it


class DatasetSettings(Strict):
    """`configs/datasets/<name>.yaml`."""

    title: str  # how pages call it
    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)] | None = None  # on Kaggle
    expected: Expected | None = None
    data: Annotated[str, Field(pattern=r"^[^\x00]+$")]  # folder that DATA= overrides
    table: Below = TABLE  # one line per labelled image
    columns: Columns = Columns()
    # where images lie, by class and name, and test images
    train_images: Annotated[str, _template("label", "image")] = TRAIN_IMAGES
    test_images: Annotated[str, _template("image")] = TEST_IMAGES  # by name
    sample_submission: Below = SAMPLE_SUBMISSION  # names the test images, in a submission's order
    test_labels: Below | None = None  # the test images' labels, where they are known (synthetic competitions)
    # where the competition ended; reports show it
    leaderboard: Annotated[list[LeaderboardSettings], Field(default_factory=list)]
    # where known; null: prediction interval speaks of as many as training has
    test_drivers: Annotated[int, Field(ge=1)] | None = None
    classes: Annotated[dict[Class, str], Field(min_length=2)]  # name: meaning, in the submission's column order
    left_right_pairs: Annotated[list[Pair], Field(default_factory=list)]  # classes that change places in a flip
    # parts of the frame that a model may look at, since the camera is fixed: [top, left, bottom, right], shares of the frame
    regions: Annotated[dict[Region, Corners], Field(default_factory=dict)]
    folds: Annotated[int, Field(ge=2, le=1000)] = 5  # of drivers; as many models per run
    # bits of 512, where no driver is named: data/near_duplicates.py
    group_distance: Annotated[int, Field(ge=0, lt=512)] = 80
    # CSV of the images that `make subset` picks out of a larger download; test images have blank labels
    subset: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> "DatasetSettings":
        named = [name for pair in self.left_right_pairs for name in pair]
        if unknown := sorted(set(named) - set(self.classes)):
            raise ValueError(f"left_right_pairs must name classes, got {', '.join(unknown)}")
        if len(set(named)) < len(named):
            raise ValueError("left_right_pairs must name each class at most once")
        if WHOLE in self.regions:
            raise ValueError(f"regions: {WHOLE} is the frame itself and always there; choose another name")
        self._tell_columns_apart()
        return self

    def _tell_columns_apart(self) -> None:
        image, columns = self.columns.image, class_columns(self.classes)
        if image in self.classes:
            clash = (
                f"{image} is the column of images' names (columns.image), and a submission has a column for each class"
            )
            raise ValueError(f"classes: {clash}; give one of them another name")
        if twice := sorted({column for column in columns if columns.count(column) > 1}):
            clash = f"two would be the column {', '.join(twice)} of the fold file"
            raise ValueError(f"classes: {clash}; give one another name")
        if image in OWN_COLUMNS:
            raise ValueError(f"columns.image: must not be {image}, a column of ours; rename it in table and YAML")
        if len(set(named := self.columns.named[::-1])) < len(named):
            raise ValueError(f"columns: image, label and driver must be columns of their own, got {', '.join(named)}")

    def boxes(self, names: list[str]) -> dict[str, list[float]]:
        """Regions by name as [top, left, bottom, right], shares of the frame, in the order of `names`.

        Raises:
            InputError: a name that is no region here.
        """
        known = {WHOLE: [0.0, 0.0, 1.0, 1.0], **self.regions}
        if (name := next((name for name in names if name not in known), None)) is not None:
            wrong = f"{name} is no region of this data set ({self.title})"
            raise InputError(f"input.regions: {wrong}; expected {', '.join(known)}{nearest(name, list(known))}")
        return {name: known[name] for name in names}

    def swap(self) -> list[int]:
        """Column order after flipping: `swap()[i]` is the class that class `i` becomes in a flip."""
        names = list(self.classes)
        partner = {a: b for pair in self.left_right_pairs for a, b in (pair, pair[::-1])}
        return [names.index(partner.get(name, name)) for name in names]
