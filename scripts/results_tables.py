"""The tables of the pages with results: made from the submissions' out-of-fold files and from records of experiments."""

import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from driverwatch.metrics import OofScore, oof_score
from scripts.markdown import paragraph, table

DATASET = "statefarm_mini"
# commits that records name and that are no commits of this repository
ELSEWHERE = {"40f486f", "fb63f8e", "425dad6 to ee182cf", "ee182cfb895a", "1f9123c"}
MARK = "†"  # of rows that were trained at one of them
UNBROKEN = "\u00a0"  # a blank at which no line of a narrow column breaks


class Method(NamedTuple):
    """A submission's name, what it is made of, and whether it uses the test images jointly."""

    name: str
    what: str
    transductive: bool


METHODS = (
    Method("alone", "Inception V3, five-crop TTA", False),
    Method("balanced", "and per-driver class balancing, temperature scaling", True),
    Method("knn", "and k-NN smoothing over similar frames, in three passes", True),
    Method("student", "MobileNetV2 student of `knn`, five-crop TTA, nothing else", True),
    Method("without_neighbours", "and class balancing, temperature; no k-NN", True),
    Method("best", "**the student, class balancing, k-NN, temperature, in three passes**", True),
    Method("offline_alone", "EfficientNet-Lite2, weights of the package index, five-crop TTA", False),
    Method("offline_pair", "and EfficientNet-Lite0; temperature scaling", False),
    Method("offline_best", "and class balancing, k-NN: every weight of the package index", True),
    Method("offline_student", "EfficientNet-Lite0 student of `offline_best`, five-crop TTA, nothing else", True),
    Method("offline_distilled", "and EfficientNet-Lite2, class balancing, k-NN, temperature", True),
)
# by kind and name in the record: the words of the page; what is not here is on the record's own page alone
LABELS: dict[str, dict[str, str]] = {
    "Augmentation": {
        "preset erasing instead of none": "random erasing instead of no augmentation",
        "preset light instead of none": "preset `light` instead of no augmentation",
        "preset blur instead of none": "blur instead of no augmentation",
        "preset colour instead of none": "colour jitter instead of no augmentation",
        "preset noise instead of none": "noise instead of no augmentation",
        "preset strong instead of light": "preset `strong` instead of `light`",
        "preset lean (colour and erasing) instead of light": "preset `lean` (colour, erasing) instead of `light`",
        "preset robust instead of light": "preset `robust` instead of `light`",
        "preset affine instead of none": "affine instead of no augmentation",
        "preset crop instead of none": "random resized crop instead of no augmentation",
        "preset gamma instead of none": "gamma instead of no augmentation",
        "preset perspective instead of none": "perspective instead of no augmentation",
        "flipped, labels kept": "horizontal flip, labels kept",
        "flipped, labels swapped": "horizontal flip, left and right labels swapped",
    },
    "Mixing": {
        "mixup": "mixup",
        "cutmix": "cutmix",
        "same_class_halves": "same-class half-image mix, under `light`",
        "same_class_halves under preset strong": "same-class half-image mix, under `strong`",
        "same_class_halves under preset lean": "same-class half-image mix, under `lean`",
    },
    "Loss and field of view": {
        "label smoothing 0.1": "label smoothing 0.1",
        "the whole frame instead of random patches": "the whole frame instead of random patches",
        "four regions of the frame, one backbone": "four regions of the frame, one backbone",
    },
    "Averaged weights": {"an exponential moving average of the weights": "exponential moving average of the weights"},
    "Label issues (experiments/results/statefarm_mini/label_issues.csv; its models know validation labels, so the runs after are "
    "optimistic)": {
        "probable label errors left out": "probable label errors left out",
        "probable label errors and ambiguous images down-weighted": "doubted labels down-weighted",
    },
    "Frozen layers computed once": {
        "one cached draw for all epochs instead of a fresh one for each": "one cached augmentation pass for all epochs",
    },
    "Views (of a run that never flipped)": {
        "multi_scale instead of centre": "multi-scale TTA instead of the centre crop",
        "five_crop instead of centre": "five-crop TTA instead of the centre crop",
        "shifts instead of centre": "TTA of nine shifts instead of the centre crop",
        "ten_crop_keep instead of centre": "ten-crop TTA, labels kept, of a network that never saw a flip",
        "ten_crop_swap instead of centre": "ten-crop TTA, labels swapped, of a network that never saw a flip",
    },
    "Blending (four runs, nested weights)": {
        "mean of four runs instead of one alone": "mean of four runs instead of one",
        "geometric instead of mean": "geometric mean instead of the mean",
        "weighted instead of mean": "fitted weights instead of the mean",
        "greedy instead of mean": "greedy selection instead of the mean",
        "per_class instead of mean": "weights per class instead of the mean",
    },
    "Images without labels": {
        "pseudo-labels: test images, labelled by the same run": "pseudo-labels of the same run, test images",
        "a student: test and validation images, trained on the pseudo-labels of the whole pipeline below": "student of the "
        "whole post-processing pipeline (distillation)",
        "two epochs more: as many steps as with images without labels": "two more epochs",
    },
    "Images taken together (legitimate where test sets are made of clips)": {
        "classes balanced within drivers": "per-driver class balancing",
        "neighbours": "k-NN smoothing",
        "neighbours after balance": "k-NN smoothing after class balancing",
        "neighbours before balance too, all with temperature": "k-NN smoothing before balancing as well",
    },
    "Smoothing, temperature and balance gone through several times (passes), on the recipes' runs": {
        "three times instead of once: EfficientNet-Lite2 and a student, Lite0": "three passes of k-NN smoothing and class "
        "balancing instead of one, EfficientNets",
        "three times instead of once: Inception V3, eight epochs": "three passes of k-NN smoothing and class balancing "
        "instead of one, Inception V3",
    },
    "Calibration": {
        "temperature alone": "temperature scaling alone",
        "temperature after balance and neighbours": "temperature scaling after balancing and k-NN",
        "class biases after balance and neighbours": "class biases after all that",
        "clip fitted after all that": "fitted clip after all that",
    },
    "Nothing changed": {"another seed: what chance alone changes": "another seed (noise floor)"},
}
GROUPS = ("What helped", "No measurable difference", "What hurt")


