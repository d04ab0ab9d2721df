"""Private (anonymous) memory of a command and all its processes, sampled while it runs; pages of mapped packs do not count."""

import subprocess
import time
from pathlib import Path

TICK = 0.02  # seconds; what lives for less may be missed


def watched(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Peak of the private memory of a process and its descendants until it ends, kB: all together, and the largest one."""
    memory = largest = 0
    known: set[int] = set()
    while process.poll() is None:
        found = {pid: private(pid) for pid in family(process.pid)}
        # a new one still shares its parent's pages
        old = [kilobytes for pid, kilobytes in found.items() if pid in known]
        memory, largest = max(memory, sum(old)), max([largest, *old])
        known = set(found)
        time.sleep(TICK)
    return memory, largest


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [each for child in children.read_text().split() for each in family(int(child))]
        except OSError:  # the thread is gone
            continue
    return found


def private(pid: int) -> int:
    """Anonymous memory of a process, kB; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
