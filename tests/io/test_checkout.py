"""The commit that artefacts record is that of the package's own checkout, whatever lies around it or in the environment."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

from driverwatch.io import manifests

WHO = ["-c", "user.name=x", "-c", "user.email=x@y"]
ASK = "from driverwatch.io.manifests import provenance; print(provenance()['commit'])"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *WHO, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=manifests.environment(os.environ)
    ).stdout.strip()


def repository(folder: Path, *tracked: str) -> str:
    """A repository with one commit of these paths (all: of everything there); its commit, 12 digits."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    git(folder, "add", *(tracked or ("-A",)))
    git(folder, "commit", "-qm", "x", "--allow-empty")
    return git(folder, "rev-parse", "--short=12", "HEAD")


def copied(folder: Path) -> Path:
    """The package unpacked in `folder`, without git."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def said(source: Path, cwd: Path, **environ: str) -> str:
    """What a fresh process that imports the package from `source` records in manifests."""
    env = {key: value for key, value in os.environ.items() if key != "DRIVERWATCH_COMMIT"}
    env |= {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", **environ}
    made = subprocess.run([sys.executable, "-c", ASK], cwd=cwd, env=env, capture_output=True, text=True, check=True)
    return made.stdout.strip()


def test_its_own_checkout_from_anywhere(tmp_path: Path) -> None:
    """Neither the working directory nor the variables that git sets for its hooks change the answer."""
    own = copied(tmp_path / "own")
    commit = repository(own)
    other = tmp_path / "other"
    stranger = repository(other)
    assert commit != stranger
    assert said(own / "src", other) == commit
    hook = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": str(other / ".git/index")}
    assert said(own / "src", own, **hook) == commit
    assert said(own / "src", own, GIT_CEILING_DIRECTORIES=str(own), GIT_OBJECT_DIRECTORY=str(other)) == commit


def test_dirty_is_said_the_same_way(tmp_path: Path) -> None:
    own = copied(tmp_path / "own")
    commit = repository(own)
    (own / "notes.txt").write_text("untracked: no code of ours")
    assert said(own / "src", own) == commit
    with (own / "src/driverwatch/errors.py").open("a") as file:
        file.write("# changed\n")
    assert said(own / "src", own) == f"{commit}+"


@pytest.mark.parametrize("place", ["vendor/driverwatch", "", "lib/python3.13/site-packages"])
def test_unpacked_in_the_checkout_of_something_else(tmp_path: Path, place: str) -> None:
    """Deep inside, at its very top, or installed there: that repository's HEAD made nothing of ours."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "README").write_text("another project")
    repository(other, "README")
    folder = other / place
    folder.mkdir(parents=True, exist_ok=True)
    if "site-packages" in place:
        shutil.copytree(ROOT / "src/driverwatch", folder / "driverwatch")
        source = folder
    else:
        source = copied(folder) / "src"
    assert said(source, other) == "None"
    assert said(source, other, DRIVERWATCH_COMMIT="abc123") == "abc123"  # a notebook's wheel


def test_vendored_and_tracked_below_another_repository(tmp_path: Path) -> None:
    other = tmp_path / "other"
    copied(other / "vendor")
    repository(other)
    assert said(other / "vendor/src", other) == "None"


def test_no_git_at_all(tmp_path: Path) -> None:
    own = copied(tmp_path / "own")
    repository(own)
    assert said(own / "src", own, PATH="/nowhere") == "None"


def test_code_that_was_changed_since(tmp_path: Path) -> None:
    (tmp_path / "src/driverwatch").mkdir(parents=True)
    (tmp_path / "src/driverwatch/__init__.py").touch()
    source, commits = tmp_path / "src/driverwatch/x.py", []
    git(tmp_path, "init", "-q")
    for content, other in (("1", "a"), ("1", "b"), ("2", "b")):
        source.write_text(content)
        (tmp_path / "docs").write_text(other)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "x")
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
    asked = [*commits, commits[0] + "+", "0" * 40, "--output=x", ""]
    assert [manifests.changed_since(each, tmp_path) for each in asked] == [True, True, False, True, *[False] * 3]
    assert not manifests.changed_since(commits[0], tmp_path / "src")  # no top of a checkout
    assert not (tmp_path / "x").exists()


def test_git_is_asked_in_one_place() -> None:
    """Whoever starts it elsewhere would forget the environment; the doctor names it to say what is wrong with it."""
    found = set()
    for path in sorted((ROOT / "src/driverwatch").rglob("*.py")):
        lists = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.List) and node.elts]
        if any(isinstance(one.elts[0], ast.Constant) and one.elts[0].value == "git" for one in lists):
            found.add(path.name)
    assert found == {"manifests.py"}
