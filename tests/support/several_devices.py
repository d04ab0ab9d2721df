"""One fold trained on as many devices as are asked for; leaves history, weights and predictions as `<devices>.npz`.

    VIRTUAL_DEVICES=2 KERAS_BACKEND=jax python tests/support/several_devices.py <folder> <devices> <dropout>

Over 29 images in batches of 6, so that the last 5 cannot be split evenly: statistics trained, then recalibrated, then the backbone
frozen and cached; class weights, both penalties on weights, Adam. On several devices the same fold is also killed after its first
epoch, gone on with, and held against the uninterrupted one.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.models import backend

STAGES = [{}, {"freeze_until": "stage2", "normalization": "recalibrated", "epochs": 1}, {"freeze_until": "head"}]
HISTORY = ("loss", "accuracy", "val_loss", "val_accuracy")


def main(folder: Path, devices: int, dropout: float) -> None:
    backend.start()
    from driverwatch.training.pseudo_labels import FoldIndices
    from support import training
    from support.packs import COUNT, pack_of

    packs = {"train": pack_of(folder, COUNT, "train"), "test": pack_of(folder, 9, "test")}
    rows = FoldIndices(np.arange(29), np.arange(32, COUNT))

    def run_of(name: str) -> Any:
        about = {"devices": devices, "batch_size": 6, "class_weights": "balanced", "weight_decay": 0.01}
        run = training.run_of(folder / name, **about, epochs=2, stages=STAGES, augmentation_passes=2)
        head = run.settings.head.model_copy(update={"dropout": dropout, "weight_decay": 0.001})
        return replace(run, settings=run.settings.model_copy(update={"head": head}))

    run = run_of("whole")
    whole = training.whole_of(run, packs, rows=rows, tta="ten_crop")
    epochs = training.history(run)
    found = whole.found | {name: np.array([float(row[name]) for row in epochs]) for name in HISTORY}
    if devices > 1:
        found["resumes"] = np.array(whole.ends_alike(1, folder / "killed"))
        found["dropped"] = dropped(devices)
    np.savez(folder / f"{devices}.npz", **found)


def dropped(count: int) -> np.ndarray:
    """What a dropout leaves of ones, (devices, 64), where each TensorFlow device drops for itself."""
    import keras

    from driverwatch.models.devices import devices

    on = devices(count, count)
    if keras.backend.backend() != "tensorflow":
        return np.zeros((count, 0))
    with on.scope():
        layer = keras.layers.Dropout(0.5)
    on.seed(layer.seed_generator.state, np.array([1, 2], "uint32"))
    made = on.strategy.run(lambda: layer(np.ones((1, 64)), training=True))
    return np.concatenate([one.numpy() for one in on.strategy.experimental_local_results(made)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
