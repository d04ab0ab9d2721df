"""What jobs send home: files put together beside their place, held against their digests, renamed into it."""

import hashlib
import shutil
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from driverwatch import ownership
from driverwatch.cluster.jobs import Job
from driverwatch.errors import InputError, printable
from driverwatch.writing import replacing

NEVER = (".lock", ".lock.holder", ".partial")  # how names end of files that are a machine's own


def is_plain(name: object) -> bool:
    """Whether a name that came from elsewhere can only lie below the folder that it is put to, on any system."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name:
        return False
    path = PurePosixPath(name)
    rooted = path.is_absolute() or PureWindowsPath(name).drive
    return not rooted and ".." not in path.parts and bool(path.parts)


class Arrivals:
    """Files of one job on their way home. Only what the job may write is taken."""

    def __init__(self, job: Job, root: Path) -> None:
        self.job, self.root = job, root
        self.digests: dict[str, Any] = {}
        self.coming: dict[str, Path] = {}

    def piece(self, name: str, content: bytes, digest: str | None) -> None:
        """The next piece of a file; with its last comes the `digest` of all.

        Raises:
            InputError: a file that the job has no business with, or other bytes than were sent.
        """
        path = self._allowed(name)
        partial = self.coming.setdefault(name, ownership.temporary(path))
        partial.parent.mkdir(parents=True, exist_ok=True)
        begins = name not in self.digests
        found = self.digests.setdefault(name, hashlib.sha256())
        found.update(content)
        with partial.open("wb" if begins else "ab") as file:
            file.write(content)
        if digest is None:
            return
        del self.digests[name], self.coming[name]
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
            if path.is_file() and path not in keep and not path.name.endswith((".lock", ".holder")):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                shutil.rmtree(path)

    def _allowed(self, name: str) -> Path:
        if not is_plain(name) or name.endswith(NEVER) or not self._asked_for(PurePosixPath(name)):
            raise InputError(
                f"{printable(str(name))}: {self.job.name} has no business with it; another program speaks in its place"
            )
        return self.root / name

    def _asked_for(self, path: PurePosixPath) -> bool:
        """Whether a path is below the job's folder, or as one of its patterns from end to end; and no link leads it astray."""
        whole = PurePosixPath(self.job.whole) if self.job.whole is not None else None
        if whole is not None and path != whole and path.is_relative_to(whole):
            return self._stays(path, whole.parent)
        same = [PurePosixPath(pattern) for pattern in self.job.brings if _matches(path, PurePosixPath(pattern))]
        return any(self._stays(path, pattern.parent.parent) for pattern in same)

    def _stays(self, path: PurePosixPath, above: PurePosixPath) -> bool:
        """Whether links below `above` leave it; those above (a `build` that lies on a larger disk) are the project's own."""
        return (self.root / path).parent.resolve().is_relative_to((self.root / above).resolve())


def _matches(path: PurePosixPath, pattern: PurePosixPath) -> bool:
    pairs = zip(path.parts, pattern.parts, strict=False)
    return len(path.parts) == len(pattern.parts) and all(fnmatchcase(part, form) for part, form in pairs)
