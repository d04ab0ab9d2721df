"""A variant of smoothing: clusters of images that are near each other share one prediction, if they agree on a class."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from driverwatch.blend.chain import Rows
from driverwatch.blend.neighbours import best_of
from driverwatch.blend.space import Near, Space
from driverwatch.metrics import log_loss

COUNTS = (0, 2, 3, 5, 8, 12, 20)
REACHES = (0.5, 1.0, 1.5, 2.0, 3.0)  # how far apart linked images may be, in spacings
AGREEMENTS = (0.5, 0.7, 0.9)  # shares of a cluster


@dataclass(frozen=True)
class Cutting:
    """Images are linked that are among each other's `k` nearest and no further apart than `reach` (1 - cosine)."""

    k: int
    reach: float = 0.0
    agreement: float = 0.5  # share of a cluster whose likeliest class is the same, from which it shares one prediction


def clusters(near: Near, k: int, reach: float) -> np.ndarray:
    """Connected components of mutual neighbours, int (N,): whose images links connect, however far apart the ends are."""
    count = len(near.indices)
    indices = near.indices[:, :k]
    row, place = np.nonzero((indices >= 0) & (1 - near.similarities[:, :k].astype(np.float64) <= reach))
    one_way = csr_array((np.ones(len(row), bool), (row, indices[row, place])), (count, count))
    return connected_components(one_way.multiply(one_way.T), directed=False)[1]


def shared(members: np.ndarray, cluster: np.ndarray, agreement: float) -> np.ndarray:
    """Each agreeing cluster's images get the mean of its probabilities, member by member; the others keep theirs.

    Args:
        members: float64 (M, N, C).
        cluster: int (N,), from 0 without a gap.
    """
    count = int(cluster.max(initial=-1)) + 1
    votes = np.zeros((count, members.shape[2]))
    np.add.at(votes, (cluster, members.mean(axis=0).argmax(axis=1)), 1)
    sizes = votes.sum(axis=1)
    agree = (votes.max(axis=1) >= agreement * sizes)[cluster]
    within = csr_array((1 / sizes[cluster], (cluster, np.arange(len(cluster)))), (count, len(cluster)))
    means = np.stack([(within @ member)[cluster] for member in members])
    return np.where(agree[:, None], means, members)


@dataclass(frozen=True, eq=False)
class Clustered:
    """A fitted rule: agreeing clusters share one prediction, set by set."""

    space: Space
    cutting: Cutting
    most: int  # neighbours that are looked up
    facts: dict[str, Any]

    def __call__(self, rows: Rows) -> Rows:
        if self.cutting.k == 0 or len(rows.names) == 0:
            return rows
        found = clusters(self.space.near(rows, self.most), self.cutting.k, self.cutting.reach)
        return rows.changed(shared(rows.members, found, self.cutting.agreement))


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters by mutual nearness; `k` None and all else is chosen by log loss on the rows that it is fitted on."""

    space: Space
    k: int | None = None
    name: str = "clusters"

    def fit(self, rows: Rows, labels: np.ndarray, drivers: np.ndarray) -> Clustered:
        """Every cutting is tried on the rows; of equally good ones the fewest neighbours win."""
        counts = COUNTS if self.k is None else (self.k,)
        near = self.space.near(rows, max(counts))
        best, loss = best_of(_tried(near, counts, rows, labels))
        facts: dict[str, Any] = {"features": self.space.what, "method": "clusters", "k": best.k}
        if best.k:
            facts |= {"reach": best.reach, "agreement": best.agreement}
        return Clustered(self.space, best, max(counts), facts | {"fitted_log_loss": round(loss, 6)})


def _tried(near: Near, counts: tuple[int, ...], rows: Rows, labels: np.ndarray) -> Iterator[tuple[Cutting, float]]:
    for k, reach in product(counts, REACHES):
        if k == 0 and reach > REACHES[0]:
            continue
        found = clusters(near, k, reach * near.spacing)
        for agreement in AGREEMENTS if k else AGREEMENTS[:1]:
            made = shared(rows.members, found, agreement)
            yield Cutting(k, reach * near.spacing, agreement), log_loss(made.mean(axis=0), labels)
