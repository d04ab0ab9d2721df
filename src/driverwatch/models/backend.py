"""Keras started, seeded and saved alike everywhere: what a machine says of it (keras.json, KERAS_*) is shown, never followed.

A run's numbers depend on its own settings alone, and on the backend that KERAS_BACKEND names. The doctor shows it without Keras.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.errors import InputError, nearest, words
from driverwatch.io.atomic import replacing
from driverwatch.io.hdf5 import UNREADABLE, created, opened
from driverwatch.io.paths import home, user_path

BACKENDS = ("tensorflow", "jax", "torch")  # that train; the first one is taken where KERAS_BACKEND names none
OURS: dict[str, Any] = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}
CAPPED = ("max_epochs", "max_steps_per_epoch")  # Keras would cut epochs short by them without a word
CAPS = tuple(f"KERAS_{name.upper()}" for name in CAPPED)
TAKEN = {  # what Keras does not refuse to be imported with
    "floatx": lambda value: value in ("float16", "float32", "float64"),
    "epsilon": lambda value: isinstance(value, float),
    "image_data_format": lambda value: value in ("channels_last", "channels_first"),
}


def config_file(environ: Mapping[str, str], home: Path | None) -> Path:
    """The keras.json that Keras reads: in KERAS_HOME, or in .keras of a home folder that can be written, else of /tmp."""
    if environ.get("KERAS_HOME"):
        return user_path(environ["KERAS_HOME"], environ) / "keras.json"
    usable = home is not None and os.access(str(home), os.W_OK)
    return (home if home is not None and usable else Path("/tmp")) / ".keras" / "keras.json"


def refused(path: Path) -> str | None:
    """Why Keras would not be imported beside this keras.json, in one sentence; None: it would, or there is none."""
    content = _content(path)
    if not isinstance(content, dict | None):
        return f"{path}: expected a JSON object, Keras fails on anything else; remove the file"
    stated: dict[str, Any] = content or {}
    wrong = [f"{key}: {stated[key]!r:.60}" for key, takes in TAKEN.items() if key in stated and not takes(stated[key])]
    return f"{path}: {wrong[0]} is nothing that Keras takes; remove that line (no run follows it)" if wrong else None


def ignored(path: Path, environ: Mapping[str, str]) -> list[str]:
    """What keras.json and the environment ask for and no run follows, one `key: value` each."""
    content = _content(path)
    stated = content if isinstance(content, dict) else {}
    expected = {**OURS, "backend": backend_of(environ), "nnx_enabled": False}
    found = [f"{key}: {stated[key]}" for key, ours in expected.items() if key in stated and stated[key] != ours]
    return found + [f"{name}={environ[name]}" for name in (*CAPS, "KERAS_NNX_ENABLED") if environ.get(name)]


def backend_of(environ: Mapping[str, str]) -> str:
    """The backend that KERAS_BACKEND names, else TensorFlow.

    Raises:
        InputError: none of those that train.
    """
    name = environ.get("KERAS_BACKEND") or BACKENDS[0]
    if name not in BACKENDS:
        expected = f"{', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}"
        raise InputError(f"KERAS_BACKEND={name}: expected {expected}{nearest(name, list(BACKENDS))}")
    return name


def settle(environ: MutableMapping[str, str], home: Path | None) -> None:
    """Set the environment, that of processes to come too, so that Keras is imported as runs need it.

    Raises:
        InputError: a backend that cannot train, or a keras.json that Keras fails on.
    """
    environ["KERAS_BACKEND"] = backend_of(environ)
    environ["KERAS_NNX_ENABLED"] = "false"
    for name in CAPS:
        environ.pop(name, None)
    if said := refused(config_file(environ, home)):
        raise InputError(said)


def _content(path: Path) -> Any:
    """What Keras reads of a file; None where it reads nothing, which it does of what is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def start() -> None:
    """Import Keras and touch the device once, with stderr held back: TensorFlow logs a screenful of notes while it loads.

    What was held back is shown if the import fails. `VIRTUAL_DEVICES=2` in the environment makes two devices of the processor,
    to try `train.devices` where there are no others. Whatever this machine says of Keras (keras.json, KERAS_*, a global dtype
    preset) is set back to what runs need: every process that computes begins here.
    """
    settle(os.environ, home())
    virtual = _virtual_devices()
    if virtual > 1:  # read by JAX when it is first imported
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={virtual}"
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import keras

            for name, value in {**OURS, "dtype_policy": OURS["floatx"], **dict.fromkeys(CAPPED)}.items():
                getattr(keras.config, f"set_{name}")(value)  # what Keras read before it was imported, or was set since
            if virtual > 1 and keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                parts = [tf.config.LogicalDeviceConfiguration()] * virtual
                tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
            keras.ops.zeros(1)
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _virtual_devices() -> int:
    asked = os.environ.get("VIRTUAL_DEVICES") or "1"
    if not asked.isdecimal() or not 1 <= int(asked) <= 64:
        expected = "a number from 1 to 64, of devices to make of the processor"
        raise InputError(f"VIRTUAL_DEVICES={asked}: expected {expected}")
    return int(asked)


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Layers that are made meanwhile compute in `precision`, a dtype preset of Keras'; `auto` is float32 where nothing trains."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "auto" else precision)
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


def write_state(path: Path, groups: dict[str, list[Any]], attributes: dict[str, str]) -> None:
    """Write variables (or arrays), in order, as HDF5 `<group>/<number>`, each with its name; whole or not at all."""
    import keras  # not to read what a fold's checkpoint says of its progress

    sizes = [4 * int(np.prod(v.shape)) + 1000 for variables in groups.values() for v in variables]
    with replacing(path) as temporary, created(temporary, sum(sizes)) as file:
        for group, variables in groups.items():
            file.create_group(group)
            for i, variable in enumerate(variables):
                value = keras.ops.convert_to_numpy(variable)
                file[group].create_dataset(f"{i:04d}", data=value).attrs["name"] = getattr(variable, "path", "")
        file.attrs.update(attributes)


def load_state(path: Path, groups: dict[str, list[Any]]) -> dict[str, str]:
    """Assign what `write_state` wrote; return its attributes.

    Raises:
        InputError: not a whole state file, or one of other variables (number and shapes are compared).
    """
    try:
        with opened(path) as file:
            for group, variables in groups.items():
                found = [file[group][key] for key in sorted(file[group])]
                if strange := next((one.name for one in found if one.dtype.kind not in "fiub"), None):
                    raise ValueError(f"{strange} holds no numbers")
                if [one.shape for one in found] != [tuple(v.shape) for v in variables]:
                    there = f"holds {len(found)} arrays of other shapes than the {len(variables)} in {group}"
                    raise InputError(f"{path}: {there}; it is another network's")
                for variable, value in zip(variables, found, strict=True):
                    variable.assign(value[...])
            return dict(file.attrs)
    except UNREADABLE as error:
        raise InputError(f"{path}: not a whole state file ({words(error)}); remove it and run again") from error


def is_finite(variables: list[Any]) -> bool:
    """Whether every number of the variables that hold floats is finite."""
    import keras

    floats = [variable for variable in variables if keras.backend.is_float_dtype(variable.dtype)]
    return all(bool(keras.ops.all(keras.ops.isfinite(variable))) for variable in floats)
