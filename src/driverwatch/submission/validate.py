"""A submission file: written in the sample submission's order, read back, and checked as Kaggle would."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from driverwatch.config.dataset import class_columns
from driverwatch.data.context import Context
from driverwatch.errors import InputError, printable
from driverwatch.io.atomic import replacing
from driverwatch.io.csv_tables import numbers, read_csv
from driverwatch.metrics import FLOOR, limited

SUM_TOLERANCE = 0.01  # of a line's sum to 1: three decimals may miss by 0.005, and Kaggle divides each line by its sum


def write_submission(
    probabilities: np.ndarray, names: list[str], header: list[str], path: Path, level: float = FLOOR
) -> None:
    """Write `header` (`img,c0,..`), one line per name; it is read back before it replaces what is there.

    Args:
        probabilities: float (N, C), in the order of `names`; limited to [`level`, 1].
    """
    frame = pd.DataFrame(limited(probabilities, level), columns=header[1:])
    frame.insert(0, header[0], names)
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.7f", lineterminator="\n")
        read_submission(temporary, names, header)


def read_submission(path: Path, names: list[str], header: list[str]) -> np.ndarray:
    """The probabilities in a submission file, float64 (N, C), in the order of `names`.

    Raises:
        InputError: what Kaggle would refuse (another header, images missing, repeated or unknown, values that are no
            probabilities), and lines that do not sum to about 1.
    """
    frame = read_csv(path, header)
    if list(frame.columns) != header:
        raise InputError(f"{path}: expected the header {','.join(header)}, got {','.join(frame.columns)}")
    found = list(frame[header[0]])
    if sorted(found) != sorted(names):
        missing, unknown = set(names) - set(found), set(found) - set(names)
        raise InputError(
            f"{path}: expected the sample submission's {len(names)} images once each, got {len(found)} rows, "
            f"{len(missing)} missing ({', '.join(sorted(missing)[:3])}), {len(unknown)} unknown "
            f"({', '.join(sorted(unknown)[:3])}), {len(found) - len(set(found))} repeated; write it again"
        )
    try:
        values = numbers(frame[header[1:]])
    except ValueError as error:
        raise InputError(f"{path}: expected numbers in every cell, got {error}; write it again") from error
    wrong = ~(np.isfinite(values) & (values >= 0) & (values <= 1)).all(axis=1)
    if wrong.any():
        raise InputError(
            f"{path}: line {int(np.argmax(wrong)) + 2}: expected probabilities from 0 to 1; write it again"
        )
    off = np.abs(values.sum(axis=1) - 1)
    if len(off) and off.max() > SUM_TOLERANCE:
        raise InputError(
            f"{path}: line {int(np.argmax(off)) + 2}: expected a row that sums to 1, got "
            f"{values[np.argmax(off)].sum():.6f}; write it again"
        )
    return values[pd.Index(found).get_indexer(pd.Index(names))]


def read_out_of_fold(context: Context, name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """A submission's out-of-fold file: columns image, driver, fold and label; probabilities float64 (N, C), rows summing to 1."""
    path, classes = context.places.out_of_fold(name), list(context.settings.classes)
    if not path.is_file():
        raise InputError(
            f"{path}: no out-of-fold probabilities; make ensemble NAME={name} DATASET={context.dataset} writes them"
        )
    image, columns = context.settings.columns.image, class_columns(classes)
    text = dict.fromkeys([image, "driver", "class"], str)
    try:
        frame = pd.read_csv(path, dtype=text, keep_default_na=False)
        if missing := {*text, "fold", *columns} - set(frame):
            raise ValueError(f"no column {min(missing)}")
        rows = frame[columns].to_numpy(np.float64)
        if unknown := sorted(set(frame["class"]) - set(classes)):
            raise ValueError(f"class {unknown[0]}")
        if not (np.isfinite(rows).all() and (rows >= 0).all() and (rows.sum(axis=1) > 0).all()):
            raise ValueError("a row without probabilities")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: expected probabilities by image, got {printable(str(error))}; make the submission again"
        ) from None
    made = frame[["driver", "fold"]].assign(
        image=frame[image], label=frame["class"].map({c: i for i, c in enumerate(classes)})
    )
    return made, rows / rows.sum(axis=1, keepdims=True)
