"""What a check looks at and what it says: one line with a mark, a title, what was found and what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from driverwatch.paths import PathError, programs_home, user_path


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
    """Something that will stop the line."""
    return Finding("problem", found, todo)


@dataclass(frozen=True)
class Surroundings:
    """Everything the checks look at, so that tests can put something else there."""

    root: Path = Path()  # the repository
    dataset: str = "statefarm"
    data: str = ""  # DATA; empty where the data set's own folder counts
    weights: str = ""  # WEIGHTS; empty where Keras downloads
    accelerator: str = "cpu"
    make_version: str = ""  # empty where make did not start us
    interpreter: str = ""  # a Python in place of .venv's, on machines that come with their own
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    system: Path = Path("/")  # where proc/ and sys/ lie
    seconds: float = 120  # limit of each process that a check starts; TensorFlow on a cold disk is slow

    @property
    def home(self) -> Path:
        return programs_home(self.environ)

    @property
    def python(self) -> Path:
        """The virtual environment's Python, which need not be there, unless another was named."""
        return (
            user_path(self.interpreter, self.environ)
            if self.interpreter
            else self.root.absolute() / ".venv" / "bin" / "python"
        )

    def stamp(self, accelerator: str) -> Path:
        """The file that `make setup` leaves when it has finished."""
        return self.root / ".venv" / f".runtime-{accelerator}"


@dataclass(frozen=True)
class Answer:
    """How a process ended: its exit status (None: it never started or took too long), what it wrote, and why it failed."""

    status: int | None
    out: str
    cause: str

    @property
    def fine(self) -> bool:
        return self.status == 0


def ask(s: Surroundings, command: Sequence[str | Path], **environ: str) -> Answer:
    """Run a command in the repository, under the limit; nothing that goes wrong with it raises."""
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
        return Answer(None, "", f"no answer within {s.seconds:.0f} s")
    except OSError as error:
        return Answer(None, "", error.strerror or type(error).__name__)
    return Answer(ended.returncode, ended.stdout, _cause(ended.returncode, ended.stderr))


def _cause(status: int, err: str) -> str:
    if status < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"killed by {known.get(-status, f'signal {-status}')}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit status {status}"


def examined(check: Callable[[Surroundings], Finding], s: Surroundings) -> Finding:
    """A check's finding; a check that raises is a problem of its own.

    The exception's text is left out: it may repeat what was read, and a token must never be printed.
    """
    try:
        return check(s)
    except PathError as error:
        return problem(str(error), "Name it another way, and run make doctor again")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        return problem(
            f"this check failed itself: {type(error).__name__}{reason} at {where}", "Report it with this line"
        )


def standing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    whole = path.absolute()
    return next(place for place in (whole, *whole.parents) if place.exists())


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def names(items: Sequence[str], first: int = 6) -> str:
    """The first few names, and how many more there are."""
    rest = len(items) - first
    return ", ".join(items[:first]) + (f" and {rest} more" if rest > 0 else "")
