"""One pass over the images of a table into an HDF5 file: decoded in parallel, checked, counted, checksummed."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np

from driverwatch.config.types import WHOLE, pixels
from driverwatch.data import pack
from driverwatch.data.competition import ImageTable
from driverwatch.data.images import LOOK, CheckedImage, examine, pixel_hash, resized, source_of
from driverwatch.data.regions import FRAME, join, split
from driverwatch.errors import InputError
from driverwatch.io.atomic import locked, replacing, write_json
from driverwatch.io.console import say, track
from driverwatch.io.hdf5 import contiguous, created, write_at
from driverwatch.io.manifests import checksum_of, provenance, require_space
from driverwatch.io.prefetch import in_threads, one_opencv_thread

AHEAD = 256  # images looked at before they are noted
TOGETHER = 8  # that a thread takes at a time: fewer are handed over, noted and waited for one by one
BYTES_BESIDE = 200  # of a packed image: its name, driver, label and look, or path


@dataclass(frozen=True)
class Job:
    """What is packed, from where, to `<folder>/<kind>.h5`."""

    table: ImageTable
    data: Path
    folder: Path
    kind: str
    size: str  # key of the pack: `types.key_of`
    folds: str  # checksum
    skip: bool = False  # resume without invalid images
    rows: tuple[str, ...] = ()  # what was wrong with table rows and stray files, recorded with `skip`
    test_pack: Path | None = None  # the pack of test images, which must not be trained on
    regions: pack.Boxes = field(default_factory=lambda: {WHOLE: FRAME})
    # whose images are resized; `table` is then its own, and no file below `data` is read
    larger: pack.Pack | None = None
    streamed: bool = False  # no pixels are written: readers decode the files

    @property
    def path(self) -> Path:
        return self.folder / f"{self.kind}.h5"

    @property
    def manifest(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def size_bytes(self) -> int:
        """Of the file that packing writes."""
        pixels_of_one = 0 if self.streamed else len(self.regions) * math.prod(pixels(self.size)) * 3
        return len(self.table) * (pixels_of_one + BYTES_BESIDE)

    @property
    def made_from(self) -> Path:
        """The folder of the images, or the larger pack."""
        return self.data if self.larger is None else Path(self.larger.images.path)

    @property
    def left_out(self) -> dict[str, str]:
        """Images that the larger pack was made without, and why."""
        left = self.larger.left_out if self.larger else None
        return dict(zip(left.names, left.reasons, strict=True)) if left else {}


def table_checksum(job: Job) -> str:
    """Checksum of the size, the table's rows, and the regions unless they are the whole frame alone."""
    rows = job.table.frame[["image", "driver", "label"]].astype(str).to_numpy()
    return checksum_of([job.size, rows, *filter(None, [pack.recorded(job.regions)])])


def source_checksum(job: Job, left: dict[str, str], sources: np.ndarray) -> str:
    """Checksum of all that decides a pack's content: the table, every image's bytes (`sources` S64 (N,)), and what was left out."""
    return hashlib.sha256(checksum_of([table_checksum(job), sorted(left)]).encode() + sources.tobytes()).hexdigest()


class Examined(NamedTuple):
    """Images of rows one after another, as a thread of the pool leaves them."""

    start: int  # the first one's row
    images: list[CheckedImage]  # without their pixels
    total: np.ndarray  # their channel sums and sums of squares, int64 (2, 3)


