"""HDF5 files that claim more than they hold, or hold something else than their names say: one sentence, and nothing is read."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from driverwatch.data import pack
from driverwatch.data.images import LOOK
from driverwatch.ensemble import embeddings
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.feature_cache import FeatureCache
from driverwatch.inference.predictions import Predictions
from driverwatch.io.atomic import write_json
from driverwatch.io.hdf5 import opened
from driverwatch.models import pretrained
from driverwatch.models.backend import load_state, write_state

MANY = 400_000_000
NAMES = np.array([f"img_{i}.jpg" for i in range(6)], object)
SIZE = "8x10"

Damage = Callable[[h5py.File, str], None]


def unwritten(file: h5py.File, name: str) -> None:
    """No byte of it was ever written."""
    file.create_dataset(name, (MANY, 10), np.float32)


def in_chunks(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (MANY, 10), np.float32, chunks=(1000, 10))


def compressed(file: h5py.File, name: str) -> None:
    made = file.create_dataset(name, (MANY, 10), np.float32, chunks=(1_000_000, 10), compression="gzip")
    made[:1_000_000] = 0


def of_text(file: h5py.File, name: str) -> None:
    file.create_dataset(name, data=np.full((6, 10), "x", object), dtype=h5py.string_dtype())


def of_pairs(file: h5py.File, name: str) -> None:
    file.create_dataset(name, data=np.zeros(6, [("a", "f4"), ("b", "i4")]))


def of_references(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (6, 10), h5py.ref_dtype)


def of_lists(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (6,), h5py.vlen_dtype(np.float32))


def of_nothing(file: h5py.File, name: str) -> None:
    file[name] = h5py.Empty("f4")


def of_other_numbers(file: h5py.File, name: str) -> None:
    file[name] = np.zeros((6, 10), np.complex128)


def as_group(file: h5py.File, name: str) -> None:
    file.create_group(name)


def of_another_shape(file: h5py.File, name: str) -> None:
    file[name] = np.zeros((5, 4, 3), np.float32)


DAMAGES: list[Damage] = [
    unwritten, in_chunks, compressed, of_text, of_pairs, of_references, of_lists, of_nothing, of_other_numbers, as_group,
    of_another_shape,
]  # fmt: skip


def a_prediction(folder: Path) -> tuple[Path, list[str], Callable[[], object]]:
    path = folder / "p.h5"
    predictions.write(Predictions(NAMES, np.full((6, 10), 0.1, np.float32), {"a": "b"}), path)
    return path, ["names", "probabilities"], lambda: predictions.read(path, {"a": "b"})


def some_features(folder: Path) -> tuple[Path, list[str], Callable[[], object]]:
    path = folder / "f.h5"
    embeddings.write(path, NAMES, [np.zeros((6, 10), np.float32)], {"a": "b"})
    return path, ["names", "features"], lambda: embeddings.read(path, {"a": "b"})


def a_state(folder: Path) -> tuple[Path, list[str], Callable[[], object]]:
    path, variables = folder / "checkpoint.h5", [keras.Variable(np.zeros((6, 10), np.float32))]
    write_state(path, {"model": variables}, {"run": "r"})
    return path, ["model/0000"], lambda: load_state(path, {"model": variables})


def some_weights(folder: Path) -> tuple[Path, list[str], Callable[[], object]]:
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(10, name="dense_one")], name="net")
    path = folder / "net.weights.h5"
    network.save_weights(path)
    return path, ["layers/dense/vars/0"], lambda: pretrained.fill(network, path)


def a_pack(folder: Path) -> tuple[Path, list[str], Callable[[], object]]:
    path, checksum = folder / "train.h5", "d"
    with h5py.File(path, "w") as file:
        for place in (file, file.create_group("left_out")):
            for name in ("names", "drivers", "reasons"):
                place.create_dataset(name, data=NAMES, dtype=h5py.string_dtype())
            place["labels"] = np.zeros(6, np.int64)
        file["images"], file["looks"] = np.zeros((6, 8, 10, 3), np.uint8), np.zeros((6, LOOK), np.uint8)
        file.attrs.update({"checksum": checksum, "mean": [1.0] * 3, "std": [1.0] * 3})
    made = {"checksum": checksum, "folds": "f", "contents": "c", "signature": "s", "images": 6, "left_out": {}}
    columns = ["names", "labels", "drivers", "images", "looks", "left_out/names", "left_out/labels", "left_out/reasons"]

    def read() -> object:
        (folder / "train.json").write_text(json.dumps(made | {"stamp": pack.stamp(path)}))
        return pack.read(folder, "train", "f", SIZE)

    return path, columns, read


KINDS = [a_prediction, some_features, a_state, some_weights, a_pack]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_is_held_against_its_name_before_it_is_read(
    tmp_path: Path, kind: Callable[[Path], tuple[Path, list[str], Callable[[], object]]], damage: Damage
) -> None:
    path, columns, read = kind(tmp_path)
    read()
    whole = path.read_bytes()
    for name in columns:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file[name]
            damage(file, name)
        tracemalloc.start()
        with pytest.raises(InputError) as refused:
            read()
        assert tracemalloc.get_traced_memory()[1] < 50e6, "a claim was believed"
        tracemalloc.stop()
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["outputs", "flipped"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_cache_that_claims_more_is_none(tmp_path: Path, damage: Damage, name: str) -> None:
    path, cache = tmp_path / "c.h5", FeatureCache.__new__(FeatureCache)
    cache.dtype, cache.shape = np.dtype(np.float32), (10,)
    with h5py.File(path, "w") as file:
        file["outputs"], file["flipped"] = np.zeros((6, 10), np.float32), np.zeros(6, bool)
    write_json(path.with_suffix(".json"), {"contents": "c", "stamp": pack.stamp(path)})
    assert cache._there(path, 6)
    with h5py.File(path, "r+") as file:
        del file[name]
        damage(file, name)
    write_json(path.with_suffix(".json"), {"contents": "c", "stamp": pack.stamp(path)})
    assert cache._there(path, 6) is None


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_unlike_length_are_refused(
    tmp_path: Path, kind: Callable[[Path], tuple[Path, list[str], Callable[[], object]]]
) -> None:
    path, columns, read = kind(tmp_path)
    for name in columns:
        with h5py.File(path, "r+") as file:
            text = h5py.check_string_dtype(file[name].dtype)
            kept = file[name][...]
            del file[name]
            file.create_dataset(name, data=kept[:-1], dtype=h5py.string_dtype() if text else None)
        with pytest.raises(InputError, match=path.name):
            read()
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_dataset(name, data=kept, dtype=h5py.string_dtype() if text else None)
        read()


@pytest.mark.parametrize(
    "wrong", [np.array(["a", "b"], object), 3, np.zeros(2), h5py.Empty("f4"), b"\xff", "[" * 100_000]
)
@pytest.mark.parametrize("name", ["origin", "contents"])
def test_what_a_file_says_of_itself_is_text(tmp_path: Path, name: str, wrong: object) -> None:
    path, _, read = a_prediction(tmp_path)
    with h5py.File(path, "r+", libver="latest") as file:
        file.attrs[name] = wrong
    with pytest.raises(InputError, match=r"p\.h5"):
        read()


def deep(file: h5py.File) -> None:
    place = file
    for _ in range(5000):
        place = place.create_group("g")


def circular(file: h5py.File) -> None:
    file["g/h/i"] = 1
    file["g/h/back"] = file["g"]
    file["g/h/root"] = file["/"]


def soft(file: h5py.File) -> None:
    file["g/h"] = h5py.SoftLink("/etc")


def elsewhere(file: h5py.File) -> None:
    file["g/h"] = h5py.ExternalLink("/etc/passwd", "/")


def outside(file: h5py.File) -> None:
    file.create_dataset("g/h", (10,), "u1", external=[("/etc/passwd", 0, 10)])


def said_twice(file: h5py.File) -> None:
    """One array under many names is one array."""
    file["a"] = np.zeros(50_000)
    for number in range(100):
        file[f"a{number}"] = file["a"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [(deep, "deep"), (soft, "another file"), (elsewhere, "another file"), (outside, "another file"),
     (circular, None), (said_twice, None)],
)  # fmt: skip
def test_groups_are_bounded(tmp_path: Path, damage: Callable[[h5py.File], None], said: str | None) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        damage(file)
    if said is None:
        with opened(path):
            return
    with pytest.raises(ValueError, match=said), opened(path):
        pass


def test_one_long_text_under_many_names(tmp_path: Path) -> None:
    """Each entry of a column of text is a reference; the file stays small where all are to the same text."""
    path, _, read = a_prediction(tmp_path)
    names, count = np.array(["x" * 2_000_000], object), 4000
    with h5py.File(path, "r+") as file:
        del file["names"], file["probabilities"]
        file.create_dataset("one", data=names, dtype=h5py.string_dtype())
        file.create_dataset("names", data=np.full(count, "y", object), dtype=h5py.string_dtype())
        file["probabilities"] = np.full((count, 10), 0.1, np.float32)
        one, many = file["one"].id.get_offset(), file["names"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[many : many + 16 * count] = content[one : one + 16] * count
    path.write_bytes(content)
    with pytest.raises(InputError, match="more text than the file has bytes"):
        read()
