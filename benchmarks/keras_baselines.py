"""Fine-tuning as Keras' guides and the guides to HDF5 show it, every fold in one process: sides of the row end_to_end.

`directory`: https://keras.io/examples/vision/image_classification_from_scratch (`image_dataset_from_directory`, preprocessing
layers in a parallel map, prefetch) and https://keras.io/guides/transfer_learning (the head alone, then layers of the base
model, which stays in inference mode; `fit` with validation data). `cached` keeps decoded images in memory, as the second
guide does. `generator` writes an HDF5 file image by image and augments from it one image at a time.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import keras
import numpy as np
from keras import layers

from benchmarks.training_plan import Plan, PlannedStage

Fitting = dict[str, Any]  # of `fit`: what it is given, and what it validates on


class Fold(NamedTuple):
    """How a fold's images are handed to `fit`, its validation images to `predict`, and which rows these are, in order."""

    fit: Fitting
    predict: Fitting
    rows: np.ndarray


def trained(plan: Plan, fold_of: Callable[[Plan, int], Fold]) -> np.ndarray:
    """Out-of-fold probabilities float32 (N, C), one fold after another."""
    found = np.zeros((len(plan.paths), plan.classes), np.float32)
    for number in range(plan.count):
        keras.utils.set_random_seed(plan.seed)
        keras.backend.clear_session()
        model, base = built(plan)
        fold, (shown, _) = fold_of(plan, number), plan.split(number)
        for stage in plan.stages:
            for place, layer in enumerate(base.layers):
                layer.trainable = place >= stage.frozen
            compile_stage(plan, model, stage, -(-len(shown) // plan.batch))
            model.fit(epochs=stage.epochs, verbose=0, **fold.fit)
        found[fold.rows] = model.predict(verbose=0, **fold.predict)[: len(fold.rows)]
    return found


def built(plan: Plan) -> tuple[keras.Model, keras.Model]:
    """A new classifier head on the base model, and the base model."""
    base = keras.saving.load_model(plan.network, compile=False)
    inputs = keras.Input((*plan.size, 3))
    x = keras.ops.flip(inputs, axis=-1) if plan.order == "bgr" else inputs
    x = layers.Normalization(mean=plan.mean, variance=np.square(plan.std))(x)
    x = base(x) if plan.statistics else base(x, training=False)
    x = layers.Dropout(plan.dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(plan.classes, activation="softmax")(x)), base


def compile_stage(plan: Plan, model: keras.Model, stage: PlannedStage, steps: int) -> None:
    """Compile for a stage's epochs of so many steps."""
    total, rate = stage.epochs * steps, stage.learning_rate
    rise, more = plan.rise(total), {}
    if plan.schedule == "cosine":
        if rise > 1:
            more = {"warmup_target": rate, "warmup_steps": rise - 1}
        rate = keras.optimizers.schedules.CosineDecay(rate / rise, total - rise + 1, **more)
    options: dict[str, Any] = (
        {"momentum": plan.momentum, "nesterov": plan.momentum > 0} if plan.optimizer == "sgd" else {}
    )
    made = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    optimizer = made[plan.optimizer](rate, weight_decay=None, **options)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=plan.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])


def directory(plan: Plan, number: int, cached: bool = False) -> Fold:
    """Datasets over folders of images."""
    import tensorflow as tf

    def images(kind: str, shuffle: bool) -> Any:
        return keras.utils.image_dataset_from_directory(
            Path(plan.folder) / f"fold{number}" / kind, label_mode="categorical", batch_size=plan.batch, seed=plan.seed,
            image_size=plan.packed, shuffle=shuffle, verbose=False
        )  # fmt: skip

    change = keras.Sequential([*preprocessing(plan), *cropping(plan)])
    cut, order = layers.CenterCrop(*plan.size), tf.data.AUTOTUNE
    files, held = images("training", True), images("validation", False)
    rows = np.array([int(Path(path).name.split("-")[0]) for path in held.file_paths])
    files, held = (files.cache(), held.cache()) if cached else (files, held)
    shown = files.map(lambda x, y: (change(x, training=True), y), num_parallel_calls=order).prefetch(order)
    held = held.map(lambda x, y: (cut(x), y), num_parallel_calls=order).prefetch(order)
    return Fold({"x": shown, "validation_data": held}, {"x": held}, rows)


def cropping(plan: Plan) -> list[Any]:
    """Layers that cut the network's input."""
    return [layers.RandomCrop(*plan.size) if plan.crop == "random" else layers.CenterCrop(*plan.size)]