def oof_score_of(path: Path) -> tuple[OofScore, str]:
    """The score of a file of out-of-fold probabilities, and the file's SHA-256."""
    content = path.read_bytes()
    rows = pd.read_csv(io.BytesIO(gzip.decompress(content)))
    classes = [name for name in rows.columns if re.fullmatch(r"c\d", name)]
    labels = rows["class"].map(classes.index).to_numpy()
    return oof_score(rows[classes].to_numpy(), labels, rows["driver"].to_numpy()), hashlib.sha256(content).hexdigest()


def scores(root: Path) -> str:
    """The table of scores, out of fold."""
    folder, lines = root / "submissions" / DATASET, []
    for method in METHODS:
        made = json.loads((folder / f"{method.name}.json").read_text())
        score, _ = oof_score_of(folder / "out_of_fold" / f"{method.name}.csv.gz")
        loss, interval = f"{score.log_loss:.3f} ± {score.standard_error:.3f}", made["prediction_interval"]
        loss = loss.replace(" ", UNBROKEN)
        best = "**" if method.name == "best" else ""
        lines.append(
            (
                f"`{method.name}`",
                method.what,
                f"{best}{loss}{best}",
                f"{100 * score.accuracy:.1f}%",
                f"{interval['low']:.2f} to {interval['high']:.2f}",
                "transductive" if method.transductive else "single-image",
            )
        )
    return table(
        ("submission", "method", "log loss", "accuracy", "90% for 7 unseen drivers", "uses test images"), lines
    )


def checksums(root: Path) -> str:
    """The SHA-256 of each submission's file of out-of-fold probabilities."""
    folder = root / "submissions" / DATASET / "out_of_fold"
    files = [(each.name, hashlib.sha256((folder / f"{each.name}.csv.gz").read_bytes()).hexdigest()) for each in METHODS]
    return table(("submission", "SHA-256"), [(f"`{name}`", f"`{checksum[:12]}`") for name, checksum in files])


