"""`make notebook`: the committed notebook with a plan filled in, for Kaggle and for Colab, and a data set of all that it needs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from driverwatch.config.loading import Strict, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import Name
from driverwatch.data.context import Context
from driverwatch.errors import InputError
from driverwatch.io import manifests
from driverwatch.io.atomic import making, replacing_folder, write_json, write_text
from driverwatch.io.console import close, say
from driverwatch.io.paths import Places, matching
from driverwatch.models import weight_files
from driverwatch.remote.kaggle_session import BUNDLED, SLUG, Plan, Reference
from driverwatch.submission import kaggle_client
from driverwatch.submission.download import competition_slug
from driverwatch.submission.kaggle_client import INSTALLED

TEMPLATE = "kaggle_notebook.ipynb"  # its first code cell is written again, and cells tagged for another service go
COLAB = "colab_notebook.ipynb"
SOURCES = ("pyproject.toml", "README.md", "LICENSE")  # with src, what a wheel is made of
SOURCE_DATE_EPOCH = "315532800"  # 1980, a zip's first second: the same source gives the same wheel
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")  # that Kaggle's image can load
PYTHONS = ("3.11", "3.12", "3.13")  # Kaggle's may be any
TITLE_CHARACTERS = 50  # at most, as Kaggle takes them
FILES = "dataset"

Account = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=50)]
Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Publication(Strict):
    """How a notebook and its data set go up."""

    account: Account
    name: Annotated[str, Field(pattern=f"^{SLUG}$", min_length=6, max_length=TITLE_CHARACTERS)]  # of the notebook
    machine: Name = "NvidiaTeslaT4"  # two T4, of which one trains; NvidiaTeslaP100 is one larger, older GPU
    earlier: list[Reference] = Field(default=[])  # notebooks whose output this one resumes from
    packages: list[Package] = Field(default=["simplejpeg"])  # what Kaggle's image lacks, at the versions installed here
    vendor: bool = False  # whether their wheels travel along; else Kaggle's machine fetches them

    @property
    def notebook(self) -> str:
        return f"{self.account}/{self.name}"

    @property
    def files(self) -> str:
        """The attached data set."""
        return f"{self.notebook}-files"

    @model_validator(mode="after")
    def _fits(self) -> "Publication":
        longest = TITLE_CHARACTERS - len("-files")
        if len(self.name) > longest:
            raise ValueError(f"name must have at most {longest} characters: its data set adds -files")
        return self


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
    start, slug = time.monotonic(), competition_slug(context)
    given = {"account": kaggle_client.username(), "name": name_of(plan["run"]), **publication}
    if not given["account"]:
        raise InputError("make notebook needs ACCOUNT=..., your name in Kaggle's addresses (no token here says it)")
    ours = parse(Publication, given, "make notebook")
    mine = parse(Plan, {"notebook": ours.notebook, "commit": manifests.commit() or "", **plan}, "make notebook")
    needed = None if mine.weights_from else weight_files.find(settings, weights)
    folder = context.places.notebook(ours.name)
    with making(folder), replacing_folder(folder) as partial:
        files = partial / FILES
        files.mkdir()
        install = gather_wheels(context, files, ours)
        if needed is not None:
            shutil.copyfile(needed, files / needed.name)
        internet = "--no-index" not in install or (needed is None and settings.weights != "none")
        there = {"COMPETITION": slug, "FILES": ours.files}
        write_text(partial / TEMPLATE, notebook_text(mine, install, there))
        write_text(partial / COLAB, notebook_text(mine.model_copy(update={"service": "colab"}), install, there))
        write_json(partial / "kernel-metadata.json", kernel_metadata(ours, slug, internet))
        write_json(files / "dataset-metadata.json", dataset_metadata(ours))
        size = sum(path.stat().st_size for path in files.iterdir())
    said = f"a notebook, and a data set of {size / 1e6:.1f} MB; internet {'on' if internet else 'off'}"
    close(folder, said, time.monotonic() - start, then=_commands(folder, ours, context.dataset))


def name_of(run: str) -> str:
    """A run's notebook's name, as Kaggle would make an address of it."""
    return "-".join(["driverwatch", *re.findall("[a-z0-9]+", run.lower())])


def notebook_text(plan: Plan, install: list[str], there: dict[str, str]) -> str:
    """The committed notebook as JSON, with its first code cell replaced by what varies; the same settings give the same bytes.

    Args:
        install: what pip gets: options and `name==version` each.
        there: addresses on Kaggle of the COMPETITION and of the data set FILES.
    """
    import nbformat  # with the development requirements, which make notebook installs

    made = nbformat.reads(resources.files("driverwatch.remote").joinpath(TEMPLATE).read_text("utf-8"), as_version=4)
    texts = {json.dumps(k): json.dumps(v, ensure_ascii=False) for k, v in plan.model_dump().items()}
    pairs = "".join(f"    {key}: {value},\n" for key, value in texts.items())
    first = next(cell for cell in made.cells if cell.cell_type == "code")
    places = "".join(f"\n{name} = {json.dumps(value)}" for name, value in there.items())
    first.source = f"PLAN = {{\n{pairs}}}\nINSTALL = {json.dumps(install)}{places}"
    made.cells = [cell for cell in made.cells if plan.service in cell.metadata.get("tags", [plan.service])]
    nbformat.validate(made)
    return str(nbformat.writes(made)) + "\n"


def kernel_metadata(publication: Publication, slug: str, internet: bool) -> dict[str, Any]:
    """`kernel-metadata.json`, as the official client 2.2.4 reads it (`kernels_push`).

    The title must be what the id's slug is made of, or Kaggle makes another notebook.
    """
    return {
        "id": publication.notebook,
        "title": publication.name.replace("-", " "),
        "code_file": TEMPLATE,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": internet,
        "machine_shape": publication.machine,
        "dataset_sources": [publication.files],
        "competition_sources": [slug],
        "kernel_sources": publication.earlier,
        "model_sources": [],
    }


def dataset_metadata(publication: Publication) -> dict[str, Any]:
    """`dataset-metadata.json` (`dataset_create_new`); a data set is private unless `datasets create` is told otherwise."""
    title = f"{publication.name}-files".replace("-", " ")
    return {"title": title, "id": publication.files, "licenses": [{"name": "other"}]}


def _commands(folder: Path, ours: Publication, dataset: str) -> list[str]:
    """How it goes up and comes back."""
    client, files, home = str(INSTALLED), f"-p {folder / FILES}", f"build/{dataset}/from_kaggle"
    up = f"{client} datasets create {files}"
    if ours.earlier:  # a version has run, so they are there
        up = f'{client} datasets version {files} -m "again"   # only if anything but RESUME_FROM has changed'
    return [
        *([] if INSTALLED.is_file() else ["make client   # the official one, once"]),
        up,
        f"{client} datasets status {ours.files}   # until it says ready",
        f"{client} kernels push -p {folder}",
        f"{client} kernels output {ours.notebook} -p {home}   # when it has ended",
        f"make import-runs RUNS_FROM={home} DATASET={dataset}",
        f"# or open {folder / COLAB} at https://colab.research.google.com, once the data set is ready",
    ]


def gather_wheels(context: Context, target: Path, ours: Publication) -> list[str]:
    """What pip gets on Kaggle; this project's wheel, and with `vendor` those of other packages, are written into `target`.

    Raises:
        InputError: no fold file, a package that is not installed here, or wheels that cannot be built or fetched.
    """
    version = build_wheel(context.places.root, context.dataset, target)
    pins = [f"{name}=={_installed(name)}" for name in ours.packages]
    for python in PYTHONS if ours.vendor else ():
        say(f"fetching wheels of {', '.join(pins)} for Python {python}")
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        wanted = ["--only-binary=:all:", "--no-deps", "--implementation", "cp", "--python-version", python, *platforms]
        _pip("download", *wanted, "--dest", str(target), *pins)
    return [*(["--no-index"] if ours.vendor or not pins else []), f"driverwatch=={version}", *pins]


def build_wheel(root: Path, dataset: str, target: Path) -> str:
    """The version of this project's wheel, built into `target`, with all settings and the data set's folds in it.

    They travel in the wheel because Kaggle's client leaves folders out of a data set, and its site unpacks archives. It is built
    from a copy: setuptools would find old files in its own `build/`.
    """
    if missing := [name for name in (*SOURCES, "src") if not (root / name).exists()]:
        raise InputError(f"{root.absolute()}: lacks {', '.join(missing)}; make notebook runs in the repository's root")
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCES:
            shutil.copyfile(root / name, Path(copy) / name)
        unmade = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
        shutil.copytree(root / "src", Path(copy) / "src", ignore=unmade)
        copy_project(root, dataset, Path(copy) / "src" / "driverwatch" / BUNDLED.name)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target), copy)
    (wheel,) = target.glob("driverwatch-*.whl")
    return wheel.name.split("-")[1]


def copy_project(root: Path, dataset: str, target: Path) -> None:
    """Copy all settings below `root` and one data set's fold files to `target`.

    Raises:
        InputError: no fold file.
    """
    folds = root / "folds" / f"{dataset}.csv"
    if not folds.is_file():
        raise InputError(f"{folds}: no fold file; run make folds DATASET={dataset} first: both sides need the same")
    found = [file for file in matching(root / "configs", "**/*") if file.is_file() and file.suffix in (".yaml", ".csv")]
    for file in (*found, folds, root / "folds" / f"{dataset}_groups.csv", Places(dataset, root).label_issues):
        if file.is_file():
            write_text(target / file.relative_to(root), file.read_text(encoding="utf-8"))


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise InputError(f"PACKAGES: {package} is not installed here, so it has no version to take along") from None


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        words = " ".join((ended.stderr or ended.stdout).split())[-300:]
        raise InputError(f"pip {arguments[0]}: failed ({words}); fix that, or leave VENDOR= and PACKAGES= out")