def preprocessing(plan: Plan) -> list[Any]:
    """What the preset does, as far as Keras has a layer for it."""
    made: list[Any] = [layers.RandomFlip("horizontal")] if plan.hflip else []
    for name, keywords in (pair for step in plan.preset for pair in step.items()):
        made += LAYERS[name](keywords) if name in LAYERS else []
    return made


def _affine(keywords: dict[str, Any]) -> list[Any]:
    turn, move = keywords.get("rotate", [0, 0])[1], keywords.get("translate_percent", [0, 0])[1]
    zoom = keywords.get("scale", [1, 1])[1] - 1
    return [layers.RandomRotation(turn / 360), layers.RandomTranslation(move, move), layers.RandomZoom(zoom)]


def _contrast(keywords: dict[str, Any]) -> list[Any]:
    brightness, contrast = (keywords.get(f"{name}_limit", 0.2) for name in ("brightness", "contrast"))
    return [layers.RandomBrightness(brightness), layers.RandomContrast(contrast)]


def _colour(keywords: dict[str, Any]) -> list[Any]:
    hue, saturation = keywords.get("hue_shift_limit", 20) / 180, keywords.get("sat_shift_limit", 30) / 255
    return [layers.RandomHue(hue), layers.RandomSaturation(saturation)]


LAYERS: dict[str, Callable[[dict[str, Any]], list[Any]]] = {
    "Affine": _affine,
    "RandomBrightnessContrast": _contrast,
    "HueSaturationValue": _colour,
    "ToGray": lambda keywords: [layers.RandomGrayscale(keywords.get("p", 0.5))],
    "Erasing": lambda keywords: [
        layers.RandomErasing(keywords.get("p", 0.5), tuple(keywords.get("scale", (0.02, 0.33))))
    ],
}


def generator(plan: Plan, number: int) -> Fold:
    """Generators over an HDF5 file, which is written before the first fold."""
    path = Path(plan.folder) / "images.h5"
    if number == 0:
        write_hdf5(plan, path)
    shown, held = plan.split(number)
    fitting = {"x": batches(plan, path, shown, True), "steps_per_epoch": -(-len(shown) // plan.batch)}
    steps = -(-len(held) // plan.batch)
    watched = {"validation_data": batches(plan, path, held, False), "validation_steps": steps}
    return Fold({**fitting, **watched}, {"x": batches(plan, path, held, False), "steps": steps}, held)


def write_hdf5(plan: Plan, path: Path) -> None:
    """Resize image by image into one file, as the guides do."""
    with h5py.File(path, "w") as file:
        storage = file.create_dataset("images", (len(plan.paths), *plan.packed, 3), np.uint8)
        file.create_dataset("labels", data=plan.labels)
        for place, name in enumerate(plan.paths):
            image = cv2.resize(cv2.imread(name), plan.packed[::-1], interpolation=cv2.INTER_AREA)
            storage[place] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def batches(plan: Plan, path: Path, rows: np.ndarray, training: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches float32 (B, h, w, 3) and one-hot labels, forever: read, augmented and cut one image at a time."""
    from driverwatch.data.augment import build  # albumentations without PyTorch, which it would import

    pipeline, random = build(plan.preset) if training else None, np.random.default_rng(plan.seed)
    file, one_hot, (height, width) = h5py.File(path, "r"), np.eye(plan.classes, dtype=np.float32), plan.size
    down, across = plan.packed[0] - height, plan.packed[1] - width

    def one(index: int) -> np.ndarray:
        image, top, left = file["images"][index], down // 2, across // 2
        if pipeline is not None:
            image = pipeline(image=image)["image"]
            image = image[:, ::-1] if plan.hflip and random.random() < 0.5 else image
            if plan.crop == "random":
                top, left = int(random.integers(down + 1)), int(random.integers(across + 1))
        return image[top : top + height, left : left + width].astype(np.float32)

    while True:
        order = random.permutation(rows) if training else rows
        for start in range(0, len(order), plan.batch):
            chosen = order[start : start + plan.batch]
            yield np.array([one(int(index)) for index in chosen]), one_hot[file["labels"][:][chosen]]


SIDES: dict[str, Callable[[Plan, int], Fold]] = {
    "directory": directory,
    "cached": lambda plan, number: directory(plan, number, cached=True),
    "generator": generator,
}


def main(side: str, plan: str, target: str) -> None:
    """Train every fold as a side does, and keep the out-of-fold probabilities."""
    np.savez(target, probabilities=trained(Plan.read(Path(plan)), SIDES[side]))


if __name__ == "__main__":
    main(*sys.argv[1:])
