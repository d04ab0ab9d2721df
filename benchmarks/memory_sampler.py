"""Private (anonymous) memory of a command and all its processes, sampled while it runs; pages of mapped packs do not count.

    PYTHONPATH=. python -m benchmarks.memory_sampler make demo

runs the command, says its peaks, and ends with its exit status.
"""

import subprocess
import sys
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


def main(command: list[str]) -> int:
    """The exit status of a command, after its peaks are printed in 10^9 bytes."""
    with subprocess.Popen(command) as process:
        total, largest = watched(process)
    print(f"peak of private memory: {total / 1e9:.2f} GB of all its processes, {largest / 1e9:.2f} GB of the largest")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
