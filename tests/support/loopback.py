"""A cluster of processes on this machine: nodes that are started by the real command, and killed as machines are."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@dataclass
class Loopback:
    """Nodes in the order in which they were started; the first is the head."""

    folder: Path
    port: int = field(default_factory=free_port)
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, own: Path | None = None, cpus: int | None = None, source: Path = ROOT / "src") -> None:
        """Start a node, with a folder of its own or none, from the code in `source`; wait until it is in."""
        words = [sys.executable, "-m", "driverwatch", "node", "--ip", "127.0.0.1"]
        words += ["--address", self.address] if self.nodes else ["--port", str(self.port)]
        words += ["--cpus", str(cpus)] if cpus is not None else []
        words += ["--folder", str(own)] if own else []
        log = self.folder / f"node{len(self.nodes)}.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {"RAY_AUTH_TOKEN": self.key, "PYTHONPATH": str(source)}
        with log.open("wb") as file:
            started = subprocess.Popen(words, env=env, stdout=file, stderr=file, start_new_session=True)
        self.nodes.append(started)
        end = time.monotonic() + 120
        while b"--block" not in log.read_bytes():  # Ray says so when all of its processes stand
            if started.poll() is not None or time.monotonic() > end:
                raise AssertionError(log.read_text())
            time.sleep(0.2)

    def kill(self, number: int) -> list[int]:
        """All of a node's processes at once, as when its power goes: children of jobs included. Those that were killed."""
        node = psutil.Process(self.nodes[number].pid)
        victims = [node, *node.children(recursive=True)]
        for one in victims:
            os.kill(one.pid, signal.SIGKILL)
        self.nodes[number].wait()
        return [one.pid for one in victims]

    def stop(self) -> None:
        for number in reversed(range(len(self.nodes))):
            if self.nodes[number].poll() is None:
                self.kill(number)


@contextmanager
def loopback(folder: Path) -> Iterator[Loopback]:
    folder.mkdir(parents=True, exist_ok=True)
    made = Loopback(folder)
    try:
        yield made
    finally:
        made.stop()
