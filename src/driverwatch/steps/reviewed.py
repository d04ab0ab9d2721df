"""What the review page is of: runs, and their probabilities of training and test photos, joined by image name."""

from dataclasses import dataclass

import cv2
import numpy as np

from driverwatch.blend import ensemble as blending
from driverwatch.blend.chain import Rows
from driverwatch.blend.ensemble import Member
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.report import review as numbers
from driverwatch.report.page import picture
from driverwatch.report.review import Photos
from driverwatch.setting_types import ViewSet
from driverwatch.steps.context import Context
from driverwatch.steps.submit import finished_runs
from driverwatch.terminal import say
from driverwatch.training.predicted import views_there

QUALITY = 75  # of JPEGs inside the page


@dataclass(frozen=True, eq=False)
class Reviewed:
    """The runs of a page, and their rows: training photos out of fold, test photos as the mean of each run's fold models."""

    members: list[Member]
    pack: Pack
    folds: FoldTable
    train: Photos
    test: Photos

    @property
    def runs(self) -> list[str]:
        return [member.run.name for member in self.members]


def read_rows(context: Context, names: list[str], views: ViewSet | None) -> Reviewed:
    """Read what runs predicted. Arguments and errors as of `write_review`."""
    found, tests, folds, pack = finished_runs(context, names)
    members = [Member(run, test, views or blending.honest_views(run)) for run, test in zip(found, tests, strict=True)]
    kept = []
    for member in members:
        sentence = _unfit(member, folds.count)
        if sentence is None or (names and blending.scored(member.run)):  # whoever reads a named run's rows refuses it
            kept.append(member)
        elif names:
            raise InputError(f"{sentence}; leave it out of MODELS=")
        else:
            say(f"left out: {sentence}")
    members = kept
    if not members:
        raise InputError(
            f"{context.places.runs}: no finished run has out-of-fold rows to review; make train MODEL=... trains one"
        )
    rows = blending.labelled_rows(members, pack, folds)
    train = numbers.sorted_photos(rows.names, pack.labels, pack.drivers, rows.sets, rows.members)
    return Reviewed(members, pack, folds, train, _test_photos(members, folds))


def _unfit(member: Member, count: int) -> str | None:
    """Why a run cannot be reviewed under its view set; None: it can."""
    run = member.run
    if not blending.scored(run):
        return f"{run.folder}: no out-of-fold rows to review: {run.settings.train.splits.unscored}"
    if member.views not in views_there(run, count):
        return f"{run.folder}: not every fold has predicted {member.views}; make predict RUN={run.name} VIEWS={member.views} does"
    return None


def _test_photos(members: list[Member], folds: FoldTable) -> Photos:
    """What each run's fold models say on average of the test photos that every run's pack holds."""
    each = []
    for member in members:
        fits = list(range(member.run.settings.train.splits.fits(folds.count)))
        names = [*member.test.names, *member.test.left_out.names]
        each.append(blending.unseen_rows([member], names, [fits]))
    common = sorted(set.intersection(*(set(map(str, rows.names)) for rows in each)))
    if left := len(set().union(*(rows.names for rows in each))) - len(common):
        say(f"left out: {left} test photos that not every run's pack holds")
    chosen = [_at(rows, common) for rows in each]
    unknown = np.full(len(common), -1)
    return numbers.sorted_photos(np.array(common, str), unknown, np.full(len(common), ""), unknown, np.stack(chosen))


def _at(rows: Rows, names: list[str]) -> np.ndarray:
    """A single member's probabilities in the order of `names`, all of them there: float64 (len(names), C)."""
    position = {str(name): place for place, name in enumerate(rows.names)}
    return np.asarray(rows.members[0][np.array([position[name] for name in names], np.int64)])


def jpeg(image: np.ndarray, width: int) -> str:
    """A data URI of uint8 RGB (H, W, 3), made at most `width` px wide."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if image.shape[1] > width else image
    _, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return picture(encoded.tobytes(), "image/jpeg")
