"""Packs: images resized once and laid raw and contiguous into HDF5, read as memory maps.

After the HDF5 guides (images raw, channel means computed while packing), with one difference that matters to many
readers: a contiguous dataset has a file offset, so a reader maps it and needs neither an HDF5 lock nor a shared handle.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np

from driverwatch.artifacts import (
    digest_of,
    digest_of_file,
    locked,
    provenance,
    read_json,
    replacing,
    require_space,
    write_json,
)
from driverwatch.data.competition import ImageTable
from driverwatch.errors import InputError, listed
from driverwatch.settings import pixels
from driverwatch.terminal import say, track

CHUNK = 256  # images decoded before they are written: bounds memory whatever the count


class ImageBlock(NamedTuple):
    """Where packed images lie in a file; small enough to hand to another process, which maps it itself."""

    path: str
    offset: int
    shape: tuple[int, int, int, int]

    def open(self) -> np.ndarray:
        """uint8 (N, H, W, 3), read-only, nothing loaded until it is indexed."""
        if self.shape[0] == 0:
            return np.empty(self.shape, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.offset, self.shape)


@dataclass(frozen=True)
class Pack:
    """One packed table: `names` (N,), `labels` int64 (N,), `drivers` (N,), channel `mean` and `std` float64 (3,) in 0-255."""

    images: ImageBlock
    names: np.ndarray
    labels: np.ndarray
    drivers: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str  # of the sources' names, bytes, labels and drivers, and the size
    folds: str  # digest of the folds that it was packed under


class Decoded(NamedTuple):
    pixels: np.ndarray | None  # uint8 (H, W, 3) RGB
    digest: str
    problem: str | None


def decode(path: Path, size: tuple[int, int]) -> Decoded:
    """Read a photo, turn it upright as its EXIF says, and resize the whole frame to `size` (height, width), area-averaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Decoded(None, "", f"{path}: cannot be read ({error.strerror})")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return Decoded(None, digest, f"{path}: empty file")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        return Decoded(None, digest, f"{path}: cannot be decoded ({error.err})")
    if image is None or _cut_short(content):
        return Decoded(None, digest, f"{path}: not a whole JPEG or PNG image ({len(content)} bytes)")
    if image.shape[:2] != size:
        shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return Decoded(image, digest, None)


def _cut_short(content: bytes) -> bool:
    """Whether a JPEG's last scan lacks its end marker: OpenCV fills the missing part with grey and says nothing."""
    return content[:2] == b"\xff\xd8" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


def write(table: ImageTable, data: Path, folder: Path, kind: str, size: str, folds: str, force: bool = False) -> None:
    """Pack `table` to `<folder>/<kind>.h5`, unless that is done already for the same sources.

    A pack of the same sources under other folds keeps its pixels: only the digest it repeats is renewed.

    Raises:
        InputError: images that cannot be decoded (all listed, first offenders named), too little space, or a pack of
            other sources in the way (without `force`).
    """
    path, manifest = folder / f"{kind}.h5", folder / f"{kind}.json"
    with locked(folder):
        signature = _signature(table, data, size)
        if path.is_file() and manifest.is_file() and not force:
            _keep(path, manifest, table, data, {"signature": signature, "folds": folds}, size)
            return
        start = time.monotonic()
        height, width = pixels(size)
        require_space(folder, len(table) * height * width * 3)
        with replacing(path) as temporary:
            facts = _fill(temporary, table, data, (height, width), f"pack {kind} {size}")
        facts |= {"signature": signature, "folds": folds, "images": len(table), "size": size}
        write_json(manifest, {**facts, "seconds": round(time.monotonic() - start, 1), **provenance()})


def _keep(path: Path, manifest: Path, table: ImageTable, data: Path, today: dict[str, str], size: str) -> None:
    """Find that a pack is of the same sources (by time and size, or else byte by byte); renew the folds it is used under."""
    made = read_json(manifest)
    if made.get("signature") != today["signature"] and made.get("digest") != _source_digest(table, data, size):
        raise InputError(
            f"{path}: packed from other files than {data} now holds; make pack FORCE=1 packs anew (runs on the old pack "
            "then no longer count), or use another DATASET"
        )
    if made != made | today:
        write_json(manifest, made | today)
    say(f"{path}: up to date ({made['images']} images)")


def _source_digest(table: ImageTable, data: Path, size: str) -> str:
    """What `_fill` would call its sources, without decoding them."""
    digest = hashlib.sha256(f"{pixels(size)}".encode())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(digest_of_file, [data / path for path in table.frame["path"]]):
            digest.update(found.encode())
    digest.update(_table_digest(table).encode())
    return digest.hexdigest()


def _table_digest(table: ImageTable) -> str:
    return digest_of(table.frame[["image", "driver", "label"]].astype(str).to_numpy().tolist())


def _signature(table: ImageTable, data: Path, size: str) -> str:
    """Digest of the table and of each file's size and time: tells in a moment whether anything changed."""
    stats = [(data / path).stat() for path in table.frame["path"]]
    return digest_of([size, _table_digest(table), [[s.st_size, s.st_mtime_ns] for s in stats]])


