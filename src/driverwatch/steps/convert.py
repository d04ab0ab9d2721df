"""From a public PyTorch checkpoint to a weight file that `WEIGHTS=<folder>` finds."""

from pathlib import Path

import numpy as np

from driverwatch.backbones import BACKBONES
from driverwatch.models import checkpoint, conversion
from driverwatch.wording import close
from driverwatch.writing import replacing


def convert(file: Path, backbone: str, folder: Path) -> None:
    """Write `<folder>/<the name that the backbone table looks for>`, whole or not at all.

    Raises:
        InputError: a file that is not torchvision's checkpoint of `backbone`, or a place that cannot be written.
    """
    conversion.tensors(backbone)  # an unknown name before a big file is read
    converted = conversion.convert(checkpoint.read(file), backbone, str(file))
    target = folder / BACKBONES[backbone].weight_files[0]
    with replacing(target) as temporary, temporary.open("wb") as archive:
        marker = {f"{conversion.MADE_FOR}{backbone}": np.zeros(0, np.float32)}
        np.savez(archive, allow_pickle=False, **converted.arrays, **marker)
    then = [f"make classify MODEL={backbone} WEIGHTS={folder} IMAGE=<photo>"]
    close(target, f"{len(converted.arrays)} arrays of {backbone}{_left_out(converted)}", then=then)


def _left_out(converted: conversion.Converted) -> str:
    counts = {
        "of the auxiliary classifiers (not pretrained)": len(converted.auxiliary),
        "that count batches": len(converted.counters),
    }
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return f"; left out {' and '.join(parts)}" if parts else ""
