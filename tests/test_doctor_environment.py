"""The doctor on the virtual environment and what Keras computes on: fine, broken, missing."""

import json
import os
import sys
from pathlib import Path

import pytest
from support.doctoring import Make, fake_venv, makes_places, says, write

from scripts.doctor import accelerator, environment
from scripts.doctor.finding import Finding
from scripts.doctor.requirements import applies, pins


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


def test_virtual_environment(place: Make) -> None:
    s = place()
    says(environment.virtual_environment(s), "note", "no .venv yet", "make setup")
    fake_venv(s, stamp="")
    says(environment.virtual_environment(s), "problem", "did not finish")
    write(s.stamp("cuda"))
    says(environment.virtual_environment(s), "note", "set up for cuda, not for cpu")
    write(s.stamp("cpu"))
    says(environment.virtual_environment(s), "ok")
    os.utime(s.stamp("cpu"), (0, 0))
    says(environment.virtual_environment(s), "note", "cpu.txt is newer")
    s.python.unlink()
    says(environment.virtual_environment(s), "problem", "does not run", "rm -rf .venv")


def test_a_python_that_cannot_build_environments(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    says(environment.virtual_environment(place()), "problem", "lacks ensurepip", "python3-venv")


def test_packages(place: Make) -> None:
    s = place()
    says(environment.packages(s), "note", "not looked at")
    write(s.root / "requirements/cpu.txt", "numpy==2.0  # why\nPy_YAML==6.0\nold==1 ; python_full_version < '3.12'\n")
    values = {"python_full_version": "3.12.1"}

    def listed(**versions: str) -> Finding:
        fake_venv(s, f"echo '{json.dumps({'versions': versions, 'values': values})}'")
        return environment.packages(s)

    says(listed(NumPy="2.0", **{"py.yaml": "6.0"}), "ok", "2 as pinned")
    says(listed(numpy="1.9", **{"py-yaml": "6.0"}), "note", "numpy 1.9 (pinned: 2.0)")
    says(listed(numpy="2.0"), "problem", "1 of 2", "missing: py-yaml", "make setup")
    fake_venv(s, "echo broken >&2; exit 3")
    says(environment.packages(s), "problem", "broken")
    says(environment.packages(place(accelerator="tpu")), "problem", "ACCELERATOR=tpu", "cpu, cuda")


def test_packages_of_a_real_environment(place: Make) -> None:
    s = place()
    (s.root / ".venv").symlink_to(sys.prefix)
    write(s.root / "requirements/cpu.txt", f"PyTest=={pytest.__version__}\n")
    says(environment.packages(s), "ok", "1 as pinned")


def test_pins_of_an_empty_environment_are_all_missing(place: Make) -> None:
    s = place()
    s.python.parent.mkdir(parents=True)
    s.python.symlink_to(sys.executable)  # without pyvenv.cfg beside it: the base Python
    assert len(pins((s.root / "requirements/cpu.txt").read_text())) > 50
    says(environment.packages(s), "problem", "pinned packages are missing", "and")


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("", True),
        ("python_full_version < '3.12'", True),
        ("python_full_version >= '3.9' and sys_platform == 'win32'", False),
        ('python_version == "3.11" or sys_platform == "win32"', True),
        ("python_full_version == '3.11'", False),
        ("python_version == '3.11.0'", True),
        ("sys_platform in 'linux'", None),
        ("(sys_platform == 'linux')", None),
        ("python_version == '3.*'", None),
        ("no_such_thing == 'x'", None),
    ],
)
def test_markers(marker: str, holds: bool | None) -> None:
    values = {"python_version": "3.11", "python_full_version": "3.11.7", "sys_platform": "linux"}
    assert applies(marker, values) is holds