def _fill(temporary: Path, table: ImageTable, data: Path, size: tuple[int, int], label: str) -> dict[str, Any]:
    """Write the HDF5 file and return its digest, channel mean and deviation."""
    frame, count = table.frame, len(table)
    strings = h5py.string_dtype()
    total = np.zeros((2, 3), np.int64)  # channel sums and sums of squares: exact in any order
    digest, problems = hashlib.sha256(f"{size}".encode()), []
    with h5py.File(temporary, "w", libver="earliest") as file:
        images = file.create_dataset("images", (count, *size, 3), np.uint8)
        if images.chunks is not None:
            raise InputError(f"{temporary}: HDF5 chose chunks; a pack must be contiguous")
        for start, decoded in _decoded(frame["path"], data, size, label):
            problems += [image.problem for image in decoded if image.problem]
            for image in decoded:
                digest.update(image.digest.encode())
            if not problems:
                block = np.stack([image.pixels for image in decoded if image.pixels is not None])
                images[start : start + len(block)] = block
                total += _sums(block)
        if problems:
            raise InputError(
                f"{data}: {len(problems)} of {count} images are broken; mend or remove them (and their table "
                f"rows):{listed(problems)}"
            )
        for column, values in (("names", frame["image"]), ("drivers", frame["driver"])):
            file.create_dataset(column, data=np.array(values.to_list(), dtype=object), dtype=strings, shape=(count,))
        file.create_dataset("labels", data=frame["label"].to_numpy(np.int64))
        digest.update(_table_digest(table).encode())
        mean, std = _moments(total, count * size[0] * size[1])
        file.attrs.update({"digest": digest.hexdigest(), "mean": mean, "std": std})
    return {"digest": digest.hexdigest(), "mean": mean, "std": std}


def _decoded(paths: "Any", data: Path, size: tuple[int, int], label: str) -> Iterator[tuple[int, list[Decoded]]]:
    """Decode in parallel, a chunk at a time, in the table's order; the next chunk decodes while one is written."""
    cv2.setNumThreads(1)  # the pool is the parallelism
    files = [data / path for path in paths]
    starts = range(0, len(files), CHUNK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        queue: list[Any] = []
        for start in track(starts, len(files), label, step=CHUNK):
            while len(queue) < 2 and (ahead := start + CHUNK * len(queue)) < len(files):
                queue.append([pool.submit(decode, file, size) for file in files[ahead : ahead + CHUNK]])
            yield start, [future.result() for future in queue.pop(0)]


def _sums(block: np.ndarray) -> np.ndarray:
    """Sums and sums of squares per channel, int64 (2, 3), through counts of the 256 values: exact and fast."""
    values = np.arange(256, dtype=np.int64)
    counts = np.stack([np.bincount(block[..., channel].ravel(), minlength=256) for channel in range(3)], axis=1)
    return np.stack([values @ counts, values**2 @ counts])


def _moments(total: np.ndarray, count: int) -> tuple[list[float], list[float]]:
    mean = total[0] / max(count, 1)
    variance = np.maximum(total[1] / max(count, 1) - mean**2, 0)
    return [float(m) for m in mean], [float(s) for s in np.sqrt(variance)]


def _manifest(folder: Path, kind: str, size: str) -> dict[str, Any]:
    path, manifest = folder / f"{kind}.h5", folder / f"{kind}.json"
    if not path.is_file() or not manifest.is_file():
        raise InputError(f"{path}: no pack; run make pack SIZE={size} first")
    return read_json(manifest)


def folds_of(folder: Path, kind: str, size: str) -> str:
    """Digest of the folds that a pack was made under."""
    return str(_manifest(folder, kind, size).get("folds"))


def read(folder: Path, kind: str, folds: str, size: str) -> Pack:
    """Open `<folder>/<kind>.h5` and check it: complete, contiguous, of this size, and packed under these folds."""
    path, made = folder / f"{kind}.h5", _manifest(folder, kind, size)
    if made.get("folds") != folds:
        raise InputError(f"{path}: packed under other folds; run make pack again (the pixels are kept)")
    try:
        with h5py.File(path, "r") as file:
            return _opened(file, path, made, pixels(size))
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not a whole pack ({error}); pack again with FORCE=1") from error


def _opened(file: h5py.File, path: Path, made: dict[str, Any], size: tuple[int, int]) -> Pack:
    images = file["images"]
    offset, bytes_there = images.id.get_offset(), path.stat().st_size
    count = images.shape[0]
    if images.dtype != np.uint8 or images.shape[1:] != (*size, 3) or images.chunks is not None:
        raise InputError(
            f"{path}: expected contiguous uint8 images {size} x 3, got {images.dtype} {images.shape[1:]}; "
            "pack again with FORCE=1"
        )
    if count and (offset is None or offset + images.size > bytes_there):
        raise InputError(f"{path}: cut short ({bytes_there} bytes); pack again with FORCE=1")
    if file.attrs["digest"] != made.get("digest"):
        raise InputError(f"{path}: is not the pack that {path.stem}.json describes; pack again with FORCE=1")
    return Pack(
        ImageBlock(str(path), offset or 0, images.shape),
        file["names"].asstr()[...],
        file["labels"][...],
        file["drivers"].asstr()[...],
        tuple(file.attrs["mean"]),
        tuple(file.attrs["std"]),
        file.attrs["digest"],
        made["folds"],
    )
