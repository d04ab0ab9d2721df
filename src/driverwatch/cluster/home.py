"""What jobs send home: files put together beside their place, held against their digests, renamed into it."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from driverwatch.cluster.jobs import Job
from driverwatch.errors import InputError
from driverwatch.writing import replacing


class Arrivals:
    """Files of one job on their way home. Only what the job may write is taken."""

    def __init__(self, job: Job, root: Path) -> None:
        self.job, self.root = job, root
        self.digests: dict[str, Any] = {}

    def piece(self, name: str, content: bytes, digest: str | None) -> None:
        """The next piece of a file; with its last comes the `digest` of all.

        Raises:
            InputError: a file that the job has no business with, or other bytes than were sent.
        """
        path = self._allowed(name)
        partial = path.with_name(f".{path.name}.coming.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        begins = name not in self.digests
        found = self.digests.setdefault(name, hashlib.sha256())
        found.update(content)
        with partial.open("wb" if begins else "ab") as file:
            file.write(content)
        if digest is None:
            return
        del self.digests[name]
        if found.hexdigest() != digest:
            partial.unlink()
            raise InputError(f"{path}: arrived damaged; the same command goes on")
        with replacing(path) as temporary:
            partial.replace(temporary)

    def whole(self, names: list[str]) -> None:
        """All that the job's folder holds at the end: the rest of it is spent, and goes."""
        folder = self.root / str(self.job.whole)
        keep = {self._allowed(name) for name in names}
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_file() and path not in keep and path.name != ".lock":
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                shutil.rmtree(path)

    def _allowed(self, name: str) -> Path:
        path = Path(name)
        inside = self.job.whole is not None and path.is_relative_to(self.job.whole)
        if ".." in path.parts or not (inside or any(path.match(pattern) for pattern in self.job.brings)):
            raise InputError(f"{name}: {self.job.name} has no business with it; another program speaks in its place")
        return self.root / path
