"""Every kind of broken, strange or foreign input, each with the command that meets it and what it must say.

`test_invalid_input.py` runs each case through the command line; `invalid_page.py` writes `docs/reference/error-messages.md` from the same cases.
"""

import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image

from support.in_process import good
from support.project import QUICK as SET
from support.trained import PLACE

TABLE, SAMPLE = "driver_imgs_list.csv", "sample_submission.csv"
FOLDS, PACK, CHECK = ["folds"], ["pack", "--model", "tiny", "--set", SET], ["check", "submissions/demo/first.csv"]
TRAIN, PREDICT = ["train", "tiny", "--set", SET], ["predict", "tiny", "--tta", "five_crop"]
ENSEMBLE = ["ensemble", "--name", "second"]


@dataclass(frozen=True)
class Project:
    """A small finished line in `folder`, which is the working directory; its images are in `data`."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        return self.folder / "build" / "demo" / "runs" / "tiny"

    @property
    def packs(self) -> Path:
        return self.folder / "build" / "demo" / "pack"

    def image(self, number: int = 0, label: str = "c3") -> Path:
        return sorted((self.data / "imgs" / "train" / label).glob("*.jpg"))[number]

    def test_image(self, number: int = 0) -> Path:
        return sorted((self.data / "imgs" / "test").glob("*.jpg"))[number]

    def unpacked(self) -> None:
        """Forget the packs, so that images are looked at again."""
        shutil.rmtree(self.packs, ignore_errors=True)

    def edit(self, place: str, change: Callable[[str], str]) -> None:
        """Change a text file below the folder, bytes that are no UTF-8 given as surrogates."""
        path = self.folder / place
        path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))

    def edit_json(self, place: str, **changes: object) -> None:
        path = self.folder / place
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


Act = Callable[[Project], object]


@dataclass(frozen=True, eq=False)
class Case:
    """What is wrong (or only unusual), the change that makes it so, the command that meets it, and a part of what it says."""

    kind: str
    what: str
    act: Act
    verb: list[str]
    said: str
    status: int = 2


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + body + png_chunk(b"IEND", b"")


def jpeg_claiming(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def image(change: Callable[[bytes], bytes], verb: list[str] = PACK) -> tuple[Act, list[str]]:
    """Change the bytes of a training image."""

    def act(p: Project) -> None:
        p.image().write_bytes(change(p.image().read_bytes()))
        p.unpacked()

    return act, verb


def drawn_again(encode: Callable[[Path, np.ndarray], object]) -> Act:
    """Write a training image again in another form."""

    def act(p: Project) -> None:
        picture = cv2.imread(str(p.image()))
        encode(p.image(), picture)
        p.unpacked()

    return act


def as_png(path: Path, picture: np.ndarray) -> None:
    made, content = cv2.imencode(".png", picture)
    assert made
    path.write_bytes(content.tobytes())


def as_jpeg(path: Path, picture: np.ndarray) -> None:
    made, content = cv2.imencode(".jpg", picture)
    assert made
    path.write_bytes(content.tobytes())


def with_orientation(content: bytes, orientation: int) -> bytes:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    return content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]


def copied(source: Callable[[Project], Path], target: Callable[[Project], Path]) -> Act:
    def act(p: Project) -> None:
        shutil.copyfile(source(p), target(p))
        p.unpacked()

    return act


def of_driver(p: Project, driver: str, label: str, number: int = 0) -> Path:
    rows = [line.split(",") for line in (p.data / TABLE).read_text().splitlines()[1:]]
    names = [image for who, what, image in rows if (who, what) == (driver, label)]
    return p.data / "imgs" / "train" / label / names[number]


def replaced(source: bytes) -> Act:
    return image(lambda _: source)[0]


def put(path: Callable[[Project], Path], make: Callable[[Path], object]) -> Act:
    """Put something else where an image was."""

    def act(p: Project) -> None:
        place = path(p)
        place.unlink(missing_ok=True)
        make(place)
        p.unpacked()

    return act


def grown(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(65 * 2**20)


def webp(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, format="WEBP")


IMAGES = [
    Case("Images", "missing", put(Project.image, lambda path: None), PACK, "missing file"),
    Case("Images", "not in the table", copied(Project.image, lambda p: p.image().with_name("new.jpg")), FOLDS, "extra file .*new.jpg"),
    Case("Images", "empty", *image(lambda _: b""), "empty file"),
    Case("Images", "cut short", *image(lambda b: b[: len(b) // 2]), "damaged or cut short"),
    Case("Images", "cut short, end marker added", *image(lambda b: b[: len(b) // 2] + b"\xff\xd9"), "damaged or cut short"),
    Case("Images", "damaged in its middle", *image(lambda b: b[:-300] + b"\xff\xc4" + b[-300:]), "damaged or cut short"),
    Case("Images", "a web page", replaced(b"<html>404 not found</html>"), PACK, "an HTML or XML page"),
    Case("Images", "text", replaced(b"version https://git-lfs.github.com/spec/v1"), PACK, "neither JPEG nor PNG"),
    Case("Images", "a WebP called .jpg", drawn_again(webp), PACK, "neither JPEG nor PNG but a WebP"),
    Case("Images", "a GIF called .jpg", replaced(b"GIF89a" + bytes(90)), PACK, "but a GIF"),
    Case("Images", "a ZIP called .jpg", replaced(b"PK\3\4" + bytes(90)), PACK, "but a ZIP archive"),
    Case("Images", "a PNG cut short", *image(lambda _: png_claiming(48, 64)[:60]), "damaged"),
    Case("Images", "a PNG with a wrong checksum", *image(lambda _: png_claiming(48, 64)[:50] + b"x" + png_claiming(48, 64)[51:]), "damaged"),
    Case("Images", "one pixel", drawn_again(lambda path, _: as_jpeg(path, np.zeros((1, 1, 3), np.uint8))), PACK, "1x1 px; expected at least 16"),
    Case("Images", "claims 100,000 x 100,000 px (PNG)", replaced(png_claiming(100_000, 100_000)), PACK, "claims 100000x100000 px"),
    Case("Images", "claims 60,000 x 60,000 px (JPEG)", *image(lambda b: jpeg_claiming(b, 60_000, 60_000)), "claims 60000x60000 px"),
    Case("Images", "65 MB", put(Project.image, grown), PACK, "at most 67108864 are read"),
    Case("Images", "a folder called .jpg", put(Project.image, Path.mkdir), PACK, "is no regular file"),
    Case("Images", "a pipe called .jpg", put(Project.image, os.mkfifo), PACK, "is no regular file"),
    Case("Images", "a link to nothing", put(Project.image, lambda path: path.symlink_to("nowhere.jpg")), PACK, "missing file"),
    Case("Images", "one image under two classes", copied(lambda p: of_driver(p, "p000", "c1"), lambda p: of_driver(p, "p000", "c3")), PACK, "under another class"),
    Case("Images", "one image under two drivers", copied(lambda p: of_driver(p, "p000", "c1"), lambda p: of_driver(p, "p001", "c1")), PACK, "under another driver"),
    Case("Images", "one image in training and test", copied(Project.test_image, Project.image), PACK, "the same image as the test image"),
    Case("Images", "a broken test image", put(Project.test_image, lambda path: path.write_bytes(b"")), PACK, "empty file"),
    Case("Images taken as they are", "greyscale", drawn_again(lambda path, x: as_jpeg(path, x[..., 1])), PACK, "1 greyscale", 0),
    Case("Images taken as they are", "CMYK", drawn_again(lambda path, x: Image.fromarray(x).convert("CMYK").save(path)), PACK, "1 CMYK", 0),
    Case("Images taken as they are", "16 bits per channel", drawn_again(lambda path, x: as_png(path, x.astype(np.uint16) * 257)), PACK, "1 16 bits", 0),
    Case("Images taken as they are", "transparent", drawn_again(lambda path, x: as_png(path, np.dstack([x, x[..., :1]]))), PACK, "1 transparency dropped", 0),
    Case("Images taken as they are", "a PNG called .jpg", drawn_again(as_png), PACK, "1 PNG under another name", 0),
    Case("Images taken as they are", "turned by EXIF", *image(lambda b: with_orientation(b, 6)), "1 turned upright", 0),
    Case("Images taken as they are", "another size", drawn_again(lambda path, x: as_jpeg(path, cv2.resize(x, (90, 70)))), PACK, "1 not 64x48", 0),
    Case("Images taken as they are", "smaller than the pack", drawn_again(lambda path, x: as_jpeg(path, cv2.resize(x, (32, 24)))), PACK, "1 smaller than the pack", 0),
    Case("Images taken as they are", "a copy, same class and driver", copied(lambda p: of_driver(p, "p000", "c1"), lambda p: of_driver(p, "p000", "c1", 1)), PACK, "1 copies of another image", 0),
    Case("Images taken as they are", "bytes after the end", *image(lambda b: b + b"x" * 5000), "120 images", 0),
    Case("Images taken as they are", "Thumbs.db, ._img.jpg", lambda p: [p.image().with_name(n).write_bytes(b"x") for n in ("Thumbs.db", "._img_1.jpg")], FOLDS, "fits the data", 0),
]  # fmt: skip


def table(change: Callable[[str], str], place: str = TABLE) -> Act:
    return lambda p: p.edit(f"data/{place}", change)


def line(text: str, number: int) -> str:
    return text.splitlines()[number]


TABLES = [
    Case("Tables", "not there", lambda p: (p.data / TABLE).unlink(), FOLDS, "no such file"),
    Case("Tables", "empty file", table(lambda _: ""), FOLDS, "expected a UTF-8 CSV"),
    Case("Tables", "header alone", table(lambda t: line(t, 0) + "\n"), FOLDS, "expected labelled images, got none"),
    Case("Tables", "a column missing", table(lambda t: t.replace("subject,", "subjekt,", 1)), FOLDS, "missing column subject; .*did you mean subjekt"),
    Case("Tables", "semicolons", table(lambda t: t.replace(",", ";")), FOLDS, "missing column subject, classname, img; got subject;classname;img"),
    Case("Tables", "another competition's", table(lambda _: "Id,Pawpularity\n1,2\n"), FOLDS, "missing column .*got Id, Pawpularity"),
    Case("Tables", "UTF-16", lambda p: (p.data / TABLE).write_bytes((p.data / TABLE).read_text().encode("utf-16")), FOLDS, "got UTF-16; save it as UTF-8"),
    Case("Tables", "Latin-1", table(lambda t: t.replace("p003", "p\udce9", 1)), FOLDS, "can't decode byte 0xe9"),
    Case("Tables", "a spreadsheet", lambda p: (p.data / TABLE).write_bytes(b"PK\3\4" + bytes(90)), FOLDS, "a ZIP archive or a spreadsheet"),
    Case("Tables", "rows of other lengths", table(lambda t: t.replace("p003,", "p003,x,y,z,", 1)), FOLDS, "expected a UTF-8 CSV"),
    Case("Tables", "a column twice", table(lambda t: "\n".join(f"{r},{r.split(',')[0]}" for r in t.splitlines())), FOLDS, "column subject twice"),
    Case("Tables", "control characters", table(lambda t: t.replace("p003,", "p0\x1b[31m3,", 1)), FOLDS, "control characters in subject"),
    Case("Tables", "an unknown class", table(lambda t: t.replace(",c3,", ",c33,")), FOLDS, r"unknown class c33 \(12 rows\)"),
    Case("Tables", "a name twice", table(lambda t: t + line(t, 1) + "\n"), FOLDS, "repeated name img_"),
    Case("Tables", "a blank cell", table(lambda t: t.replace(",c3,", ",,", 1)), FOLDS, "blank classname"),
    Case("Tables", "a row cut short", table(lambda t: t + "p000,c0\n"), FOLDS, "line 122: blank img"),
    Case("Tables", "blanks around a driver", table(lambda t: t.replace("p003,", "p003 ,", 1)), FOLDS, "blanks around subject 'p003 '"),
    Case("Tables", "a name that leaves its folder", table(lambda t: t + "p000,c0,../../secret.jpg\n"), FOLDS, "not a plain file name"),
    Case("Tables", "a training image that is a test image", lambda p: p.edit(f"data/{TABLE}", lambda t: t + f"p000,c0,{p.test_image().name}\n"), FOLDS, "is a training and a test image at once"),
    Case("Tables", "everything at once", lambda p: [p.edit(f"data/{TABLE}", lambda t: t.replace(",c3,", ",c33,", 1) + "p000,c0,none.jpg\n"), p.test_image().unlink()], FOLDS, r"3 problems"),
    Case("Tables", "sample submission: classes in another order", table(lambda t: t.replace("c8,c9", "c9,c8", 1), SAMPLE), FOLDS, "expected the columns img,c0"),
    Case("Tables", "sample submission: a name twice", table(lambda t: t + line(t, 1) + "\n", SAMPLE), FOLDS, "repeated name"),
    Case("Tables", "sample submission: a blank name", table(lambda t: t + ",0,0,0,0,0,0,0,0,0,0\n", SAMPLE), FOLDS, "blank img"),
    Case("Tables taken as they are", "a byte order mark and Windows line ends", table(lambda t: "\ufeff" + t.replace("\n", "\r\n")), FOLDS, "fits the data", 0),
    Case("Tables taken as they are", "quotes and a further column", table(lambda t: "\n".join(f'"{r}"'.replace(",", '","') + ",x" for r in t.splitlines())), FOLDS, "fits the data", 0),
]  # fmt: skip


def folds(change: Callable[[str], str]) -> Act:
    return lambda p: p.edit("folds/demo.csv", change)


FOLD_FILES = [
    Case("Folds", "not there", lambda p: (p.folder / "folds/demo.csv").unlink(), PACK, "run make folds DATASET=demo first"),
    Case("Folds", "a driver missing", folds(lambda t: t.replace(line(t, 2) + "\n", "")), FOLDS, "in the data, in no fold"),
    Case("Folds", "a driver twice", folds(lambda t: t + line(t, 2) + "\n"), FOLDS, "is listed twice"),
    Case("Folds", "a driver of other data", folds(lambda t: t.replace("p003", "p033")), FOLDS, "p033: in a fold, not in the data"),
    Case("Folds", "other counts", folds(lambda t: t.replace(",2,2,", ",3,1,", 1)), FOLDS, "counts per class"),
    Case("Folds", "words for numbers", folds(lambda t: t.replace("p003,0", "p003,zero").replace("p003,1", "p003,one")), FOLDS, "expected whole numbers"),
    Case("Folds", "a number of 30 digits", folds(lambda t: t.replace("p003,0", "p003," + "9" * 30).replace("p003,1", "p003," + "9" * 30)), FOLDS, "expected whole numbers"),
    Case("Folds", "columns in another order", folds(lambda t: t.replace("fold,images", "images,fold", 1)), FOLDS, "the columns driver,images,fold"),
    Case("Folds", "a gap in the numbers", folds(lambda t: t.replace("p003,0", "p003,7").replace("p003,1", "p003,7")), FOLDS, "numbered 0 to K-1"),
    Case("Folds", "a driver moved after training", folds(lambda t: t.replace("p003,0", "p003,9").replace("p003,1", "p003,0").replace("p003,9", "p003,1")), ENSEMBLE, "packed under other folds"),
    Case("Folds", "more folds asked for than there are", lambda p: p.edit("configs/datasets/demo.yaml", lambda t: t.replace("folds: 2", "folds: 4")), FOLDS, "holds 2 folds, the dataset's YAML asks for 4"),
]  # fmt: skip


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


def in_hdf5(path: Path, change: Callable[[h5py.File], object], mode: str = "r+") -> None:
    with h5py.File(path, mode) as file:
        change(file)


def pack(change: Callable[[h5py.File], object]) -> Act:
    return lambda p: in_hdf5(p.packs / "40x52" / "train.h5", change)


def swapped(p: Project) -> None:
    """Test and training packs under each other's names."""
    folder = p.packs / "40x52"
    for end in ("h5", "json"):
        (folder / f"test.{end}").rename(folder / "x")
        (folder / f"train.{end}").rename(folder / f"test.{end}")
        (folder / "x").rename(folder / f"train.{end}")


