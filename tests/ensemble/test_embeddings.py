"""Features of all images: how they are asked for, pooled, kept and refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from driverwatch.config.ensemble import (
    EmbeddingSource,
    EnsembleSettings,
    KnnSettings,
    PipelineSettings,
    embedding_source,
)
from driverwatch.config.loading import parse
from driverwatch.ensemble import embeddings
from driverwatch.errors import InputError
from driverwatch.experiments.compare import share_of_same

NAMES = np.array(["b.jpg", "a.jpg", "c.jpg"], object)
ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
ORIGIN = {"train_pack": "t", "settings": "s"}


def test_round_trip_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "features" / "f.h5"
    path.parent.mkdir()
    embeddings.write(path, NAMES, [ARRAY[:2], ARRAY[2:], ARRAY[:0]], ORIGIN)
    found = embeddings.read(path, {"settings": "s"})
    assert list(found.names) == list(NAMES)
    np.testing.assert_array_equal(found.array, ARRAY)
    assert found.origin == ORIGIN
    with pytest.raises(InputError, match="other settings than today's; run make knn"):
        embeddings.read(path, {"settings": "other", "train_pack": "t"})


def test_files_that_are_no_longer_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with pytest.raises(InputError, match="no such features"):
        embeddings.read(path, {})
    embeddings.write(path, NAMES, [ARRAY], ORIGIN)
    whole = path.read_bytes()
    for change in ("features", "names"):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            file[change][1] = 5 if change == "features" else "other.jpg"
        with pytest.raises(InputError, match="changed since it was written"):
            embeddings.read(path, ORIGIN)
    path.write_bytes(whole[:900])
    with pytest.raises(InputError, match="not a whole feature file"):
        embeddings.read(path, ORIGIN)


@pytest.mark.parametrize(
    ("text", "backbone", "file"),
    [
        ("mobilenet_v2", EmbeddingSource("mobilenet_v2", None, (1, 1)), "mobilenet_v2-1x1.h5"),
        ("vgg16:3x4", EmbeddingSource("vgg16", None, (3, 4)), "vgg16-3x4.h5"),
        ("vgg16:block4_pool", EmbeddingSource("vgg16", "block4_pool", (1, 1)), "vgg16-block4_pool-1x1.h5"),
        ("a-b.c:mixed7:12x2", EmbeddingSource("a-b.c", "mixed7", (12, 2)), "a-b.c-mixed7-12x2.h5"),
        ("x:fire2/relu", EmbeddingSource("x", "fire2/relu", (1, 1)), "x-fire2_relu-1x1.h5"),
    ],
)
def test_backbones_by_name(text: str, backbone: EmbeddingSource, file: str) -> None:
    assert embedding_source(text) == backbone
    assert backbone.file == file
    assert parse(PipelineSettings, {"knn": {"embeddings": text}}, "here").knn is not None


@pytest.mark.parametrize("text", ["", ":2x2", "a:", "a:0x2", "a:2x", "a:b:c", "../a", "a b", "a:100x1", 3])
def test_backbones_that_are_none(text: object) -> None:
    with pytest.raises(InputError, match=r"here: knn\.embeddings: "):
        parse(PipelineSettings, {"knn": {"embeddings": text}}, "here")


def test_an_ensemble_has_no_neighbours_unless_it_says_so() -> None:
    assert PipelineSettings().knn is None
    kept = parse(EnsembleSettings, {"runs": ["a"], "knn": {"embeddings": "a:2x2", "k": 3}}, "here")
    assert kept.knn == KnnSettings(embeddings="a:2x2", k=3)
    wrong = {"knn": {"embeddings": "a", "method": "clusters", "rounds": 2}}
    with pytest.raises(InputError, match="knn: method: clusters takes no weights, mean or rounds"):
        parse(PipelineSettings, wrong, "here")


def test_share_of_neighbours_of_the_same_clip() -> None:
    clips = np.array([0, 0, 1, 1])
    assert share_of_same(np.array([[1, 2], [0, -1], [3, 0], [-1, -1]]), clips) == pytest.approx(3 / 5)
    assert np.isnan(share_of_same(np.full((4, 2), -1), clips))


@pytest.mark.keras
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (3, 4), (5, 7)])
def test_a_grid_of_means(rows: int, columns: int) -> None:
    from driverwatch.models.split_network import GridPooling

    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    layer = GridPooling(rows, columns)
    found = np.asarray(layer(maps))
    assert found.shape == layer.compute_output_shape(maps.shape) == (2, rows * columns * 3)
    tall, wide = np.arange(rows + 1) * 5 // rows, np.arange(columns + 1) * 7 // columns
    for row in range(rows):
        for column in range(columns):
            place = maps[:, tall[row] : tall[row + 1], wide[column] : wide[column + 1]].mean(axis=(1, 2))
            at = 3 * (row * columns + column)
            np.testing.assert_allclose(found[:, at : at + 3], place, atol=1e-6)
    assert GridPooling.from_config(layer.get_config()).columns == columns


@pytest.mark.keras
@pytest.mark.parametrize("shape", [(2, 4, 7, 3), (2, 9)])
def test_no_grid_is_finer_than_the_map(shape: tuple[int, ...]) -> None:
    from driverwatch.models.split_network import GridPooling

    with pytest.raises(InputError, match="at least 5x7 cells"):
        GridPooling(5, 7)(np.zeros(shape, np.float32))
