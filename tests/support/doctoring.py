"""What the doctor's tests share: surroundings to put it in, and how its findings are read."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.doctor.machine import Finding, Surroundings
from support.places import ROOT

SECRET = "5ecr3t-0f-0ne"
Make = Callable[..., Surroundings]


def makes_places(folder: Path) -> Make:
    """Builds surroundings in an empty folder with the real configs and requirements, an empty home, no system files."""
    for name in ("configs", "requirements"):
        shutil.copytree(ROOT / name, folder / "root" / name)
    (folder / "home").mkdir()

    def build(environ: dict[str, str] | None = None, **more: Any) -> Surroundings:
        environ = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], **(environ or {})}
        return Surroundings(**{"root": folder / "root", "environ": environ, "system": folder / "system", **more})

    return build


def write(path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def fake_venv(s: Surroundings, script: str = "exit 0", stamp: str = "cpu") -> None:
    """A .venv whose Python is a shell script; an empty program always succeeds."""
    write(s.python, f'#!/bin/sh\n[ -z "$2" ] && exit 0\n{script}\n', 0o755)
    if stamp:
        write(s.stamp(stamp))


def says(finding: Finding, mark: str, *texts: str) -> None:
    line = finding.line("title")
    assert finding.mark == mark, line
    assert bool(finding.todo) == (mark != "ok"), line
    assert all(text in line for text in texts), line
    assert "\n" not in line