PACKS = [
    Case("Packs", "not there", lambda p: p.unpacked(), TRAIN, "no pack; run make pack SIZE=40x52 DATASET=demo first"),
    Case("Packs", "cut short", lambda p: cut(p.packs / "40x52" / "train.h5", 300_000), TRAIN, "not a whole pack"),
    Case("Packs", "no HDF5", lambda p: (p.packs / "40x52" / "test.h5").write_bytes(b"x" * 900), TRAIN, "not a whole pack"),
    Case("Packs", "a pixel edited", pack(lambda f: f["images"].write_direct(np.zeros((1, 40, 52, 3), np.uint8), dest_sel=np.s_[7:8])), TRAIN, "was changed since it was packed"),
    Case("Packs", "labels edited", pack(lambda f: f["labels"].__setitem__(..., f["labels"][...][::-1])), TRAIN, "names, drivers, labels or means were changed"),
    Case("Packs", "points into another file", pack(lambda f: [f.pop("names"), f.__setitem__("names", h5py.ExternalLink("/etc/passwd", "/names"))]), TRAIN, "points into another file"),
    Case("Packs", "manifest of another pack", lambda p: p.edit_json("build/demo/pack/40x52/train.json", checksum="0" * 64), TRAIN, "is not the pack that train.json describes"),
    Case("Packs", "manifest damaged", lambda p: (p.packs / "40x52" / "train.json").write_text("{"), TRAIN, "expected a JSON manifest"),
    Case("Packs", "manifest lacks a key", lambda p: p.edit_json("build/demo/pack/40x52/train.json", left_out=None), TRAIN, "left_out is missing or no dict"),
    Case("Packs", "means edited", pack(lambda f: f.attrs.__setitem__("mean", [1.0, 2.0, 3.0])), TRAIN, "means were changed"),
    Case("Packs", "training and test exchanged", swapped, TRAIN, "fit|other|drivers differ"),
    Case("Packs", "of another size under this name", lambda p: (p.packs / "40x52").rename(p.packs / "44x52"), ["train", "tiny", "--run", "x", "--set", SET.replace("40x52", "44x52")], r"expected contiguous uint8 images \(44, 52\)"),
    Case("Packs", "images changed since", lambda p: as_jpeg(p.image(), np.full((48, 64, 3), 99, np.uint8)), PACK, "packed from other files"),
    Case("Packs", "made without invalid images, which none may lack now", lambda p: skipped(p), PACK, "empty file"),
]  # fmt: skip


