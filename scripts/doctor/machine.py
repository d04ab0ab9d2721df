"""Checks of the machine and of `.venv`, and what every check looks at and says: standard library alone, Python 3.8 and later."""

from __future__ import annotations

import importlib.util
import locale
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

OLDEST, NEWEST = (3, 11), (3, 13)  # what the code is written for; the pinned TensorFlow has wheels up to CPython 3.13
OLDEST_MAKE = (3, 81)
DEMO_BYTES = 1.0e9  # measured: memory of the largest process of make demo
ROOMY_BYTES = 4.0e9  # memory for a large backbone, its batches and the page cache of a pack
OPEN_FILES = 256  # macOS' default, which is enough
YEAR_2024_SECONDS = 1704067200  # since 1970
WRITTEN = ("build", "folds", "submissions")
PACK_BYTES = 2.9e9  # on disk: 22,424 training images at 180x240; test images are streamed
DOWNLOAD_BYTES = 9.0e9  # on disk: the competition's archive beside what it unpacks to
LITTLE_BYTES = 1.0e9  # on disk: less than this stops even small data sets
REBUILD = "Build it from scratch: rm -rf .venv && make setup"


@dataclass(frozen=True)
class Finding:
    """A check's answer; `todo` is empty where all is well."""

    mark: str  # ok, note or problem
    found: str
    todo: str = ""

    def line(self, title: str) -> str:
        text = f"{self.found}. {self.todo}." if self.todo else self.found
        return f"{self.mark:8} {title:13} {' '.join(text.split())}"


def ok(found: str) -> Finding:
    return Finding("ok", found)


def note(found: str, todo: str) -> Finding:
    """Something that works, or that only some targets need."""
    return Finding("note", found, todo)


def problem(found: str, todo: str) -> Finding:
    """Something that stops the pipeline."""
    return Finding("problem", found, todo)


@dataclass(frozen=True)
class Surroundings:
    """Everything the checks look at, so that tests can put something else there."""

    root: Path = Path()  # the repository
    dataset: str = "statefarm"
    data: str = ""  # DATA; empty where the data set's own folder counts
    weights: str = ""  # WEIGHTS; empty where Keras downloads
    accelerator: str = "cpu"
    make_version: str = ""  # empty where make did not start the doctor
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    system: Path = Path("/")  # where proc/ and sys/ are
    seconds: float = 120  # limit of each process that a check starts; TensorFlow on a cold disk is slow

    @property
    def python(self) -> Path:
        """The virtual environment's Python, which need not be there."""
        return self.root.absolute() / ".venv" / "bin" / "python"

    @property
    def is_inside(self) -> bool:
        """Whether the doctor itself runs in the virtual environment, whose libraries it can then import."""
        return Path(sys.prefix).resolve() == (self.root / ".venv").resolve()

    @property
    def requirements(self) -> Path:
        """The pins of this accelerator."""
        return self.root / "requirements" / f"{self.accelerator}.txt"

    def stamp(self, accelerator: str) -> Path:
        """The file that `make setup` leaves when it has finished."""
        return self.root / ".venv" / f".runtime-{accelerator}"


class Answer(NamedTuple):
    """What a process wrote, and why it failed; no cause where it ended well."""

    out: str
    cause: str


