"""Who computes forward passes: Keras itself, or the same network converted once to OpenVINO, which a processor runs quicker."""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from driverwatch.config.types import EngineName
from driverwatch.errors import InputError
from driverwatch.io.console import say
from driverwatch.models.devices import ForwardPasses, on_processor

PAYS_FROM_PASSES = 10_000  # of one image each: a conversion takes 8 to 15 s, and a pass gains about 1 ms on MobileNetV2
TOLERANCE = 1e-3  # largest difference from Keras' answer, as a share of its largest number; measured: 3e-6


class Engine:
    """Forward passes of one network over batches of one length: NumPy in and out.

    OpenVINO computes in float32. In bfloat16, its own choice on newer processors, it is 2.4 times as fast, but changed the
    top class of 4 in 700 images and the log loss by 0.002 (docs/dev/decisions/0024-prediction-engine.md).
    """

    def __init__(self, model: keras.Model, batch: int, asked: EngineName = "keras", passes: int = 0) -> None:
        """Choose the engine; nothing is converted before the first batch.

        Raises `InputError`: OpenVINO is asked for and not installed.

        Args:
            model: its weights must not change after the first batch.
            batch: samples in one pass; fewer are filled up, so that nothing is compiled twice.
            asked: auto takes OpenVINO where it is installed, Keras computes on the processor in float32, and `passes` pay for
                converting. A network in bfloat16 has no conversion, and Keras computes it quicker than OpenVINO in float32.
            passes: samples that will be asked for.
        """
        self.model, self.batch, self._keras = model, batch, ForwardPasses(model)
        self.converts = converts(asked, passes) and not (
            asked == "auto" and any(layer.compute_dtype == "bfloat16" for layer in model.layers)
        )
        self._network: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def name(self) -> str:
        """What computes, with its version: numbers of two engines are never mixed in one file."""
        if self.converts:
            return f"openvino {importlib.metadata.version('openvino')}, float32"
        return f"keras {keras.__version__}, {keras.backend.backend()}"

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The network's answer to at most `batch` samples."""
        missing = self.batch - len(samples)
        filled = np.concatenate([samples, np.repeat(samples[:1], missing, axis=0)]) if missing else samples
        self.settle(filled)
        network = self._network or self._keras
        return network(filled)[: len(samples)]

    def settle(self, samples: np.ndarray) -> bool:
        """Convert, once, and compare with Keras on a whole batch; whether OpenVINO was refused, so that `name` has changed."""
        if not self.converts or self._network is not None:
            return False
        try:
            network = converted(self.model, samples)
            refused = _difference(network(samples), self._keras(samples))
        except Exception as error:  # whatever the converter meets: Keras can always go on
            refused = f"the network cannot be converted ({' '.join(str(error).split())[:150]})"
        else:
            self._network = network
        if refused:
            say(f"OpenVINO is not used: {refused}; Keras computes")
            self.converts, self._network = False, None
        return bool(refused)


def converts(asked: EngineName, passes: int) -> bool:
    """Whether OpenVINO is tried for so many passes. Raises `InputError` where it is asked for and not installed."""
    if asked == "keras":
        return False
    installed = importlib.util.find_spec("openvino") is not None
    if asked == "openvino" and not installed:
        raise InputError(
            "predict.engine: openvino: is not installed; make setup EXTRAS=openvino, or take auto or keras"
        )
    return installed and (asked == "openvino" or (passes >= PAYS_FROM_PASSES and on_processor()))


def _difference(found: np.ndarray, wanted: np.ndarray) -> str:
    """Why an answer is refused beside Keras' own; empty: it is as good."""
    apart = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if apart <= TOLERANCE:  # never of NaN
        return ""
    return f"its answer differs from Keras' by {apart:.1g} of the largest number, expected at most {TOLERANCE:g}"


def converted(
    model: keras.Model, samples: np.ndarray, precision: str | None = "f32"
) -> Callable[[np.ndarray], np.ndarray]:
    """A network as OpenVINO computes it, for batches of the shape and dtype of `samples`.

    Keras' own export does the conversion, from any of its backends.

    Args:
        precision: f32, f16 or bf16; None: OpenVINO's own choice, which is bf16 where the processor has it.
    """
    openvino = imported()
    inputs = keras.Input(batch_shape=samples.shape, dtype=samples.dtype.name, name="samples")
    signature = keras.InputSpec(dtype=samples.dtype.name, shape=samples.shape, name="samples")
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder) / "network.xml", keras.Model(inputs, model(inputs))
        whole.export(str(path), format="openvino", verbose=False, input_signature=[signature])
        request = openvino.Core().compile_model(path, "CPU", _options(precision)).create_infer_request()
    return lambda batch: np.array(request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True)[0])


def _options(precision: str | None) -> dict[str, Any]:
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS", "")  # what a task of a cluster may take
    limit = {"INFERENCE_NUM_THREADS": int(threads)} if threads.isdecimal() and int(threads) else {}
    hint = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    return {"PERFORMANCE_HINT": "LATENCY", **hint, **limit}


def imported() -> Any:
    """The package `openvino`, kept from reporting its use to its makers, which it does where it finds `openvino_telemetry`."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")
