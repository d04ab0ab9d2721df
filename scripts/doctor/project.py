"""Checks of what `.venv`, Keras and the data set are fit for: run by the Python of `.venv`, with its libraries."""

import json
import shutil
import stat
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.dataset import DatasetSettings, folder_of
from driverwatch.config.loading import load
from driverwatch.errors import InputError
from driverwatch.io.manifests import commit, is_own
from driverwatch.io.paths import PathError, programs_home, user_path
from driverwatch.models.backend import BACKENDS, OURS, backend_of, config_file, ignored, refused
from driverwatch.models.weight_files import installed
from driverwatch.submission import kaggle_client
from scripts.doctor import machine
from scripts.doctor.machine import REBUILD, Answer, Finding, Surroundings, ask, names, note, ok, problem

LIBRARIES = [
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "h5py",
    "cv2",
    "simplejpeg",
    "PIL",
    "pydantic",
    "yaml",
    "albumentations",
]

# each name is written before its import: the last one without a version is what a crash died of
_IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, end=" ", flush=True)
    print(getattr(importlib.import_module(name), "__version__", "?"), flush=True)
"""

# the backend that Keras chooses, and its devices other than the processor
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


def git(s: Surroundings) -> Finding:
    """A clone, so that artefacts can record the commit that made them."""
    todo = "Install git and clone the repository, so that what is made can record its commit; everything works without"
    if shutil.which("git", path=s.environ.get("PATH")) is None:
        return note("git is missing", todo)
    answer = ask(s, ["git", "rev-parse", "--show-toplevel", "HEAD"], LC_ALL="C")
    if "ownership" in answer.cause or "safe.directory" in answer.cause:
        todo = f'git config --global --add safe.directory "{s.root.absolute()}"'
        return note("this clone belongs to another user", todo)
    if answer.cause:
        return note("this folder is not a clone with a commit", todo)
    if not is_own(s.root):
        return note(f"this folder is in another project's clone ({answer.out.splitlines()[0]})", todo)
    return ok(f"a clone at {commit(s.root.resolve())}")


def packages(s: Surroundings) -> Finding:
    """Installed versions against the pins of this accelerator's requirements."""
    if not s.requirements.is_file():
        known = sorted(path.stem for path in s.requirements.parent.glob("c*.txt"))
        return problem(
            f"ACCELERATOR={s.accelerator} has no {s.requirements}", f"Known are: {', '.join(known) or 'none'}"
        )
    lines = (line.partition("#")[0].strip(" \\") for line in s.requirements.read_text(encoding="utf-8").splitlines())
    pins = [Requirement(line) for line in lines if line and not line.startswith("-")]
    wanted = {pin.name: pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    there = {name: _installed(name) for name in wanted}
    missing = [name for name, version in there.items() if version is None]
    other = [
        f"{name} {version} (pinned: {str(wanted[name].specifier).lstrip('=')})"
        for name, version in there.items()
        if version is not None and not wanted[name].specifier.contains(version, prereleases=True)
    ]
    again = f"Install the pins: rm -f {s.stamp(s.accelerator)} && make setup ACCELERATOR={s.accelerator}"
    if missing:
        return problem(f"{len(missing)} of {len(wanted)} pinned packages are missing: {names(missing)}", again)
    if other:
        return note(f"{len(other)} of {len(wanted)} pinned packages in another version: {names(other)}", again)
    return ok(f"{len(wanted)} as pinned")


def _installed(name: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def libraries(s: Surroundings) -> Finding:
    """The libraries below Keras, imported in one process of their own, since a broken one may crash."""
    answer = ask(s, [s.python, "-c", _IMPORTS, *LIBRARIES], NO_ALBUMENTATIONS_UPDATE="1")
    lines = answer.out.splitlines()
    if not answer.cause:
        return ok(", ".join(lines))
    culprit = lines[-1].strip() if lines else "Python"
    return problem(f"{culprit} cannot be imported ({answer.cause})", _remedy(answer.cause))


def _remedy(cause: str) -> str:
    """What to do about an import that failed."""
    if "GLIBC" in cause:
        return "The system is older than the wheels: use a newer distribution"
    if "SIGILL" in cause:
        return "The processor lacks instructions that the wheels use (AVX): use another machine"
    if any(sign in cause for sign in ("SIGKILL", "map segment", "allocate memory", "MemoryError")):
        return "Memory ran out: see memory and limits above"
    if "within" in cause:
        return "The disk or the machine is very slow: run the doctor again, now that files are cached"
    return REBUILD


def keras_configuration(s: Surroundings) -> Finding:
    """What keras.json and KERAS_* say, and that no run follows it: the backend alone is chosen, by KERAS_BACKEND."""
    file = config_file(s.environ, programs_home(s.environ))
    backend = backend_of(s.environ)
    if reason := refused(file):
        return problem(*reason.split("; ", 1))
    runs = f"runs compute in {OURS['floatx']}, {OURS['image_data_format']}, on {backend}"
    unheard = ignored(file, s.environ)
    return ok(f"{runs}; not followed: {names(unheard)} ({file})" if unheard else runs)


def accelerator(s: Surroundings) -> Finding:
    """What Keras computes on, asked of Keras itself in a process of its own."""
    backend = s.environ.get("KERAS_BACKEND") or BACKENDS[0]  # as runs choose it, not by keras.json
    answer = ask(s, [s.python, "-c", _DEVICES], TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND=backend)
    if answer.cause:
        todo = _remedy(answer.cause)
        if backend != BACKENDS[0]:
            todo = f"Only TensorFlow is pinned: install {backend} into .venv, or unset KERAS_BACKEND"
        return problem(f"Keras does not start on KERAS_BACKEND={backend} ({answer.cause})", todo)
    seen = json.loads(answer.out.splitlines()[-1])
    keras = f"Keras {seen['version']} on {seen['backend']}"
    if seen["devices"]:
        return ok(f"{keras} sees {names(seen['devices'])}")
    program = shutil.which("nvidia-smi", path=s.environ.get("PATH"))
    driver = ask(s, [program, "-L"]) if program else None
    if s.accelerator == "cuda" or s.stamp("cuda").is_file():
        cause, todo = _why_unseen(s, driver)
        return problem(f"{keras} sees no GPU, though CUDA was asked for: {cause}", todo)
    if driver is not None and not driver.cause and driver.out.strip():
        found = f"{keras} computes on the processor, while the driver sees {_first(driver)}"
        return note(found, "Use the GPU with make setup ACCELERATOR=cuda")
    return note(
        f"{keras} computes on the processor",
        "That is enough for make demo; five folds of Inception V3 cut at mixed7 on statefarm_mini took at most 100 "
        "minutes on two cores, and the full competition has six times its training images",
    )


def _why_unseen(s: Surroundings, driver: Answer | None) -> tuple[str, str]:
    """The likely cause and its remedy, where CUDA was asked for; `driver` is what `nvidia-smi -L` says, if there is one."""
    if s.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every device", "Show them again: unset CUDA_VISIBLE_DEVICES"
    if driver is None:
        return "nvidia-smi is missing", "Install the NVIDIA driver (in a container: start it with its GPUs passed in)"
    if driver.cause or not driver.out.strip():
        return (
            f"nvidia-smi says: {_first(driver) or driver.cause}",
            "Repair the driver; after an update of it, restart the machine",
        )
    if not s.stamp("cuda").is_file():
        return f"the driver sees {_first(driver)}, but CUDA is not in .venv", "Add it: make setup ACCELERATOR=cuda"
    return (
        f"the driver sees {_first(driver)}, but its libraries do not load",
        "Unset LD_LIBRARY_PATH if it names another CUDA, update the driver, or build from scratch: "
        "rm -rf .venv && make setup ACCELERATOR=cuda",
    )


def _first(answer: Answer) -> str:
    """The first device without its serial number, or the first line of a complaint."""
    return answer.out.strip().split("\n")[0].split(" (UUID")[0][:160]


def _dataset_settings(s: Surroundings) -> DatasetSettings:
    """The data set's YAML. Raises `InputError` where there is none, or one that does not fit."""
    return load(DatasetSettings, s.root / "configs/datasets", s.dataset)


def data_folder(s: Surroundings) -> Path:
    """DATA, or the folder that the data set's YAML names."""
    return s.root / user_path(s.data or _dataset_settings(s).data, s.environ)


def disk(s: Surroundings) -> Finding:
    """Free space, with the data set's own folder in mind where its settings can be read."""
    try:
        data = data_folder(s)
        return machine.disk(s, data, (data / folder_of(_dataset_settings(s).test_images)).is_dir())
    except PathError:
        raise
    except InputError:
        return machine.disk(s)


def dataset(s: Surroundings) -> Finding:
    """The data set's files: without the tables and training images packing is refused, but not without test images."""
    settings, folder = _dataset_settings(s), data_folder(s)
    if not folder.is_dir():
        return (problem if s.data else note)(f"{s.dataset}: there is no folder {folder}", _how_to_get(s, settings))
    train, test = (folder_of(each).as_posix() for each in (settings.train_images, settings.test_images))
    needed = [settings.table, train, settings.sample_submission]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        return problem(f"{s.dataset}: {folder} lacks {', '.join(missing)}", _how_to_get(s, settings))
    if not (folder / test).is_dir():
        return note(f"{s.dataset}: {folder} lacks {test}", "Training works; submissions need the test images")
    held = dict.fromkeys(name for name in (*needed, test) if name != ".")
    return ok(f"{s.dataset}: {folder} holds {', '.join(held)}")


def _how_to_get(s: Surroundings, settings: DatasetSettings) -> str:
    if settings.subset is not None:
        return f"make subset SOURCE=<full download> DATASET={s.dataset} fills it, or DATA= names where the images are"
    if settings.slug is not None:
        return "Unpack the competition there (README, The full competition), or DATA= names where it is"
    if settings.test_labels is not None:
        return f"make synthetic DATASET={s.dataset} draws it"
    return "Put its files there, or DATA= names where they are"


def made(s: Surroundings) -> Finding:
    """What has been made of this data set: folds, packs, runs."""
    if not (s.root / "configs/datasets" / f"{s.dataset}.yaml").is_file():
        return note("not looked at, for want of a data set", "See data set")
    build = s.root / "build" / s.dataset
    packs, runs = (sorted(each.name for each in build.glob(f"{kind}/[!.]*/")) for kind in ("pack", "runs"))
    found = f"packs: {names(packs) or 'none'}; runs: {names(runs) or 'none'}"
    folds = f"folds/{s.dataset}.csv"
    if not (s.root / folds).is_file():
        return note(f"no {folds}; {found}", f"make folds DATASET={s.dataset} writes it, once the data is there")
    return ok(f"{folds}; {found}")


def weights(s: Surroundings) -> Finding:
    """ImageNet weights per backbone: in WEIGHTS, in an installed package, in Keras' own cache, or nowhere."""
    published = {name: row for name, row in BACKBONES.items() if row.weight_files}
    local: list[str] = []
    if s.weights:
        folder = s.root / user_path(s.weights, s.environ)
        if not folder.is_dir():
            return problem(f"WEIGHTS={s.weights} is no folder", "Name the folder that holds the weight files")
        local = [name for name, row in published.items() if _holds(folder, row.weight_files)]
        if not local:
            looked = "The names looked for are in src/driverwatch/backbones.csv"
            return problem(f"WEIGHTS={s.weights} holds no weight file of a known name", looked)
    kept = s.environ.get("KERAS_HOME", "")
    cache = (s.root / user_path(kept, s.environ) if kept else programs_home(s.environ) / ".keras") / "models"
    cached = [name for name, row in published.items() if row.downloads and _holds(cache, (row.backbone.official,))]
    packaged = [name for name, row in published.items() if row.package and installed(row.package)]
    places = {"WEIGHTS": local, "installed packages": packaged, "Keras' cache": cached}
    found = "; ".join(f"{place}: {', '.join(names) or 'none'}" for place, names in places.items())
    rest = [name for name in published if name not in {*local, *packaged, *cached}]
    return note(found, _still_to_come(rest)) if rest else ok(found)


def _holds(folder: Path, files: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() and (folder / name).stat().st_size > 0 for name in files)


def _still_to_come(rest: list[str]) -> str:
    """Where the weights of these backbones come from."""
    extra = [name for name in rest if BACKBONES[name].package]
    downloads = [name for name in rest if BACKBONES[name].downloads]
    converted = [name for name in rest if BACKBONES[name].checkpoint and name not in downloads]
    files = {name: BACKBONES[name].weight_files[0] for name in rest if name not in (*extra, *downloads, *converted)}
    listed = ", ".join(f"{name} ({file})" for name, file in files.items())
    sources = {
        f"make setup EXTRAS=weights installs {', '.join(extra)}": extra,
        f"Keras downloads {names(downloads)} on first use": downloads,
        f"make convert makes {', '.join(converted)} of PyTorch checkpoints": converted,
        f"{listed} must be in WEIGHTS=<folder>": files,
    }
    return "; ".join(text for text, there in sources.items() if there)


def kaggle_token(s: Surroundings) -> Finding:
    """A token in the environment comes first, then the files, in the order in which the client looks; none is ever printed."""
    pair = {"KAGGLE_USERNAME", "KAGGLE_KEY"}
    given = {name for name in (*pair, "KAGGLE_API_TOKEN") if s.environ.get(name, "").strip()}
    if given >= pair or "KAGGLE_API_TOKEN" in given:
        return ok(f"in the environment: {', '.join(sorted(given))}")
    if given:
        found = f"{given.pop()} is set without the other of {' and '.join(sorted(pair))}"
        return problem(found, "Set both, or neither and keep the token in a file")
    at_home = programs_home(s.environ)
    usual, folder = at_home / ".kaggle", kaggle_client.folder(s.environ, at_home)
    files = [usual / "access_token", usual / "access_token.txt", folder / "kaggle.json", usual / "credentials.json"]
    if there := next(filter(Path.exists, files), None):
        return _token_file(there)
    return note(
        f"none in the environment nor in {folder}",
        "Only make data and make submit need one: create it under Settings, API on kaggle.com, put it into the variable "
        "KAGGLE_API_TOKEN or save it as ~/.kaggle/kaggle.json (or ~/.kaggle/access_token) and chmod 600 the file",
    )


def _token_file(path: Path) -> Finding:
    """What is wrong with a token file; errors are named by kind, since their text may quote the file."""
    again = "Create a new token under Settings, API on kaggle.com and save its file there"
    try:
        content = path.read_bytes()
        text = content.decode(json.detect_encoding(content)).strip()
        fields = json.loads(text) if path.suffix == ".json" else {}
    except OSError as error:
        return problem(f"{path} cannot be read ({error.strerror})", "Make it a file of your own: chmod 600")
    except (ValueError, RecursionError):
        text, fields = "", None
    if path.name == "kaggle.json" and not (isinstance(fields, dict) and fields.get("username") and fields.get("key")):
        return problem(f"{path} is not a JSON object with username and key", again)
    if not text:
        return problem(f"{path} is empty or no text", again)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return note(f"{path}, which others on this machine may read", f'Make it private: chmod 600 "{path}"')
    return ok(str(path))


Check = Callable[[Surroundings], Finding]


def _in_one_sentence(check: Check) -> Check:
    """The check, with bad input that it comes upon as a problem."""

    def run(s: Surroundings) -> Finding:
        try:
            return check(s)
        except InputError as error:
            return problem(str(error), "Change it or unset it, and run make doctor again")

    return run


CHECKS: dict[str, Check] = {
    "git": git,
    "disk": disk,
    "packages": packages,
    "libraries": libraries,
    "Keras": keras_configuration,
    "accelerator": accelerator,
    "data set": dataset,
    "made": made,
    "weights": weights,
    "Kaggle token": kaggle_token,
}
CHECKS = {title: _in_one_sentence(check) for title, check in CHECKS.items()}
