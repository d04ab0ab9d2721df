"""What a fold file says, read without pandas, for who only looks: nothing is held against the photos or the table."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from driverwatch.artifacts import digest_of
from driverwatch.dataset_settings import class_columns
from driverwatch.errors import InputError


@dataclass(frozen=True)
class FoldFile:
    """The digest that `folds.FoldTable` has of the same file, its drivers, and how many images each fold holds out."""

    digest: str
    drivers: int
    images: tuple[int, ...]  # by fold

    @property
    def count(self) -> int:
        return len(self.images)


def glance(path: Path, classes: tuple[str, ...]) -> FoldFile:
    """Read a fold file of a data set with these classes.

    Raises:
        InputError: no file, other columns, cells that are no whole numbers, or folds that are not 0 to K-1.
    """
    expected = ["driver", "fold", "images", *class_columns(classes)]
    try:
        text = path.read_text(encoding="utf-8-sig")
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        if header != expected or any(len(row) != len(expected) for row in rows):
            raise ValueError(f"columns other than {','.join(expected)}")
        table = sorted((row[0], [int(cell) for cell in row[1:]]) for row in rows)
    except FileNotFoundError:
        raise InputError(f"{path}: no fold file; run make folds first") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a whole fold file ({error}); restore it") from error
    held = Counter({numbers[0]: 0 for _, numbers in table})
    for _, (fold, images, *_) in table:
        held[fold] += images
    if sorted(held) != list(range(len(held))) or len(held) < 2:
        raise InputError(f"{path}: folds must be numbered 0 to K-1 with K at least 2, got {sorted(held)}; restore it")
    digest = digest_of([[driver, *map(str, numbers)] for driver, numbers in table])
    return FoldFile(digest, len(table), tuple(held[fold] for fold in range(len(held))))
