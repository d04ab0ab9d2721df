"""A full disk and a read-only folder end in one sentence, lose nothing, and once fixed the same command resumes.

The disk is a real one, in memory; where it cannot be mounted (no root) a limit on file size stands in for its end.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import kills
from support.kills import Reference

pytestmark = [pytest.mark.line, pytest.mark.slow]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a disk can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def tried(project: Path, verb: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        kills.command(verb), cwd=project, env=kills.environment(), capture_output=True, text=True, check=False,
        preexec_fn=limited,
    )  # fmt: skip


def refused(made: subprocess.CompletedProcess[str], said: str) -> None:
    """One sentence of our own (a fold's process says it, and the process that asked for the fold says which)."""
    assert made.returncode == 2, made.stderr
    assert "Traceback" not in made.stderr
    assert said in made.stderr
    assert made.stderr.count("driverwatch: ") <= 2


def fill(place: Path, spare: int) -> Path:
    """Take all space of a disk but `spare` bytes."""
    filler = place / "filler"
    free = shutil.disk_usage(place).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - spare)
    return filler


@pytest.mark.parametrize(
    ("verb", "spare"),
    [("synthetic", 40_000), ("folds", 0), ("pack", 0), ("pack", 40_000), ("train", 40_000), ("ensemble", 0)],
)
def test_a_full_disk(known: Reference, disk: Path, verb: str, spare: int) -> None:
    project = known.before(verb, disk / "project")
    before, filler = kills.state(project), fill(disk, spare)
    made = tried(project, verb)
    if made.returncode:  # a small file may still fit
        refused(made, "free")
        assert {name: checksum for name, checksum in kills.state(project).items() if name in before} == before
    filler.unlink()
    kills.ran(project, verb)
    assert kills.differing(known.states[verb], kills.state(project)) == []


@pytest.mark.parametrize("verb", ["synthetic", "folds", "pack", "train", "ensemble"])
def test_a_read_only_disk(known: Reference, disk: Path, verb: str) -> None:
    project = known.before(verb, disk / "project")
    before = kills.state(project)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    refused(tried(project, verb), "make the folder writable")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert kills.state(project) == before
    kills.ran(project, verb)
    assert kills.differing(known.states[verb], kills.state(project)) == []


def test_no_file_may_grow(known: Reference, tmp_path: Path) -> None:
    project = known.before("pack", tmp_path / "project")
    refused(tried(project, "pack", limit=50_000), "not written (File too large); what was there before is unchanged")
    kills.ran(project, "pack")
    assert kills.differing(known.states["pack"], kills.state(project)) == []
