"""The machine: Python, make, processor, memory, limits, encoding, clock."""

from __future__ import annotations

import locale
import os
import platform
import re
import resource
import sys
import time
from pathlib import Path

from scripts.doctor.finding import Finding, Surroundings, ask, gigabytes, note, ok, problem

OLDEST = (3, 11)  # what the code is written for
NEWEST = (3, 13)  # the pinned TensorFlow has wheels for CPython 3.10 to 3.13
OLDEST_MAKE = (3, 81)
DEMO_MEMORY = 1.0e9  # bytes, measured: the largest process of make demo
EASY_MEMORY = 4.0e9  # bytes: room for a large backbone, its batches and the page cache of a pack
OPEN_FILES = 256  # macOS' default, which is enough
YEAR_2024 = 1704067200  # seconds since 1970


def python(s: Surroundings) -> Finding:
    """The Python that runs this: the virtual environment's, or the one that would build it."""
    version, bits = tuple(sys.version_info[:2]), 64 if sys.maxsize > 2**32 else 32
    found = f"{platform.python_version()}, {bits}-bit {platform.machine()} {platform.system()} ({sys.executable})"
    if version < OLDEST or version > NEWEST:
        return problem(
            f"{found}, expected 3.11 to 3.13",
            "Install one of these and name it, for example: rm -rf .venv && make setup PYTHON3=python3.12",
        )
    if bits != 64:
        return problem(f"{found}, expected 64-bit", "TensorFlow has no 32-bit wheels: install a 64-bit Python")
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        return problem(f"{found}: TensorFlow has no wheels for it", "Use Linux, or a native Python on Apple silicon")
    return ok(found)


def make(s: Surroundings) -> Finding:
    """GNU make's version as make passes it, and the shell it calls."""
    shell = ask(s, ["/bin/sh", "-c", "echo fine"])
    if shell.out.strip() != "fine":
        return problem(f"/bin/sh does not run ({shell.cause})", "Every target needs it: mend the system's shell")
    numbers = re.match(r"(\d+)\.(\d+)", s.make_version)
    if not numbers:
        return note("/bin/sh runs; make's version is not known", "Run the doctor as make doctor")
    if (int(numbers.group(1)), int(numbers.group(2))) < OLDEST_MAKE:
        return problem(f"GNU make {s.make_version}, expected 3.81 or later", "Install a newer GNU make")
    return ok(f"GNU make {s.make_version}, /bin/sh runs")


def processor(s: Surroundings) -> Finding:
    """Cores that this process may use, and AVX, without which TensorFlow's x86 wheels die of an illegal instruction."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cores} core{'' if cores == 1 else 's'}"
    flags = re.search(r"^flags\s*:(.*)$", _text(s.system / "proc/cpuinfo"), re.MULTILINE)
    if flags and "avx" not in flags.group(1).split():
        return problem(f"{found}, no AVX", "TensorFlow's wheels need AVX: use another machine or machine type")
    if cores < 2:
        return note(found, "The line works on one core, but photos and network then wait for each other")
    return ok(found + (", AVX" if flags else ""))


def memory(s: Surroundings) -> Finding:
    """Total memory (or the control group's limit) and what is free of it, against what the demo was measured to take."""
    total, available = _memory(s)
    if total is None:
        return note("not known here", "make demo takes 1.0 GB in its largest process; 4 GB are comfortable")
    limit = min([total, *_group_limits(s)])
    free = min(limit, available if available is not None else limit)
    limited = " (limit of the control group)" if limit < total else ""
    found = f"{gigabytes(limit)}{limited}" + ("" if available is None else f", {gigabytes(free)} available")
    advice = "make demo takes 1.0 GB in its largest process; 4 GB are comfortable"
    if limit < DEMO_MEMORY:
        return problem(found, f"{advice}: use a larger machine or raise the limit")
    if limit < EASY_MEMORY:
        return note(found, f'{advice}: choose small backbones and SET="train.batch_size=8"')
    if free < DEMO_MEMORY:
        return note(found, f"{advice}: close other programs")
    return ok(found)


def limits(s: Surroundings) -> Finding:
    """The shell's limits: files that a process may hold open, and address space, of which TensorFlow maps gigabytes."""
    files, space = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    unlimited = resource.RLIM_INFINITY
    found = f"{'any number of' if files == unlimited else files} open files"
    if space != unlimited:
        return note(
            f"{found}, {gigabytes(space)} of address space",
            "If a library does not load, lift the limit in this shell: ulimit -v unlimited",
        )
    if files != unlimited and files < OPEN_FILES:
        return note(found, f"Allow more in this shell: ulimit -n {4 * OPEN_FILES}")
    return ok(f"{found}, any address space")


def encoding(s: Surroundings) -> Finding:
    """UTF-8 in file names, output and files, as this process got it from its locale."""
    used = {
        "file names": sys.getfilesystemencoding(),
        "output": getattr(sys.stdout, "encoding", None) or "none",
        "files": locale.getpreferredencoding(False),
    }
    wrong = [f"{name} in {code}" for name, code in used.items() if code.lower().replace("-", "") != "utf8"]
    if wrong:
        return problem(
            f"{', '.join(wrong)}, expected UTF-8",
            "Set it in this shell: unset LC_ALL PYTHONIOENCODING; export LANG=C.UTF-8 PYTHONUTF8=1",
        )
    return ok("UTF-8 in file names, output and files")


def clock(s: Surroundings) -> Finding:
    """A clock far behind makes every certificate invalid, and with it every download."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    if time.time() < YEAR_2024:
        return note(f"says {today}", "Set it, or downloads fail with certificates that are not yet valid")
    return ok(today)


def _memory(s: Surroundings) -> tuple[float | None, float | None]:
    """Total and available bytes; None where the system does not say."""
    kib = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", _text(s.system / "proc/meminfo"), re.MULTILINE))
    total, available = (1024.0 * int(kib[key]) if key in kib else None for key in ("MemTotal", "MemAvailable"))
    if total is None:
        answer = ask(s, ["sysctl", "-n", "hw.memsize"])  # macOS
        total = float(answer.out) if answer.fine and answer.out.strip().isdigit() else None
    return total, available


def _group_limits(s: Surroundings) -> list[float]:
    """Limits in bytes that control groups (version 1 and 2) set to this process, at the mount's top or at its own group."""
    groups = s.system / "sys/fs/cgroup"
    places = [groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"]
    for line in _text(s.system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places.append(groups / path.lstrip("/") / "memory.max")
        elif "memory" in controllers.split(","):
            places.append(groups / "memory" / path.lstrip("/") / "memory.limit_in_bytes")
    return [float(text) for text in (_text(place).strip() for place in places) if text.isdigit()]


def _text(path: Path) -> str:
    """A system file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