def skipped(p: Project) -> None:
    """A pack made with SKIP_INVALID=1."""
    p.image().write_bytes(b"")
    p.unpacked()
    good(*PACK, *PLACE, "--skip-invalid")


FIVE = ["ensemble", "--name", "second", "--tta", "five_crop"]

RUNS = [
    Case("Runs", "no such run", lambda p: None, ["predict", "tinny"], "no such run; there are: tiny"),
    Case("Runs", "started with other settings", lambda p: None, ["train", "tiny", "--set", SET.replace("epochs=1", "epochs=2")], "train.epochs: 1 -> 2"),
    Case("Runs", "started with another preset", lambda p: p.edit("configs/presets/light.yaml", lambda t: t.replace("p: 0.8", "p: 0.7")), TRAIN, r"preset.0.Affine.p: 0.8 -> 0.7"),
    Case("Runs", "started on other folds", lambda p: p.edit_json("build/demo/runs/tiny/run.json", folds="0" * 64), PREDICT, "trained on other folds than today's"),
    Case("Runs", "started on another pack", lambda p: p.edit_json("build/demo/runs/tiny/run.json", packs={"train": "x", "test": "y"}), PREDICT, "trained on another pack than today's"),
    Case("Runs", "run.json damaged", lambda p: (p.run / "run.json").write_text("{"), PREDICT, "expected a JSON manifest"),
    Case("Runs", "run.json lacks a key", lambda p: (p.run / "run.json").write_text(json.dumps({"settings": json.loads((p.run / "run.json").read_text())["settings"]})), PREDICT, "lacks 'classes'"),
    Case("Runs", "classes edited", lambda p: p.edit_json("build/demo/runs/tiny/run.json", classes=list("abcdefghij")), FIVE, "is of another run"),
    Case("Runs", "a fold of another run", lambda p: p.edit_json("build/demo/runs/tiny/fold1/manifest.json", train_pack="x"), FIVE, "is of another run"),
    Case("Runs", "a fold's weights cut short", lambda p: cut(p.run / "fold0" / "weights.h5", 5000), PREDICT, "is not what fold 0 was trained to"),
    Case("Runs", "weights of another fold", lambda p: shutil.copyfile(p.run / "fold1" / "weights.h5", p.run / "fold0" / "weights.h5"), PREDICT, "is not what fold 0 was trained to"),
    Case("Runs", "a finished fold's manifest empty", lambda p: (p.run / "fold0" / "manifest.json").write_bytes(b""), TRAIN, "expected a JSON manifest"),
    Case("Runs", "a finished fold's weights gone", lambda p: (p.run / "fold1" / "weights.h5").unlink(), TRAIN, "is not what fold 1 was trained to"),
    Case("Runs", "a fold not finished", lambda p: (p.run / "fold1" / "manifest.json").unlink(), ["ensemble", "--models", "tiny"], "not every fold is finished"),
    Case("Runs", "named twice", lambda p: None, ["ensemble", "--models", "tiny tiny"], "tiny is named twice"),
]  # fmt: skip


