"""The doctor on the machine and the repository's folders: what each check says of a fine and of a bad one."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
from support.doctoring import Make, makes_places, says, write

from scripts.doctor import machine, project
from scripts.doctor.machine import ask


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


class Version(NamedTuple):
    major: int
    minor: int
    micro: int = 0


@pytest.mark.parametrize(
    ("version", "mark"), [((3, 8), "problem"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "problem")]
)
def test_python(place: Make, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], mark: str) -> None:
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    monkeypatch.setattr(sys, "version_info", Version(*version))
    says(machine.python(place()), mark)


def test_python_without_wheels(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    says(machine.python(place()), "problem", "32-bit", "install a 64-bit")
    monkeypatch.undo()
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    says(machine.python(place()), "problem", "no wheels")


@pytest.mark.parametrize(("version", "mark"), [("3.80", "problem"), ("3.81", "ok"), ("4.4.1", "ok"), ("", "note")])
def test_make(place: Make, version: str, mark: str) -> None:
    says(machine.make(place(make_version=version)), mark, version)


def test_a_shell_that_does_not_run(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ask", lambda s, command: ask(s, ["/no/such/shell"]))
    says(machine.make(place(make_version="4.3")), "problem", "No such file")


@pytest.mark.parametrize(("flags", "mark"), [("sse avx avx2", "ok"), ("sse sse2", "problem")])
def test_processor(place: Make, monkeypatch: pytest.MonkeyPatch, flags: str, mark: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    s = place()
    write(s.system / "proc/cpuinfo", f"processor\t: 0\nflags\t\t: {flags}\n")
    says(machine.processor(s), mark, "2 cores", "AVX")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    (s.system / "proc/cpuinfo").unlink()
    says(machine.processor(s), "note", "1 core.")


@pytest.mark.parametrize(
    ("total", "free", "limit", "mark", "text"),
    [
        (16, 12, "max", "ok", "16.0 GB, 12.0 GB available"),
        (16, 0.5, "max", "note", "close other programs"),
        (2, 1.5, "max", "note", "small backbones"),
        (0.5, 0.4, "max", "problem", "larger machine"),
        (16, 12, "2000000000", "note", "2.0 GB (limit of the control group)"),
        (16, 12, "500000000", "problem", "raise the limit"),
    ],
)
def test_memory(
    place: Make, monkeypatch: pytest.MonkeyPatch, total: float, free: float, limit: str, mark: str, text: str
) -> None:
    seen = SimpleNamespace(total=total * 1e9, available=free * 1e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: seen)
    s = place()
    write(s.system / "proc/self/cgroup", "4:cpu:/x\n0::/job\n")
    write(s.system / "sys/fs/cgroup/job/memory.max", limit + "\n")
    says(machine.memory(s), mark, text)


def test_memory_before_there_is_an_environment(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    sizes = {"SC_PHYS_PAGES": 2_000_000, "SC_PAGE_SIZE": 4000}
    monkeypatch.setattr(os, "sysconf", sizes.get)
    s = place()
    finding = machine.memory(s)
    says(finding, "ok", "8.0 GB")
    assert "available" not in finding.found
    write(s.system / "proc/self/cgroup", "4:memory:/job\n")
    write(s.system / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "900000000")
    says(machine.memory(s), "problem", "0.9 GB")


@pytest.mark.parametrize(
    ("files", "space", "mark", "text"),
    [
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "ok", "any number of open files"),
        (256, resource.RLIM_INFINITY, "ok", "256 open files"),
        (64, resource.RLIM_INFINITY, "note", "ulimit -n 1024"),
        (256, 10**9, "note", "ulimit -v unlimited"),
    ],
)
def test_limits(place: Make, monkeypatch: pytest.MonkeyPatch, files: int, space: int, mark: str, text: str) -> None:
    values = {resource.RLIMIT_NOFILE: (files, 0), resource.RLIMIT_AS: (space, 0)}
    monkeypatch.setattr(resource, "getrlimit", values.get)
    says(machine.limits(place()), mark, text)


def test_encoding(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda _: "UTF-8")
    says(machine.encoding(place()), "ok")
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    says(machine.encoding(place()), "problem", "files in ANSI_X3.4-1968", "LANG=C.UTF-8")


def test_clock(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    says(machine.clock(place()), "ok")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    says(machine.clock(place()), "note", "certificates")


def test_git(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    s = place(environ={"GIT_CEILING_DIRECTORIES": "/", "GIT_CONFIG_GLOBAL": "/dev/null"})
    says(project.git(place(environ={"PATH": "/nowhere"})), "note", "git is missing")
    monkeypatch.setattr(
        project, "ask", lambda s, command, **_: ask(s, ["sh", "-c", "echo dubious ownership >&2; exit 1"])
    )
    says(project.git(s), "note", "safe.directory")
    monkeypatch.undo()
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", s.root], check=True)
    says(project.git(s), "note", "not a clone")
    subprocess.run(["git", "-C", s.root, *who, "commit", "-qm", "x", "--allow-empty"], check=True)
    says(project.git(s), "note", "in another project's clone")
    write(s.root / "src/driverwatch/__init__.py")
    subprocess.run(["git", "-C", s.root, "add", "src"], check=True)
    says(project.git(s), "ok", "a clone at")
    says(project.git(place(root=s.root / "configs")), "note", "in another project's clone")


def test_writable(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    s = place()
    says(machine.folders(s), "ok")
    write(s.root / "folds")
    (s.root / "build").symlink_to("gone")
    says(machine.folders(s), "problem", "folds is a file", "build is a link to nothing")
    monkeypatch.setattr(os, "access", lambda *_: False)
    says(machine.folders(s), "problem", "cannot be written")


@pytest.mark.parametrize(("free", "mark"), [(12, "ok"), (11.5, "note"), (0.5, "problem")])
def test_disk(place: Make, monkeypatch: pytest.MonkeyPatch, free: float, mark: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, int(free * 1e9)))  # type: ignore[attr-defined]
    s = place()
    says(project.disk(s), mark, f"{free:.1f} GB free")
    (s.root / "data/statefarm/imgs/test").mkdir(parents=True)
    says(project.disk(s), "problem" if mark == "problem" else "ok")
