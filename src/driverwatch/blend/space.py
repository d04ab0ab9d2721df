"""Images as points of a feature space, known by name, and who lies near whom among given rows."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from driverwatch.blend.chain import Rows
from driverwatch.blend.drivers import Tree, tree
from driverwatch.blend.nearest import nearest
from driverwatch.errors import InputError


@dataclass(frozen=True, eq=False)
class Near:
    """For each of N rows its k nearest others of the same set, most similar first.

    Args:
        indices: row numbers, int64 (N, k), -1 where a set has no more.
        similarities: cosines, float32 (N, k), -inf there.
    """

    indices: np.ndarray
    similarities: np.ndarray

    @property
    def spacing(self) -> float:
        """How far a row is from its nearest: the median of 1 - cosine, over rows that have one; at least 1e-6."""
        found = self.similarities[:, 0] if self.similarities.shape[1] else np.empty(0, np.float32)
        found = found[np.isfinite(found)]
        return max(1e-6, float(np.median(1 - found.astype(np.float64)))) if len(found) else 1e-6


@dataclass(frozen=True, eq=False)
class Space:
    """Features by image name; what was found near is kept, because nested scores and folds ask for the same sets again.

    Args:
        names: (N,), unique.
        features: float32 (N, F), finite, no row zero.
        what: how sentences call it.
        digest: of the features, for those who keep what came of them.

    Raises:
        InputError: when built from anything else.
    """

    names: np.ndarray
    features: np.ndarray
    what: str = "features"
    digest: str = ""
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

    def trees(self, rows: Rows) -> list[tuple[np.ndarray, Tree]]:
        """Each set's row numbers, in the order of their names, and the tree of its images by looks (`blend/drivers.py`).

        Raises:
            InputError: a row whose features are not there.
        """
        self._refuse_strangers(rows.names)
        return [(chosen, self._tree(self._rows(rows.names[chosen]))) for chosen in _by_set(rows)]

    def _tree(self, places: np.ndarray) -> Tree:
        key = places.tobytes()
        if key not in self._grown:
            self._grown[key] = tree(self.features[places])
        return self._grown[key]

    def _refuse_strangers(self, names: np.ndarray) -> None:
        if missing := [str(name) for name in names if name not in self._places]:
            raise InputError(
                f"{self.what}: {len(missing)} images missing ({', '.join(missing[:3])}); make neighbours computes them for "
                "today's packs"
            )

    def _rows(self, names: np.ndarray) -> np.ndarray:
        return np.array([self._places[name] for name in names], np.int64)

    def near(self, rows: Rows, k: int) -> Near:
        """The k nearest others of each row, within its set alone; equally near ones in the order of their names.

        Raises:
            InputError: a row whose features are not there.
        """
        self._refuse_strangers(rows.names)
        indices, similarities = np.full((len(rows.names), k), -1), np.full((len(rows.names), k), -np.inf, np.float32)
        for chosen in _by_set(rows):
            found, near = self._nearest(self._rows(rows.names[chosen]), k)
            indices[chosen], similarities[chosen] = np.where(found >= 0, chosen[found], -1), near
        return Near(indices, similarities)

    def _nearest(self, places: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        key = hashlib.sha256(places.tobytes() + k.to_bytes(8, "big")).hexdigest()
        if key not in self._found:
            in_a_row = (
                len(places) > 0 and (np.diff(places) == 1).all()
            )  # as all test images are: no copy of their features
            features = self.features[places[0] : places[-1] + 1] if in_a_row else self.features[places]
            self._found[key] = nearest(features, np.zeros(len(places), np.int64), k)
        return self._found[key]


def _by_set(rows: Rows) -> list[np.ndarray]:
    """Row numbers of each set in the order of their names, so that the order of rows decides nothing."""
    order = np.argsort(rows.names.astype(str), kind="stable")
    return [order[rows.sets[order] == number] for number in np.unique(rows.sets)]
