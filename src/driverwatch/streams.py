"""Standard output and error that never fail the work that prints: what cannot be written is dropped, and told at the end."""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any


class Outlet(io.FileIO):
    """A descriptor that keeps its first failure instead of raising it, and drops what is written after."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while left and self.failure is None:
            try:
                written = super().write(left)
                if written is None:  # a pipe that is full and was told not to wait
                    select.select([], [self], [])
                left = left[written or 0 :]
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def keep_printing() -> None:
    """Put standard output and error behind outlets, and signs that their encoding lacks as escapes (`\\u2192`).

    A closed one (`>&-`) is the null device, so that no file which is opened later gets its number. What replaced them (a
    notebook's, a test's) is left alone.
    """
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _occupy()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or isinstance(_raw(stream), Outlet):
            continue
        made = (
            _behind_outlet(stream) if stream else io.TextIOWrapper(Outlet(os.devnull, "w"), "utf-8", "backslashreplace")
        )
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def _occupy() -> None:
    """Fill the closed ones among the descriptors 0, 1 and 2."""
    taken = os.open(os.devnull, os.O_RDWR)
    while taken < 3:
        os.set_inheritable(taken, True)
        taken = os.open(os.devnull, os.O_RDWR)
    os.close(taken)


def _behind_outlet(stream: Any) -> io.TextIOWrapper:
    with suppress(OSError):
        stream.flush()
    outlet = Outlet(stream.fileno(), "w", closefd=False)
    through = stream.write_through
    return io.TextIOWrapper(
        outlet if through else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=through,
    )


def _raw(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def lost() -> str | None:
    """Why something that was printed did not arrive; None where all did, or where nobody wanted it any more (`| head`)."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    failure = getattr(_raw(sys.stdout), "failure", None)
    return None if failure is None or failure.errno == errno.EPIPE else failure.strerror
