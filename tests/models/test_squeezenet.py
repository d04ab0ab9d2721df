"""SqueezeNet: its versions against the published counts and, with real weights, against plain NumPy and real images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.places import SHARED, needs_weights

from driverwatch.models.pretrained import fill
from driverwatch.models.squeezenet import squeezenet, squeezenet_torch, squeezenet_v1_1

pytestmark = pytest.mark.keras
WEIGHTS = SHARED / "weights" / "squeezenet_v1.0_imagenet.npz"
IMAGES = SHARED / "statefarm" / "imgs" / "train" / "c0"
MEAN = np.array([104, 117, 123], np.float32)  # BGR
SEAT_BELT = 785  # of ImageNet's classes


@pytest.mark.parametrize(
    ("build", "count"), [(squeezenet, 1_248_424), (squeezenet_torch, 1_248_424), (squeezenet_v1_1, 1_235_496)]
)
def test_parameters_are_as_many_as_published(build: type, count: int) -> None:
    assert build(include_top=True).count_params() == count
    assert build().count_params() == count - 513 * 1000
    assert build(include_top=True, classes=10).output_shape == (None, 10)


@pytest.mark.parametrize(("build", "smallest"), [(squeezenet, 21), (squeezenet_torch, 21), (squeezenet_v1_1, 17)])
def test_the_smallest_side(build: type, smallest: int) -> None:
    assert build(input_shape=(smallest, smallest, 3)).output_shape == (None, 1, 1, 512)
    with pytest.raises(ValueError, match=r"[Nn]egative dimension|output size"):
        build(input_shape=(smallest - 1, smallest - 1, 3))


def convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """(h, w, c) and HWIO -> ReLU of the convolution, tap by tap, in float64."""
    x = np.pad(x.astype(np.float64), ((padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    height, width = ((side - size) // stride + 1 for side in x.shape[:2])
    total = np.zeros((height, width, kernel.shape[3])) + bias
    for i in range(size):
        for j in range(size):
            taps = x[i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            total += taps @ kernel[i, j].astype(np.float64)
    return np.maximum(total, 0)


def pool(x: np.ndarray) -> np.ndarray:
    """3x3/2, the last window cut off by the edge: as Caffe writes it, without padding."""
    starts = [range(0, 2 * -(-(side - 3) // 2) + 1, 2) for side in x.shape[:2]]
    return np.array([[x[i : i + 3, j : j + 3].max(axis=(0, 1)) for j in starts[1]] for i in starts[0]])


def in_numpy(image: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """SqueezeNet v1.0 of the Caffe release, written a second time: (h, w, 3) -> 1000 probabilities."""

    def layer(x: np.ndarray, name: str, stride: int = 1, padding: int = 0) -> np.ndarray:
        return convolve(x, arrays[f"{name}/kernel"], arrays[f"{name}/bias"], stride, padding)

    x = pool(layer(image, "conv1", stride=2))
    for i in range(2, 10):
        squeezed = layer(x, f"fire{i}_squeeze1x1")
        sides = [layer(squeezed, f"fire{i}_expand1x1"), layer(squeezed, f"fire{i}_expand3x3", padding=1)]
        x = np.concatenate(sides, axis=-1)
        x = pool(x) if i in (4, 8) else x
    logits = layer(x, "conv10", padding=1).mean(axis=(0, 1))
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def read(image: Path, width: int, height: int) -> np.ndarray:
    return cv2.resize(cv2.imread(str(image)), (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) - MEAN


@needs_weights
@pytest.mark.parametrize("size", [(95, 95), (98, 121)])
def test_real_weights_give_what_plain_numpy_gives(size: tuple[int, int]) -> None:
    with np.load(WEIGHTS) as archive:
        arrays = {name: archive[name] for name in archive.files}
    image = read(min(IMAGES.iterdir()), size[1], size[0])
    network = squeezenet(include_top=True, input_shape=image.shape)
    fill(network, WEIGHTS)
    found, expected = np.asarray(network(image[None]))[0], in_numpy(image, arrays)
    assert expected.max() > 0.02  # not uniform, so that agreement says something
    assert np.abs(found - expected).max() < 1e-6


@needs_weights
def test_real_weights_see_seat_belts() -> None:
    """The 1000-way top is whole and its input is scaled right: drivers wear belts, and ImageNet has a class for them."""
    network = squeezenet(include_top=True)
    fill(network, WEIGHTS)
    images = sorted(IMAGES.iterdir())[::30][:8]
    found = np.asarray(network(np.stack([read(image, 227, 227) for image in images])))
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert np.mean([SEAT_BELT in row.argsort()[-3:] for row in found]) >= 0.75
