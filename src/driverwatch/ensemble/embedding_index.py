"""Images compared by their embeddings: exact nearest neighbours by cosine, and clusters by Ward's method."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.errors import InputError

BLOCK = 2**25  # similarities that are held at a time, 128 MB
STRIP = 8  # rows that one thread searches at a time: of 80,000 images 2.5 MB, which a core's cache holds
SCORED = 2**21  # numbers of a piece of pairs that is compared again in float64, 16 MB each side


def nearest_neighbours(
    features: np.ndarray, sets: np.ndarray, k: int, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` most similar other rows of the same set, exact, by cosine.

    Blocks of rows are multiplied with all rows in float32. What may be among a row's k most similar, given how far such a
    product can be off, is compared again in float64 and rounded to float32: so neither the block's size nor the library,
    nor its number of threads, decides anything, and equal rows are equally similar. Of these the lower row number is first.

    Raises `InputError`: features that are not finite, rows of zeros, a negative k, or shapes that do not fit.

    Args:
        features: float (N, F), finite, no row zero; of any length, rows are divided by their norm.
        sets: int (N,); only rows with the same number are neighbours.
        block: similarities held at a time, 4 bytes each.

    Returns:
        Row numbers int64 (N, k), most similar first, never the row itself, and cosines float32 (N, k). Where a set has
        fewer than k other rows the rest is -1 and -inf.
    """
    features, sets = np.asarray(features), np.asarray(sets)
    if features.ndim != 2 or sets.shape != features.shape[:1] or k < 0:
        raise InputError(
            f"nearest neighbours: expected features (N, F), sets (N,) and k of 0 or more, got {features.shape}, {sets.shape} "
            f"and {k}; give one set per row"
        )
    unit = _unit(features)
    indices, similarities = np.full((len(unit), k), -1), np.full((len(unit), k), -np.inf, np.float32)
    for number in np.unique(sets):
        rows = np.flatnonzero(sets == number)
        taken = min(k, len(rows) - 1)
        found, near = _within(unit if len(rows) == len(unit) else unit[rows], taken, block)
        indices[rows, :taken], similarities[rows, :taken] = rows[found], near
    return indices, similarities


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows divided by their norm, float32 (N, F); norms in float64, which squares of float32 cannot overflow."""
    unit = np.empty(features.shape, np.float32)
    step = max(1, SCORED // max(features.shape[1], 1))
    for start in range(0, len(unit), step):
        part = features[start : start + step].astype(np.float64)
        norms = np.sqrt((part * part).sum(axis=1, keepdims=True))
        if (wrong := ~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0))).any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"nearest neighbours: expected finite features, not all zero, got row {row} with norm "
                f"{norms[row - start, 0]:g}; compute the features again"
            )
        unit[start : start + step] = part / norms
    return unit


def _within(unit: np.ndarray, k: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` among all of `unit` float32 (N, F), k < N."""
    count = len(unit)
    indices, similarities = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
    if k == 0:
        return indices, similarities
    import pandas as pd  # not for `make status`, which only names embeddings

    keys = pd.Series([hashlib.blake2b(row.data, digest_size=16).hexdigest() for row in unit])
    twins_before = keys.groupby(keys, sort=False).cumcount().to_numpy()  # copies by the thousand would all tie
    columns = np.flatnonzero(twins_before <= k)  # beyond these a row's equals are never among its k
    others = unit if len(columns) == count else unit[columns]
    slack = _rounding(unit.shape[1])
    height = max(1, min(block // len(columns), count))
    product = np.empty((height, len(columns)), np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, height):
            held = np.matmul(unit[start : start + height], others.T, out=product[: min(height, count - start)])

            def search(at: int, held: np.ndarray = held, start: int = start) -> None:
                rows = np.arange(start + at, start + min(at + STRIP, len(held)))
                row, column = _candidates(held[at : at + STRIP], k + 1, slack)
                indices[rows], similarities[rows] = _best(unit, rows, rows[row], columns[column], k)

            list(pool.map(search, range(0, len(held), STRIP)))
    return indices, similarities


def _rounding(length: int) -> float:
    """How far apart two float32 products of unit rows may seem that are equal: twice n u / (1 - n u), and a last rounding.

    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1: it holds for any order of the sum. The rows
    are of length 1 to a rounding each, so that the sum of the absolute products is at most 1 and a little.
    """
    error = length * 2.0**-24
    return 2.1 * error / (1 - error) + 2.0**-22


def _candidates(strip: np.ndarray, k: int, slack: float) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of all in `strip` float32 (S, n) that may be among a row's `k` largest: few more than S * k.

    The k-th largest of a row's maxima over m groups of columns is at most its k-th largest value, and not much less: so one
    pass finds it. Groups take every m-th column, because a clip's frames lie side by side.
    """
    count = strip.shape[1]
    groups = min(count, max(4 * k, 1024))
    whole = count // groups * groups
    maxima = strip[:, :whole].reshape(len(strip), -1, groups).max(axis=1)
    rest = count - whole
    np.maximum(maxima[:, :rest], strip[:, whole:], out=maxima[:, :rest])
    k = min(k, groups)
    least = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    return np.divmod(np.flatnonzero(strip >= (least - np.float32(slack))[:, None]), count)


def _best(
    unit: np.ndarray, probabilities: np.ndarray, row: np.ndarray, other: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of candidate pairs (`row`, `other`) the k most similar for each of `probabilities`, which `row` names in ascending order.

    Every row has at least k candidates beside itself.
    """
    apart = row != other
    row, other = row[apart], other[apart]
    near = _cosines(unit, row, other)
    order = np.lexsort((other, -near, row))
    first = np.searchsorted(row, probabilities)  # sorted by row before and after
    chosen = order[first[:, None] + np.arange(k)]
    return other[chosen], near[chosen]


def _cosines(unit: np.ndarray, row: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Products of pairs of rows, summed in float64 in an order of their length alone: float32 (len(row),)."""
    step = max(1, SCORED // max(unit.shape[1], 1))
    parts = [
        (unit[row[start : start + step]].astype(np.float64) * unit[other[start : start + step]]).sum(axis=1)
        for start in range(0, len(row), step)
    ]
    return np.concatenate(parts or [np.empty(0)]).astype(np.float32)


MOST = 4000  # points that are joined pair by pair: 64 MB of distances; more images are first gathered into so many
REACHES = np.geomspace(0.5, 20.0, 38)  # heights tried, in units of Ward's distance between unit vectors
AS_GOOD = 0.01  # of the adjusted Rand index


@dataclass(frozen=True)
class Tree:
    """Ward's tree over `count` images; `gathered` (N,) is each image's leaf, of which there may be fewer than images."""

    merges: np.ndarray
    gathered: np.ndarray

    def cut(self, reach: float) -> np.ndarray:
        """Clusters int (N,), numbered from 0, within which no merge was higher than `reach`."""
        leaves = len(self.merges) + 1
        if leaves == 1:
            return np.zeros(len(self.gathered), np.int64)
        # a leaf stands for len(gathered) / leaves images, and Ward's height grows with the root of the images on each side
        height = reach * np.sqrt(leaves / len(self.gathered))
        from scipy.cluster.hierarchy import fcluster  # a second, not for commands that only look

        found = fcluster(self.merges, height, "distance")[self.gathered]
        return np.unique(found, return_inverse=True)[1]


def tree(features: np.ndarray) -> Tree:
    """Join images by looks: Ward's method (1963, JASA 58:236) on features (N, F) that are finite, of any length but 0."""
    from scipy.cluster.hierarchy import linkage
    from sklearn.cluster import MiniBatchKMeans

    unit = np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float64)
    if len(unit) <= MOST:
        return Tree(linkage(unit, "ward") if len(unit) > 1 else np.zeros((0, 4)), np.arange(len(unit)))
    means = MiniBatchKMeans(MOST, random_state=0, n_init=1, batch_size=4096).fit(unit)
    _, gathered = np.unique(means.labels_, return_inverse=True)
    centres = np.stack([np.bincount(gathered, column) for column in unit.T], axis=1)
    return Tree(linkage(centres / np.bincount(gathered)[:, None], "ward"), gathered)


def best_reach(trees: list[Tree], drivers: list[np.ndarray]) -> float:
    """The height at which trees of images whose drivers are known fall apart by driver best: the middle of the best heights.

    Judged by the adjusted Rand index (Hubert & Arabie 1985), mean over the trees.
    """
    from sklearn.metrics import adjusted_rand_score

    score = [np.mean([adjusted_rand_score(d, t.cut(r)) for t, d in zip(trees, drivers, strict=True)]) for r in REACHES]
    good = np.flatnonzero(np.array(score) >= max(score) - AS_GOOD)
    return float(REACHES[good[len(good) // 2]])


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each of N rows its k nearest others of the same set, most similar first."""

    indices: np.ndarray  # row numbers, int64 (N, k), -1 where a set has no more
    similarities: np.ndarray  # cosines, float32 (N, k), -inf there

    @property
    def spacing(self) -> float:
        """How far a row is from its nearest: the median of 1 - cosine, over rows that have one; at least 1e-6."""
        found = self.similarities[:, 0] if self.similarities.shape[1] else np.empty(0, np.float32)
        found = found[np.isfinite(found)]
        return max(1e-6, float(np.median(1 - found.astype(np.float64)))) if len(found) else 1e-6


@dataclass(frozen=True, eq=False)
class EmbeddingIndex:
    """Features by image name; what was found near is kept, because nested scores and folds ask for the same sets again.

    Raises `InputError`: when built from anything else.
    """

    names: np.ndarray  # (N,), unique
    features: np.ndarray  # float32 (N, F), finite, no row zero
    what: str = "features"  # how sentences call it
    checksum: str = ""  # of the features, for those who keep what came of them
    _found: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False, repr=False)
    _grown: dict[bytes, Tree] = field(default_factory=dict, init=False, repr=False)
    _places: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._places.update((name, place) for place, name in enumerate(self.names))
        if self.features.ndim != 2 or len(self.names) != len(self.features):
            raise InputError(f"{self.what}: {len(self.names)} names for features of shape {self.features.shape}")
        if len(self._places) < len(self.names):
            raise InputError(f"{self.what}: an image is named twice; compute them again")
        norms = np.array([np.linalg.norm(row.astype(np.float64)) for row in self.features])
        if (wrong := ~(np.isfinite(norms) & (norms > 0))).any():
            raise InputError(
                f"{self.what}: features of {self.names[np.flatnonzero(wrong)[0]]} are not finite, or all zero, so that they "
                "point nowhere; compute them again, or from another network"
            )

    def trees(self, predictions: MemberPredictions) -> list[tuple[np.ndarray, Tree]]:
        """Each set's row numbers int (n,), in the order of their names, and Ward's tree of its images.

        Raises `InputError`: a row whose features are not there.
        """
        rows, found = self._rows(predictions.names), []
        for chosen in _by_set(predictions):
            if (key := rows[chosen].tobytes()) not in self._grown:
                self._grown[key] = tree(self.features[rows[chosen]])
            found.append((chosen, self._grown[key]))
        return found

    def _rows(self, names: np.ndarray) -> np.ndarray:
        if missing := [str(name) for name in names if name not in self._places]:
            raise InputError(
                f"{self.what}: {len(missing)} images missing ({', '.join(missing[:3])}); make knn computes them for "
                "today's packs"
            )
        return np.array([self._places[name] for name in names], np.int64)

    def near(self, predictions: MemberPredictions, k: int) -> Neighbours:
        """The k nearest others of each row, within its set alone; equally near ones in the order of their names.

        Raises `InputError`: a row whose features are not there.
        """
        rows, shape = self._rows(predictions.names), (len(predictions.names), k)
        indices, similarities = np.full(shape, -1), np.full(shape, -np.inf, np.float32)
        for chosen in _by_set(predictions):
            found, near = self._nearest(rows[chosen], k)
            indices[chosen], similarities[chosen] = np.where(found >= 0, chosen[found], -1), near
        return Neighbours(indices, similarities)

    def _nearest(self, places: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        key = hashlib.sha256(places.tobytes() + k.to_bytes(8, "big")).hexdigest()
        if key not in self._found:
            in_a_row = len(places) > 0 and (np.diff(places) == 1).all()  # as all test images are: not copied
            features = self.features[places[0] : places[-1] + 1] if in_a_row else self.features[places]
            self._found[key] = nearest_neighbours(features, np.zeros(len(places), np.int64), k)
        return self._found[key]


def _by_set(predictions: MemberPredictions) -> list[np.ndarray]:
    """Row numbers of each set in the order of their names, so that the order of rows decides nothing."""
    order = np.argsort(predictions.names.astype(str), kind="stable")
    return [order[predictions.sets[order] == number] for number in np.unique(predictions.sets)]
