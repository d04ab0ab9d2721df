"""Packs: images resized once and laid raw and contiguous into HDF5, read as memory maps; test images may be streamed.

After the HDF5 guides (images raw, channel means computed while packing), with one difference that matters to many
readers: a contiguous dataset has a file offset, so a reader maps it and needs neither an HDF5 lock nor a shared handle.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.types import WHOLE, pixels, regions_of
from driverwatch.data.competition import present
from driverwatch.data.images import LOOK, examine, pixel_hash
from driverwatch.data.regions import FRAME, Box
from driverwatch.errors import InputError, words
from driverwatch.io.atomic import locked, write_json
from driverwatch.io.hdf5 import UNREADABLE, column, opened, text, texts
from driverwatch.io.manifests import checksum_of, differences, read_json
from driverwatch.io.prefetch import MadeAhead, in_threads, one_opencv_thread

STREAMED = "streamed_from"  # of a manifest: the data set's folder, where the pack holds no pixels
AHEAD = 64  # streamed images decoded before they are asked for, where they are read in order: at 180x240 px 8 MB
Boxes = dict[str, Box]  # regions by name, in the order in which they are stacked


class ImageFiles(NamedTuple):
    """The files of a pack's images, and what each must show; small enough to hand to another process."""

    folder: Path  # of the data set
    paths: np.ndarray  # text (N,), below `folder`
    looks: np.ndarray  # uint8 (N, `LOOK`): of each image as it was packed
    size: tuple[int, int]  # height, width of a region
    boxes: tuple[Box, ...]  # of the regions


class StreamedImages:
    """An array uint8 (N, R * H, W, 3) whose images are decoded when it is indexed: along its first axis alone.

    Indexed in order, as predictions do, it decodes the next images meanwhile, so that one pass costs no waiting beside a
    network. The pixels are those that a pack would hold, bit for bit: each image's are compared with the checksum taken
    when it was packed.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, files: ImageFiles) -> None:
        self.files = files
        self.shape = (len(files.paths), len(files.boxes) * files.size[0], files.size[1], 3)
        self.next = 0  # the image after those that were read last

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from in_threads(self._decoded, range(len(self)), AHEAD)

    def __getitem__(self, key: Any) -> np.ndarray:
        """One image for a number, (R * H, W, 3); several for a slice, numbers or a mask, (B, R * H, W, 3).

        Raises:
            InputError: a file that is missing, or shows something else than when it was packed.
        """
        asked = np.arange(len(self))[key]
        if asked.ndim == 0:
            return self._decoded(int(asked))
        numbers, made = asked.tolist(), in_threads(self._decoded, asked.tolist(), AHEAD)
        if numbers and numbers[0] in (0, self.next):  # in order
            self._ahead.ahead = max(AHEAD, 2 * len(numbers))
            made = map(self._ahead, numbers)
        self.next = max(numbers, default=-1) + 1
        found = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for place, image in enumerate(made):
            found[place] = image
        return found

    @cached_property
    def _ahead(self) -> MadeAhead[np.ndarray]:
        return MadeAhead(self._decoded, len(self), os.cpu_count() or 1)

    def _decoded(self, number: int) -> np.ndarray:
        files = self.files
        path = files.folder / files.paths[number]
        with one_opencv_thread():
            image = examine(path, files.size, files.boxes)
        if image.pixels is None:
            raise InputError(f"{path}: {image.problem}; test images are read from their files, so restore it (DATA=)")
        if image.look != files.looks[number, :LOOK].tobytes():
            way_out = "restore it, or make pack MODEL=<model> FORCE=1"
            raise InputError(f"{path}: shows something else than when it was packed; {way_out}")
        return image.pixels


class ImageBlock(NamedTuple):
    """Where packed images are in a file; small enough to hand to another process, which maps it itself."""

    path: str
    offset: int
    shape: tuple[int, int, int, int]
    files: ImageFiles | None = None  # where the pack holds no pixels: they are decoded from these

    def open(self) -> Any:
        """uint8 (N, H, W, 3), read-only, nothing loaded until it is indexed; `StreamedImages` of a pack without pixels."""
        if self.files is not None:
            return StreamedImages(self.files)
        if self.shape[0] == 0:
            return np.empty(self.shape, np.uint8)
        return np.memmap(self.path, np.uint8, "r", self.offset, self.shape)


def refuse_absent(images: ImageBlock) -> None:
    """Refuse images that are streamed from a folder that is gone, before hours of training end with that."""
    files = images.files
    if files is not None and len(files.paths) and not (path := files.folder / files.paths[0]).is_file():
        raise InputError(
            f"{images.path}: holds no pixels, and {path} is not there; give DATA=<folder of the images> to make pack, or train "
            'with SET="predict.test=false"'
        )


class LeftOut(NamedTuple):
    """Images of the table that are not in the pack (`SKIP_INVALID=1`), one entry each, and why."""

    names: np.ndarray
    drivers: np.ndarray
    labels: np.ndarray
    reasons: np.ndarray


@dataclass(frozen=True)
class Pack:
    """One packed table: `names` (N,), `labels` int64 (N,), `drivers` (N,), channel `mean` and `std` float64 (3,) in 0-255.

    An image is one region of an image, or several stacked along its height.
    """

    images: ImageBlock
    names: np.ndarray
    labels: np.ndarray
    drivers: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    checksum: str  # of the sources' names, bytes, labels, drivers, what was left out, the size and the regions' boxes
    folds: str  # checksum of the folds that it was packed under
    left_out: LeftOut = field(default_factory=lambda: LeftOut(*(np.array([]) for _ in range(4))))

    @cached_property
    def pixels(self) -> Any:
        """`images`, mapped once: should somebody pack again meanwhile, this is still the file that was checked."""
        return self.images.open()


def contents_checksum(
    looks: np.ndarray, names: np.ndarray, drivers: np.ndarray, labels: np.ndarray, *more: object
) -> str:
    """Checksum of what a pack holds: every image's pixel hash (of `_looks`), name, driver and label, and `more` (JSON-able)."""
    table = checksum_of([names, drivers, labels, *more])
    return hashlib.sha256(table.encode() + looks.tobytes()).hexdigest()


