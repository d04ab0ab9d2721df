"""Whether anything that a pair of packs was made from, and held against, has changed since: told by sizes and times, in a moment.

`make train` asks for its pack each time. What has been found sound once is not read again while no file of it has changed.
"""

import hashlib
from pathlib import Path
from typing import Any

from driverwatch.artifacts import digest_of, read_json
from driverwatch.data.competition import present
from driverwatch.data.pack import stamp
from driverwatch.dataset_settings import DatasetSettings
from driverwatch.errors import InputError
from driverwatch.writing import locked, write_json

KEY = "checked"  # of the training pack's manifest
KINDS = ("test", "train")


def sources(settings: DatasetSettings, data: Path, tables: list[Path]) -> str:
    """Digest of a data set's settings, and of name, size and time of its tables and of every image file there is."""
    found = hashlib.sha256(digest_of(settings.model_dump()).encode())
    images = sorted(data / path for path in present(settings, data))
    for path in [data / settings.table, data / settings.sample_submission, *tables, *images]:
        found.update(f"{path} {stamp(path) if path.is_file() else None}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _of(folder: Path, sources: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Digest of the sources and of both packs as they are, and these packs' manifests."""
    made = {kind: read_json(folder / f"{kind}.json") for kind in KINDS}
    said = [{key: value for key, value in made[kind].items() if key != KEY} for kind in KINDS]
    return digest_of([sources, said, [stamp(folder / f"{kind}.h5") for kind in KINDS]]), made


def note(folder: Path, sources: str) -> None:
    """Record that the packs in `folder` were found sound beside these sources."""
    with locked(folder):
        digest, made = _of(folder, sources)
        write_json(folder / "train.json", {**made["train"], KEY: digest})


def images_if_unchanged(folder: Path, sources: str) -> dict[str, int] | None:
    """Images of the test and the training pack, if nothing was left out and nothing has changed since `note`; else None."""
    try:
        digest, made = _of(folder, sources)
        if made["train"].get(KEY) != digest or any(
            made[kind]["left_out"] or made[kind]["left_out_rows"] for kind in KINDS
        ):
            return None
        return {kind: int(made[kind]["images"]) for kind in KINDS}
    except (InputError, OSError, LookupError, TypeError, ValueError):
        return None
