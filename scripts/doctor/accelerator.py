"""The device that Keras' backend sees, and why it may not see one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.models.keras_settings import BACKENDS, OURS, backend_of, config_file, ignored, refused
from scripts.doctor.environment import UNSEEN, remedy, works
from scripts.doctor.finding import Answer, Finding, Surroundings, ask, names, note, ok, problem

# run by the environment's Python: the backend that Keras chooses, and its devices other than the processor
_DEVICES = """
import json
import keras
backend = keras.backend.backend()
devices = []
if backend == "tensorflow":
    import tensorflow as tf
    for device in tf.config.list_physical_devices():
        if device.device_type != "CPU":
            details = tf.config.experimental.get_device_details(device)
            devices.append(details.get("device_name", device.name))
elif backend == "jax":
    import jax
    devices = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
elif backend == "torch":
    import torch
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Metal")
print(json.dumps({"version": keras.__version__, "backend": backend, "devices": devices}))
"""


def accelerator(s: Surroundings) -> Finding:
    """What Keras would compute on, asked of Keras itself in a process of its own."""
    if not works(s):
        return UNSEEN
    backend = s.environ.get("KERAS_BACKEND") or BACKENDS[0]  # as runs choose it, not by keras.json
    answer = ask(s, [s.python, "-c", _DEVICES], TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND=backend)
    if not answer.fine:
        return _no_keras(s, answer)
    seen = json.loads(answer.out.splitlines()[-1])
    keras = f"Keras {seen['version']} on {seen['backend']}"
    if seen["devices"]:
        return ok(f"{keras} sees {names(seen['devices'])}")
    if s.accelerator == "cuda" or s.stamp("cuda").is_file():
        cause, todo = _why_unseen(s)
        return problem(f"{keras} sees no GPU, though CUDA was asked for: {cause}", todo)
    return _processor_only(s, keras)


def configuration(s: Surroundings) -> Finding:
    """What keras.json and KERAS_* say, and that no run follows it: the backend alone is chosen, by KERAS_BACKEND."""
    home: Path | None
    try:
        home = s.home
    except RuntimeError:
        home = None
    file = config_file(s.environ, home)
    try:
        backend = backend_of(s.environ)
    except InputError as error:
        return problem(str(error), "Change KERAS_BACKEND, or unset it")
    if said := refused(file):
        return problem(*said.split("; "))
    runs = f"runs compute in {OURS['floatx']}, {OURS['image_data_format']}, on {backend}"
    unheard = ignored(file, s.environ)
    return ok(f"{runs}; not followed: {names(unheard)} ({file})" if unheard else runs)


def _no_keras(s: Surroundings, answer: Answer) -> Finding:
    backend = s.environ.get("KERAS_BACKEND", "")
    if backend not in ("", "tensorflow"):
        return problem(
            f"Keras does not start on KERAS_BACKEND={backend} ({answer.cause})",
            f"Only TensorFlow is pinned: install {backend} into .venv, or unset KERAS_BACKEND",
        )
    return problem(
        f"Keras does not start ({answer.cause})",
        f"{remedy(answer.cause)}",
    )


def _processor_only(s: Surroundings, keras: str) -> Finding:
    driver = _driver(s)
    if driver is not None and driver.fine and driver.out.strip():
        return note(
            f"{keras} computes on the processor, while the driver sees {_first(driver)}",
            "Put it to use with make setup ACCELERATOR=cuda",
        )
    return note(
        f"{keras} computes on the processor",
        "That is enough for make demo; five folds of Inception V3 cut at mixed7 on statefarm_mini took at most 100 "
        "minutes on two cores, and the full competition has six times its training photos",
    )


def _why_unseen(s: Surroundings) -> tuple[str, str]:
    """The likely cause and its remedy, where CUDA was asked for."""
    if s.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every device", "Show them again: unset CUDA_VISIBLE_DEVICES"
    driver = _driver(s)
    if driver is None:
        return "nvidia-smi is missing", "Install the NVIDIA driver (in a container: start it with its GPUs passed in)"
    if not driver.fine or not driver.out.strip():
        said = _first(driver) or driver.cause
        return f"nvidia-smi says: {said}", "Mend the driver; after an update of it, restart the machine"
    if not s.stamp("cuda").is_file():
        return f"the driver sees {_first(driver)}, but CUDA is not in .venv", "Add it: make setup ACCELERATOR=cuda"
    return (
        f"the driver sees {_first(driver)}, but its libraries do not load",
        "Unset LD_LIBRARY_PATH if it names another CUDA, update the driver, or build anew: "
        "rm -rf .venv && make setup ACCELERATOR=cuda",
    )


def _driver(s: Surroundings) -> Answer | None:
    """What `nvidia-smi -L` says; None where there is no such program."""
    program = shutil.which("nvidia-smi", path=s.environ.get("PATH"))
    return ask(s, [program, "-L"]) if program else None


def _first(answer: Answer) -> str:
    """The first device without its serial number, or the first line of a complaint."""
    return answer.out.strip().split("\n")[0].split(" (UUID")[0][:160]
