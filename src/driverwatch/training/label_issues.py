"""The committed list of label issues, and the weight that training gives the images on it (`train.label_issues`).

`make label-issues` writes the list (`experiments/confident_learning.py`). After a look at the images, delete the lines whose
label is right, or change their weights; the run's identity repeats what is left. The list's models of the other folds were trained
on a fold's validation labels, so a run that follows it has an optimistic out-of-fold score (`Run.uses_validation`).
"""

from typing import Any

import numpy as np

from driverwatch.config.model import ModelSettings
from driverwatch.data.context import Context
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError, listed
from driverwatch.io.console import say
from driverwatch.io.csv_tables import numbers, read_csv
from driverwatch.io.manifests import checksum_of
from driverwatch.run import Run

ERROR, AMBIGUOUS = KINDS = ("error", "ambiguous")


def identity(context: Context, settings: ModelSettings, pack: Pack) -> dict[str, Any] | None:
    """What a run repeats of the list: its rule, a checksum of the weights, and the weight by image; None under `none`.

    `drop` gives label errors the weight 0 and leaves ambiguous images alone; `down_weight` gives every image the list's weight.

    Raises `InputError`: no list, one that is damaged, or one of other images or labels than the pack's.

    Args:
        pack: of training images, whose names and labels the list must know.
    """
    rule, path = settings.train.label_issues, context.places.label_issues
    if rule == "none":
        return None
    if not path.is_file():
        way_out = f"run make label-issues NAME=<submission> DATASET={context.dataset} first, or set it to none"
        raise InputError(f"train.label_issues: {path} is not there; {way_out}")
    image, classes = context.settings.columns.image, list(context.settings.classes)
    frame = read_csv(path, [image, "class", "kind", "weight"])
    try:
        weights = numbers(frame[["weight"]])[:, 0]
    except ValueError as error:
        raise InputError(f"{path}: expected weights of 0 to 1, got {error}; fix the file") from None
    known = {
        **dict(zip(pack.names, pack.labels, strict=True)),
        **dict(zip(pack.left_out.names, pack.left_out.labels, strict=True)),
    }
    wrong, made = list[str](), dict[str, float]()
    for name, label, kind, weight in zip(frame[image], frame["class"], frame["kind"], weights, strict=True):
        if name in made or kind not in KINDS or not 0 <= weight <= 1:
            wrong.append(f"{name}: expected once, kind {' or '.join(KINDS)}, weight 0 to 1; got {kind}, {weight:g}")
        elif name not in known or label not in classes or known[name] != classes.index(label):
            wrong.append(f"{name}: is no training image of class {label} in {context.dataset}")
        made[name] = float(weight)
    if wrong:
        again = "make label-issues NAME=<submission> FORCE=1 writes it again"
        raise InputError(f"{path}: fix the file, or {again}:{listed(wrong)}")
    errors = set(frame[image][frame["kind"] == ERROR])
    made = dict.fromkeys(sorted(errors), 0.0) if rule == "drop" else dict(sorted(made.items()))
    return {"rule": rule, "checksum": checksum_of(made), "weights": made}


def weighted_rows(run: Run, packs: dict[str, Pack], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Of a fold's training `rows` those that weigh something, and the factors on their losses; None: all 1.

    Factors are float32 by row of the training pack and, after them, of the test pack; 1 where an image is not on the list or
    not one of `rows`: a validation image with a pseudo-label is not doubted for its own label.

    Raises `InputError`: nothing is left to train on.
    """
    doubted = (run.learned_from or {}).get("label_issues")
    if doubted is None:
        return rows, None
    names = packs["train"].names
    factors = np.ones(len(names) + len(packs["test"].names), np.float32)
    factors[rows] = [doubted["weights"].get(name, 1.0) for name in names[rows]]
    kept = rows[factors[rows] > 0]
    if not len(kept):
        raise InputError(
            f"{run.folder}: its list of label issues leaves no image to train on; shorten it, under another RUN="
        )
    say(
        f"{run.name}: {len(rows) - len(kept)} of {len(rows)} training images left out (label_issues: {doubted['rule']})"
    )
    return kept, factors
