"""Packing: what is there already is kept, what is broken is listed, all of it, and a pack is written whole or not at all."""

import hashlib
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import provenance, require_space
from driverwatch.data import pack
from driverwatch.data.filling import Filler, Job, source_digest, table_digest
from driverwatch.data.photos import source_of
from driverwatch.data.threads import in_threads
from driverwatch.errors import InputError
from driverwatch.setting_types import pixels
from driverwatch.terminal import say
from driverwatch.writing import locked, replacing, write_json


class BrokenPhotosError(InputError):
    """Photos that cannot be packed, a line each in `problems`; nothing was written."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def write(job: Job, force: bool = False) -> None:
    """Pack a table, unless that is done already for the same sources.

    With `job.skip` broken photos are left out and recorded. A pack of the same sources under other folds keeps its pixels:
    only the digest it repeats is renewed.

    Raises:
        BrokenPhotosError: photos that cannot be packed, all of them.
        InputError: too little space, or a pack of other sources in the way (without `force`).
    """
    with locked(job.folder):
        if not force and _is_kept(job):
            return
        start, signature = time.monotonic(), _signature(job)
        size = len(job.table) * len(job.regions) * math.prod(pixels(job.size)) * 3
        require_space(job.folder, size, "the pack", "choose a smaller pack size")
        with replacing(job.path) as temporary:
            facts = _fill_sound(temporary, job)
        facts |= {"signature": signature, "folds": job.folds, "size": job.size, "stamp": pack.stamp(job.path)}
        write_json(job.manifest, {**facts, "seconds": round(time.monotonic() - start, 1), **provenance()})
        _tell(job, facts)


def broken(job: Job) -> list[str]:
    """All that is wrong with the photos of a job, a line each; nothing is written."""
    filler = Filler(job, {}, np.zeros(len(job.table), "S64"))
    filler.look_through()
    return _lines(job, filler.broken)


def _tell(job: Job, facts: dict[str, Any]) -> None:
    said = [f"{count} {trait}" for trait, count in facts["taken"].items()]
    left = len(facts["left_out"])
    said += [f"{left} left out as broken ({job.manifest} names them)"] if left else []
    say(f"{job.path}: {facts['images']} images" + (f"; {', '.join(said)}" if said else ""))


def _is_kept(job: Job) -> bool:
    """Find a whole pack of the same sources (by time and size, or else byte by byte); renew the folds it is used under.

    Raises:
        BrokenPhotosError: it was packed without broken photos, and now none may be left out.
        InputError: it was packed from something else.
    """
    if not job.path.is_file() or not job.manifest.is_file():
        return False
    try:
        made = pack.manifest_of(job.folder, job.kind, job.size)
        pack.read(job.folder, job.kind, made["folds"], job.size)
    except InputError as error:
        say(f"packing anew: {error}")
        return False
    pack.refuse_moved(job.path, made, job.regions)
    signature = _signature(job)
    if made.get("signature") != signature and made["digest"] != _source_digest(job, made["left_out"]):
        if not job.skip and (lines := broken(job)):
            raise BrokenPhotosError(lines)
        raise InputError(
            f"{job.path}: packed from other files than {job.data} now holds; make pack FORCE=1 packs anew (runs on the old "
            "pack then no longer count), or use another DATASET"
        )
    if made["left_out"] and not job.skip:
        raise BrokenPhotosError(_lines(job, made["left_out"]))
    if job.strangers and pack.twins(job.strangers, pack.looks_of(job.path)):
        return False
    today = {"signature": signature, "folds": job.folds, "stamp": pack.stamp(job.path)}
    if made != made | today:
        write_json(job.manifest, made | today)
    say(f"{job.path}: up to date ({made['images']} images)")
    return True


def _source_digest(job: Job, left_out: dict[str, str]) -> str:
    """What `Filler` would call its sources, without decoding them."""
    sources = in_threads(lambda path: source_of(job.data / path), job.table.frame["path"])
    return source_digest(job, left_out, np.fromiter(sources, "S64", len(job.table)))


def _signature(job: Job) -> str:
    """Digest of the table and of each file's size and time: tells in a moment whether anything changed."""

    digest = hashlib.sha256(table_digest(job).encode())
    for path in job.table.frame["path"]:
        with suppress(OSError):
            digest.update(f"{path} {pack.stamp(job.data / path)}\n".encode())
    return digest.hexdigest()


def _lines(job: Job, broken: dict[str, str]) -> list[str]:
    """`path: what is wrong`, in the table's order."""
    rows = zip(job.table.frame["image"], job.table.frame["path"], strict=True)
    return [f"{path}: {broken[name]}" for name, path in rows if name in broken]


def _fill_sound(temporary: Path, job: Job) -> dict[str, Any]:
    """Fill the file with every photo; with `job.skip`, once more without those that turned out broken."""
    left: dict[str, str] = {}
    sources = np.zeros(len(job.table), "S64")
    while True:
        filler = Filler(job, left, sources)
        filler.fill(temporary)
        if not filler.broken:
            return filler.facts
        if not job.skip:
            raise BrokenPhotosError(_lines(job, filler.broken))
        left |= filler.broken
