"""Every case of `broken.py` through the command line: one sentence, exit status 2, nothing lost; and the table of them."""

import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest
from support import kills
from support.broken import CASES, SET, Case, Project
from support.in_process import said
from support.places import ROOT
from support.project import MINI

from driverwatch.data import sample
from driverwatch.dataset_settings import DatasetSettings
from driverwatch.typed_yaml import load

pytestmark = pytest.mark.line
TABLE = ROOT / "docs" / "broken_input.md"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line from photos to submission, two folds of one epoch each."""
    folder = kills.new_project(tmp_path_factory.mktemp("line") / "project")
    sample.write(MINI, load(DatasetSettings, folder / "configs" / "datasets", "drawn"), folder / "data")
    with contextlib.chdir(folder):
        os.environ["PYTHONPATH"] = str(ROOT / "src")  # for the folds' processes
        for verb in (["folds"], ["pack", "--model", "tiny", "--set", SET], ["train", "tiny", "--set", SET]):
            assert said(verb)[0] == 0
        status, text = said(["ensemble", "--name", "first", "--views", "five_crop"])
        assert status == 0, text
    return folder


LISTED = re.compile(r"(expected one of \w+, \w+)(?:, \w+){2,}")  # settings files come and go; the page stays


def shown(text: str) -> str:
    """What a case said, as one line of a table: of a list of problems the list, since its head is always the same."""
    lines = [line.strip() for line in text.strip().splitlines() if "images/s" not in line]
    lines = [line for line in lines if not re.match(r"(took|next) {2,}", line)]  # how every verb ends
    refused = [i for i, line in enumerate(lines) if line.startswith("driverwatch: ")]
    lines = lines[refused[0] :] if refused else lines
    if "SKIP_BROKEN=1 (all are listed" in lines[0]:
        lines = [line.removeprefix("- ") for line in lines[1:]]
    said = "<br>".join(line.removeprefix("driverwatch: ").replace("<", "&lt;") for line in lines)
    return LISTED.sub(r"\1, ...", said).replace("|", "\\|")


FOUND: dict[str, str] = {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.what}")
def test_it_is_said(case: Case, finished: Path, tmp_path: Path) -> None:
    project = Project(Path(shutil.copytree(finished, tmp_path / "project", symlinks=True)))
    submissions = {path: path.read_bytes() for path in (project.folder / "submissions").rglob("*.*")}
    with contextlib.chdir(project.folder):
        case.act(project)
        kept = kills.state(project.folder)
        status, text = said(case.verb)
    assert status == case.status, text
    assert re.search(case.said, text), text
    assert "Traceback" not in text
    FOUND[f"{case.kind}: {case.what}"] = shown(text)
    if case.status:
        lost = [name for name in kept if name not in kills.state(project.folder)]
        assert lost in ([], ["build/drawn/problems.txt"])
        assert all(path in submissions for path in (project.folder / "submissions").rglob("*.*"))


def test_the_table_is_todays() -> None:
    """`make docs` writes it."""
    if len(FOUND) < len(CASES):
        pytest.skip("not every case was run")
    text = table()
    if os.environ.get("WRITE_DOCS"):
        TABLE.write_text(text)
    assert TABLE.read_text() == text, "run make docs"


def table() -> str:
    lines = [
        "# What can be wrong, and what is said",
        "",
        "Written by `make docs` from `tests/support/broken.py`, each case run through the command line. What is broken ends",
        "the step with exit status 2 and loses nothing; `SKIP_BROKEN=1` goes on without broken photos and table rows, and",
        "records them. What is only unusual is taken, and counted. Broken photos and rows are listed all at once, below one",
        "sentence:",
        "",
        "> data: 3 problems; mend, or go on without with SKIP_BROKEN=1 (all are listed in build/drawn/problems.txt):",
        "",
        "Of these the table shows the list alone; of long lists of names, the first two.",
    ]
    for kind in dict.fromkeys(case.kind for case in CASES):
        lines += ["", f"## {kind}", "", "| what | said |", "|---|---|"]
        lines += [f"| {case.what} | {FOUND[f'{kind}: {case.what}']} |" for case in CASES if case.kind == kind]
    return "\n".join(lines) + "\n"