def predictions(change: Callable[[h5py.File], object]) -> Act:
    return lambda p: in_hdf5(p.run / "fold1" / "test-five_crop.h5", change)


def rewritten(select: Callable[[np.ndarray], np.ndarray]) -> Act:
    """Write a prediction file again, checksum and all, with other rows."""
    from driverwatch.inference import predictions as files

    def act(p: Project) -> None:
        path = p.run / "fold1" / "test-five_crop.h5"
        found = files.read(path, {})
        rows = select(np.arange(len(found.names)))
        files.write(files.Predictions(found.names[rows], found.probabilities[rows], found.origin), path)

    return act


PREDICTIONS = [
    Case("Predictions", "not there", lambda p: (p.run / "fold1" / "test-five_crop.h5").unlink(), FIVE, "no such predictions; run make predict"),
    Case("Predictions", "cut short", lambda p: cut(p.run / "fold1" / "test-five_crop.h5", 1500), FIVE, "not a whole prediction file"),
    Case("Predictions", "with NaN", predictions(lambda f: f["probabilities"].write_direct(np.full((40, 10), np.nan, np.float32))), FIVE, "was changed since it was written"),
    Case("Predictions", "rows that do not sum to 1", predictions(lambda f: f["probabilities"].write_direct(np.full((40, 10), 0.2, np.float32))), FIVE, "was changed since it was written"),
    Case("Predictions", "edited", predictions(lambda f: f["probabilities"].write_direct(np.full((40, 10), 0.1, np.float32))), FIVE, "was changed since it was written"),
    Case("Predictions", "rows missing", rewritten(lambda rows: rows[3:]), FIVE, "3 images missing"),
    Case("Predictions", "an image twice", predictions(lambda f: f["names"].__setitem__(0, f["names"][1])), FIVE, "was changed since it was written"),
    Case("Predictions", "of another fold's weights", lambda p: shutil.copyfile(p.run / "fold0" / "test-five_crop.h5", p.run / "fold1" / "test-five_crop.h5"), FIVE, "made from other weights"),
    Case("Predictions", "of another TTA set", lambda p: shutil.copyfile(p.run / "fold1" / "test-centre.h5", p.run / "fold1" / "test-five_crop.h5"), FIVE, "made from other tta"),
]  # fmt: skip