class PackWriter:
    """One pass over the images of a job, into one HDF5 file."""

    def __init__(self, job: Job, left: dict[str, str], sources: np.ndarray) -> None:
        """Prepare to pack all images of `job` but those in `left` (name: why), whose `sources` an earlier pass has noted."""
        self.job, self.left, self.size, self.sources = job, left, pixels(job.size), sources
        self.boxes = tuple(job.regions.values())
        self.shape = (len(self.boxes) * self.size[0], self.size[1], 3)  # of one packed image
        absent = job.table.frame["image"].isin(left).to_numpy(bool)
        self.frame, self.absent = job.table.where(~absent).frame, job.table.where(absent).frame
        self.places, self.names = np.flatnonzero(~absent), list(self.frame["image"])
        self.total = np.zeros((2, 3), np.int64)  # channel sums and sums of squares: exact in any order
        self.looks = np.zeros((len(self.frame), LOOK), np.uint8)
        self.frames = np.zeros_like(self.looks)  # looks of whole frames, where regions are packed
        self.traits: Counter[str] = Counter()
        self.shapes: Counter[tuple[int, int]] = Counter()
        self.invalid: dict[str, str] = {}
        self.facts: dict[str, Any] = {}

    def fill(self, temporary: Path) -> None:
        """Write images as long as none is broken, then everything beside them."""
        with created(temporary, self.job.size_bytes, libver="earliest") as file:
            place = None if self.job.streamed else contiguous(file, "images", (len(self.frame), *self.shape))
            with temporary.open("r+b", buffering=0) as bare:

                def keep(row: int, image: np.ndarray) -> None:
                    if place is not None:
                        write_at(bare.fileno(), image, place + row * image.size)

                for some in self._examined(keep):
                    self._note(some)
                    self.total += some.total
            self._find_copies()
            if not self.invalid:
                self._finish(file)

    def look_through(self) -> None:
        """Find what is broken, and write nothing."""
        for some in self._examined():
            self._note(some)
        self._find_copies()

    def _examined(self, keep: Callable[[int, np.ndarray], None] | None = None) -> Iterator[Examined]:
        """Decode in parallel, a few images at a time, in the table's order; `keep` is given each sound one's row and pixels."""
        label, paths, larger = f"pack {self.job.kind} {self.job.size}", list(self.frame["path"]), self.job.larger

        def some(start: int) -> Examined:
            images, total = [], np.zeros((2, 3), np.int64)
            for row, path in enumerate(paths[start : start + TOGETHER], start):
                image = self._resized(larger, row) if larger else examine(self.job.data / path, self.size, self.boxes)
                if keep is not None and image.pixels is not None:
                    keep(row, image.pixels)
                    total += sums(image.pixels)
                images.append(image._replace(pixels=None))
            return Examined(start, images, total)

        found = in_threads(some, range(0, len(paths), TOGETHER), AHEAD // TOGETHER)
        with one_opencv_thread():
            yield from track(found, len(paths), label, step=TOGETHER)

    def _resized(self, larger: pack.Pack, row: int) -> CheckedImage:
        """An image of a larger pack; its source is a checksum of that pack's and of its pixels there."""
        image = larger.pixels[row]
        tiles = [resized(tile, self.size) for tile in split(image[None], len(self.boxes))]
        made, look = join(np.stack(tiles), len(tiles))[0], pixel_hash(image)
        source = hashlib.sha256(larger.checksum.encode() + look).hexdigest()
        return CheckedImage(made, source, pixel_hash(made), look, image.shape[:2], (), None)

    def _note(self, some: Examined) -> None:
        for row, image in enumerate(some.images, some.start):
            self.sources[self.places[row]] = image.source
            if image.problem:
                self.invalid[self.names[row]] = image.problem
                continue
            self.looks[row] = np.frombuffer(image.look, np.uint8)
            self.frames[row] = np.frombuffer(image.frame or image.look, np.uint8)
            self.traits.update(image.traits)
            self.shapes[image.shape] += 1

    def _find_copies(self) -> None:
        """Copies of one image under two classes, two drivers, or in training and test contradict each other or leak."""
        frame, looks = self.frame, pack.as_keys(self.frames)
        sound = ~frame["image"].isin(self.invalid).to_numpy(bool)
        alike = frame[sound].assign(group=np.unique(looks[sound], return_inverse=True)[1])
        alike = alike[alike["group"].duplicated(keep=False)]
        contrary = (alike.groupby("group")[["label", "driver"]].transform("nunique") > 1).any(axis=1)
        harmless = alike["group"][~contrary]
        self.traits["copies of another image"] += len(harmless) - harmless.nunique()
        for _, copies in alike[contrary].groupby("group"):
            names, differ = list(copies["image"]), copies[["label", "driver"]].nunique() > 1
            said = " and ".join(word for word, there in zip(("class", "driver"), differ, strict=True) if there)
            for name in names:
                other = names[1] if name == names[0] else names[0]
                self.invalid[name] = f"the same image as {other}, under another {said}"
        for row, twin in pack.test_duplicates(self.job.test_pack, looks).items() if self.job.test_pack else ():
            if sound[row]:
                self.invalid.setdefault(frame["image"][row], f"the same image as the test image {twin}")

    def _finish(self, file: h5py.File) -> None:
        """Write names, labels, drivers and looks, and sum up."""
        frame, mean_std = self.frame, _moments(self.total, len(self.frame) * math.prod(self.shape[:2]))
        _columns(file, {"names": frame["image"], "drivers": frame["driver"], "labels": frame["label"]})
        if self.job.streamed:
            _columns(file, {"paths": frame["path"]})
        file.create_dataset("looks", data=self.looks)
        looks, regions = self.looks, pack.recorded(self.job.regions)
        if regions:
            file.create_dataset("frames", data=self.frames)
            looks = np.concatenate([self.looks, self.frames], axis=1)
        reasons = [self.left[name] for name in self.absent["image"]]
        columns_of = {f"{name}s": self.absent[name] for name in ("driver", "label")}
        absent: dict[str, Any] = {"names": self.absent["image"], **columns_of, "reasons": reasons}
        _columns(file.create_group("left_out"), absent)
        columns = [frame[name].to_numpy() for name in ("image", "driver", "label")]
        left_out = [[str(value) for value in column] for column in absent.values()]
        checksum = source_checksum(self.job, self.left, self.sources)
        contents = pack.contents_checksum(looks, *columns, mean_std["mean"], mean_std["std"], left_out)
        self.facts = {"checksum": checksum, **mean_std, "contents": contents, "images": len(frame)}
        self.facts |= {"taken": self._taken(), "left_out": self.left, "left_out_rows": list(self.job.rows)}
        self.facts |= {"resized_from": self.job.larger.checksum} if self.job.larger else {}
        self.facts |= {"regions": regions} if regions else {}
        self.facts |= {pack.STREAMED: str(self.job.data.absolute())} if self.job.streamed else {}
        file.attrs.update({"checksum": checksum, **mean_std})

    def _taken(self) -> dict[str, int]:
        """How many images were unusual in which way, and taken all the same."""
        found = dict(self.traits)
        if len(self.shapes) > 1:
            (height, width), usual = self.shapes.most_common(1)[0]
            found[f"not {width}x{height} as the most are"] = self.shapes.total() - usual
        return {trait: count for trait, count in sorted(found.items()) if count}


def _columns(place: Any, columns: dict[str, Any]) -> None:
    for name, values in columns.items():
        made = np.array(list(values), dtype=np.int64 if name == "labels" else object)
        place.create_dataset(name, data=made, dtype=None if name == "labels" else h5py.string_dtype(), shape=made.shape)


def sums(image: np.ndarray) -> np.ndarray:
    """Sums and sums of squares per channel of uint8 (H, W, 3), int64 (2, 3), exact.

    OpenCV's mean and deviation are of integers; at the 50 million px that are decoded at most, double precision leaves sums of
    squares, up to 3.3e12, less than a hundredth from what they were, and rounding brings them back.
    """
    mean, deviation = cv2.meanStdDev(image)
    count = image.shape[0] * image.shape[1]
    return np.rint(np.stack([mean, deviation**2 + mean**2])[..., 0] * count).astype(np.int64)


def _moments(total: np.ndarray, count: int) -> dict[str, list[float]]:
    mean, square = total / max(count, 1)
    return {"mean": mean.tolist(), "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist()}


class InvalidImagesError(InputError):
    """Images that cannot be packed, a line each in `problems`; nothing was written."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def write(job: Job, force: bool = False) -> None:
    """Pack a table, unless that is done already for the same sources.

    With `job.skip` invalid images are left out and recorded. A pack of the same sources under other folds keeps its pixels:
    only the checksum it repeats is renewed.

    Raises:
        InvalidImagesError: images that cannot be packed, all of them.
        InputError: too little space, or a pack of other sources in the way (without `force`).
    """
    with locked(job.folder):
        if not force and _is_kept(job):
            return
        start, signature = time.monotonic(), _signature(job)
        require_space(job.folder, job.size_bytes, "the pack", "choose a smaller pack size")
        with replacing(job.path) as temporary:
            facts = _fill_sound(temporary, job)
        facts |= {"signature": signature, "folds": job.folds, "size": job.size, "stamp": pack.stamp(job.path)}
        write_json(job.manifest, {**facts, "seconds": round(time.monotonic() - start, 1), **provenance()})
        _tell(job, facts)


def invalid(job: Job) -> list[str]:
    """All that is wrong with the images of a job, a line each; nothing is written."""
    filler = PackWriter(job, {}, np.zeros(len(job.table), "S64"))
    filler.look_through()
    return _lines(job, filler.invalid)


def _tell(job: Job, facts: dict[str, Any]) -> None:
    said = [f"{count} {trait}" for trait, count in facts["taken"].items()]
    left = len(facts["left_out"])
    said += [f"{left} left out as broken ({job.manifest} names them)"] if left else []
    how = ", decoded from their files in each pass over them" if job.streamed else ""
    say(f"{job.path}: {facts['images']} images{how}" + (f"; {', '.join(said)}" if said else ""))


def _is_kept(job: Job) -> bool:
    """Find a whole pack of the same sources (by time and size, or else byte by byte); renew the folds it is used under.

    Raises:
        InvalidImagesError: it was packed without invalid images, and now none may be left out.
        InputError: it was packed from something else.
    """
    if not job.path.is_file() or not job.manifest.is_file():
        return False
    try:
        made = pack.manifest_of(job.folder, job.kind, job.size)
        pack.read(job.folder, job.kind, made["folds"], job.size)
    except InputError as error:
        say(f"packing again: {error}")
        return False
    if job.streamed != (pack.STREAMED in made):
        say(f"packing again: {job.path} is to hold {'no pixels' if job.streamed else 'pixels'}")
        return False
    pack.refuse_moved(job.path, made, job.regions)
    signature = _signature(job)
    if made.get("signature") != signature and (job.larger or not _is_of_same_bytes(job, made)):
        if not job.skip and (lines := invalid(job)):
            raise InvalidImagesError(lines)
        lost = "runs on the old pack then no longer count"
        way_out = f"{pack.again(job.path)} FORCE=1 packs again ({lost}), or use another DATASET"
        raise InputError(f"{job.path}: packed from other files than {job.made_from} now holds; {way_out}")
    if made["left_out"] and not job.skip:
        raise InvalidImagesError(_lines(job, made["left_out"]))
    if job.test_pack and pack.test_duplicates(job.test_pack, pack.pixel_hashes(job.path)):
        return False
    today = {"signature": signature, "folds": job.folds, "stamp": pack.stamp(job.path)}
    today |= {pack.STREAMED: str(job.data.absolute())} if job.streamed else {}
    if made != made | today:
        write_json(job.manifest, made | today)
    say(f"{job.path}: up to date ({made['images']} images)")
    return True


def _is_of_same_bytes(job: Job, made: dict[str, Any]) -> bool:
    """Whether a pack's manifest names the sources that `PackWriter` would find; none is decoded."""
    sources = in_threads(lambda path: source_of(job.data / path), job.table.frame["path"])
    return bool(made["checksum"] == source_checksum(job, made["left_out"], np.fromiter(sources, "S64", len(job.table))))


def _signature(job: Job) -> str:
    """Checksum of the table and of each file's size and time: tells in a moment whether anything changed."""
    checksum = hashlib.sha256(table_checksum(job).encode() + (job.larger.checksum.encode() if job.larger else b""))
    for path in () if job.larger else job.table.frame["path"]:
        with suppress(OSError):
            checksum.update(f"{path} {pack.stamp(job.data / path)}\n".encode())
    return checksum.hexdigest()


def _lines(job: Job, invalid: dict[str, str]) -> list[str]:
    """`path: what is wrong`, in the table's order."""
    rows = zip(job.table.frame["image"], job.table.frame["path"], strict=True)
    return [f"{path}: {invalid[name]}" for name, path in rows if name in invalid]


def _fill_sound(temporary: Path, job: Job) -> dict[str, Any]:
    """Fill the file with every image; with `job.skip`, once more without those that turned out broken."""
    left = job.left_out
    sources = np.zeros(len(job.table), "S64")
    while True:
        filler = PackWriter(job, left, sources)
        filler.fill(temporary)
        if not filler.invalid:
            return filler.facts
        if not job.skip:
            raise InvalidImagesError(_lines(job, filler.invalid))
        left |= filler.invalid
