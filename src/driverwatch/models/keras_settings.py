"""What a machine says of Keras beside a run's settings (keras.json, KERAS_*): known, shown, and never followed.

Keras reads them when it is imported. A run's numbers depend on its own settings alone, and on the backend that KERAS_BACKEND
names. No Keras is needed for this, so that the doctor shows it.
"""

import json
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from driverwatch.errors import InputError, nearest
from driverwatch.paths import user_path

BACKENDS = ("tensorflow", "jax", "torch")  # that train; the first one is taken where KERAS_BACKEND names none
OURS: dict[str, Any] = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}
CAPS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")  # Keras would cut epochs short by them without a word
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
    if content is None or not isinstance(content, dict):
        return (
            None
            if content is None
            else f"{path}: expected a JSON object, Keras fails on anything else; remove the file"
        )
    for key, takes in TAKEN.items():
        if key in content and not takes(content[key]):
            return (
                f"{path}: {key}: {content[key]!r:.60} is nothing that Keras takes; remove that line (no run follows it)"
            )
    return None


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
        raise InputError(
            f"KERAS_BACKEND={name}: expected {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}{nearest(name, list(BACKENDS))}"
        )
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