def ablations(root: Path) -> str:
    """Three tables of ablations: those whose interval lies below zero, those whose interval holds it, those above."""
    record = json.loads((root / "experiments" / "results" / DATASET / "ablations.json").read_text())
    grouped: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for row in record["rows"]:
        if row["ablation"] in LABELS.get(row["kind"], {}):
            _, low, high = row["change"]
            grouped[GROUPS[0] if high < 0 else GROUPS[2] if low > 0 else GROUPS[1]].append(row)
    parts = []
    for group, rows in grouped.items():
        rows.sort(key=lambda row: row["change"][0], reverse=group == GROUPS[2])
        lines = [_ablation(row) for row in rows]
        parts += [f"### {group}", table(("change", "log loss", "difference (95% interval)", "adopted"), lines)]
    return "\n\n".join(parts)


def _ablation(row: dict[str, Any]) -> tuple[str, ...]:
    label = LABELS[row["kind"]][row["ablation"]] + (f" {MARK}" if set(row["commits"]) & ELSEWHERE else "")
    change, low, high = row["change"]
    losses = f"{row['before']:.3f} → {row['after']:.3f}".replace(" ", UNBROKEN)
    return label, losses, f"{change:+.3f} ({low:+.3f} to {high:+.3f})", "yes" if row["kept"] else "no"


def freezing(root: Path) -> str:
    """The freezing study: a line for each network and depth."""
    record = json.loads((root / "experiments" / "results" / DATASET / "study-freezing.json").read_text())
    lines = [
        (
            f"{row['network']}".replace(" cut at ", " truncated at "),
            "whole backbone" if row["depth"] == "head" else f"`{row['depth']}`",
            f"{row['learns']:.2f} M",
            f"{row['log_loss']:.3f} ({row['interval'][0]:.2f} to {row['interval'][1]:.2f})",
            f"{100 * row['accuracy']:.1f}%",
            f"{row['seconds']:.0f}",
        )
        for row in record["rows"]
    ]
    return table(("network", "frozen to", "trainable", "log loss (95%)", "accuracy", "CPU s per epoch"), lines)


def data_scaling(root: Path) -> str:
    """Log loss over the number of training drivers."""
    record = json.loads((root / "experiments" / "results" / DATASET / "curve-mobilenet_v2_screen.json").read_text())
    lines = [
        (
            f"{point['drivers']:g}",
            f"{point['images']:.0f}",
            f"{point['log_loss']:.3f} ({point['interval'][0]:.2f} to {point['interval'][1]:.2f})",
        )
        for point in record["points"]
    ]
    return table(("training drivers per fold", "images", "log loss (95%)"), lines)


def leakage(root: Path) -> str:
    """Two simple classifiers on a random split and on the driver folds, and what made their figures."""
    record = json.loads((root / "experiments" / "results" / DATASET / "leakage.json").read_text())
    lines = []
    for row in record["rows"]:
        known = row["log_loss"] is not None
        loss = f"{row['log_loss']:.3f} ({row['interval'][0]:.2f} to {row['interval'][1]:.2f})" if known else ""
        lines.append((row["classifier"], row["split"], f"{100 * row['accuracy']:.1f}%", loss))
    made = (
        f"{record['images']:,} images of {record['drivers']} drivers, {record['thumbnail']} px, {record['folds']} folds "
        f"(`folds/{DATASET}.csv`, checksum {record['fold_file']}), at commit {record['made']['commit'][:7]}."
    )
    return f"{table(('classifier', 'split', 'accuracy', 'log loss (95%)'), lines)}\n\n{paragraph(made)}"


TABLES = {
    "scores": scores,
    "checksums": checksums,
    "ablations": ablations,
    "freezing": freezing,
    "data scaling": data_scaling,
    "leakage": leakage,
}


def with_tables(text: str, root: Path) -> str:
    """The page's text with today's tables between its marks."""
    for name, made in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{made(root)}\n\n{end}{rest.partition(end)[2]}"
    return text
