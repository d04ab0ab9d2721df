"""Smoothing over neighbours: an image's probabilities averaged with those of its nearest images, as frames of one clip are.

After the first and third places of 2016, who averaged test images with their nearest in a feature space. A fold's validation
images are smoothed among themselves alone, as test images will be: no label and no prediction of another fold's models
comes in, so that what is chosen on them holds where the test set is made of clips too (docs/explain/post-processing.md).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from driverwatch.ensemble.embedding_index import EmbeddingIndex, Neighbours
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.metrics import log_loss

COUNTS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)  # neighbours; a whole clip of State Farm has about 120 frames
WIDTHS = (None, 4.0, 2.0, 1.0, 0.5)  # of similarity weights, in spacings; None: all the same
FLOOR = 1e-6  # of logarithms: one neighbour's rounded zero would else veto a class against all the others


@dataclass(frozen=True)
class Way:
    """One way to smooth: a neighbour weighs exp((cosine - 1) / width), the image itself 1."""

    k: int  # neighbours that come in; 0: none
    width: float | None = None  # None: all weigh the same
    geometric: bool = False  # averages logarithms, not probabilities
    rounds: int = 1  # how often; in the second, neighbours' neighbours come in

    def __call__(self, near: Neighbours, members: np.ndarray) -> np.ndarray:
        return averaged(members, weights(near, self.k, self.width), self.geometric, self.rounds)


def weights(near: Neighbours, k: int, width: float | None) -> csr_array:
    """How much of each image goes into each: float64 (N, N), itself and its k nearest, rows sum to 1."""
    count = len(near.indices)
    indices, similarities = near.indices[:, :k], near.similarities[:, :k].astype(np.float64)
    there = indices >= 0
    shares = there.astype(np.float64) if width is None else np.exp((np.minimum(similarities, 1) - 1) / width)
    shares = np.column_stack([np.ones(count), shares])
    columns = np.column_stack([np.arange(count), np.where(there, indices, 0)])
    starts = np.arange(0, columns.size + 1, columns.shape[1])
    return csr_array(((shares / shares.sum(axis=1, keepdims=True)).ravel(), columns.ravel(), starts), (count, count))


def averaged(members: np.ndarray, shares: csr_array, geometric: bool, rounds: int) -> np.ndarray:
    """Rows of each member averaged by `shares`, float64 (M, N, C), rows sum to 1."""
    values = np.log(np.maximum(members, FLOOR)) if geometric else members
    for _ in range(rounds):
        values = np.stack([shares @ member for member in values]) if len(values) else values
    if geometric:
        values = np.exp(values - values.max(axis=2, keepdims=True))
    return values / values.sum(axis=2, keepdims=True)


CLUSTER_NEIGHBOURS = (0, 2, 3, 5, 8, 12, 20)
REACHES = (0.5, 1.0, 1.5, 2.0, 3.0)  # how far apart linked images may be, in spacings
AGREEMENTS = (0.5, 0.7, 0.9)  # shares of a cluster


@dataclass(frozen=True)
class Cutting:
    """Images are linked that are among each other's `k` nearest and no further apart than `reach` (1 - cosine)."""

    k: int
    reach: float = 0.0
    agreement: float = 0.5  # share of a cluster whose likeliest class is the same, from which it shares one prediction

    def __call__(self, near: Neighbours, members: np.ndarray) -> np.ndarray:
        return shared(members, clusters(near, self.k, self.reach), self.agreement)


def clusters(near: Neighbours, k: int, reach: float) -> np.ndarray:
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
class Smoothed:
    """A fitted rule: rows smoothed in a given way among themselves, set by set."""

    space: EmbeddingIndex
    way: Way | Cutting
    reach: int  # neighbours that are looked up: those the fit looked at, which are known already
    facts: dict[str, Any]

    def __call__(self, predictions: MemberPredictions) -> MemberPredictions:
        if self.way.k == 0 or len(predictions.names) == 0:
            return predictions
        return predictions.changed(self.way(self.space.near(predictions, self.reach), predictions.members))


def _best(space: EmbeddingIndex, method: str, reach: int, tried: Iterator[tuple[Any, float]]) -> Smoothed:
    """What loses least; the first of those that lose the same, to a billionth: sums differ by rounding alone."""
    way, loss = min(tried, key=lambda pair: round(pair[1], 9))
    chosen = asdict(way) if way.k else {"k": 0}
    facts = {"embeddings": space.what, "method": method, **chosen, "fitted_log_loss": round(loss, 6)}
    return Smoothed(space, way, reach, facts)


@dataclass(frozen=True, eq=False)
class Average:
    """Averages each image with its nearest; what is None is chosen by log loss on the rows that it is fitted on."""

    space: EmbeddingIndex
    k: int | None = None  # neighbours; None: of `COUNTS`, no neighbour among them
    similar: bool | None = None  # whether nearer images weigh more
    geometric: bool | None = None  # whether logarithms are averaged
    rounds: int | None = None  # 1 or 2
    name: str = "knn"

    def fit(self, predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> Smoothed:
        """The way with the lowest log loss for labels int (N,), smoothed within sets; of equally good ones, fewest neighbours."""
        counts = COUNTS if self.k is None else (self.k,)
        near = self.space.near(predictions, max(counts))
        return _best(self.space, "average", max(counts), self._tried(near, counts, predictions, labels))

    def _tried(
        self, near: Neighbours, counts: tuple[int, ...], predictions: MemberPredictions, labels: np.ndarray
    ) -> Iterator[tuple[Way, float]]:
        widths = [w for w in WIDTHS if self.similar is None or self.similar == (w is not None)]
        for k in counts:
            for width in [None if w is None else w * near.spacing for w in widths][: None if k else 1]:
                shares = weights(near, k, width)
                for geometric, rounds in self._means(k):
                    made = averaged(predictions.members, shares, geometric, rounds)
                    yield Way(k, width, geometric, rounds), log_loss(made.mean(axis=0), labels)

    def _means(self, k: int) -> list[tuple[bool, int]]:
        if k == 0:
            return [(False, 1)]
        kinds = (False, True) if self.geometric is None else (self.geometric,)
        return list(product(kinds, (1, 2) if self.rounds is None else (self.rounds,)))


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters by mutual nearness; `k` None and all else is chosen by log loss on the rows that it is fitted on."""

    space: EmbeddingIndex
    k: int | None = None
    name: str = "clusters"

    def fit(self, predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> Smoothed:
        """The cutting with the lowest log loss for labels int (N,); the fewest neighbours of equally good ones."""
        counts = CLUSTER_NEIGHBOURS if self.k is None else (self.k,)
        near = self.space.near(predictions, max(counts))
        return _best(self.space, "clusters", max(counts), _tried(near, counts, predictions, labels))


def _tried(
    near: Neighbours, counts: tuple[int, ...], predictions: MemberPredictions, labels: np.ndarray
) -> Iterator[tuple[Cutting, float]]:
    for k, reach in product(counts, REACHES):
        if k == 0 and reach > REACHES[0]:
            continue
        found = clusters(near, k, reach * near.spacing)
        for agreement in AGREEMENTS if k else AGREEMENTS[:1]:
            made = shared(predictions.members, found, agreement)
            yield Cutting(k, reach * near.spacing, agreement), log_loss(made.mean(axis=0), labels)
