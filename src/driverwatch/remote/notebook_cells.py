"""The notebook that trains a run on Kaggle, and the two metadata files that its client wants; bytes depend on nothing else.

Fields as in the official client 2.2.4 (`kernels_push`, `dataset_create_new`) and its `docs/kernels_metadata.md`.
"""

import json
from dataclasses import dataclass
from typing import Any

from driverwatch.remote.notebook_settings import Plan, Publication
from driverwatch.remote.project_file import FILE

CODE_FILE = "driverwatch.ipynb"

TITLE = """# {run}: {title}

Written by `make notebook`. It trains the run `{run}` (`configs/models/{model}.yaml`) fold by fold and leaves weights and
predictions in its output. It ends by itself before Kaggle's {limit:g}-hour session does; the next version, with this one's
output attached, goes on from the last finished epoch."""

PARAMETERS = """## What is trained

`PLAN` repeats the variables of `make notebook`. Where Kaggle mounts and keeps things may be changed for a rehearsal elsewhere."""

PARAMETERS_CODE = """import os
import time

BEGUN = time.monotonic()
PLAN = {plan}
INPUT = os.environ.get("DRIVERWATCH_INPUT", "/kaggle/input")  # attached, read only
OUTPUT = os.environ.get("DRIVERWATCH_OUTPUT", "/kaggle/working")  # kept with this version: runs alone
SCRATCH = os.environ.get("DRIVERWATCH_SCRATCH", "/kaggle/temp")  # not kept: packs"""

INSTALL = """## Install

The wheel is in the attached data set `{files}`. {fetched} Everything else is what Kaggle's image has."""

INSTALL_CODE = """import importlib
import subprocess
import sys
from pathlib import Path

FILES = [path.parent for depth in ("*", "*/*", "*/*/*") for path in Path(INPUT).expanduser().glob(depth + "/{file}")]
if not FILES:
    raise SystemExit("attach the data set {files} to this notebook")
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
subprocess.run([*PIP, {index}"--find-links", str(FILES[0]), {packages}], check=True)
importlib.invalidate_caches()"""

PLACES = """## Find what is attached

Competition, settings, fold file, weights and earlier versions are looked for under `INPUT`, wherever Kaggle mounts them."""

PLACES_CODE = """from driverwatch.remote.kaggle_session import begin

session = begin(PLAN, (INPUT, OUTPUT, SCRATCH), BEGUN)"""

LOOK = """## Look at the machine

`make doctor`'s checks. Without a GPU everything works, slowly: choose one under *Settings, Accelerator*."""

PACK = """## Pack the photos

The fold file is held against the photos, which are then resized once, raw and contiguous, into `SCRATCH`."""

TAKE = """## Go on from an earlier version

What an attached earlier version has finished is checked against folds, photos and settings, and copied in."""

TRAIN = """## Train

One process per fold; after each epoch everything that is needed to go on is written. A finished fold predicts its held-out
drivers and the test images."""

CLOSE = """## What came of it

Once every fold is finished, `make take` brings the run home, where `make ensemble` blends it with others."""


@dataclass(frozen=True)
class Wheels:
    """What is installed: `name==version` each, and whether all of it lies in the data set."""

    pins: tuple[str, ...]
    all_there: bool


def cells(plan: Plan, publication: Publication, wheels: Wheels, title: str, limit: float) -> list[tuple[str, str]]:
    """Kinds (`markdown` or `code`) and sources, in order."""
    fetched = "Packages that Kaggle's image lacks lie beside it." if wheels.all_there else (
        f"Packages that Kaggle's image lacks ({', '.join(publication.packages) or 'none'}) are fetched: internet must be on."
    )  # fmt: skip
    index = '"--no-index", ' if wheels.all_there else ""
    install = INSTALL_CODE.format(
        file=FILE, files=publication.files, index=index, packages=", ".join(f'"{pin}"' for pin in wheels.pins)
    )
    about = TITLE.format(run=plan.run, model=plan.model, title=title, limit=limit)
    return [
        ("markdown", about),
        *_step(PARAMETERS, PARAMETERS_CODE.format(plan=_literal(plan.model_dump()))),
        *_step(INSTALL.format(files=publication.files, fetched=fetched), install),
        *_step(PLACES, PLACES_CODE),
        *_step(LOOK, "session.look()"),
        *_step(PACK, "session.pack()"),
        *_step(TAKE, "session.take()"),
        *_step(TRAIN, "session.train()"),
        *_step(CLOSE, "session.close()"),
    ]


def _step(text: str, code: str) -> list[tuple[str, str]]:
    return [("markdown", text), ("code", code)]


def _literal(content: dict[str, Any]) -> str:
    """A dictionary of texts and numbers as Python, one key a line; JSON spells both as Python does, unless it avoids Unicode."""
    pairs = ((json.dumps(key), json.dumps(value, ensure_ascii=False)) for key, value in content.items())
    return "{\n" + "".join(f"    {key}: {value},\n" for key, value in pairs) + "}"


def text_of(sources: list[tuple[str, str]]) -> str:
    """The notebook as JSON, format 4.5, checked by nbformat; the same sources give the same bytes."""
    import nbformat  # with the development requirements, which make notebook installs
    from nbformat import v4

    made = []
    for number, (kind, source) in enumerate(sources):
        new = v4.new_markdown_cell if kind == "markdown" else v4.new_code_cell
        made.append(new(source, id=f"cell-{number:02d}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = v4.new_notebook(cells=made, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)) + "\n"


def kernel_metadata(publication: Publication, slug: str, internet: bool) -> dict[str, Any]:
    """`kernel-metadata.json`: the title must be what the id's slug is made of, or Kaggle makes another notebook."""
    return {
        "id": publication.notebook,
        "title": publication.name.replace("-", " "),
        "code_file": CODE_FILE,
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
    """`dataset-metadata.json`; a data set is private unless `datasets create` is told otherwise."""
    title = publication.files.partition("/")[2].replace("-", " ")
    return {"title": title, "id": publication.files, "licenses": [{"name": "other"}]}