def again(path: Path | str) -> str:
    """The command that packs again what is in a pack's file."""
    return f"make pack SIZE={Path(path).parent.name}"


def manifest_of(folder: Path, kind: str, size: str) -> dict[str, Any]:
    """A pack's manifest; one sentence if there is no pack."""
    path, manifest = folder / f"{kind}.h5", folder / f"{kind}.json"
    if not path.is_file() or not manifest.is_file():
        raise InputError(f"{path}: no pack; run make pack SIZE={size} first")
    made = read_json(manifest)
    expected = {"checksum": str, "folds": str, "contents": str, "signature": str, "images": int, "left_out": dict}
    if wrong := [key for key, kind in expected.items() if not isinstance(made.get(key), kind)]:
        lacks = f"{wrong[0]} is missing or no {expected[wrong[0]].__name__}"
        raise InputError(f"{manifest}: expected a pack's manifest, {lacks}; run make pack SIZE={size} again")
    return made


def recorded(regions: Boxes) -> dict[str, list[float]]:
    """Regions as a pack's manifest has them: nothing for the whole frame alone."""
    return {} if list(regions) == [WHOLE] else {name: list(box) for name, box in regions.items()}


def refuse_moved(path: Path, made: dict[str, Any], regions: Boxes) -> None:
    """Refuse a pack whose regions were cut at other places than `regions`."""
    if moved := differences(made.get("regions", {}), recorded(regions), "regions"):
        way = f"{again(path)} FORCE=1 (runs on the old pack then no longer count)"
        way_out = f"restore the boxes, give the moved region a new name, or {way}"
        raise InputError(f"{path}: cut where the data set's YAML no longer has it ({', '.join(moved)}); {way_out}")


def is_streamed(folder: Path, kind: str = "test") -> bool | None:
    """Whether a pack holds no pixels; None where there is no pack, or none whose manifest can be read."""
    try:
        return STREAMED in read_json(folder / f"{kind}.json")
    except (InputError, OSError):
        return None