def submission(change: Callable[[str], str]) -> Act:
    return lambda p: p.edit("submissions/demo/first.csv", change)


def cell(text: str, row: int, column: int, value: str) -> str:
    lines = text.splitlines()
    cells = lines[row].split(",")
    cells[column] = value
    lines[row] = ",".join(cells)
    return "\n".join(lines) + "\n"


SUBMISSIONS = [
    Case("Submissions", "not there", lambda p: None, ["check", "submissions/demo/none.csv"], "no such file"),
    Case("Submissions", "empty", submission(lambda _: ""), CHECK, "expected a UTF-8 CSV"),
    Case("Submissions", "another header", submission(lambda t: t.replace("img,c0", "image,c0", 1)), CHECK, "missing column img"),
    Case("Submissions", "classes in another order", submission(lambda t: t.replace("c8,c9", "c9,c8", 1)), CHECK, "expected the header"),
    Case("Submissions", "a further column", submission(lambda t: "\n".join(f"{i},{r}" for i, r in enumerate(t.splitlines()))), CHECK, "expected the header|missing column"),
    Case("Submissions", "a row missing", submission(lambda t: t.replace(line(t, 3) + "\n", "")), CHECK, "got 39 rows, 1 missing"),
    Case("Submissions", "a row twice", submission(lambda t: t + line(t, 3) + "\n"), CHECK, "1 repeated"),
    Case("Submissions", "an image nobody asked for", submission(lambda t: t + line(t, 3).replace("img_", "img_x") + "\n"), CHECK, "1 unknown"),
    Case("Submissions", "a cell too many in each row", submission(lambda t: "\n".join([line(t, 0), *(f"{r},0.5" for r in t.splitlines()[1:])])), CHECK, "expected a UTF-8 CSV"),
    Case("Submissions", "digits of another script", submission(lambda t: cell(t, 4, 3, "\u0660.\u0661")), CHECK, "expected numbers in every cell"),
    Case("Submissions", "an underscore in a number", submission(lambda t: cell(t, 4, 3, "1_0e-2")), CHECK, "expected numbers in every cell"),
    Case("Submissions", "an empty cell", submission(lambda t: cell(t, 4, 3, "")), CHECK, "line 5: blank c2"),
    Case("Submissions", "NaN", submission(lambda t: cell(t, 4, 3, "nan")), CHECK, "line 5: expected probabilities"),
    Case("Submissions", "infinity", submission(lambda t: cell(t, 4, 3, "inf")), CHECK, "line 5: expected probabilities"),
    Case("Submissions", "a word", submission(lambda t: cell(t, 4, 3, "much")), CHECK, "expected numbers in every cell"),
    Case("Submissions", "a decimal comma", submission(lambda t: cell(t, 4, 3, '"0,1"')), CHECK, "expected numbers in every cell"),
    Case("Submissions", "below 0", submission(lambda t: cell(t, 4, 3, "-0.1")), CHECK, "line 5: expected probabilities"),
    Case("Submissions", "above 1", submission(lambda t: cell(t, 4, 3, "1.5")), CHECK, "line 5: expected probabilities"),
    Case("Submissions", "a row that does not sum to 1", submission(lambda t: t.replace(line(t, 4), line(t, 4).split(",")[0] + 10 * ",0.2")), CHECK, "line 5: expected a row that sums to 1, got 2"),
    Case("Submissions", "another competition's", submission(lambda _: "id,label\n1,2\n"), CHECK, "missing column img"),
    Case("Submissions taken as they are", "rows in another order", submission(lambda t: "\n".join([line(t, 0), *reversed(t.splitlines()[1:])])), CHECK, "ready to go up", 0),
    Case("Submissions taken as they are", "Windows line ends", submission(lambda t: t.replace("\n", "\r\n")), CHECK, "ready to go up", 0),
]  # fmt: skip


