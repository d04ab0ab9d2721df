"""Fold models as one model of Keras' own layers alone: a file that loads where nothing of this project is installed."""

import importlib
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from driverwatch.config.model import InputSettings, ModelSettings
from driverwatch.config.types import pixels
from driverwatch.data.tta import tta_set
from driverwatch.errors import InputError
from driverwatch.models.backend import load_state
from driverwatch.models.classifier import ChannelScaling, Classifier, build

FACTS = "driverwatch.json"  # the file inside of a .keras file, which is a ZIP archive; Keras reads past it
KEY = "driverwatch"  # of the metadata in an ONNX file


def joined(settings: ModelSettings, classes: int, mean: tuple[float, ...], files: list[Path]) -> keras.Model:
    """The mean of a run's fold models on the centre view, as one functional model that computes in float32.

    Args:
        classes: C.
        mean: the data set's channel means (RGB, 0-255), used with `mean: dataset`.
        files: each fold's weights.

    Returns:
        uint8 or float RGB (B, R * H, W, 3) in 0-255, regions of the pack's size -> float32 (B, C), rows sum to 1.
    """
    folds, settings = [], settings.model_copy(update={"precision": "float32"})
    for number, file in enumerate(files):
        classifier = build(settings, classes, mean, None, load=False)
        load_state(file, {"model": classifier.weights})
        folds.append(_fold(classifier, settings.input, f"fold_model{number}"))
    frames = keras.Input(folds[0].input_shape[1:], name="images")
    said = [fold(frames, training=False) for fold in folds]
    return keras.Model(frames, layers.Average(name="mean")(said) if len(said) > 1 else said[0], name="driverwatch")


def _fold(classifier: Classifier, field: InputSettings, name: str) -> keras.Model:
    """A classifier with its centre view before it; its dropout, which predicts nothing, is left away."""
    regions, (height, width) = classifier.regions, pixels(field.pack)
    frames = keras.Input((regions * height, width, 3), name="images")
    parts = [_cropped(frames, field, number, regions) for number in range(regions)]
    features = [classifier.pool(classifier.backbone(_scaled(x, classifier.scaling), training=False)) for x in parts]
    x = layers.Concatenate(name="side_by_side")(features) if regions > 1 else features[0]
    for block in classifier.hidden:
        x = block(x, training=False)
    return keras.Model(frames, classifier.top(x), name=name)


def _cropped(frames: Any, field: InputSettings, number: int, regions: int) -> Any:
    """The centre view of one of the regions that are stacked along the height."""
    (height, width), size = pixels(field.pack), pixels(field.size)
    view = tta_set("centre", (height, width), size)[0]
    above = number * height + view.top
    rows = above, regions * height - above - view.height
    columns = view.left, width - view.left - view.width
    return layers.Cropping2D((rows, columns), name=f"centre_view{number}")(frames)


def _scaled(x: Any, scaling: ChannelScaling) -> Any:
    """`ChannelScaling` in Keras' own layers: a crop of "rows" of a channels-first image is the one that picks a channel."""
    if scaling.order == "bgr":
        channels = [layers.Cropping2D(((0, 0), (i, 2 - i)), data_format="channels_first")(x) for i in (2, 1, 0)]
        x = layers.Concatenate()(channels)
    x = layers.Rescaling(1.0, offset=[-mean for mean in scaling.mean])(x)
    return layers.Rescaling([1 / std for std in scaling.std])(x)


def write(model: keras.Model, path: Path, facts: dict[str, Any]) -> None:
    """Write a model as .keras or .onnx, by the file's name, with JSON-able `facts` inside.

    Raises:
        InputError: ONNX without the packages that write it.
    """
    text = json.dumps(facts, ensure_ascii=False, indent=1)
    if path.suffix == ".onnx":
        _write_onnx(model, path, text)
    else:
        model.save(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(FACTS, text)


def _write_onnx(model: keras.Model, path: Path, facts: str) -> None:
    onnx = _onnx("onnx")
    _onnx("tf2onnx")
    images = keras.InputSpec(dtype="float32", shape=model.input_shape, name="images")  # of any number of images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy for np.object, to fix tf2onnx
        model.export(str(path), format="onnx", verbose=False, input_signature=[images])
    made = onnx.load(str(path))
    made.metadata_props.add(key=KEY, value=facts)
    onnx.save(made, str(path))


def _onnx(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"FILE=<name>.onnx: needs the package {package}; make setup EXTRAS=onnx installs it"
        ) from error


def read(path: Path) -> Any:
    """What was written, by what others read it with: a function of images as `joined` makes one, NumPy in and out."""
    if path.suffix == ".onnx":
        session = _onnx("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images.astype(np.float32)})[0]
    model = keras.saving.load_model(path, safe_mode=True)  # no code travels in the file
    return lambda images: keras.ops.convert_to_numpy(model(images, training=False))
