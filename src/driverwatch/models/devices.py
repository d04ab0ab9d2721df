"""Several accelerators in one process: each has a copy of the network, and an equal part of every batch.

JAX does it by Keras' own `DataParallel`, which shards arrays and keeps the meaning of every operation: statistics, dropout and
losses are those of the whole batch. TensorFlow does it by its `MirroredStrategy`: each device runs the step on its part, and
gradients are summed; what is to be of the whole batch must be asked for.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import keras
import numpy as np

from driverwatch.config.model import ACCELERATOR_CROPS, PROCESSOR_CROPS
from driverwatch.errors import InputError
from driverwatch.io.console import say


@dataclass(frozen=True)
class Devices:
    """What trains: one device, in which case nothing here does anything, or several.

    What is trained (networks, optimizers) must be made and fitted in `scope()`. What only predicts is made outside: under
    TensorFlow it computes on the first device, under JAX all devices compute the same.
    """

    count: int = 1
    strategy: Any = None  # TensorFlow's strategy or Keras' distribution

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.strategy is None else self.strategy.scope()

    @property
    def _has_replicas(self) -> bool:
        return self.strategy is not None and keras.backend.backend() == "tensorflow"

    def synchronize(self, model: keras.Model) -> None:
        """Let normalisation that learns take its statistics over the whole batch; only TensorFlow must be asked."""
        for layer in model._flatten_layers() if self._has_replicas else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = layer.trainable

    def seed(self, state: Any, value: np.ndarray) -> None:
        """Set a dropout's random state, uint32 (2,); TensorFlow's devices get a different one each, or their parts would
        all drop the same units.
        """
        state.assign(value)
        for i, copy in enumerate(self.strategy.experimental_local_results(state.value) if self._has_replicas else ()):
            copy.assign(np.add(value, (i, 0)).astype(copy.dtype.as_numpy_dtype))


ONE = Devices()


def devices(asked: int | Literal["all"], batch: int) -> Devices:
    """Those that `train.devices` asks for, of the kind that the backend computes on: accelerators, or the processor.

    Raises:
        InputError: more than there are, several under PyTorch, or a `batch` (images in a step) that cannot be split evenly.
    """
    if asked == 1:
        return ONE
    backend = keras.backend.backend()
    found = LISTED[backend]()
    count = len(found) if asked == "all" else asked
    if count > len(found):
        raise InputError(
            f"train.devices: {asked}: {backend} sees {len(found)} ({', '.join(found)}); ask for no more, or for all"
        )
    if count == 1:
        return ONE
    if backend == "torch":
        raise InputError(
            f"train.devices: {asked}: under PyTorch a fold trains on one device, got {count}; set 1 (CUDA_VISIBLE_DEVICES "
            "says which), or take KERAS_BACKEND=tensorflow or jax"
        )
    if batch % count:
        raise InputError(
            f"train.batch_size: {batch} images cannot be split evenly over {count} devices; take a multiple of {count}, such as "
            f"{-(-batch // count) * count}, or fewer train.devices"
        )
    names = found[:count]
    return Devices(count, _strategy(*names) if backend == "tensorflow" else Parts(devices=names))


def _of_tensorflow() -> list[str]:
    import tensorflow as tf

    return [one.name for one in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]


def _of_torch() -> list[str]:
    torch: Any = sys.modules["torch"]  # Keras has imported it
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]


@cache  # a second strategy in one process would number its exchanges as the first did, and meet what that left
def _strategy(*names: str) -> Any:
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(names))


class Parts(keras.distribution.DataParallel):
    """Batches that cannot be split evenly go to every device whole, where `DataParallel` fails."""

    def get_data_layout(self, data_shape: tuple[int, ...]) -> Any:
        if data_shape[0] % self.device_mesh.devices.size:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return super().get_data_layout(data_shape)


def on_processor() -> bool:
    """Whether Keras computes on the processor, because there is no accelerator."""
    return all("cpu" in name.lower() for name in LISTED[keras.backend.backend()]())


def accelerators() -> list[str]:
    """What the backend's accelerators are called, as their maker names them: ["Tesla T4", "Tesla T4"]; none on a processor."""
    backend = keras.backend.backend()
    library: Any = sys.modules[backend]  # Keras has imported it
    if backend == "tensorflow":
        found, details = library.config.list_physical_devices("GPU"), library.config.experimental.get_device_details
        return [details(one).get("device_name", one.name) for one in found]
    if backend == "jax":
        return [one.device_kind for one in library.devices() if one.platform != "cpu"]
    return [library.cuda.get_device_name(i) for i in range(library.cuda.device_count())]


def crops_in_a_pass(asked: int | Literal["auto"]) -> int:
    """`predict.batch_size` as a number: as asked, or by what Keras computes on."""
    return asked if asked != "auto" else PROCESSOR_CROPS if on_processor() else ACCELERATOR_CROPS


class ForwardPasses:
    """Forward passes of one network, NumPy in and out: in parts from where a whole batch has not fitted into memory."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.parts = model, 1

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The network's answer to `samples` (B, ...). Raises what Keras does, of memory only where one sample is too large."""
        while True:
            try:
                parts = np.array_split(samples, self.parts)
                return np.concatenate([np.asarray(self.model.predict_on_batch(part)) for part in parts])
            except Exception as error:
                if not _is_of_memory(error) or self.parts >= len(samples):
                    raise
            self.parts = min(2 * self.parts, len(samples))
            say(
                f"not enough memory for {len(samples)} images in one pass; {-(-len(samples) // self.parts)} from now on"
            )


def _is_of_memory(error: Exception) -> bool:
    """Whether TensorFlow, JAX, PyTorch or NumPy could not have the memory that it asked for: each has a class of its own."""
    text = f"{type(error).__name__} {error}".lower()
    return any(words in text for words in ("resourceexhausted", "resource_exhausted", "out of memory", "memoryerror"))


LISTED: dict[str, Callable[[], list[str]]] = {
    "tensorflow": _of_tensorflow,
    "jax": keras.distribution.list_devices,
    "torch": _of_torch,
}
