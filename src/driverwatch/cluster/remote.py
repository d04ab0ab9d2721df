"""What Ray carries to other machines by value, since these may have other code or none: as little as can be.

Nothing here may use anything of this package at the top of the file.
"""

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def work(asked: bytes, facts: dict[str, Any], depot: Any) -> Iterator[tuple[str, Any]]:
    """Do a job (pickled), if this machine's code is that of the asking machine (`facts`); tell what happens."""
    import socket

    import ray

    node = ray.get_runtime_context().get_node_id()
    yield "machine", {"node": node, "name": f"{socket.gethostname()}/{node[:6]}"}
    try:
        from driverwatch.cluster.code import strange

        refusal = strange(facts)
    except ImportError as error:
        refusal = f"has no driverwatch of that version ({error}); start its node by make node in a checkout"
    if refusal:
        yield "refused", refusal
        return
    from driverwatch.cluster.node import done

    yield from done(pickle.loads(asked), depot)


class Depot:
    """An actor beside the asking process: hands out that project's files, in pieces."""

    def __init__(self, root: str) -> None:
        self.root, self.known, self.served = Path(root), {}, {}  # type: ignore[var-annotated]

    def described(self, names: list[str]) -> list[tuple[str, int, int, str]]:
        """Name, bytes, time and SHA-256 of files, relative to the project's folder or absolute."""
        found = []
        for name in names:
            path = self.root / name
            stat = path.stat()
            key = (name, stat.st_size, stat.st_mtime_ns)
            if key not in self.known:
                with path.open("rb") as file:
                    self.known[key] = hashlib.file_digest(file, "sha256").hexdigest()
            found.append((*key, self.known[key]))
        return found

    def there(self, patterns: list[str]) -> list[str]:
        """Files of the project that match, as names."""
        found = {path for pattern in patterns for path in self.root.glob(pattern) if path.is_file()}
        found = {path for path in found if not path.name.endswith(".partial")}
        return sorted(str(path.relative_to(self.root)) for path in found)

    def piece(self, name: str, start: int, count: int) -> bytes:
        with (self.root / name).open("rb") as file:
            file.seek(start)
            found = file.read(count)
        self.served[name] = self.served.get(name, 0) + len(found)
        return found

    def bytes_served(self) -> dict[str, int]:
        return self.served