def ask(s: Surroundings, command: Sequence[str | Path], **environ: str) -> Answer:
    """What a command answers in the repository, within `s.seconds`; nothing that goes wrong with it raises."""
    try:
        ended = subprocess.run(
            [str(part) for part in command],
            cwd=s.root,
            env={**s.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=s.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer("", f"no answer within {s.seconds:.0f} s")
    except OSError as error:
        return Answer("", error.strerror or type(error).__name__)
    status, lines = ended.returncode, [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    if status < 0:
        return Answer(ended.stdout, f"killed by {signal.Signals(-status).name}")
    return Answer(ended.stdout, (lines[-1][:200] if lines else f"exit status {status}") if status else "")


def gigabytes(count: float) -> str:
    """A number of bytes in GB (10^9)."""
    return f"{count / 1e9:.1f} GB"


def names(items: Sequence[str], first: int = 6) -> str:
    """The first few names, and how many more there are."""
    rest = len(items) - first
    return ", ".join(items[:first]) + (f" and {rest} more" if rest > 0 else "")


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
        return problem(f"/bin/sh does not run ({shell.cause})", "Every target needs it: fix the system's shell")
    numbers = re.match(r"(\d+)\.(\d+)", s.make_version)
    if not numbers:
        return note("/bin/sh runs; make's version is not known", "Run the doctor as make doctor")
    if (int(numbers.group(1)), int(numbers.group(2))) < OLDEST_MAKE:
        return problem(f"GNU make {s.make_version}, expected 3.81 or later", "Install a newer GNU make")
    return ok(f"GNU make {s.make_version}, /bin/sh runs")


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
    if time.time() < YEAR_2024_SECONDS:
        return note(f"says {today}", "Set it, or downloads fail with certificates that are not yet valid")
    return ok(today)


def processor(s: Surroundings) -> Finding:
    """Cores that this process may use, and AVX, without which TensorFlow's x86 wheels die of an illegal instruction."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cores} core{'' if cores == 1 else 's'}"
    flags = re.search(r"^flags\s*:(.*)$", _text(s.system / "proc/cpuinfo"), re.MULTILINE)
    if flags and "avx" not in flags.group(1).split():
        return problem(f"{found}, no AVX", "TensorFlow's wheels need AVX: use another machine or machine type")
    if cores < 2:
        return note(found, "Everything works on one core, but images and network then wait for each other")
    return ok(found + (", AVX" if flags else ""))


def memory(s: Surroundings) -> Finding:
    """Total memory (or the control group's limit) and, where psutil is there, what is available of it."""
    try:
        import psutil

        total, available = float(psutil.virtual_memory().total), float(psutil.virtual_memory().available)
    except ImportError:  # before .venv is there
        total, available = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), float("inf")
    limit = min([total, *_group_limits(s)])
    free = min(limit, available)
    limited = " (limit of the control group)" if limit < total else ""
    found = f"{gigabytes(limit)}{limited}" + ("" if available == float("inf") else f", {gigabytes(free)} available")
    advice = "make demo takes 1.0 GB in its largest process; 4 GB are comfortable"
    if limit < DEMO_BYTES:
        return problem(found, f"{advice}: use a larger machine or raise the limit")
    if limit < ROOMY_BYTES:
        return note(found, f'{advice}: choose small backbones and SET="train.batch_size=8"')
    if free < DEMO_BYTES:
        return note(found, f"{advice}: close other programs")
    return ok(found)


def _group_limits(s: Surroundings) -> list[float]:
    """Limits in bytes that control groups (version 1 and 2) set to this process, at the mount's top or at its own group."""
    groups, text = s.system / "sys/fs/cgroup", _text(s.system / "proc/self/cgroup")
    own = [path.lstrip("/") for path in re.findall(r"^\d+:(?:|.*\bmemory\b.*):(.*)$", text, re.MULTILINE)]
    places = [groups / kind / path for path in ("", *own) for kind in ("", "memory")]
    limits = [_text(place / name) for place in places for name in ("memory.max", "memory.limit_in_bytes")]
    return [float(limit) for limit in limits if limit.strip().isdigit()]


def _text(path: Path) -> str:
    """A system file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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


def folders(s: Surroundings) -> Finding:
    """The folders that targets write to, or the nearest folder above each."""
    problems = [found for found in (_obstacle(s.root / name) for name in WRITTEN) if found]
    if problems:
        return problem(", ".join(problems), "Make each a folder of your own that can be written")
    return ok(f"{', '.join(WRITTEN)} can be written")


def _obstacle(path: Path) -> str:
    """What keeps a folder from being written; empty where nothing does."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to nothing"
    place = _existing(path)
    if not place.is_dir():
        return f"{place} is a file"
    return "" if os.access(str(place), os.W_OK | os.X_OK) else f"{place} cannot be written"


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    whole = path.absolute()
    return next(place for place in (whole, *whole.parents) if place.exists())


def disk(s: Surroundings, data: Path | None = None, is_there: bool = False) -> Finding:
    """Free space for packs in build/ and for the data set (unless it `is_there`); a shared disk needs both."""
    data = s.root / (s.data or "data") if data is None else data
    needs = {s.root / "build": PACK_BYTES, data: 0.0 if is_there else DOWNLOAD_BYTES}
    shared = len({_existing(folder).stat().st_dev for folder in needs}) == 1
    free = {folder: shutil.disk_usage(str(_existing(folder))).free for folder in needs}
    found = ", ".join(f"{gigabytes(bytes_free)} free in {folder}" for folder, bytes_free in free.items())
    if min(free.values()) < LITTLE_BYTES:
        return problem(found, "Free some space, or link build and data to a larger disk")
    total = sum(needs.values())
    if any(free[folder] < (total if shared else need) for folder, need in needs.items()):
        return note(
            found,
            f"The full competition takes {gigabytes(PACK_BYTES)} for packs at 180x240 and {gigabytes(DOWNLOAD_BYTES)} "
            "while its download is unpacked; make demo and samples take far less",
        )
    return ok(found)


def environment(s: Surroundings) -> Finding:
    """The virtual environment and the stamp that a finished `make setup` leaves."""
    folder, stamp = s.root / ".venv", s.stamp(s.accelerator)
    if not folder.exists() and not folder.is_symlink():
        return _unbuilt()
    answer = ask(s, [s.python, "-c", ""])
    if answer.cause:
        return problem(f".venv is there, but its Python does not run ({answer.cause})", REBUILD)
    setup = f"make setup ACCELERATOR={s.accelerator}"
    if not stamp.is_file():
        others = [path.name[len(".runtime-") :] for path in sorted(folder.glob(".runtime-*"))]
        if others:
            return note(f"set up for {', '.join(others)}, not for {s.accelerator}", f"Change that with {setup}")
        return problem("its setup did not finish", f"Finish it: {setup}")
    if s.requirements.is_file() and s.requirements.stat().st_mtime > stamp.stat().st_mtime:
        return note(f"{s.requirements.name} is newer than the environment", f"The next target installs it, or {setup}")
    return ok(f"set up for {s.accelerator}")


def _unbuilt() -> Finding:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        return problem(
            f"there is no .venv, and this Python cannot build one (it lacks {' and '.join(missing)})",
            "Install them (Debian and Ubuntu: apt-get install python3-venv) or name another Python with PYTHON3=",
        )
    return note("there is no .venv yet", "make setup builds it, and so does every target that needs it")


CHECKS = {
    "Python": python,
    "make": make,
    "encoding": encoding,
    "clock": clock,
    "processor": processor,
    "memory": memory,
    "limits": limits,
    "folders": folders,
    "disk": disk,
    "environment": environment,
}
