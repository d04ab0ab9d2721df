"""Every case of `support/invalid.py` through the command line: one sentence, exit status 2, nothing lost; and the page of them."""

import re
from pathlib import Path

import pytest
from support import invalid_page, kills
from support.invalid import CASES, Case, Project
from support.once import WorkingCopy

pytestmark = [pytest.mark.line, pytest.mark.slow]
PAGE = invalid_page.lines_of(invalid_page.TABLE.read_text())


@pytest.fixture(scope="module")
def copy(finished_line: Path, tmp_path_factory: pytest.TempPathFactory) -> WorkingCopy:
    return WorkingCopy(finished_line, tmp_path_factory.mktemp("invalid") / "project")


@pytest.fixture
def line(copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A finished pipeline, unchanged, in the working directory."""
    copy.put_back()
    monkeypatch.chdir(copy.place)
    return Project(copy.place)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.what}")
def test_it_is_said(case: Case, line: Project) -> None:
    submissions = set((line.folder / "submissions").rglob("*.*"))
    case.act(line)
    kept = kills.files(line.folder)
    status, text = invalid_page.said(case)
    assert status == case.status, text
    assert re.search(case.said, text), text
    assert "Traceback" not in text
    assert invalid_page.line(case, invalid_page.shown(text)) in PAGE[case.kind], "run make docs"
    if case.status:
        assert kept - kills.files(line.folder) <= {"build/demo/problems.txt"}
        assert set((line.folder / "submissions").rglob("*.*")) <= submissions


def test_the_page_holds_these_cases_and_no_others() -> None:
    """`make docs` writes it; what it says of each case is held where the case is run."""
    kinds = dict.fromkeys(case.kind for case in CASES)
    first = {kind: [" ".join(line.split()).partition("**:")[0] for line in lines] for kind, lines in PAGE.items()}
    assert first == {kind: [f"- **{case.what}" for case in CASES if case.kind == kind] for kind in kinds}
    left = {kind: iter(PAGE[kind]) for kind in kinds}
    lines = {case: next(left[case.kind]) for case in CASES}
    assert invalid_page.TABLE.read_text() == invalid_page.page(lines), "run make docs"
