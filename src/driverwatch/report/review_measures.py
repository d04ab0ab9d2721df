"""Numbers of the review page: each image's loss and entropy by run, how far runs disagree, and arrays packed for JavaScript."""

import base64
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import entr

from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble.members import Member
from driverwatch.errors import InputError
from driverwatch.metrics import FLOOR, limited, log_losses

STEPS = 65535  # of a quantised probability
JPEG_QUALITY = 75  # of pictures inside the page
KINDS = {"f": ("<f4", "Float32Array"), "i": ("<i4", "Int32Array"), "u": ("<u2", "Uint16Array")}  # all in little endian


@dataclass(frozen=True, eq=False)
class ReviewImages:
    """N images in the order of their names, and the probabilities that M runs predicted.

    Args:
        names: (N,), unique, sorted.
        labels: int64 (N,), 0..C-1; -1 where the class is not known, as of test images.
        drivers: (N,); "" where the driver is not known.
        folds: int64 (N,), that held the driver out; -1 where none did.
        members: float64 (M, N, C), rows sum to 1.

    Raises:
        InputError: when built from anything else.
    """

    names: np.ndarray
    labels: np.ndarray
    drivers: np.ndarray
    folds: np.ndarray
    members: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.members.ndim != 3 or self.members.shape[1] != count or not len(self.members):
            raise InputError(
                f"review: {count} images beside probabilities of shape {self.members.shape}; predict again"
            )
        if any(len(column) != count for column in (self.labels, self.drivers, self.folds)):
            raise InputError(f"review: columns of other lengths than {count} images; predict again")
        if any(self.names[1:] <= self.names[:-1]):
            raise InputError("review: images must be sorted by name, each named once; predict again")


def sorted_images(
    names: np.ndarray, labels: np.ndarray, drivers: np.ndarray, folds: np.ndarray, members: np.ndarray
) -> ReviewImages:
    """`ReviewImages` of columns (N,) and members (M, N, C) in any order. Raises as it does."""
    order = np.argsort(np.asarray(names, str), kind="stable")
    names, labels, drivers, folds = (np.asarray(column)[order] for column in (names, labels, drivers, folds))
    return ReviewImages(names, labels, drivers, folds, np.asarray(members)[:, order])


@dataclass(frozen=True, eq=False)
class Measures:
    """Measures of N images by J predictors: the mean of all runs first, if there are several, then each run.

    Args:
        judges: the predictors' names.
        losses: log loss in nats, float64 (J, N), as every printed log loss; NaN where no label is known.
        entropies: in nats, float64 (J, N), 0..ln C.
        said: the likeliest class, int64 (J, N); of equally likely ones the first.
        divergence: how far runs disagree, float64 (N,), as `divergence` gives it.
    """

    judges: list[str]
    losses: np.ndarray
    entropies: np.ndarray
    said: np.ndarray
    divergence: np.ndarray


def measure(images: ReviewImages, runs: list[str]) -> Measures:
    """Measures of images by the mean of all runs' probabilities, as `make score` has it, and by each run."""
    each = images.members
    rows = np.concatenate([each.mean(axis=0, keepdims=True), each]) if len(runs) > 1 else each
    known = images.labels >= 0
    losses = np.full(rows.shape[:2], np.nan)
    for judge, row in enumerate(rows):
        losses[judge, known] = log_losses(row[known], images.labels[known])
    judges = ([f"mean of {len(runs)}"] if len(runs) > 1 else []) + runs
    return Measures(judges, losses, entropy(limited(rows, FLOOR)), rows.argmax(axis=2), divergence(images.members))


@dataclass(frozen=True, eq=False)
class Reviewed:
    """The runs of a page; training images by the models that never saw their drivers, test images by each run's mean."""

    members: list[Member]
    pack: Pack
    folds: FoldTable
    train: ReviewImages
    test: ReviewImages

    @property
    def runs(self) -> list[str]:
        return [member.run.name for member in self.members]

    def measured(self) -> tuple[Measures, Measures]:
        """Measures of the training and of the test images."""
        return measure(self.train, self.runs), measure(self.test, self.runs)


