"""Kaggle's machine as far as a notebook sees it: mounted input, output, scratch, an interpreter without this project."""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


@dataclass(frozen=True)
class Machine:
    """One session: `output` is what a version leaves, `installed` where its packages go."""

    input: Path
    output: Path
    scratch: Path
    installed: Path

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DRIVERWATCH_COMMIT")}
        own = {"INPUT": self.input, "OUTPUT": self.output, "SCRATCH": self.scratch}
        named = {f"DRIVERWATCH_{name}": str(path) for name, path in own.items()}
        # the kernel's own environment has this project's dependencies, as Kaggle's image has; pip must not write there
        return kept | named | {"PYTHONPATH": str(self.installed), "PIP_TARGET": str(self.installed)}


def machine(folder: Path, data: Path, files: Path, earlier: dict[str, Path], slug: str) -> Machine:
    """Mount a competition, the attached data set and earlier outputs as Kaggle does, and start with an empty output."""
    mounted = folder / "input"
    places = {f"competitions/{slug}": data, "datasets/me/files": files}
    places |= {f"notebooks/me/{name}": output for name, output in earlier.items()}
    for name, path in places.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).symlink_to(path.resolve(), target_is_directory=True)
    made = Machine(mounted, folder / "working", folder / "temp", folder / "site")
    for path in (made.output, made.scratch, made.installed):
        path.mkdir()
    return made


def execute(notebook: Path, there: Machine, seconds: int = 3000) -> tuple[str, bool]:
    """Run a notebook's cells in a kernel of its own: all that they printed, and whether every cell ended well."""
    made = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        made, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(there.output)}}
    )
    try:
        client.execute(env=there.environ)
        fine = True
    except CellExecutionError:
        fine = False
    return printed(made), fine


def printed(notebook: nbformat.NotebookNode) -> str:
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            parts.append(output.get("text") or "\n".join(output.get("traceback", [])))
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(parts))


if __name__ == "__main__":  # by hand: notebook folder, competition folder, place for the session, earlier outputs
    folder, data, place, *outputs = map(Path, sys.argv[1:])
    shutil.rmtree(place, ignore_errors=True)
    session = machine(place, data, folder / "dataset", {f"v{i}": path for i, path in enumerate(outputs)}, "competition")
    said, ended = execute(folder / "kaggle_notebook.ipynb", session)
    print(said, "every cell ended well" if ended else "a cell failed", sep="\n")
