"""The measuring of `make test-size` sees what it is there to see."""

import re
import subprocess
import sys

import pytest
from support import fullsize
from support.fullsize import Cost

from benchmarks import memory_sampler

HOLDS = "import time; held = b'x' * ({} << 20); time.sleep(0.5)"


def test_private_memory_of_all_processes_is_seen() -> None:
    command = (
        f"import subprocess, sys; {HOLDS.format(30)}; subprocess.run([sys.executable, '-c', {HOLDS.format(60)!r}])"
    )
    memory, largest = fullsize.watched(subprocess.Popen([sys.executable, "-c", command]))
    assert 60 < largest / 2**20 < 80
    assert 90 < memory / 2**20 < 120


@pytest.mark.parametrize(
    ("step", "full", "invalid"),
    [
        ("train", Cost(40, 109, 109), ""),
        ("train", Cost(40, 111, 111), "memory ratio above 1.10"),
        ("score", Cost(40, 111, 111), ""),
        ("score", Cost(40, 500, 500), "bytes per image"),
        ("score", Cost(400, 100, 100), "time per image"),
    ],
)
def test_limits(step: str, full: Cost, invalid: str) -> None:
    line = fullsize.row(step, Cost(10, 100, 100), full)
    assert (invalid in str(line["invalid"])) if invalid else line["invalid"] == ""
    assert step in fullsize.told([line])


def test_the_sampler_says_what_a_command_took_and_how_it_ended(capfd: pytest.CaptureFixture[str]) -> None:
    command = "import time; taken = b'x' * 300_000_000; time.sleep(0.5); raise SystemExit(3)"
    assert memory_sampler.main([sys.executable, "-c", command]) == 3
    said = re.fullmatch(
        r"peak of private memory: ([\d.]+) GB of all its processes, [\d.]+ GB of the largest\n", capfd.readouterr().out
    )
    assert said and 0.3 <= float(said[1]) < 0.6