def entropy(rows: np.ndarray) -> np.ndarray:
    """Shannon's entropy of rows (..., C) in nats: float64 (...,), 0 for a sure one, ln C for an even one."""
    return np.asarray(entr(np.asarray(rows, np.float64)).sum(axis=-1))


def divergence(members: np.ndarray) -> np.ndarray:
    """How far M runs disagree on each image: the mean Jensen-Shannon divergence of all pairs, in nats.

    Of two rows it is H((p + q) / 2) - (H(p) + H(q)) / 2 with H the entropy (Lin 1991, IEEE Transactions on Information
    Theory 37, equation 3.4 with equal weights): symmetric, 0 for equal rows, ln 2 for rows that share no class. The mean of
    pairs keeps these bounds for any number of runs.

    Args:
        members: float (M, N, C), rows sum to 1.

    Returns:
        float64 (N,), in 0..ln 2; 0 where there is but one run.
    """
    members = np.asarray(members, np.float64)
    pairs = list(combinations(range(len(members)), 2))
    total, own = np.zeros(members.shape[1]), entropy(members)
    for one, other in pairs:
        between = entropy((members[one] + members[other]) / 2) - (own[one] + own[other]) / 2
        total += np.clip(between, 0, np.log(2))  # rounding leaves equal rows 1e-16 below
    return total / max(len(pairs), 1)


def ranking(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Row numbers int64 (K,), largest value first, equal ones in the order of their names; without rows that have none (NaN)."""
    there = np.flatnonzero(~np.isnan(values))
    return there[np.lexsort((np.asarray(names, str)[there], -values[there]))]


def heads(measures: Measures, names: np.ndarray, count: int) -> np.ndarray:
    """Row numbers int64 (K,), sorted, of images among the first `count` by the first judge's loss or entropy, or disagreement."""
    values = [measures.losses[0], measures.entropies[0], measures.divergence]
    found = [ranking(value, names)[:count] for value in values]
    return np.unique(np.concatenate(found)).astype(np.int64)


def quantise(shares: np.ndarray) -> np.ndarray:
    """Shares (...,) in 0..1 as steps, uint16 (...,): at most 7.7e-6 off, which no bar and no tenth of a percent shows."""
    return np.round(np.clip(shares, 0, 1) * STEPS).astype(np.uint16)


def packed_array(array: np.ndarray) -> dict[str, Any]:
    """An array for a page: base64 of its numbers (float32, int32 or uint16, row by row), and how JavaScript calls them."""
    number, called = KINDS[array.dtype.kind]
    content = np.ascontiguousarray(array, number)
    return {"type": called, "shape": list(array.shape), "data": base64.b64encode(content.data).decode("ascii")}


def content(train: ReviewImages, test: ReviewImages, sets: tuple[Measures, Measures]) -> dict[str, Any]:
    """What the page needs of all images, as JSON-able data: training images first, each set sorted by name.

    Losses are of the training images alone: the classes of test images are not known, and nothing here guesses them.
    """
    drivers, driver = np.unique(train.drivers.astype(str), return_inverse=True)
    return {
        "judges": sets[0].judges,
        "labelled": len(train.names),
        "names": [*map(str, train.names), *map(str, test.names)],
        "drivers": [str(name) for name in drivers],
        "label": packed_array(train.labels.astype(np.int32)),
        "driver": packed_array(driver.astype(np.int32)),
        "fold": packed_array(train.folds.astype(np.int32)),
        "loss": packed_array(sets[0].losses),
        "entropy": packed_array(np.concatenate([made.entropies for made in sets], axis=1)),
        "said": packed_array(np.concatenate([made.said for made in sets], axis=1).astype(np.uint16)),
        "divergence": packed_array(np.concatenate([made.divergence for made in sets])),
        "probabilities": packed_array(quantise(np.concatenate([train.members, test.members], axis=1))),
    }