def stamp(path: Path) -> list[int]:
    """Size and time of a file: as long as they stay, so do its contents."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def read(
    folder: Path, kind: str, folds: str, size: str, regions: Boxes | None = None, data: Path | None = None
) -> Pack:
    """Open `<folder>/<kind>.h5` and check it: complete, contiguous, of this size, and packed under these folds.

    With `regions` it must be cut at these places too. A file whose size or time is not what packing left (copied, edited) is
    compared with its checksums image by image. Streamed images are read from where they were packed, or else from `data`.
    """
    path, made = folder / f"{kind}.h5", manifest_of(folder, kind, size)
    if made.get("folds") != folds:
        raise InputError(f"{path}: packed under other folds; run {again(path)} again (the pixels are kept)")
    if regions is not None:
        refuse_moved(path, made, regions)
    height, width = pixels(size)
    with _whole(path) as file:
        if STREAMED in made:
            images = _streamed(file, path, made, (height, width), data)
        else:
            images = _mapped(file, path, (len(regions_of(size)) * height, width))
        found = _opened(file, path, made, images)
        if made.get("stamp") != stamp(path):
            _verify(found, _looks(file), made)
        return found


@contextmanager
def _whole(path: Path) -> Iterator[h5py.File]:
    """A pack's file, open; whatever its reading stumbles over is one sentence."""
    try:
        with opened(path) as file:
            yield file
    except UNREADABLE as error:
        raise InputError(f"{path}: not a whole pack ({words(error)}); run {again(path)} again") from error


def pixel_hashes(path: Path) -> np.ndarray:
    """The look of every image in a pack (of its whole frame, where the pack holds regions), as `as_keys` gives it."""
    with _whole(path) as file:
        return as_keys(np.ascontiguousarray(_looks(file)[:, -LOOK:]))


def _looks(file: h5py.File) -> np.ndarray:
    """uint8 (N, `LOOK`) of images, or where they hold regions (N, 2 * `LOOK`), of images and frames."""
    there = [name for name in ("looks", "frames") if name in file]
    return np.concatenate([column(file, name, np.uint8, (None, LOOK))[...] for name in there], axis=1)


def as_keys(looks: np.ndarray) -> np.ndarray:
    """Looks uint8 (N, `LOOK`) as byte strings (N,), which NumPy sorts and compares whole."""
    return looks.view(f"S{LOOK}").ravel()


def test_duplicates(path: Path, looks: np.ndarray) -> dict[int, str]:
    """Which of `looks` (as `as_keys` gives them) belong to images of a pack too: their place, and that image's name."""
    known = pixel_hashes(path)
    both = np.flatnonzero(np.isin(looks, known))
    with _whole(path) as file:
        names = column(file, "names", str, known.shape).asstr()
        return {int(row): names[int(np.flatnonzero(known == looks[row])[-1])] for row in both}


def _streamed(
    file: h5py.File, path: Path, made: dict[str, Any], size: tuple[int, int], data: Path | None
) -> ImageBlock:
    """Images of a pack without pixels, in the folder that it was packed from; where that is gone, in `data`."""
    count, recorded = file["paths"].shape[0], Path(str(made[STREAMED]))
    boxes = tuple(Box(*corners) for corners in made.get("regions", {}).values()) or (FRAME,)
    folder = recorded if recorded.is_dir() or data is None else data
    looks = column(file, "looks", np.uint8, (count, LOOK))[...]
    files = ImageFiles(folder, texts(column(file, "paths", str, (count,))), looks, size, boxes)
    return ImageBlock(str(path), 0, (count, len(boxes) * size[0], size[1], 3), files)


def _mapped(file: h5py.File, path: Path, size: tuple[int, int]) -> ImageBlock:
    """Images that lie in a pack, whole and in one piece."""
    images, bytes_there = file["images"], path.stat().st_size
    offset, count = images.id.get_offset(), images.shape[0]
    if images.dtype != np.uint8 or images.shape[1:] != (*size, 3) or images.chunks is not None:
        got = f"{images.dtype} {images.shape[1:]}"
        raise InputError(f"{path}: expected contiguous uint8 images {size} x 3, got {got}; run {again(path)} again")
    if count and (offset is None or offset + images.size > bytes_there):
        raise InputError(f"{path}: cut short ({bytes_there} bytes); run {again(path)} again")
    return ImageBlock(str(path), offset or 0, images.shape)


