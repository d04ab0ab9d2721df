"""Input pipelines as TensorFlow's and Keras' public documentation shows them. Keras and TensorFlow are imported when called."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import Bench
from driverwatch.errors import InputError
from driverwatch.setting_types import pixels


def input_size(bench: Bench) -> tuple[int, int]:
    """Of what the network takes (height, width)."""
    return pixels(bench.settings.input.size)


def refuse_other_backends() -> None:
    """Rivals are TensorFlow's; beside another backend they would run on other devices than ours."""
    from driverwatch.models import backend

    backend.start()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"bench: the rivals of this row need KERAS_BACKEND=tensorflow, got {keras.backend.backend()}; choose other "
            "ROWS"
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


def constant(batch: tuple[Any, ...], steps: int) -> Any:
    """One batch `steps` times, held as tensors, its first axis unknown to the graph as that of our loader's batches is."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[0])).cache().repeat(steps)


def by_class(bench: Bench) -> Path:
    """A folder of links to the chosen photos, a folder per class, as `image_dataset_from_directory` wants it."""
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
    labels = np.eye(len(bench.context.settings.classes), dtype=np.float32)[bench.table.frame["label"].to_numpy()]

    def decoded(path: Any, label: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        image = tf.image.resize(image, size, method="area")
        return tf.cast(tf.round(image), tf.uint8), label

    change = tensorflow_policy(input_size(bench))
    order, files = tf.data.AUTOTUNE, tf.data.Dataset.from_tensor_slices((paths, labels))
    if cached:
        images = files.map(decoded, num_parallel_calls=order).cache().shuffle(len(paths))
    else:
        images = files.shuffle(len(paths)).map(decoded, num_parallel_calls=order)
    changed = images.map(lambda image, label: (change(image), label), num_parallel_calls=order)
    return changed.batch(bench.batch).prefetch(order)


def tensorflow_policy(size: tuple[int, int]) -> Callable[[Any], Any]:
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


def directory(bench: Bench, folder: Path) -> Any:
    """Keras' guide: `image_dataset_from_directory`, preprocessing layers in a parallel map, prefetch."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    turns = [layers.RandomRotation(8 / 360), layers.RandomTranslation(0.06, 0.06), layers.RandomZoom(0.1)]
    colours = [layers.RandomHue(0.055), layers.RandomSaturation(0.16), layers.RandomGrayscale(0.1)]
    change = keras.Sequential([*turns, *colours, layers.RandomCrop(*input_size(bench))])
    whole = keras.utils.image_dataset_from_directory(
        folder,
        label_mode="categorical",
        batch_size=bench.batch,
        image_size=bench.size,
        interpolation="area",
        seed=0,
        verbose=False,
    )

    changed = whole.map(lambda x, y: (change(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return changed.prefetch(tf.data.AUTOTUNE)
