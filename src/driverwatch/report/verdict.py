"""The report's first sentences: what the scores say in words, each with the section that has the numbers."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from driverwatch.ensemble.calibration import temperature
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.io.html import interval
from driverwatch.metrics import log_losses
from driverwatch.report.collect_runs import SubmissionState
from driverwatch.report.score_runs import RunScores, difference

WORST_DRIVERS = 3
SMALL = 0.02  # calibration error that is not worth a temperature


class Sentence(NamedTuple):
    """A finding, and the id of the section that it is about."""

    text: str
    section: str


class Confusion(NamedTuple):
    """Images of a class that were taken for another, and all images of that class."""

    true: str
    says: str
    mistaken: int
    images: int


def verdict(
    ranked: list[RunScores],
    classes: dict[str, str],
    fold_of: dict[str, int],
    tested: tuple[SubmissionState, float, float, int] | None,
) -> list[Sentence]:
    """What is worth knowing of scored runs.

    Args:
        ranked: at least one, the best first; the others honest, lowest loss first.
        classes: names by id.
        fold_of: each driver's fold; a temperature is fitted on the others.
        tested: a submission's loss, accuracy and number of test images, whose labels are known.
    """
    best = ranked[0]
    found = [_winner(ranked), *_drivers(best)]
    for pair in confusions(best)[:1]:
        share = f"{in_words(pair, classes)} ({pair.mistaken / pair.images:.0%})"
        found.append(Sentence(f"The most frequent confusion: {share}.", "confusions"))
    found += [_calibration(best, fold_of), *_averaging(ranked)]
    if tested:
        made, loss, accuracy, images = tested
        text = f"On the {images:,} test images, of other drivers, {made.name}.csv has a log loss of {loss:.3f}"
        found.append(
            Sentence(
                f"{text} and an accuracy of {accuracy:.1%}. Their labels are known: the data set is synthetic.",
                "submissions",
            )
        )
    return found


def against_noise(low: float, high: float) -> str:
    """What a 95 % interval of a difference says of it."""
    if low != low:
        return "one driver alone gives no interval"
    noise = "beyond noise" if low > 0 or high < 0 else "within noise"
    return f"{noise}: 95 % over drivers {interval(low, high, '{:+.3f}')}"


def _winner(ranked: list[RunScores]) -> Sentence:
    best = ranked[0]
    if len(ranked) == 1:
        over = "" if best.low != best.low else f", 95 % over drivers {interval(best.low, best.high)}"
        return Sentence(
            f"{best.name} has an OOF log loss of {best.loss:.3f}{over}; accuracy {best.accuracy:.1%}.", "runs"
        )
    other = ranked[1]
    text = f"{best.name} has the lowest OOF log loss of {len(ranked)} runs, {best.loss:.3f}"
    names = best.each.index.intersection(other.each.index)
    more, low, high = difference(
        other.each["loss"][names].to_numpy(), best.each["loss"][names].to_numpy(), best.each["driver"][names].to_numpy()
    )
    return Sentence(f"{text}. The next, {other.name}, is {more:.3f} higher ({against_noise(low, high)}).", "runs")


def _drivers(best: RunScores) -> Iterator[Sentence]:
    losses = best.each.groupby("driver")["loss"].agg(["sum", "mean", "size"]).sort_values("mean", ascending=False)
    if len(losses) <= WORST_DRIVERS:
        return
    worst = losses.head(WORST_DRIVERS)
    share, images = worst["sum"].sum() / losses["sum"].sum(), worst["size"].sum() / losses["size"].sum()
    easiest = f"{losses.index[-1]}, the easiest driver, has {losses['mean'].iloc[-1]:.2f}"
    names = f"{', '.join(worst.index[:-1])} and {worst.index[-1]}"
    text = f"Of {len(losses)} drivers, {names} carry {share:.0%} of the loss with {images:.0%} of the images"
    yield Sentence(
        f"{text}: {worst['mean'].iloc[-1]:.2f} to {worst['mean'].iloc[0]:.2f} each, where {easiest}.", "drivers"
    )


def confusions(made: RunScores) -> list[Confusion]:
    """Every pair of classes that a run confused, the most frequent first."""
    counts = made.confusion
    found = [
        Confusion(str(true), str(says), int(counts.loc[true, says]), int(counts.loc[true].sum()))
        for true in counts.index
        for says in counts.columns
        if true != says and counts.loc[true, says]
    ]
    return sorted(found, key=lambda pair: -pair.mistaken)


def in_words(pair: Confusion, classes: dict[str, str]) -> str:
    """Both classes by their meanings, and how many images were mistaken."""
    true, says = (classes[name] or name for name in (pair.true, pair.says))
    return f"“{true}” taken for “{says}”: {pair.mistaken} of {pair.images} images"


def _calibration(best: RunScores, fold_of: dict[str, int]) -> Sentence:
    """How sure the run is beside how often it is right, and the loss with a temperature that was fitted on other folds."""
    error, sure = best.calibration_error, float(best.each["sure"].mean())
    text = f"Its calibration error is {error:.3f}"
    if error < SMALL:
        return Sentence(f"{text}: the probabilities mean what they say.", "calibration")
    how = "too timid" if sure < best.accuracy else "too sure"
    text += f": {how}, {sure:.0%} sure on average where {best.accuracy:.0%} are correct."
    folds = np.array([fold_of.get(driver, 0) for driver in best.each["driver"]])
    if len(set(folds)) > 1:
        made = nested_temperature(best, folds)
        text += f" A temperature, fitted on the other folds, gives {made:.3f} instead of {best.loss:.3f}."
    return Sentence(text, "calibration")


def nested_temperature(made: RunScores, folds: np.ndarray) -> float:
    """A run's log loss where each fold's rows (`folds`: int (N,)) have the temperature that fits the other folds best."""
    names, labels = made.each.index.to_numpy(), made.each["label"].to_numpy()
    rows = MemberPredictions(names, made.probabilities[None] / made.probabilities.sum(axis=1)[:, None], folds)
    losses = np.empty(len(labels))
    for fold in np.unique(folds):
        rest, own = folds != fold, folds == fold
        fitted = temperature(rows.at(rest), labels[rest], made.each["driver"].to_numpy()[rest])
        losses[own] = log_losses(fitted(rows.at(own)).blended, labels[own])
    return float(losses.mean())


def _averaging(ranked: list[RunScores]) -> Iterator[Sentence]:
    """Whether test-time augmentation helped the best run, and whether the mean of all runs is better than that."""
    best, parts = ranked[0], list[str]()
    gain, low, high = best.against_centre
    if gain == gain:
        parts.append(
            f"{best.tta} {_moves(gain)} the loss of its centre crop by {abs(gain):.3f} ({against_noise(low, high)})."
        )
    alike = [made for made in ranked if made.each.index.equals(best.each.index)]
    if len(alike) > 1:
        losses = log_losses(np.mean([made.probabilities for made in alike], axis=0), best.each["label"].to_numpy())
        gain, low, high = difference(losses, best.each["loss"].to_numpy(), best.each["driver"].to_numpy())
        text = f"Averaging {len(alike)} runs {_moves(gain)} the loss of the best one by {abs(gain):.3f}"
        parts.append(f"{text}, to {losses.mean():.3f} ({against_noise(low, high)}).")
    if parts:
        yield Sentence(" ".join(parts), "runs")


def _moves(gain: float) -> str:
    return "lowers" if gain < 0 else "raises"
