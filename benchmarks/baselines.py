"""Input pipelines and ten-crop as public documentation shows them: TensorFlow's and Keras' guides, and guides to HDF5.

Keras and TensorFlow are imported when called.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from benchmarks.workload import Bench
from driverwatch.data.augment import build
from driverwatch.data.tta import central
from driverwatch.errors import InputError


def refuse_other_backends() -> None:
    """Baselines are TensorFlow's; beside another backend they would run on other devices than ours."""
    from driverwatch.models import backend

    backend.start()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"bench: the baselines of this row need KERAS_BACKEND=tensorflow, got {keras.backend.backend()}; choose other "
            "BENCHMARKS"
        )


def sink() -> Callable[..., None]:
    """What takes every pipeline's batches: `fit` of a network whose step does nothing.

    A pipeline that ends is given alone, an endless one with its number of steps.
    """
    refuse_other_backends()
    import keras

    class Sink(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            return {"loss": keras.ops.zeros(())}

    model = Sink()
    model.built = True
    model.compile(jit_compile=False)

    def take(batches: Any, steps: int | None = None) -> None:
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    return take


def _by_class(bench: Bench) -> Path:
    """A folder of links to the chosen images, a folder per class, as `image_dataset_from_directory` wants it."""
    folder = bench.place / "by_class"
    shutil.rmtree(folder, ignore_errors=True)
    for path, label in zip(bench.paths, bench.table.frame["label"], strict=True):
        link = folder / list(bench.context.settings.classes)[label] / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
    return folder


def tf_data(bench: Bench, cached: bool) -> Any:
    """TensorFlow's guide to input pipelines: shuffle, parallel map, batch, prefetch; with `cached` decoded images are held.

    One dataset for all epochs: its functions are traced once.
    """
    import tensorflow as tf

    paths, size = [str(path) for path in bench.paths], bench.size

    def decoded(path: Any, label: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        image = tf.image.resize(image, size, method="area")
        return tf.cast(tf.round(image), tf.uint8), label

    change = tensorflow_preset(bench.input_size)
    order, files = tf.data.AUTOTUNE, tf.data.Dataset.from_tensor_slices((paths, bench.targets))
    if cached:
        images = files.map(decoded, num_parallel_calls=order).cache().shuffle(len(paths))
    else:
        images = files.shuffle(len(paths)).map(decoded, num_parallel_calls=order)
    changed = images.map(lambda image, label: (change(image), label), num_parallel_calls=order)
    return changed.batch(bench.batch).prefetch(order)


def tensorflow_preset(size: tuple[int, int]) -> Callable[[Any], Any]:
    """What affine, colour and crop do, as often and as far, in TensorFlow's operations: uint8 (H, W, 3) -> (h, w, 3)."""
    import tensorflow as tf

    def sometimes(share: float, change: Callable[[Any], Any], image: Any) -> Any:
        return tf.cond(tf.random.uniform([]) < share, lambda: change(image), lambda: image)

    def between(low: float, high: float, shape: tuple[int, ...] = ()) -> Any:
        return tf.random.uniform(shape, low, high)

    def warped(image: Any) -> Any:
        height, width = image.shape[0], image.shape[1]
        angle, scale, shear = between(-0.14, 0.14), 1 / between(0.9, 1.1), between(-0.07, 0.07)
        cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
        right = width / 2 * (1 - cos) + height / 2 * (sin + shear) + between(-0.06, 0.06) * width
        down = height / 2 * (1 - cos) - width / 2 * sin + between(-0.06, 0.06) * height
        transform = tf.stack([cos, -sin - shear, right, sin, cos, down, 0.0, 0.0])[None]
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=transform,
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )[0]

    def tinted(image: Any) -> Any:
        return tf.image.adjust_saturation(tf.image.adjust_hue(image, between(-0.055, 0.055)), between(0.84, 1.16))

    def shifted(image: Any) -> Any:
        return tf.cast(tf.clip_by_value(tf.cast(image, tf.float32) + between(-15, 15, (3,)), 0, 255), tf.uint8)

    def grey(image: Any) -> Any:
        return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))

    def closer(image: Any) -> Any:
        box = tf.concat([between(0, 0.15, (2,)), 1 - between(0, 0.15, (2,))], axis=0)[None]
        return tf.cast(tf.image.crop_and_resize(image[None], box, [0], image.shape[:2])[0], tf.uint8)

    steps = [(0.9, warped), (0.8, tinted), (0.4, shifted), (0.1, grey), (0.9, closer)]

    def change(image: Any) -> Any:
        for share, step in steps:
            image = tf.ensure_shape(sometimes(share, step, image), image.shape)
        return tf.image.random_crop(image, (*size, 3))

    return change


def image_directory(bench: Bench) -> Any:
    """Keras' guide: `image_dataset_from_directory`, preprocessing layers in a parallel map, prefetch."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    turns = [layers.RandomRotation(8 / 360), layers.RandomTranslation(0.06, 0.06), layers.RandomZoom(0.1)]
    colours = [layers.RandomHue(0.055), layers.RandomSaturation(0.16), layers.RandomGrayscale(0.1)]
    change = keras.Sequential([*turns, *colours, layers.RandomCrop(*bench.input_size)])
    whole = keras.utils.image_dataset_from_directory(
        _by_class(bench), label_mode="categorical", batch_size=bench.batch, image_size=bench.size, interpolation="area", seed=0,
        verbose=False
    )  # fmt: skip
    changed = whole.map(lambda x, y: (change(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return changed.prefetch(tf.data.AUTOTUNE)


def classic_batches(bench: Bench, preset: list[dict[str, dict[str, Any]]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches float32 (B, h, w, 3), mean subtracted, and one-hot labels, forever: augmented and cut one image at a time.

    As guides to HDF5 show it: one handle, one image at a time.
    """
    file, pipeline, random = h5py.File(bench.pack.images.path, "r"), build(preset), np.random.default_rng(0)
    (height, width), mean = bench.input_size, np.array(bench.pack.mean, np.float32)
    one_hot = np.eye(len(bench.context.settings.classes), dtype=np.float32)

    def one(index: int) -> np.ndarray:
        image = pipeline(image=file["images"][index])["image"]
        top = int(random.integers(image.shape[0] - height + 1))
        left = int(random.integers(image.shape[1] - width + 1))
        return image[top : top + height, left : left + width].astype(np.float32) - mean

    count = file["images"].shape[0]
    while True:
        for start in range(0, count, bench.batch):
            stop = min(start + bench.batch, count)
            yield np.array([one(index) for index in range(start, stop)]), one_hot[file["labels"][start:stop]]


def ten_crops(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> (10, h, w, 3): the centre, four corners, and their flips, on the host."""
    (height, width), (rows, columns) = size, image.shape[:2]
    bottom, right = rows - height, columns - width
    corners = [(central(rows, height), central(columns, width)), (0, 0), (0, right), (bottom, 0), (bottom, right)]
    crops = [image[top : top + height, left : left + width] for top, left in corners]
    return np.array([*crops, *(cv2.flip(crop, 1) for crop in crops)])


def classic_ten_crop(model: Any, path: str, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean probabilities (n, C): one handle, one image at a time, one `predict` of its ten crops."""
    with h5py.File(path, "r") as file:
        return np.array([model.predict(ten_crops(file["images"][i], size), verbose=0).mean(axis=0) for i in indices])
