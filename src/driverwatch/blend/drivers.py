"""Which images show the same driver, found by looks alone: no label and no driver's name is asked.

A clip has one driver, one car and one light, so features of a network that was never trained on drivers fall apart by
driver long before they fall apart by what the driver does.
"""

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score

from driverwatch.errors import InputError

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
        found = fcluster(self.merges, height, "distance")[self.gathered]
        return np.unique(found, return_inverse=True)[1]


def tree(features: np.ndarray) -> Tree:
    """Join images by looks: Ward's method (1963, JASA 58:236) on features of unit length.

    Args:
        features: float (N, F), finite, no row all zero.

    Raises:
        InputError: features that are not finite, or a row without length.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise InputError("features: expected finite rows of some length; make the features again")
    unit = np.asarray(features / lengths, np.float64)
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
    score = [np.mean([adjusted_rand_score(d, t.cut(r)) for t, d in zip(trees, drivers, strict=True)]) for r in REACHES]
    good = np.flatnonzero(np.array(score) >= max(score) - AS_GOOD)
    return float(REACHES[good[len(good) // 2]])
