"""Fold models as one model of Keras' own layers alone: a file that loads where nothing of this project is installed."""

import importlib
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from driverwatch.config.model import InputSettings, ModelSettings
from driverwatch.config.types import pixels
from driverwatch.data.tta import tta_set
from driverwatch.errors import InputError
from driverwatch.inference import engine
from driverwatch.models.backend import load_state
from driverwatch.models.classifier import ChannelScaling, Classifier, build

FACTS = "driverwatch.json"  # in the ZIP archive that a .keras file is, and that may follow a .tflite file's model
KEY = "driverwatch"  # of the metadata in an ONNX file, and of an OpenVINO file's rt_info


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
    """Write a model as .keras, .onnx, .xml (OpenVINO, its weights in a .bin beside it) or .tflite, with JSON-able `facts` inside.

    Raises `InputError`: without the packages that write it and read it back.
    """
    WRITERS[path.suffix](model, path, json.dumps(facts, ensure_ascii=False, indent=1))


def _write_keras(model: keras.Model, path: Path, facts: str) -> None:
    model.save(path)
    _append(path, facts)


def _append(path: Path, facts: str) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FACTS, facts)


def _write_onnx(model: keras.Model, path: Path, facts: str) -> None:
    onnx = _needed("onnx", "onnx")
    _needed("tf2onnx", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy for np.object, to fix tf2onnx
        model.export(str(path), format="onnx", verbose=False, input_signature=[_signature(model)])
    made = onnx.load(str(path))
    made.metadata_props.add(key=KEY, value=facts)
    onnx.save(made, str(path))


def _signature(model: keras.Model) -> keras.InputSpec:
    """Float images, any number of them."""
    return keras.InputSpec(dtype="float32", shape=model.input_shape, name="images")


def _write_openvino(model: keras.Model, path: Path, facts: str) -> None:
    openvino, exported = _needed("openvino", "openvino"), path.with_name("exported.xml")
    model.export(str(exported), format="openvino", verbose=False, input_signature=[_signature(model)])
    network = openvino.Core().read_model(exported)
    network.set_rt_info(facts, [KEY])
    openvino.save_model(network, path, compress_to_fp16=False)


def _write_litert(model: keras.Model, path: Path, facts: str) -> None:
    _needed("ai_edge_litert.interpreter", "litert")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"{path.name}: LiteRT files are written under KERAS_BACKEND=tensorflow; leave that variable out"
        )
    model.export(str(path), format="litert", verbose=False, input_signature=[_signature(model)])
    _append(path, facts)


WRITERS: dict[str, Callable[[keras.Model, Path, str], None]] = {
    ".keras": _write_keras,
    ".onnx": _write_onnx,
    ".xml": _write_openvino,
    ".tflite": _write_litert,
}


def _needed(package: str, extra: str) -> Any:
    try:
        return engine.imported() if package == "openvino" else importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0].replace("_", "-")
        raise InputError(f"FORMAT={extra}: needs the package {name}; make setup EXTRAS={extra} installs it") from error


def read(path: Path) -> Any:
    """What was written, by what others read it with: a function of images as `joined` makes one, NumPy in and out."""
    return READERS[path.suffix](path)


def _read_keras(path: Path) -> Any:
    model = keras.saving.load_model(path, safe_mode=True)  # no code travels in the file
    return lambda images: keras.ops.convert_to_numpy(model(images, training=False))


def _read_onnx(path: Path) -> Any:
    session = _needed("onnxruntime", "onnx").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images.astype(np.float32)})[0]


def _read_openvino(path: Path) -> Any:
    core = _needed("openvino", "openvino").Core()
    network = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: network(images.astype(np.float32))[0]


def _read_litert(path: Path) -> Any:
    interpreter = _needed("ai_edge_litert.interpreter", "litert").Interpreter(model_path=str(path))
    (given,), (said,) = interpreter.get_input_details(), interpreter.get_output_details()

    def answer(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(given["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images.astype(np.float32))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(said["index"]))

    return answer


READERS = {".keras": _read_keras, ".onnx": _read_onnx, ".xml": _read_openvino, ".tflite": _read_litert}
