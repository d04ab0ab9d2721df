"""What belongs to the whole process is left as it was found: on import, and after whatever needed it otherwise."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.places import ROOT
from support.project import MINI

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.model import ModelSettings
from driverwatch.data import near_duplicates, synthetic
from driverwatch.data.augment import AugmentedInputs
from driverwatch.data.images import LARGEST, examine, examine_content
from driverwatch.io.prefetch import one_opencv_thread

SWITCHES = """
import csv, gc, importlib, json, locale, logging, os, pkgutil, signal, socket, sys, warnings
import cv2, numpy, PIL.Image, PIL.ImageFile
import matplotlib, pandas, h5py

def state():
    return {
        "Pillow's pixels": PIL.Image.MAX_IMAGE_PIXELS,
        "Pillow's truncated": PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        "OpenCV's threads": cv2.getNumThreads(),
        "OpenCV's optimisations": cv2.useOptimized(),
        "environment": dict(os.environ),
        "numpy's errors": numpy.geterr(),
        "numpy's printing": {k: str(v) for k, v in numpy.get_printoptions().items()},
        "warnings": len(warnings.filters) if ours else 0,
        "csv's cells": csv.field_size_limit(),
        "recursion": sys.getrecursionlimit(),
        "sockets": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
        "logging": logging.getLogger().level,
        "collection": [gc.isenabled(), gc.get_threshold()],
        "matplotlib": {k: str(v) for k, v in matplotlib.rcParams.items()},
        "hooks": [sys.excepthook is sys.__excepthook__, sys.stdout is sys.__stdout__],
        "folder": os.getcwd(),
    }

ours = False
import driverwatch
names = [m.name for m in pkgutil.walk_packages(driverwatch.__path__, "driverwatch.")]
names = [n for n in names if not n.endswith("__main__")]
import albumentations, keras  # what libraries do on import is theirs
os.environ.pop("NO_ALBUMENTATIONS_UPDATE")
before = state()
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert error.name not in sys.modules and not str(error.name).startswith("driverwatch"), error
after = state()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""


@pytest.mark.slow
def test_imports_switch_nothing(tmp_path: Path) -> None:
    """Every module at once, in a process of its own: whoever uses one of them keeps what his process is set to."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    environ |= {"PYTHONPATH": str(ROOT / "src"), "NO_ALBUMENTATIONS_UPDATE": "1", "MPLCONFIGDIR": str(tmp_path)}
    made = subprocess.run(
        [sys.executable, "-c", SWITCHES], env=environ, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout.splitlines()[-1]) == {}


@pytest.fixture
def three() -> int:
    """OpenCV with three threads, whatever the machine has."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield 3  # type: ignore[misc]
    cv2.setNumThreads(before)


def test_opencv_gets_its_threads_back(three: int) -> None:
    """Also after an error, and where two overlap: the first to leave must not switch the other's on."""
    with pytest.raises(ZeroDivisionError), one_opencv_thread():
        assert cv2.getNumThreads() == 1
        raise ZeroDivisionError
    assert cv2.getNumThreads() == three
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_opencv_thread():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with one_opencv_thread():
        thread.start()
        assert inside.wait(10)
    assert cv2.getNumThreads() == 1
    leave.set()
    thread.join()
    assert cv2.getNumThreads() == three


def _hash(data: Path, settings: DatasetSettings) -> None:
    near_duplicates.hashes([next(p.name for p in (data / "imgs/test").iterdir())], data / "imgs/test")


def _draw(data: Path, settings: DatasetSettings) -> None:
    synthetic.write(MINI, settings, data.parent / "drawn again")


def _augment(data: Path, settings: DatasetSettings) -> None:
    asked = {"backbone": "tiny", "weights": "none", "input": {"pack": "48x64", "size": "32x32"}}
    images = np.zeros((4, 48, 64, 3), np.uint8)
    preset: list[dict[str, dict[str, object]]] = [{"HueSaturationValue": {}}]
    AugmentedInputs(images, ModelSettings.model_validate(asked), preset, 0)(np.arange(4))


@pytest.mark.parametrize("work", [_hash, _draw, _augment])
def test_work_gives_the_threads_back(
    three: int, work: Callable[[Path, DatasetSettings], None], data: Path, demo_settings: DatasetSettings
) -> None:
    work(data, demo_settings)
    assert cv2.getNumThreads() == three


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size, and holds next to nothing."""
    image = io.BytesIO()
    Image.new("L", (32, 32)).save(image, "PNG")
    content = bytearray(image.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


@pytest.mark.parametrize("limit", [1000, 89_478_485, None])
@pytest.mark.parametrize(("side", "problem"), [(7_000, "damaged"), (9_900, "claims"), (20_000, "claims")])
def test_our_limit_of_pixels_is_ours_alone(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, side: int, problem: str
) -> None:
    """Whatever Pillow's is set to: no warning, no error of Pillow's, and no change of it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    image = examine_content(png(side, side), ".png", (24, 32))
    assert image.problem is not None
    assert image.problem.startswith(problem), image.problem
    assert (side * side > LARGEST) == (problem == "claims")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_an_image_is_read_whatever_pillow_is_set_to(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next((data / "imgs/test").iterdir())
    before = examine(path, None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    after = examine(path, None)
    assert after.problem is None
    assert after.look == before.look
