"""The doctor on the virtual environment and what Keras computes on: fine, broken, missing."""

import json
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.doctoring import Make, fake_venv, makes_places, says, write

from scripts.doctor import __main__ as doctor
from scripts.doctor import machine, project
from scripts.doctor.machine import Finding


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


def test_virtual_environment(place: Make) -> None:
    s = place()
    says(machine.environment(s), "note", "no .venv yet", "make setup")
    fake_venv(s, stamp="")
    says(machine.environment(s), "problem", "did not finish")
    write(s.stamp("cuda"))
    says(machine.environment(s), "note", "set up for cuda, not for cpu")
    write(s.stamp("cpu"))
    says(machine.environment(s), "ok")
    os.utime(s.stamp("cpu"), (0, 0))
    says(machine.environment(s), "note", "cpu.txt is newer")
    s.python.unlink()
    says(machine.environment(s), "problem", "does not run", "rm -rf .venv")


def test_a_python_that_cannot_build_environments(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    says(machine.environment(place()), "problem", "lacks ensurepip", "python3-venv")


def test_packages(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    s = place()
    pins = "numpy==2.0  # why\nPy_YAML==6.0\n# none\n-r other.txt\nold==1 ; python_full_version < '3.8'\n"
    write(s.root / "requirements/cpu.txt", pins)

    def listed(**versions: str) -> Finding:
        def version(name: str) -> str:
            if name not in versions:
                raise metadata.PackageNotFoundError
            return versions[name]

        monkeypatch.setattr(metadata, "version", version)
        return project.packages(s)

    says(listed(numpy="2.0", Py_YAML="6.0.0"), "ok", "2 as pinned")
    says(listed(numpy="1.9", Py_YAML="6.0"), "note", "numpy 1.9 (pinned: 2.0)")
    says(listed(numpy="2.0"), "problem", "1 of 2", "missing: Py_YAML", "make setup")
    says(project.packages(place(accelerator="tpu")), "problem", "ACCELERATOR=tpu", "cpu, cuda")


def test_packages_of_a_real_environment(place: Make) -> None:
    s = place()
    write(s.root / "requirements/cpu.txt", f"PyTest=={pytest.__version__}\nno_such.package==1\n")
    says(project.packages(s), "problem", "1 of 2", "missing: no_such.package")
    write(s.root / "requirements/cpu.txt", f"PyTest=={pytest.__version__} ; sys_platform in 'linux darwin'\n")
    says(project.packages(s), "ok", "1 as pinned")


def test_pins_are_those_that_the_requirements_have(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    finding = project.packages(place())
    says(finding, "problem", "pinned packages are missing", "and")
    assert int(finding.found.split()[0]) > 50


def test_what_needs_libraries_is_looked_at_in_the_environment_alone(place: Make) -> None:
    """The Python that runs this has them all, but belongs to another environment, or lacks one."""
    s = place()
    needing = [title for title in project.CHECKS if title not in machine.CHECKS]
    for title in needing:
        says(doctor.checks(s)[title](s), "note", "not looked at", "See environment")
    (s.root / ".venv").symlink_to(sys.prefix)
    assert [doctor.checks(s)[title] for title in needing] == [project.CHECKS[title] for title in needing]
    assert doctor.checks(s)["disk"] is project.CHECKS["disk"]


def test_an_environment_without_a_library(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    s = place()
    (s.root / ".venv").symlink_to(sys.prefix)
    monkeypatch.delitem(sys.modules, "scripts.doctor.project")
    monkeypatch.delattr("scripts.doctor.project")
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    asked = doctor.checks(s)
    says(asked["packages"](s), "problem", "packaging", "make setup")
    says(asked["weights"](s), "note", "not looked at")
    assert asked["disk"] is machine.disk


def test_imports(place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    s = place()
    s.python.parent.mkdir(parents=True)
    s.python.symlink_to(sys.executable)
    monkeypatch.setattr(project, "LIBRARIES", ("json", "csv"))
    says(project.libraries(s), "ok", "json 2", "csv 1")
    monkeypatch.setattr(project, "LIBRARIES", ("json", "no_such_library", "csv"))
    says(project.libraries(s), "problem", "no_such_library cannot be imported (ModuleNotFoundError", "rm -rf .venv")
    s.python.unlink()
    for script, text in (
        ("printf 'numpy 2.0\\ncv2 '; kill -ILL $$", "cv2 cannot be imported (killed by SIGILL)"),
        ("kill -KILL $$", "Memory ran out"),
        ("echo \"version 'GLIBC_2.28' not found\" >&2; exit 1", "newer distribution"),
    ):
        fake_venv(s, script)
        says(project.libraries(s), "problem", text)
    fake_venv(s, "exec sleep 9")
    says(project.libraries(place(seconds=0.3)), "problem", "no answer within")


def driver(folder: Path, script: str) -> dict[str, str]:
    write(folder / "nvidia-smi", f"#!/bin/sh\n{script}\n", 0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def keras_sees(*devices: str) -> str:
    return f"echo chatter; echo '{json.dumps({'version': '3', 'backend': 'tensorflow', 'devices': devices})}'"


def test_accelerator_on_the_processor(place: Make, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path / "none")}
    s = place(environ=bare)
    fake_venv(s, keras_sees("NVIDIA T4"))
    says(project.accelerator(s), "ok", "Keras 3 on tensorflow sees NVIDIA T4")
    fake_venv(s, keras_sees())
    says(project.accelerator(s), "note", "computes on the processor", "enough for make demo")
    idle = place(environ=driver(tmp_path / "bin", "echo 'GPU 0: NVIDIA T4 (UUID: GPU-1)'"))
    says(project.accelerator(idle), "note", "the driver sees GPU 0: NVIDIA T4.", "make setup ACCELERATOR=cuda")


def test_accelerator_asked_for_and_not_seen(place: Make, tmp_path: Path) -> None:
    def why(**environ: str) -> Finding:
        s = place(environ={"PATH": str(tmp_path / "none"), **environ}, accelerator="cuda")
        return project.accelerator(s)

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
    says(project.accelerator(s), "problem", "KERAS_BACKEND=jax", "No module named 'jax'", "unset")
    says(project.accelerator(place()), "problem", "Keras does not start on KERAS_BACKEND=tensorflow", "make setup")
    fake_venv(s, "kill -ILL $$")
    says(project.accelerator(place()), "problem", "killed by SIGILL", "AVX")


@pytest.mark.slow
@pytest.mark.keras
def test_accelerator_asks_the_real_keras(place: Make) -> None:
    s = place(environ={"KERAS_BACKEND": "tensorflow"})
    (s.root / ".venv").symlink_to(sys.prefix)
    finding = project.accelerator(s)
    assert finding.mark in ("ok", "note")
    assert "on tensorflow" in finding.found