def _opened(file: h5py.File, path: Path, made: dict[str, Any], images: ImageBlock) -> Pack:
    count = images.shape[0]
    for name in ("looks", "frames"):
        if name in file or name == "looks":
            column(file, name, np.uint8, (count, LOOK))
    if text(file, "checksum") != made.get("checksum"):
        raise InputError(f"{path}: is not the pack that {path.stem}.json describes; run {again(path)} again")
    left, absent = file["left_out"], len(column(file["left_out"], "names", str, (None,)))
    names, labels, drivers = (_values(file, name, count) for name in ("names", "labels", "drivers"))
    mean, std = (_channels(file, name) for name in ("mean", "std"))
    left_out = LeftOut(*(_values(left, name, absent) for name in LeftOut._fields))
    return Pack(images, names, labels, drivers, mean, std, made["checksum"], made["folds"], left_out)


def _values(place: h5py.Group, name: str, count: int) -> np.ndarray:
    """A column of `count` texts, or of labels."""
    if name == "labels":
        return np.asarray(column(place, name, np.int64, (count,))[...])
    return texts(column(place, name, str, (count,)))


def _channels(file: h5py.File, name: str) -> tuple[float, ...]:
    found = np.asarray(file.attrs[name], np.float64)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise ValueError(f"{name}: expected three numbers, got {found.shape}")
    return tuple(found.tolist())


def _verify(found: Pack, looks: np.ndarray, made: dict[str, Any]) -> None:
    """Hold every image against the checksums taken while packing.

    Raises:
        InputError: an image, name, driver or label that was changed since.
    """
    path = found.images.path
    if found.images.files is None:  # streamed ones are compared when they are read
        for name, kept, now in zip(found.names, looks, in_threads(pixel_hash, found.images.open()), strict=True):
            if bytes(kept[:LOOK]) != now:
                raise InputError(f"{path}: image {name} was changed since it was packed; run {again(path)} again")
    more = (list(found.mean), list(found.std), [list(map(str, column)) for column in found.left_out])
    if contents_checksum(looks, found.names, found.drivers, found.labels, *more) != made["contents"]:
        raise InputError(f"{path}: names, drivers, labels or means were changed since packing; run {again(path)} again")


KEY = "checked"  # of the training pack's manifest
KINDS = ("test", "train")


def sources(settings: DatasetSettings, data: Path, tables: list[Path]) -> str:
    """Checksum of a data set's settings, and of name, size and time of its tables and of every image file there is."""
    found = hashlib.sha256(checksum_of(settings.model_dump()).encode())
    images = sorted(data / path for path in present(settings, data))
    for path in [data / settings.table, data / settings.sample_submission, *tables, *images]:
        found.update(f"{path} {stamp(path) if path.is_file() else None}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _of(folder: Path, sources: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Checksum of the sources and of both packs as they are, and these packs' manifests."""
    made = {kind: read_json(folder / f"{kind}.json") for kind in KINDS}
    said = [{key: value for key, value in made[kind].items() if key != KEY} for kind in KINDS]
    return checksum_of([sources, said, [stamp(folder / f"{kind}.h5") for kind in KINDS]]), made


def note(folder: Path, sources: str) -> None:
    """Record that the packs in `folder` were found sound beside these sources."""
    with locked(folder):
        checksum, made = _of(folder, sources)
        write_json(folder / "train.json", {**made["train"], KEY: checksum})


def images_if_unchanged(folder: Path, sources: str) -> dict[str, int] | None:
    """Images of the test and the training pack, if nothing was left out and nothing has changed since `note`; else None."""
    try:
        checksum, made = _of(folder, sources)
        left = [made[kind][what] for kind in KINDS for what in ("left_out", "left_out_rows")]
        unchanged = made["train"].get(KEY) == checksum and not any(left)
        return {kind: int(made[kind]["images"]) for kind in KINDS} if unchanged else None
    except (InputError, OSError, LookupError, TypeError, ValueError):
        return None
