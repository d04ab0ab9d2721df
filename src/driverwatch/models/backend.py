"""Keras' backend: started without its chatter, made repeatable."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from driverwatch.errors import InputError
from driverwatch.models import keras_settings
from driverwatch.paths import home


def start() -> None:
    """Import Keras and touch the device once, with stderr held back: TensorFlow logs a screenful of notes while it loads.

    What was held back is shown if the import fails. `VIRTUAL_DEVICES=2` in the environment makes two devices of the processor,
    to try `train.devices` where there are no others. Whatever this machine says of Keras (keras.json, KERAS_*, a global dtype
    policy) is set back to what runs need: every process that computes begins here.
    """
    keras_settings.settle(os.environ, home())
    virtual = _virtual_devices()
    if virtual > 1:  # read by JAX when it is first imported
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={virtual}"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import keras

            _as_runs_need_it()
            if virtual > 1 and keras.backend.backend() == "tensorflow":
                _divide_processor(virtual)
            keras.ops.zeros(1)
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _as_runs_need_it() -> None:
    """Set what Keras may have read of this machine before it was imported, or what was set in this process since."""
    import keras

    keras.config.set_floatx(keras_settings.OURS["floatx"])
    keras.config.set_epsilon(keras_settings.OURS["epsilon"])
    keras.config.set_image_data_format(keras_settings.OURS["image_data_format"])
    keras.config.set_dtype_policy(keras_settings.OURS["floatx"])
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def _virtual_devices() -> int:
    asked = os.environ.get("VIRTUAL_DEVICES") or "1"
    if not asked.isdecimal() or not 1 <= int(asked) <= 64:
        raise InputError(
            f"VIRTUAL_DEVICES={asked}: expected a number from 1 to 64, of devices to make of the processor"
        )
    return int(asked)


def _divide_processor(count: int) -> None:
    import tensorflow as tf

    made = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], made)


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Layers that are made meanwhile compute in `precision`, a dtype policy of Keras'."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def deterministic(seed: int) -> None:
    """Seed every library and ask for deterministic kernels where the backend must be asked (TensorFlow)."""
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