def test_imports(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    s = place()
    says(environment.imports(s), "note", "not looked at")
    s.python.parent.mkdir(parents=True)
    s.python.symlink_to(sys.executable)
    monkeypatch.setattr(environment, "LIBRARIES", ("json", "csv"))
    says(environment.imports(s), "ok", "json 2", "csv 1")
    monkeypatch.setattr(environment, "LIBRARIES", ("json", "no_such_library", "csv"))
    says(environment.imports(s), "problem", "no_such_library cannot be imported (ModuleNotFoundError", "rm -rf .venv")
    s.python.unlink()
    for script, text in (
        ("printf 'numpy 2.0\\ncv2 '; kill -ILL $$", "cv2 cannot be imported (killed by SIGILL)"),
        ("kill -KILL $$", "Memory ran out"),
        ("echo \"version 'GLIBC_2.28' not found\" >&2; exit 1", "newer distribution"),
    ):
        fake_venv(s, script)
        says(environment.imports(s), "problem", text)
    fake_venv(s, "exec sleep 9")
    says(environment.imports(place(seconds=0.3)), "problem", "no answer within")


def driver(folder: Path, script: str) -> dict[str, str]:
    write(folder / "nvidia-smi", f"#!/bin/sh\n{script}\n", 0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def keras_sees(*devices: str) -> str:
    return f"echo chatter; echo '{json.dumps({'version': '3', 'backend': 'tensorflow', 'devices': devices})}'"


def test_accelerator_on_the_processor(place: Make, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path / "none")}
    says(accelerator.accelerator(place()), "note", "not looked at")
    s = place(environ=bare)
    fake_venv(s, keras_sees("NVIDIA T4"))
    says(accelerator.accelerator(s), "ok", "Keras 3 on tensorflow sees NVIDIA T4")
    fake_venv(s, keras_sees())
    says(accelerator.accelerator(s), "note", "computes on the processor", "enough for make demo")
    idle = place(environ=driver(tmp_path / "bin", "echo 'GPU 0: NVIDIA T4 (UUID: GPU-1)'"))
    says(accelerator.accelerator(idle), "note", "the driver sees GPU 0: NVIDIA T4.", "make setup ACCELERATOR=cuda")


def test_accelerator_asked_for_and_not_seen(place: Make, tmp_path: Path) -> None:
    def why(**environ: str) -> Finding:
        s = place(environ={"PATH": str(tmp_path / "none"), **environ}, accelerator="cuda")
        return accelerator.accelerator(s)

    fake_venv(place(), keras_sees())
    says(why(), "problem", "nvidia-smi is missing", "driver")
    says(why(CUDA_VISIBLE_DEVICES="-1"), "problem", "CUDA_VISIBLE_DEVICES hides")
    says(why(**driver(tmp_path / "bad", "echo Failed to talk; exit 9")), "problem", "nvidia-smi says: Failed to talk")
    works = driver(tmp_path / "bin", "echo 'GPU 0: NVIDIA T4 (UUID: GPU-1)'")
    says(why(**works), "problem", "NVIDIA T4", "CUDA is not in .venv")
    write(place().stamp("cuda"))
    says(why(**works), "problem", "LD_LIBRARY_PATH")


def test_accelerator_without_keras(place: Make) -> None:
    s = place(environ={"KERAS_BACKEND": "jax"})
    fake_venv(s, "echo \"ModuleNotFoundError: No module named 'jax'\" >&2; exit 1")
    says(accelerator.accelerator(s), "problem", "KERAS_BACKEND=jax", "No module named 'jax'", "unset")
    says(accelerator.accelerator(place()), "problem", "Keras does not start", "make setup")
    fake_venv(s, "kill -ILL $$")
    says(accelerator.accelerator(place()), "problem", "killed by SIGILL", "AVX")


@pytest.mark.keras
def test_accelerator_asks_the_real_keras(place: Make) -> None:
    s = place(environ={"KERAS_BACKEND": "tensorflow"})
    (s.root / ".venv").symlink_to(sys.prefix)
    finding = accelerator.accelerator(s)
    assert finding.mark in ("ok", "note")
    assert "on tensorflow" in finding.found
