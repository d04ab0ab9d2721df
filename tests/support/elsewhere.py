"""Runs as they come from another machine: fabricated ones, in a notebook's output."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np

from driverwatch import run as runs
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import checksum_of_file, read_json
from driverwatch.run import Run
from support.finished import World

FOLDS = 3
KAGGLE = Path("from_kaggle")  # where an output came to


def with_weights(run: Run, number: int, weights: bytes) -> None:
    """Give a fabricated fold a weight file, which its manifest and predictions then name."""
    file, manifest = run.fold(number) / "weights.h5", run.fold(number) / "manifest.json"
    file.write_bytes(weights)
    (run.fold(number) / "history.csv").write_text("epoch,stage,loss,val_loss\n1,0,1.0,1.0\n")
    write_json(manifest, read_json(manifest) | {"weights": checksum_of_file(file)})
    for path in run.fold(number).glob("*-*.h5"):
        made = predictions.read(path, {})
        origin = run.predicted(number, made.origin["tta"])  # type: ignore[arg-type]
        predictions.write(Predictions(made.names, made.probabilities, origin), path)


def trained_elsewhere(here: World, name: str = "away", **train: object) -> Run:
    """A finished run as a notebook's output has it, and not among the runs here."""
    run = here.run(name, **train)  # type: ignore[arg-type]
    for number in range(FOLDS):
        with_weights(run, number, f"{name} {number}".encode())
    (KAGGLE / "runs").mkdir(parents=True, exist_ok=True)
    return runs.load(Path(shutil.move(run.folder, KAGGLE / "runs" / name)))


def partly_trained(run: Run, number: int, epochs: int) -> None:
    """Leave a fold as it is after so many epochs."""
    shutil.rmtree(run.fold(number), ignore_errors=True)
    run.fold(number).mkdir(parents=True)
    rows = [{"stage": 0, "epoch": epoch + 1, "val_loss": 1.0} for epoch in range(epochs)]
    with h5py.File(run.fold(number) / "checkpoint.h5", "w") as file:
        file.create_group("model").create_dataset("0000", data=np.full(3, epochs))
        file.attrs.update(
            {"run": run.identity, "progress": json.dumps({"epoch": epochs, "history": rows, "best": 1.0})}
        )
