"""Probable label errors and ambiguous images by confident learning (Northcutt, Jiang, Chuang 2021, JAIR 70, 1373-1411).

The probabilities are out-of-fold: of models that never saw an image's driver. Section 3 of the paper: class j's threshold t_j is
the mean probability of j over the images labelled j. An image counts in the confident joint at (its label, k), where k is the
likeliest of the classes whose thresholds it reaches; off the diagonal it is a probable label error. Rows of the joint are scaled
to the labels' counts. Ours: an image that reaches no threshold and is most likely of another class is ambiguous, and images are
ranked by self-confidence within their class, p(label) / t_label, least first.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.config.loading import Strict
from driverwatch.data.context import Context
from driverwatch.errors import InputError
from driverwatch.experiments import experiment
from driverwatch.experiments.experiment import Number, Record, markdown_table, record_facts, text_table
from driverwatch.io.atomic import write_text
from driverwatch.io.console import close, say
from driverwatch.io.html import render
from driverwatch.io.manifests import checksum_of_file
from driverwatch.submission.build import read_out_of_fold
from driverwatch.training.label_issues import AMBIGUOUS, ERROR

CLIPS = {"driver": "{driver}", "class": "{label}", "errors": "{errors}", "of": "{images}", "likely": "{likely}"}
SHOWN = 12  # clips that the terminal and the page name


class Clip(Strict):
    """A driver's images of one class, which State Farm filmed in one go, and how many of them are probable label errors."""

    driver: str
    label: str
    images: int
    errors: int
    ambiguous: int
    likely: str  # what most of its errors look like


class LabelIssuesRecord(Record):
    submission: str
    out_of_fold: str  # checksum of the probabilities
    list_checksum: str  # of the list as it was written
    classes: list[str]
    thresholds: list[Number]  # by class
    confident_joint: list[list[int]]  # images by class of the label and likely class
    joint: list[list[Number]]  # estimated shares of all images, by class of the label and true class
    errors: int
    ambiguous: int
    clips: list[Clip]


@dataclass(frozen=True, eq=False)
class ConfidentJoint:
    """What confident learning makes of N images in C classes."""

    thresholds: np.ndarray  # float64 (C,); inf for a class without images
    counts: np.ndarray  # int64 (C, C), the confident joint
    likely: np.ndarray  # int64 (N,), the class that an image counts under; -1 where it reaches no threshold
    confidence: np.ndarray  # float64 (N,), p(label) / t_label

    def joint(self, labels: np.ndarray) -> np.ndarray:
        """Shares of all images by label and true class, float64 (C, C), sum 1; a row without counts is its label's."""
        images = np.bincount(labels, minlength=len(self.counts))
        counted = np.where(self.counts.sum(axis=1, keepdims=True) > 0, self.counts, np.eye(len(self.counts)))
        return np.asarray(counted / counted.sum(axis=1, keepdims=True) * images[:, None] / images.sum())


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> ConfidentJoint:
    """The confident joint of probabilities (N, C), rows summing to 1, and labels int (N,)."""
    rows, each = np.asarray(probabilities, np.float64), np.arange(len(labels))
    classes = rows.shape[1]
    images, own = np.bincount(labels, minlength=classes), rows[each, labels]
    sums = np.bincount(labels, own, minlength=classes)
    thresholds = np.divide(sums, images, out=np.full(classes, np.inf), where=images > 0)
    reached = rows >= thresholds
    likely = np.where(reached.any(axis=1), np.where(reached, rows, -1.0).argmax(axis=1), -1)
    counts, confident = np.zeros((classes, classes), np.int64), likely >= 0
    np.add.at(counts, (labels[confident], likely[confident]), 1)
    return ConfidentJoint(thresholds, counts, likely, own / np.maximum(thresholds[labels], np.finfo(float).tiny))


