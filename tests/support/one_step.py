"""Two steps and a prediction under whatever backend KERAS_BACKEND names; leaves weights and probabilities as `<backend>.npz`.

Where OpenVINO is installed, its prediction of the same network is left beside.

    KERAS_BACKEND=jax python tests/one_step.py <folder> <backbone>

The first to come writes the weights to begin with, `begin.h5`; the others take them.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from driverwatch.inference.predict import Predictor
from driverwatch.models import backend
from support.packs import CLASSES, SIZE, SWAP, pack_of


def main(folder: Path, backbone: str) -> None:
    backend.start()
    import keras

    from driverwatch.config.loading import parse
    from driverwatch.config.model import ModelSettings
    from driverwatch.data.augment import AugmentedInputs
    from driverwatch.models.backend import load_state, write_state
    from driverwatch.models.classifier import build
    from driverwatch.models.freezing import freeze
    from driverwatch.training.data_loader import TrainingBatches, one_hot
    from driverwatch.training.optimizer import lr_multipliers, plan, prepare

    content = {
        "backbone": backbone, "weights": "none", "input": {"pack": "36x44", "size": "32x40"}, "head": {"dropout": 0.0},
        "train": {"learning_rate": 0.05, "batch_size": 8, "workers": 3},
    }  # fmt: skip
    settings = parse(ModelSettings, content, "here")
    name = keras.backend.backend()
    (folder / name).mkdir()
    pack, rows = pack_of(folder / name, 16, "train"), np.arange(16)
    backend.deterministic(0)
    classifier = build(settings, CLASSES, pack.mean, None, load=False)
    begin = folder / "begin.h5"
    if not begin.is_file():
        write_state(begin, {"model": classifier.weights}, {})
    load_state(begin, {"model": classifier.weights})
    stage = plan(settings)[0]
    freeze(classifier, stage.freeze_until, stage.train_statistics)
    prepare(classifier, stage, settings.train, 2, lr_multipliers(classifier, stage))
    inputs = AugmentedInputs(pack.pixels, settings, [{"RandomBrightnessContrast": {"p": 0.5}}], 0)
    batches = TrainingBatches(inputs, rows, one_hot(pack.labels, CLASSES), settings, SWAP, 0)
    loss = classifier.fit(batches, shuffle=False, verbose=0).history["loss"]
    batches.close()
    found = Predictor(classifier, ["ten_crop"], SIZE, (32, 40))(pack.images.open(), rows)["ten_crop"]
    by_openvino = {}
    if importlib.util.find_spec("openvino"):
        engine = Predictor(classifier, ["ten_crop"], SIZE, (32, 40), engine="openvino")
        by_openvino = {"openvino": engine(pack.images.open(), rows)["ten_crop"]}
    weights = [keras.ops.convert_to_numpy(weight).ravel() for weight in classifier.trainable_weights]
    np.savez(folder / f"{name}.npz", loss=loss, probabilities=found, weights=np.concatenate(weights), **by_openvino)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
