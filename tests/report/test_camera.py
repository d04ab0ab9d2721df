"""What serve knows of the camera: remarks on images that it did not take, examples of those it did, and browsers' own formats."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support.finished import World, world
from support.reviewing import with_pixels

from driverwatch.data.context import Context
from driverwatch.report import example_images, serve
from driverwatch.report.example_images import RARE, Camera, camera_of, find_camera, find_examples, thumbnail
from driverwatch.report.serve import Answers, ImageError, as_png

__all__ = ["world"]


def cabin(seed: int, driver: float) -> np.ndarray:
    """A fixed scene, uint8 RGB (48, 64, 3): a window above, a seat at the left, a driver of his own shade, noise."""
    image = np.full((48, 64, 3), 90, np.uint8)
    image[:14] = 200
    image[10:40, 8:24] = int(40 + 5 * driver)
    noise = np.random.default_rng([seed, int(10 * driver)]).normal(0, 12, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def known() -> Camera:
    frames = np.array([cabin(seed, driver) for driver in range(8) for seed in range(20)])
    made = camera_of(frames, np.repeat(np.arange(8).astype(str), 20), 4 / 3)
    assert made is not None
    return made


def test_images_of_an_unseen_driver_are_the_cameras(known: Camera) -> None:
    remarks = [
        known.remarks((cabin(seed, 3.6) * light).astype(np.uint8)) for seed in range(100) for light in (1.0, 0.7)
    ]
    assert sum(map(bool, remarks)) <= 200 * RARE / 100


@pytest.mark.parametrize(
    "other",
    [
        np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8),
        np.full((48, 64, 3), 128, np.uint8),
        cv2.GaussianBlur(cabin(0, 3), (0, 0), 2),
        (cabin(0, 3) * [1.0, 0.5, 0.4]).astype(np.uint8),
        cabin(0, 3)[::-1].copy(),  # upside down
        cabin(0, 3)[:, ::-1].copy(),  # the other side of the car
        255 - cabin(0, 3),
    ],
    ids=["noise", "flat", "blurred", "red", "upside down", "mirrored", "negative"],
)
def test_other_images_are_remarked_upon(known: Camera, other: np.ndarray) -> None:
    assert known.remarks(other) == ("unlike the camera's images, so that the answer is worth nothing",)


def test_another_shape_is_remarked_upon(known: Camera) -> None:
    wide = cv2.resize(cabin(0, 3), (480, 48))
    assert known.remarks(wide)[0] == "10 times as wide as high, the camera's images 1.3 times"
    assert known.remarks(cv2.resize(cabin(0, 3), (128, 96), interpolation=cv2.INTER_NEAREST)) == ()


def test_what_is_alike_depends_on_no_brightness_and_no_contrast() -> None:
    image = cabin(0, 3)
    darker = (image * 0.5 + 20).astype(np.uint8)
    assert thumbnail(image) @ thumbnail(darker) == pytest.approx(1, abs=1e-3)
    assert camera_of(np.array([image]), np.array(["a"]), None) is None  # one driver tells nothing of others


def test_the_camera_is_that_of_the_training_pack(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run("one")
    models: Any = SimpleNamespace(run=run, numbers=[0, 1, 2])
    assert find_camera(world.context, models) is None  # no pack is there
    pack = with_pixels(world.packs["train"], tmp_path, "train")
    monkeypatch.setattr(Context, "pack", lambda *_: pack)
    found = find_camera(world.context, models)
    assert found is not None
    assert found.thumbnails.shape == (54, example_images.SIDES[0] * example_images.SIDES[1])
    assert found.ratio is None  # no image file is there
    assert find_examples(world.context, models) == []


def encoded(kind: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(cabin(0, 1)).resize(size).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["WebP", "AVIF"])
def test_what_browsers_save_is_read(kind: str) -> None:
    content, suffix, traits = as_png(encoded(kind, quality=95), ".jpg")
    assert (content[:4], suffix, traits) == (b"\x89PNG", ".png", (f"{kind}, read by a second decoder",))
    read = np.array(Image.open(io.BytesIO(content)))
    assert np.abs(read.astype(int) - cabin(0, 1)).mean() < 8
    with pytest.raises(ImageError, match=f"is a damaged {kind}"):
        as_png(encoded(kind)[:60], ".webp")
    assert as_png(b"RIFF    WAVE", ".wav") == (b"RIFF    WAVE", ".wav", ())


def test_a_huge_webp_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LARGEST", 1000)
    with pytest.raises(ImageError, match="claims 64x48 px"):
        as_png(encoded("WebP"), ".webp")


def test_an_answer_carries_the_remarks(known: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    from driverwatch.inference import class_activation

    seen: Any = SimpleNamespace(pixels=np.zeros((8, 8, 3), np.uint8), boxes=(serve_box(),))
    monkeypatch.setattr(class_activation, "probabilities", lambda *_: np.array([[0.25, 0.75]]))
    monkeypatch.setattr(class_activation, "class_activation_map", lambda *_: (np.eye(4, dtype=np.float32), "occlusion"))
    answers = Answers(None, lambda image: seen, remarks=known.remarks)
    found = answers(encoded("PNG"), ".png", None)
    assert (found.traits, found.remarks) == ((), ())
    flat = io.BytesIO()
    Image.new("RGB", (64, 48), (9, 9, 9)).save(flat, "WebP")
    found = answers(flat.getvalue(), ".webp", None)
    assert found.traits == ("WebP, read by a second decoder",)
    assert found.remarks == ("unlike the camera's images, so that the answer is worth nothing",)


def serve_box() -> Any:
    from driverwatch.data.regions import FRAME

    return FRAME