def find_issues(
    frame: pd.DataFrame, probabilities: np.ndarray, classes: list[str]
) -> tuple[pd.DataFrame, ConfidentJoint]:
    """The ranked list, errors before ambiguous images, least self-confidence first, and the confident joint.

    Args:
        frame: columns `image`, `driver`, `label` (0..C-1), one line per image, in any order.
        probabilities: float (N, C), in that order.

    Returns:
        Columns rank, image, driver, class, likely, kind, p_class, p_likely, clip_errors, clip_images, weight; the weight is the
        self-confidence within the class, at most 1.
    """
    labels, said = frame["label"].to_numpy(np.int64), probabilities.argmax(axis=1)
    found = confident_joint(probabilities, labels)
    error, unsure = (found.likely >= 0) & (found.likely != labels), (found.likely < 0) & (said != labels)
    names, each = np.array(classes, object), np.arange(len(labels))
    likely = np.where(error, found.likely, said)
    made = pd.DataFrame({
        "image": frame["image"].to_numpy(), "driver": frame["driver"].to_numpy(), "class": names[labels],
        "likely": names[likely], "kind": np.where(error, ERROR, AMBIGUOUS),
        "p_class": probabilities[each, labels], "p_likely": probabilities[each, likely],
        "weight": np.minimum(found.confidence, 1).round(4),
    })  # fmt: skip
    clip = [made["driver"], made["class"]]
    made.insert(7, "clip_errors", pd.Series(error.astype(int)).groupby(clip).transform("sum"))
    made.insert(8, "clip_images", pd.Series(error).groupby(clip).transform("size"))
    order = np.lexsort((made["image"].to_numpy(str), found.confidence, ~error))
    made = made.iloc[order[(error | unsure)[order]]].reset_index(drop=True)
    made.insert(0, "rank", np.arange(1, len(made) + 1))
    return made, found


def write_label_issues(context: Context, name: str, force: bool) -> None:
    """Write the list of label issues by submission `name`'s out-of-fold probabilities, its record and its page.

    Raises:
        InputError: no such probabilities, or a list that was changed by hand since it was written (`force`: written again).
    """
    path, source = context.places.label_issues, context.places.out_of_fold(name)
    record_path = path.with_suffix(".json")
    earlier = experiment.read_record(LabelIssuesRecord, record_path)
    if path.is_file() and not force and (earlier is None or checksum_of_file(path) != earlier.list_checksum):
        raise InputError(f"{path}: was changed by hand since it was written; FORCE=1 writes it again")
    frame, probabilities = read_out_of_fold(context, name)
    classes = list(context.settings.classes)
    issues, found = find_issues(frame, probabilities, classes)
    write_text(path, issues.rename(columns={"image": context.settings.columns.image}).to_csv(
        index=False, float_format="%.4f", lineterminator="\n"))  # fmt: skip
    record = LabelIssuesRecord(
        **record_facts(context, len(frame), frame["driver"], frame["fold"].nunique()),
        submission=name, out_of_fold=checksum_of_file(source), list_checksum=checksum_of_file(path),
        classes=classes, thresholds=found.thresholds.round(4).tolist(), confident_joint=found.counts.tolist(),
        joint=found.joint(frame["label"].to_numpy()).round(6).tolist(), errors=int((issues["kind"] == ERROR).sum()),
        ambiguous=int((issues["kind"] == AMBIGUOUS).sum()), clips=_clips(issues),
    )  # fmt: skip
    beside = experiment.write_record(record_path, record, page)
    say(text_table(CLIPS, _lines(record)))
    then = [f"make train DATASET={context.dataset} MODEL=<name> RUN=<new name> SET=train.label_issues=drop"]
    what = f"{record.errors} probable label errors and {record.ambiguous} ambiguous of {record.images} images"
    close(path, f"{what} ({beside})", then=then)


def _clips(issues: pd.DataFrame) -> list[Clip]:
    """Clips with errors, those with most first."""
    made = []
    for (driver, label), each in issues.groupby(["driver", "class"]):
        errors = each[each["kind"] == ERROR]
        if len(errors):
            made.append(Clip(
                driver=str(driver), label=str(label), images=int(each["clip_images"].iloc[0]), errors=len(errors),
                ambiguous=len(each) - len(errors), likely=errors["likely"].mode().iloc[0],
            ))  # fmt: skip
    return sorted(made, key=lambda clip: (-clip.errors, clip.driver, clip.label))


def _lines(record: LabelIssuesRecord) -> list[dict[str, Any]]:
    return [clip.model_dump() for clip in record.clips[:SHOWN]]


def page(record: LabelIssuesRecord) -> str:
    """The record as Markdown."""
    rows: dict[str, list[Any]] = dict(zip(record.classes, record.confident_joint, strict=True))
    rows["threshold"] = [f"{value:.2f}" for value in record.thresholds]
    lines = [{"label": label, **dict(zip(record.classes, row, strict=True))} for label, row in rows.items()]
    joint = markdown_table({name: f"{{{name}}}" for name in ["label", *record.classes]}, lines)
    return render("label_issues.md", record=record, clips=markdown_table(CLIPS, _lines(record)), joint=joint)
