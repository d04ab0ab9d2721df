"""Private (anonymous) memory of a command and all its processes, sampled while it runs; pages of mapped packs do not count."""

import subprocess
import time

import psutil

SAMPLE_SECONDS = 0.02  # what lives for less may be missed


def watched(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Peak private memory of a process and its descendants until it ends, bytes: all together, and the largest one."""
    total = largest = 0
    known: set[psutil.Process] = set()
    while process.poll() is None:
        found = _family(process.pid)
        # a new one still shares its parent's pages
        old = [private for each, private in found.items() if each in known]
        total, largest = max(total, sum(old)), max([largest, *old])
        known = set(found)
        time.sleep(SAMPLE_SECONDS)
    return total, largest


def _family(pid: int) -> dict[psutil.Process, int]:
    """Private bytes of a process and of each of its descendants, those that are gone by now left out."""
    found: dict[psutil.Process, int] = {}
    try:
        first = psutil.Process(pid)
        for each in (first, *first.children(recursive=True)):
            used = each.memory_info()
            found[each] = used.rss - used.shared  # Linux: what is resident and neither a file's nor shared memory
    except psutil.NoSuchProcess:
        pass
    return found
