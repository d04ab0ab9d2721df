"""From a model's settings to a folder that Kaggle's client pushes: a notebook, and a data set with all that it needs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from driverwatch.artifacts import provenance
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.remote import notebook_cells as notebook
from driverwatch.remote import project_file
from driverwatch.remote.notebook_cells import Wheels
from driverwatch.remote.notebook_settings import LIMIT, Plan, Publication
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.submission import kaggle_credentials as credentials
from driverwatch.submission.download import slug_of
from driverwatch.submission.kaggle_client import INSTALLED
from driverwatch.terminal import say
from driverwatch.typed_yaml import parse
from driverwatch.wording import close
from driverwatch.writing import making, replacing_folder, write_json, write_text

SOURCES = ("pyproject.toml", "README.md", "LICENSE")  # with src, what a wheel is made of
EPOCH = "315532800"  # 1980, a zip's first second: the same source gives the same wheel
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")  # that Kaggle's image can load
FILES = "dataset"


def make_notebook(
    context: Context, settings: ModelSettings, plan: dict[str, Any], publication: dict[str, Any], weights: Path | None
) -> None:
    """Write `build/<dataset>/notebook/<name>/`, whole or not at all.

    Args:
        plan: as `Plan`, but `notebook`.
        publication: as `Publication`; `account` and `name` may be missing.
        weights: folder that holds the model's weight file, which then travels along.

    Raises:
        InputError: no competition, no fold file, no account, a name that Kaggle would not take, or a wheel that cannot be had.
    """
    start, slug = time.monotonic(), slug_of(context)
    given = {"account": credentials.username(), "name": named_after(plan["run"]), **publication}
    if not given["account"]:
        raise InputError("make notebook needs ACCOUNT=..., your name in Kaggle's addresses (no token here says it)")
    ours = parse(Publication, given, "make notebook")
    mine = parse(Plan, {"notebook": ours.notebook, **plan}, "make notebook")
    needed = weight_files.find(settings, weights)
    folder = context.places.notebook(ours.name)
    with making(folder), replacing_folder(folder) as partial:
        files = partial / FILES
        files.mkdir()
        facts = {"commit": provenance()["commit"]}
        project_file.pack(context.places.root, context.dataset, files / project_file.FILE, facts)
        wheels = gathered(context.places.root, files, ours)
        if needed is not None:
            shutil.copyfile(needed, files / needed.name)
        write_json(files / "dataset-metadata.json", notebook.dataset_metadata(ours))
        sources = notebook.cells(mine, ours, wheels, context.settings.title, LIMIT)
        write_text(partial / notebook.CODE_FILE, notebook.text_of(sources))
        internet = not wheels.all_there or (needed is None and settings.weights != "none")
        write_json(partial / "kernel-metadata.json", notebook.kernel_metadata(ours, slug, internet))
        size = sum(path.stat().st_size for path in files.iterdir())
    said = f"a notebook, and a data set of {size / 1e6:.1f} MB; internet {'on' if internet else 'off'}"
    close(folder, said, time.monotonic() - start, then=commands(folder, ours, context.dataset))


def named_after(run: str) -> str:
    """A run's name as Kaggle would make an address of it."""
    return "-".join(["driverwatch", *re.findall("[a-z0-9]+", run.lower())])


def commands(folder: Path, ours: Publication, dataset: str) -> list[str]:
    """How it goes up and comes back."""
    client, files, home = str(INSTALLED), f"-p {folder / FILES}", f"build/{dataset}/from_kaggle"
    up = f"{client} datasets create {files}"
    if ours.earlier:  # a version has run, so they are there
        up = f'{client} datasets version {files} -m "again"   # only if anything but EARLIER has changed'
    return [
        *([] if INSTALLED.is_file() else ["make client   # the official one, once"]),
        up,
        f"{client} datasets status {ours.files}   # until it says ready",
        f"{client} kernels push -p {folder}",
        f"{client} kernels output {ours.notebook} -p {home}   # when it has ended",
        f"make take FROM={home} DATASET={dataset}",
    ]


def gathered(root: Path, target: Path, ours: Publication) -> Wheels:
    """Put this project's wheel, and with `vendor` those of other packages, into `target`.

    Raises:
        InputError: a package that is not installed here, or wheels that cannot be built or fetched.
    """
    build_wheel(root, target)
    pins = [f"{name}=={_installed(name)}" for name in ours.packages]
    if ours.vendor:
        for python in ours.pythons:
            _fetch(pins, python, target)
    return Wheels((f"driverwatch=={_version(target)}", *pins), ours.vendor or not pins)


def build_wheel(root: Path, target: Path) -> None:
    """Build this project's wheel from a copy, since setuptools leaves its own `build/` and would find old files in it."""
    if missing := [name for name in (*SOURCES, "src") if not (root / name).exists()]:
        raise InputError(f"{root.absolute()}: lacks {', '.join(missing)}; make notebook runs in the repository's root")
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCES:
            shutil.copyfile(root / name, Path(copy) / name)
        unmade = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
        shutil.copytree(root / "src", Path(copy) / "src", ignore=unmade)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target), copy)


def _version(target: Path) -> str:
    (wheel,) = target.glob("driverwatch-*.whl")
    return wheel.name.split("-")[1]


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise InputError(f"PACKAGES: {package} is not installed here, so it has no version to take along") from None


def _fetch(pins: list[str], python: str, target: Path) -> None:
    say(f"fetching wheels of {', '.join(pins)} for Python {python}")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wanted = ["--only-binary=:all:", "--no-deps", "--implementation", "cp", "--python-version", python, *platforms]
    _pip("download", *wanted, "--dest", str(target), *pins)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    ended = subprocess.run(
        command, env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        words = " ".join((ended.stderr or ended.stdout).split())[-300:]
        raise InputError(f"pip {arguments[0]}: failed ({words}); mend that, or leave VENDOR= and PACKAGES= out")
