"""JPEGs in several scans: whole ones are taken whoever wrote them, and one that lacks a scan, or part of one, never is."""

import io
import re
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image
from support.jpegs import Band, encoded

from driverwatch.data.images import examine_content

SOS, END = b"\xff\xda", b"\xff\xd9"
PLAIN = [(2, 2), (1, 1), (1, 1)]
BASELINE_BY_COLOUR: list[Band] = [((0,), 0, 63), ((1,), 0, 63), ((2,), 0, 63)]
BASELINE_IN_TWO: list[Band] = [((0,), 0, 63), ((1, 2), 0, 63)]
BANDS: list[Band] = [((0, 1, 2), 0, 0), ((0,), 1, 8), ((0,), 9, 63), ((1,), 1, 63), ((2,), 1, 63)]
SPLIT_DC: list[Band] = [((0,), 0, 0), ((1, 2), 0, 0), ((0,), 1, 63), ((1,), 1, 63), ((2,), 1, 63)]


def picture(mode: str = "RGB") -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (61, 83, 4), np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), noise, 0, 255, cv2.NORM_MINMAX)
    return smooth[..., 0] if mode == "L" else smooth[..., : len(mode)]


def by_pillow(mode: str = "RGB", **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(mode), mode).save(file, "JPEG", progressive=True, **options)
    return file.getvalue()


def by_opencv(*options: int) -> bytes:
    return cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, *options])[1].tobytes()


WHOLE = {
    "Pillow": by_pillow(),
    "Pillow, without subsampling": by_pillow(subsampling=0, quality=98),
    "Pillow, coarse": by_pillow(quality=5),
    "Pillow, optimised, with restarts": by_pillow(optimize=True, restart_marker_blocks=3),
    "Pillow, greyscale": by_pillow("L"),
    "Pillow, CMYK": by_pillow("CMYK"),
    "OpenCV": by_opencv(),
    "OpenCV, with restarts": by_opencv(cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "baseline, a scan for each colour": encoded(picture(), PLAIN, scans=BASELINE_BY_COLOUR),
    "baseline, chroma apart, with restarts": encoded(picture(), PLAIN, restart=2, scans=BASELINE_IN_TWO),
    "spectral selection alone": encoded(picture(), PLAIN, scans=BANDS),
    "DC of chroma apart, with restarts": encoded(picture(), PLAIN, restart=3, scans=SPLIT_DC),
}
EACH = pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)


def problem(content: bytes) -> str:
    return examine_content(content, ".jpg", None).problem or ""


def scans(content: bytes) -> list[int]:
    return [found.start() for found in re.finditer(SOS, content)]


@EACH
def test_whole_files_are_taken(content: bytes) -> None:
    image = examine_content(content, ".jpg", None)
    assert image.problem is None
    assert image.pixels is not None
    decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(image.pixels, decoded)
    assert "second decoder" not in str(image.traits)


@EACH
def test_a_file_cut_between_two_scans_is_cut_short(content: bytes) -> None:
    assert len(scans(content)) > 1
    for start in scans(content)[1:]:
        assert re.search(r"cut short \(its \d+ scans hold \d+ of \d+ coefficients", problem(content[:start] + END))


@EACH
def test_a_file_cut_inside_a_scan_is_cut_short(content: bytes) -> None:
    starts = [*scans(content), len(content) - 2]
    for start, end in pairwise(starts):
        header = 2 + int.from_bytes(content[start + 2 : start + 4])
        for share in (0, 0.3, 0.7):
            at = start + header + int(share * (end - start - header))
            assert "cut short" in problem(content[:at].rstrip(b"\xff") + END)


@EACH
def test_a_file_that_lacks_one_scan_in_the_middle_is_not_whole(content: bytes) -> None:
    starts = [*scans(content), len(content) - 2]
    for start, end in pairwise(starts):
        tables = content[start:end].rfind(b"\xff\xc4", 0, end - start)
        kept = content[start + tables : end] if tables > 0 else b""  # of the scans that follow
        assert "damaged or cut short" in problem(content[:start] + kept + content[end:])


@pytest.mark.parametrize("number", [3, 5, 6, 7, 9, 10, 11, 13, 14, 15])
def test_other_kinds_of_jpeg_are_called_by_name(number: int) -> None:
    """Of lossless, hierarchical and arithmetic-coded files no decoder tells whether they are whole."""
    content = encoded(picture(), PLAIN).replace(b"\xff\xc0", bytes([0xFF, 0xC0 + number]), 1)
    assert "is a JPEG of a kind that is not read" in problem(content)


def test_what_follows_the_picture_is_none_of_it() -> None:
    """Phones put a second, smaller picture behind the first; and a thumbnail with an end marker into its header."""
    whole, small = by_pillow(), by_pillow(quality=5)
    assert problem(whole + small) == ""
    thumbnail = b"\xff\xe1" + (len(small) + 2).to_bytes(2) + small
    assert problem(whole[:2] + thumbnail + whole[2:]) == ""
    cut = whole[: scans(whole)[4]] + END
    assert "cut short" in problem(cut + small)
    assert "cut short" in problem(cut[:2] + thumbnail + cut[2:])