def model(change: Callable[[str], str]) -> Act:
    return lambda p: p.edit("configs/models/tiny.yaml", change)


def dataset(old: str, new: str) -> Act:
    return lambda p: p.edit("configs/datasets/demo.yaml", lambda t: t.replace(old, new) if old else t + new)


def preset(text: str) -> Act:
    return lambda p: (p.folder / "configs/presets/light.yaml").write_text(text)


def with_set(override: str) -> list[str]:
    return ["train", "tiny", "--set", f"{SET} {override}"]


SETTINGS = [
    Case("Settings", "no such model", lambda p: None, ["train", "tinny"], "did you mean tiny"),
    Case("Settings", "no such data set", lambda p: None, ["folds", "--dataset", "demoo"], "did you mean demo"),
    Case("Settings", "no YAML", model(lambda _: "a: ["), TRAIN, "expected YAML"),
    Case("Settings", "a list", model(lambda _: "- a"), TRAIN, "expected settings as key: value lines"),
    Case("Settings", "an unknown key", model(lambda t: t + "trian: {}\n"), TRAIN, "trian: unknown key.*did you mean train"),
    Case("Settings", "a key twice", model(lambda t: t + "backbone: tiny\n"), TRAIN, "key given twice: backbone"),
    Case("Settings", "an alias", model(lambda t: t.replace("input:", "input: &x").replace("head:", "head: *x #")), TRAIN, "aliases"),
    Case("Settings", "an object", model(lambda t: t + "x: !!python/name:os.system\n"), TRAIN, "could not determine a constructor"),
    Case("Settings", "a key missing", model(lambda t: t.replace("backbone: tiny\n", "")), TRAIN, "backbone: is missing"),
    Case("Settings", "several mistakes", model(lambda t: t + "mean: none\ntruncate_at: 3\n"), TRAIN, "(?s)truncate_at: .*mean: "),
    Case("Settings", "no such backbone", model(lambda t: t.replace("backbone: tiny", "backbone: xeption")), TRAIN, "did you mean xception"),
    Case("Settings", "a wrong type", lambda p: None, with_set("train.epochs=many"), "train.epochs: .*got 'many'"),
    Case("Settings", "out of range", lambda p: None, with_set("train.batch_size=0"), "greater than or equal to 1, got 0"),
    Case("Settings", "without measure", lambda p: None, with_set("train.epochs=1000000"), "less than or equal to 10000"),
    Case("Settings", "an octal number", lambda p: None, with_set("train.epochs=010"), "valid integer, got '010'"),
    Case("Settings", "not a number", lambda p: None, with_set("train.learning_rate=.nan"), "finite number, got nan"),
    Case("Settings", "no such choice", lambda p: None, with_set("train.optimizer=adamm"), "'sgd', 'adam' or 'adamw'"),
    Case("Settings", "a size that is none", lambda p: None, with_set("input.pack=40"), "must be <height>x<width>"),
    Case("Settings", "input larger than the pack", lambda p: None, with_set("input.size=80x80"), "input.size must fit into input.pack"),
    Case("Settings", "too small for the backbone", lambda p: None, with_set("input.size=20x20"), "at least 32 px"),
    Case("Settings", "random weights frozen", lambda p: None, with_set('train.stages=[{"freeze_until":"head"}]'), "random layers would stay random"),
    Case("Settings", "SET without a value", lambda p: None, with_set("train.epochs"), "expected key=value"),
    Case("Settings", "no such preset", lambda p: None, with_set("augment.preset=lite"), "did you mean light"),
    Case("Settings", "preset: no such transform", preset("- Afine: {}"), TRAIN, "did you mean Affine"),
    Case("Settings", "preset: a wrong keyword", preset("- Affine: {rotat: 3}"), TRAIN, "rotat"),
    Case("Settings", "preset: flips", preset("- HorizontalFlip: {}"), TRAIN, "flips without moving left/right labels"),
    Case("Settings", "preset: flips by its scale", preset("- Affine: {scale: {x: [-1, -1], y: [1, 1]}}"), TRAIN, "negative scale"),
    Case("Settings", "preset: makes floats", preset("- ToFloat: {}"), TRAIN, "must keep size and type"),
    Case("Settings", "preset: changes the size", preset("- Resize: {height: 9, width: 9}"), TRAIN, "must keep size and type"),
    Case("Settings", "preset: runs code", preset("- Lambda: {image: print}"), TRAIN, "nothing that loads or runs"),
    Case("Settings", "data set: places without {image}", dataset("", 'train_images: "imgs/train/{label}"\n'), FOLDS, "must hold {image}"),
    Case("Settings", "data set: an unknown field", dataset("", 'test_images: "imgs/{split}/{image}"\n'), FOLDS, "no other fields than {image}"),
    Case("Settings", "data set: a place outside", dataset("", 'table: "../../secret.csv"\n'), FOLDS, "below the data folder"),
    Case("Settings", "data set: a class that is no column", dataset("c9: talking", '"c,9": talking'), FOLDS, "must be plain"),
    Case("Settings", "data set: flipped pair of no class", dataset("[c2, c4]", "[c2, c44]"), FOLDS, "must name classes, got c44"),
    Case("Settings", "no such fold", lambda p: None, [*TRAIN, "--fold", "7"], "FOLD=7: expected 0 to 1"),
    Case("Settings", "no such TTA set", lambda p: None, ["predict", "tiny", "--tta", "ten"], r"must be a TTA set .*got \['ten'\]"),
    Case("Settings", "two TTA sets for an ensemble", lambda p: None, ["ensemble", "--tta", "centre shifts"], "expected one TTA set"),
    Case("Settings", "a name that leaves its folder", lambda p: None, ["ensemble", "--name", "../x"], "NAME=../x: expected letters"),
    Case("Settings", "no such weights folder", lambda p: None, ["train", "squeezenet", "--weights", "none"], "no such folder"),
    Case("Settings", "a weight file missing", lambda p: (p.folder / "weights").mkdir(), ["train", "squeezenet", "--weights", "weights"], "put squeezenet_v1.0_imagenet.npz into a folder"),
]  # fmt: skip

