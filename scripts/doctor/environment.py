"""The virtual environment: whether it is there, finished, as pinned, and importable."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from scripts.doctor.finding import Finding, Surroundings, ask, names, note, ok, problem
from scripts.doctor.requirements import applies, normalized, pins

REBUILD = "Build it anew: rm -rf .venv && make setup"
UNSEEN = note("not looked at, for want of a working .venv", "See environment")
LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "h5py",
    "cv2",
    "simplejpeg",
    "PIL",
    "pydantic",
    "yaml",
    "albumentations",
)

# what the environment's own Python says: installed versions, and the values that markers ask for
_INSTALLED = """
import json, os, platform, sys
from importlib import metadata
versions = {}
for package in metadata.distributions():
    if package.metadata["Name"]:
        versions.setdefault(package.metadata["Name"], package.version)
values = {"python_version": ".".join(platform.python_version_tuple()[:2]),
          "python_full_version": platform.python_version(), "sys_platform": sys.platform, "os_name": os.name,
          "platform_machine": platform.machine(), "platform_system": platform.system(),
          "platform_python_implementation": platform.python_implementation(),
          "implementation_name": sys.implementation.name}
print(json.dumps({"versions": versions, "values": values}))
"""

# each name is written before its import: the last one without a version is what a crash died of
_IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, end=" ", flush=True)
    print(getattr(importlib.import_module(name), "__version__", "?"), flush=True)
"""


def works(s: Surroundings) -> bool:
    """Whether the virtual environment's Python runs at all."""
    return ask(s, [s.python, "-c", ""]).fine


def virtual_environment(s: Surroundings) -> Finding:
    """The environment and the stamp that a finished `make setup` leaves."""
    folder, stamp = s.root / ".venv", s.stamp(s.accelerator)
    if not folder.exists() and not folder.is_symlink():
        return _unbuilt()
    answer = ask(s, [s.python, "-c", ""])
    if not answer.fine:
        return problem(f".venv is there, but its Python does not run ({answer.cause})", REBUILD)
    setup = f"make setup ACCELERATOR={s.accelerator}"
    if not stamp.is_file():
        others = [path.name[len(".runtime-") :] for path in sorted(folder.glob(".runtime-*"))]
        if others:
            return note(f"set up for {', '.join(others)}, not for {s.accelerator}", f"Change that with {setup}")
        return problem("its setup did not finish", f"Finish it: {setup}")
    requirements = s.root / "requirements" / f"{s.accelerator}.txt"
    if requirements.is_file() and requirements.stat().st_mtime > stamp.stat().st_mtime:
        return note(f"{requirements.name} is newer than the environment", f"The next target installs it, or {setup}")
    return ok(f"set up for {s.accelerator}")


def _unbuilt() -> Finding:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        return problem(
            f"there is no .venv, and this Python cannot build one (it lacks {' and '.join(missing)})",
            "Install them (Debian and Ubuntu: apt-get install python3-venv) or name another Python with PYTHON3=",
        )
    return note("there is no .venv yet", "make setup builds it, and so does every target that needs it")


def packages(s: Surroundings) -> Finding:
    """Installed versions against the pins of this accelerator's requirements."""
    requirements = s.root / "requirements" / f"{s.accelerator}.txt"
    if not requirements.is_file():
        known = sorted(path.stem for path in requirements.parent.glob("c*.txt"))
        return problem(f"ACCELERATOR={s.accelerator} has no {requirements}", f"Known are: {', '.join(known) or 'none'}")
    if not works(s):
        return UNSEEN
    answer = ask(s, [s.python, "-c", _INSTALLED])
    if not answer.fine:
        return problem(f"could not be listed ({answer.cause})", REBUILD)
    return _against_pins(s, requirements.read_text(encoding="utf-8"), json.loads(answer.out.splitlines()[-1]))


def _against_pins(s: Surroundings, text: str, installed: dict[str, Any]) -> Finding:
    versions = {normalized(name): version for name, version in installed["versions"].items()}
    judged = [(pin, applies(pin.marker, installed["values"])) for pin in pins(text)]
    wanted = [pin for pin, applied in judged if applied]
    missing = [pin.name for pin in wanted if pin.name not in versions]
    other = [
        f"{pin.name} {versions[pin.name]} (pinned: {pin.version})"
        for pin in wanted
        if versions.get(pin.name, pin.version) != pin.version
    ]
    again = f"Install the pins: rm -f {s.stamp(s.accelerator)} && make setup ACCELERATOR={s.accelerator}"
    if missing:
        return problem(f"{len(missing)} of {len(wanted)} pinned packages are missing: {names(missing)}", again)
    if other:
        return note(f"{len(other)} of {len(wanted)} pinned packages in another version: {names(other)}", again)
    unjudged = sum(applied is None for _, applied in judged)
    return ok(f"{len(wanted)} as pinned" + (f", {unjudged} under markers that were not judged" if unjudged else ""))


def imports(s: Surroundings) -> Finding:
    """The libraries below Keras, imported in one process of their own, since a broken one may crash."""
    if not works(s):
        return UNSEEN
    answer = ask(s, [s.python, "-c", _IMPORTS, *LIBRARIES], NO_ALBUMENTATIONS_UPDATE="1")
    if answer.fine:
        return ok(", ".join(answer.out.splitlines()))
    lines = answer.out.splitlines()
    culprit = lines[-1].strip() if lines else "Python"
    return problem(f"{culprit} cannot be imported ({answer.cause})", remedy(answer.cause))


def remedy(cause: str) -> str:
    """What to do about an import that failed."""
    if "GLIBC" in cause:
        return "The system is older than the wheels: use a newer distribution"
    if "SIGILL" in cause:
        return "The processor lacks instructions that the wheels use (AVX): use another machine"
    if any(sign in cause for sign in ("SIGKILL", "map segment", "allocate memory", "MemoryError")):
        return "Memory ran out: see memory and limits above"
    if "within" in cause:
        return "The disk or the machine is very slow: run the doctor again, now that files are cached"
    return REBUILD
