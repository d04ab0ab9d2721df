"""JPEGs whose chroma sampling the first decoder does not know: read by a second one, counted, and refused where damaged."""

import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image
from support.jpegs import Band, Factors, encoded

from driverwatch.data.images import examine_content

UNUSUAL: dict[str, Factors] = {
    "4x2,1x1,1x1": [(4, 2), (1, 1), (1, 1)],
    "2x4,1x1,1x1": [(2, 4), (1, 1), (1, 1)],
    "3x1,1x1,1x1": [(3, 1), (1, 1), (1, 1)],
    "1x1,2x2,1x1": [(1, 1), (2, 2), (1, 1)],
    "2x2,2x1,1x1": [(2, 2), (2, 1), (1, 1)],
    "1x1,1x1,2x1": [(1, 1), (1, 1), (2, 1)],
    "CMYK, K 2x2": [(1, 1), (1, 1), (1, 1), (2, 2)],
    "CMYK, C 2x2": [(2, 2), (1, 1), (1, 1), (1, 1)],
    "CMYK, K 2x1": [(2, 2), (1, 1), (1, 1), (2, 1)],
}
EACH = pytest.mark.parametrize("factors", UNUSUAL.values(), ids=UNUSUAL)
TRAIT = "of unusual chroma sampling, read by a second decoder"


def picture(channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 255, (61, 83, channels), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), noise, 0, 255, cv2.NORM_MINMAX)


def progressive(channels: int) -> list[Band]:
    return [(tuple(range(channels)), 0, 0), *(((i,), 1, 63) for i in range(channels))]


def by_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def forms(factors: Factors) -> list[bytes]:
    """Baseline, with restarts, a scan for each component, and progressive."""
    source, by_component = picture(len(factors)), [((i,), 0, 63) for i in range(len(factors))]
    return [
        encoded(source, factors),
        encoded(source, factors, restart=2),
        encoded(source, factors, scans=by_component),
        encoded(source, factors, scans=progressive(len(factors))),
        encoded(source, factors, restart=3, scans=progressive(len(factors))),
    ]


@EACH
def test_they_are_read_as_pillow_reads_them_and_counted(factors: Factors) -> None:
    for content in forms(factors):
        image = examine_content(content, ".jpg", None)
        assert image.problem is None
        assert image.pixels is not None
        assert TRAIT in image.traits
        assert ("CMYK" in image.traits) == (len(factors) == 4)
        assert np.array_equal(image.pixels, by_pillow(content))
        assert examine_content(content, ".jpg", None).look == image.look


@pytest.mark.parametrize("level", [0, 127, 128, 255])
@EACH
def test_plain_pictures_are_read_too(factors: Factors, level: int) -> None:
    """Of a picture in one tone, many bytes change nothing that can be seen."""
    source = np.full((40, 56, len(factors)), level, np.uint8)
    for restart in (0, 1, 4):
        assert examine_content(encoded(source, factors, restart), ".jpg", None).problem is None
    source[:20] = picture(len(factors))[:20, :56]
    assert examine_content(encoded(source, factors), ".jpg", None).problem is None


@EACH
def test_damaged_ones_are_refused(factors: Factors) -> None:
    for content in forms(factors):
        start = content.index(b"\xff\xda") + 8 + 2 * len(factors)
        room = len(content) - start
        cuts = [start + room * share // 10 for share in range(10)] + [len(content) - 24]
        cuts += [start + found.start() for found in re.finditer(rb"\xff[\xd0-\xda]", content[start:])]
        for at in cuts:
            assert "damaged or cut short" in (examine_content(content[:at], ".jpg", None).problem or ""), at
            ended = content[:at].rstrip(b"\xff") + b"\xff\xd9"
            said = examine_content(ended, ".jpg", None).problem or ""
            assert "damaged or cut short" in said or np.array_equal(by_pillow(ended), by_pillow(content)), at


@EACH
def test_ones_damaged_in_their_middle_are_refused(factors: Factors) -> None:
    for content in forms(factors)[:3]:
        start = content.index(b"\xff\xda") + 8 + 2 * len(factors)
        for share in range(8):
            at = start + (len(content) - start - 160) * share // 8
            torn = content[:at] + bytes(150) + content[at + 150 :]
            assert "damaged or cut short" in (examine_content(torn, ".jpg", None).problem or ""), at


def test_a_harmless_warning_hides_no_damage() -> None:
    """Some cameras write nonsense into the header of their scan, and the decoder is asked again without warnings."""
    content = encoded(picture(), [(2, 2), (1, 1), (1, 1)])
    at = content.index(b"\xff\xda") + 11
    assert content[at : at + 3] == b"\0\x3f\0"
    nonsense = content[:at] + b"\0\0\0" + content[at + 3 :]
    assert examine_content(nonsense, ".jpg", None).problem is None
    for end in (at + 40, len(content) // 2, len(content) - 30):
        assert "damaged or cut short" in (examine_content(nonsense[:end] + b"\xff\xd9", ".jpg", None).problem or "")