NPZ, KERAS_3, KERAS_1 = (
    "squeezenet_v1.0_imagenet.npz",
    "mobilenet_v2_imagenet_notop.weights.h5",
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
)


class Bomb:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return Path("exploded").touch, ()


def weights(name: str, make: Callable[[Path], object]) -> Act:
    def act(p: Project) -> None:
        (p.folder / "weights").mkdir()
        make(p.folder / "weights" / name)

    return act


def arrays(path: Path, **named: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, **named)


def not_finite(path: Path) -> None:
    from keras.applications import MobileNetV2

    made = MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
    made.weights[0].assign(made.weights[0].numpy() * np.nan)
    made.save_weights(path)


def exchanged(path: Path) -> None:
    """Two convolutions of the same shape: Keras would load them without a word."""
    from keras.applications import MobileNetV2

    MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3)).save_weights(path)
    with h5py.File(path, "r+") as file:
        keys = {file[f"layers/{key}/vars"].attrs["name"]: f"layers/{key}" for key in file["layers"]}
        first, second = keys["block_7_project"], keys["block_8_project"]
        for old, new in ((first, "kept"), (second, first), ("kept", second)):
            file.move(old, new)


def another_network(path: Path) -> None:
    from driverwatch.models.tiny import tiny

    tiny(input_shape=(64, 64, 3)).save_weights(path)


