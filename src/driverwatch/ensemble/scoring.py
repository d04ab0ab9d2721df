"""Out-of-fold scores as tables: per run and TTA set, per fold, driver and class."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from driverwatch.ensemble.members import chosen_on_validation
from driverwatch.metrics import log_loss, log_losses, oof_score
from driverwatch.run import Run


def summary(probabilities: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """One line per entry of `probabilities` (name: probabilities (N, C)): log loss, standard error over drivers, accuracy.

    `groups`: (N,), each row's driver: frames of one are not independent, so an error that counts frames would be too small.
    """
    lines = []
    for name, p in probabilities.items():
        _, loss, error, right = oof_score(p, labels, groups)
        lines.append({"model": name, "log loss": loss, "± (drivers)": error, "accuracy": right, "images": len(labels)})
    return pd.DataFrame(lines)


def interval(losses: np.ndarray, groups: np.ndarray, resamples: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean of `losses` (N,) when drivers, not frames, are drawn again: percentiles of a bootstrap.

    Whole drivers are drawn with replacement, each with all its images (Davison & Hinkley 1997, section 3.8: cluster bootstrap).
    """
    low, high = np.percentile(bootstrap_means(losses, groups, resamples), [2.5, 97.5])
    return float(low), float(high)


def bootstrap_means(losses: np.ndarray, drivers: np.ndarray, resamples: int) -> np.ndarray:
    """Means of `losses` (..., N) over the images of resampled drivers (N,), the same for all: float64 (..., resamples)."""
    names, index = np.unique(drivers, return_inverse=True)
    sums = np.apply_along_axis(lambda each: np.bincount(index, each), -1, losses)
    drawn = np.random.default_rng(0).integers(len(names), size=(resamples, len(names)))
    return np.asarray(sums[..., drawn].sum(axis=-1) / np.bincount(index)[drawn].sum(axis=-1))


def paired_interval(
    probabilities: dict[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, against: str
) -> pd.DataFrame:
    """One line per entry of `probabilities` (name: probabilities (N, C)), each image's loss paired with that under `against`.

    `summary`'s columns, then the mean difference (below 0: better than `against`) and its 95 % interval over groups, which
    says more than two intervals side by side: what makes a driver hard is in both. NaN where `against` is not among the
    rows, and for the interval where there is one group alone.
    """
    table, first = summary(probabilities, labels, groups), probabilities.get(against)
    unknown = float("nan")
    lines = []
    for p in probabilities.values():
        gain = np.full(len(labels), unknown) if first is None else log_losses(p, labels) - log_losses(first, labels)
        known = first is not None and len(set(groups)) > 1
        low, high = interval(gain, groups) if known else (unknown, unknown)
        lines.append({f"against {against}": float(gain.mean()), "low": low, "high": high})
    return pd.concat([table, pd.DataFrame(lines, index=table.index)], axis=1)


Metric = Callable[[np.ndarray, np.ndarray], float]


def by(
    probabilities: dict[str, np.ndarray], labels: np.ndarray, keys: np.ndarray, title: str, metric: Metric = log_loss
) -> pd.DataFrame:
    """`metric` of each entry of `probabilities` within each value of `keys` (N,), in their order, with the number of images."""
    lines = []
    for key in sorted(set(keys)):
        chosen = keys == key
        found = {name: metric(p[chosen], labels[chosen]) for name, p in probabilities.items()}
        lines.append({title: str(key), "images": int(chosen.sum()), **found})
    return pd.DataFrame(lines)


def text(table: pd.DataFrame, title: str, percent: bool = False) -> str:
    """A table as aligned text: losses to four places, shares (`accuracy`, or all with `percent`) in percent."""
    shown = table.copy()
    for column in shown.columns:
        if pd.api.types.is_float_dtype(shown[column]):
            form = "{:.1%}" if percent or column == "accuracy" else "{:.4f}"
            shown[column] = [form.format(value) for value in shown[column]]
    return f"{title}\n{shown.to_string(index=False)}\n"


def caveats(runs: list[Run]) -> list[str]:
    """What to bear in mind of the runs' scores, a sentence each with the runs that it is about."""
    about = {
        "training never flipped images, so the flipped views of ten_crop, _keep and _swap mislead": [
            run.name for run in runs if not run.settings.trains_with_flips
        ],
        "optimistic: epoch chosen on the validation drivers": chosen_on_validation(runs),
    }
    return [f"{caveat}: {', '.join(names)}" for caveat, names in about.items() if names]
