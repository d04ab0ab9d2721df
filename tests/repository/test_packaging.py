"""Requirements, the package's own dependencies and its wheel: what is named is locked, and what is built runs elsewhere."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.places import ROOT

from scripts import install, lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def asked(path: Path) -> list[Requirement]:
    """What a .in file names, those of `-r` files included."""
    found = []
    for line in path.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            found += asked(path.parent / text[3:])
        elif text:
            found.append(Requirement(text))
    return found


def pinned(name: str) -> dict[str, list[Requirement]]:
    """A lock's pins by package, one a marker; each must be exact and have hashes."""
    found: dict[str, list[Requirement]] = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", (lock.FOLDER / f"{name}.txt").read_text()):
        first = block.splitlines()[0]
        if not first.startswith("#"):
            pin = Requirement(first.rstrip(" \\"))
            assert str(pin.specifier).startswith("=="), first
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), first
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def fits(requirement: Requirement, pins: dict[str, list[Requirement]]) -> bool:
    versions = [str(pin.specifier)[2:] for pin in pins.get(canonicalize_name(requirement.name), [])]
    return bool(versions) and all(requirement.specifier.contains(version) for version in versions)


def versions(pins: list[Requirement]) -> set[str]:
    return {str(pin.specifier) for pin in pins}


@pytest.mark.parametrize("name", lock.LOCKS)
def test_every_requirement_is_locked_with_hashes(name: str) -> None:
    """What `make lock` wrote is of today's .in files."""
    pins = pinned(name)
    assert not [str(one) for one in asked(lock.FOLDER / f"{lock.LOCKS[name]}.in") if not fits(one, pins)]
    if name not in lock.APART:  # installed beside cpu.txt
        runtime = pinned("cpu")
        assert not [one for one in pins if one in runtime and set(map(str, pins[one])) != set(map(str, runtime[one]))]
    if name not in lock.APART | lock.FIRST:  # and beside dev.txt, which may want a package on other platforms
        dev = pinned("dev")
        assert not [one for one in pins if one in dev and versions(pins[one]) != versions(dev[one])]


def test_the_package_asks_for_what_is_locked() -> None:
    runtime = [Requirement(one) for one in PROJECT["dependencies"]]
    assert {canonicalize_name(one.name) for one in runtime} == {
        canonicalize_name(one.name) for one in asked(lock.FOLDER / "runtime.in")
    }
    assert not [str(one) for one in runtime if not fits(one, pinned("cpu"))]
    assert {"onnx", "cluster", "cuda", "weights"} <= set(PROJECT["optional-dependencies"]) <= set(lock.LOCKS)
    for extra, wanted in PROJECT["optional-dependencies"].items():
        assert not [one for one in wanted if not fits(Requirement(one), pinned(extra))]
    floors = {one.name: one.specifier for one in runtime}
    assert not floors["keras"].contains("3.14.9")
    assert not floors["tensorflow"].contains("2.20.0")


def test_the_audit_asks_for_each_lock() -> None:
    """`make audit`, which the public workflow runs."""
    (listed,) = re.findall(r"for file in ([a-z ]+); do", MAKEFILE)
    assert set(listed.split()) == set(lock.LOCKS)
    assert "run: make audit\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_a_lock_is_installed_by_its_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is asked to check them, and every package is counted once."""
    commands = []

    class Pip:
        stdout: tuple[str, ...] = ()

        def __init__(self, command: list[str], **_: object) -> None:
            commands.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(install.subprocess, "Popen", Pip)
    plain = tmp_path / "plain.txt"
    plain.write_text("numpy==1\n")
    for path in (plain, lock.FOLDER / "cpu.txt"):
        install.install("python", path, tmp_path / "log", [])
    assert ["--require-hashes" in command for command in commands] == [False, True]
    assert install.wanted(lock.FOLDER / "cpu.txt") == sum(map(len, pinned("cpu").values()))


@pytest.mark.slow
def test_the_wheel_has_its_files_and_runs_in_an_empty_environment(tmp_path: Path) -> None:
    source, files = tmp_path / "source", ("pyproject.toml", "README.md", "LICENSE")
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in files:
        shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("driverwatch-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    mine = (path for path in (ROOT / "src" / "driverwatch").rglob("*") if path.is_file())
    assert {
        path.relative_to(ROOT / "src").as_posix() for path in mine if path.suffix != ".pyc" and path.name != ".DS_Store"
    } <= inside
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    python, here = tmp_path / "empty" / "bin" / "python", tmp_path / "nowhere"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    folder = next((tmp_path / "empty" / "lib").glob("python*/site-packages"))
    (folder / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # its dependencies, as they are installed here
    here.mkdir()
    command, environment = tmp_path / "empty" / "bin" / "driverwatch", {"PATH": "/usr/bin:/bin"}
    for words, said in ((["--help"], "train"), (["backbones"], "mobilenet_v2"), (["status"], "configs/datasets")):
        made = subprocess.run([command, *words], cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert said in made.stdout + made.stderr
        assert "Traceback" not in made.stderr
    assert not list(here.iterdir())