WEIGHTS = [
    Case("Weights", "another network's (.npz)", weights(NPZ, lambda path: arrays(path, conv1=np.ones(3))), ["weights", "squeezenet"], "lacks conv1/kernel"),
    Case("Weights", "other shapes (.npz)", weights(NPZ, lambda path: arrays(path, **{"conv1/kernel": np.ones((3, 3, 3, 64))})), ["weights", "squeezenet"], "conv1/kernel is"),
    Case("Weights", "another network's (.weights.h5)", weights(KERAS_3, another_network), ["weights", "mobilenet_v2"], "layers/conv2d is stage1_conv, where Conv1 was expected"),
    Case("Weights", "two layers exchanged (.weights.h5)", weights(KERAS_3, exchanged), ["weights", "mobilenet_v2"], "is block_8_project, where block_7_project was expected"),
    Case("Weights", "NaN (.weights.h5)", weights(KERAS_3, not_finite), ["weights", "mobilenet_v2"], "holds NaN or infinity"),
    Case("Weights", "cut short (.weights.h5)", weights(KERAS_3, lambda path: [another_network(path), cut(path, 9000)]), ["weights", "mobilenet_v2"], "got another file"),
    Case("Weights", "cut short (.h5)", weights(KERAS_1, lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))), ["weights", "inception_v3"], "expected the official file of that name"),
    Case("Weights", "empty (.npz)", weights(NPZ, lambda path: path.write_bytes(b"")), ["weights", "squeezenet"], "not an .npz archive"),
    Case("Weights", "cut short (.npz)", weights(NPZ, lambda path: [arrays(path, x=np.ones(900)), cut(path, 3000)]), ["weights", "squeezenet"], "not an .npz archive"),
    Case("Weights", "a pickle (.npz)", weights(NPZ, lambda path: path.write_bytes(pickle.dumps(Bomb()))), ["weights", "squeezenet"], "not an .npz archive"),
    Case("Weights", "a pickle inside (.npz)", weights(NPZ, lambda path: arrays(path, x=np.array([Bomb()], dtype=object))), ["weights", "squeezenet"], "allow_pickle=False"),
    Case("Weights", "a pickle (.h5)", weights(KERAS_1, lambda path: path.write_bytes(pickle.dumps(Bomb()))), ["weights", "inception_v3"], "expected the official file of that name"),
    Case("Weights", "points into another file (.weights.h5)", weights(KERAS_3, lambda path: in_hdf5(path, lambda f: f.__setitem__("layers", h5py.ExternalLink("/etc/passwd", "/")), "w")), ["weights", "mobilenet_v2"], "points into another file"),
]  # fmt: skip

CASES = [*IMAGES, *TABLES, *SETTINGS, *WEIGHTS, *FOLD_FILES, *PACKS, *RUNS, *PREDICTIONS, *SUBMISSIONS]
