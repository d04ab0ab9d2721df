"""One image: read, checked, turned upright, resized. What is legitimate is taken and named; what is broken is one sentence.

OpenCV fills the missing part of a JPEG with grey and says nothing, so JPEGs go through simplejpeg (the same libjpeg-turbo, the
same pixels), which tells the decoder's warnings, or where it cannot, through Pillow (`jpeg.py`); sizes are read from headers
before anything is decoded.
"""

import hashlib
import io
import stat
import struct
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from driverwatch.data import jpeg
from driverwatch.data.regions import FRAME, Box, join

LOOK = 16  # bytes that tell one image's pixels
LARGEST_FILE = 64 * 2**20  # bytes
LARGEST = 50_000_000  # px: 150 MB decoded; the competition's images have 0.3 million
SMALLEST = 16  # px on a side: below that it is an icon or a tracking pixel

TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}  # EXIF orientation: how to show it upright (EXIF 2.32, tag 0x0112)

HARMLESS = ("Invalid SOS parameters for sequential JPEG", "unknown JFIF revision number")  # some cameras' headers
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1")  # as phones save images; after four bytes of length
KINDS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"RIFF": "a WebP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
} | {
    b"PK\3\4": "a ZIP archive",
    b"<": "an HTML or XML page",
}


def pixel_hash(image: np.ndarray) -> bytes:
    """`LOOK` bytes of the SHA-256 of an image's pixels: equal pixels, equal bytes, whatever file they came from."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()[:LOOK]


class CheckedImage(NamedTuple):
    """What became of one file."""

    pixels: np.ndarray | None  # uint8 (R * H, W, 3) RGB, upright, each region of the asked size; None if broken
    source: str  # SHA-256 (hex) of the file's bytes, empty if it could not be read
    look: bytes  # 16 bytes that tell equal `pixels`, whatever the file around them
    frame: bytes  # the same of the whole frame, where regions were cut: two images may be alike in a dark corner
    shape: tuple[int, int]  # height, width before resizing
    traits: tuple[str, ...]  # what is unusual and was taken all the same
    problem: str | None  # without the path


class InvalidImageError(Exception):
    """What is wrong with an image, without its path."""


def examine(path: Path, size: tuple[int, int] | None, boxes: tuple[Box, ...] = (FRAME,)) -> CheckedImage:
    """Read an image and resize each of `boxes`, cut from its upright frame, to `size` (height, width); None keeps the frame.

    JPEG and PNG are taken whatever the file is called: colour, greyscale, palette, CMYK, 16 bits, transparency (dropped),
    any EXIF orientation.
    """
    try:
        content = _content(path)
    except InvalidImageError as error:
        return _invalid("", error)
    return examine_content(content, path.suffix, size, boxes)


def examine_content(
    content: bytes, suffix: str, size: tuple[int, int] | None, boxes: tuple[Box, ...] = (FRAME,)
) -> CheckedImage:
    """As `examine` of a file's bytes; `suffix` is how its name ends, such as .jpg."""
    source = hashlib.sha256(content).hexdigest()
    try:
        image, traits = _decoded(content, suffix.lower())
    except InvalidImageError as error:
        return _invalid(source, error)
    shape, frame = image.shape[:2], b""
    if size is not None:
        if any(_is_smaller(box, shape, size) for box in boxes):
            traits.append("smaller than the pack and enlarged")
        frame = b"" if boxes == (FRAME,) else pixel_hash(image)
        image = cut_out(image, boxes, size)
    return CheckedImage(image, source, pixel_hash(image), frame, shape, tuple(traits), None)


def _invalid(source: str, error: InvalidImageError) -> CheckedImage:
    return CheckedImage(None, source, b"", b"", (0, 0), (), str(error))


def cut_out(image: np.ndarray, boxes: tuple[Box, ...], size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> (R * h, w, 3): each box resized to `size` (height, width), whatever its own shape, and stacked."""
    if boxes == (FRAME,):
        return resized(image, size)
    parts = [np.ascontiguousarray(image[box.slices(*image.shape[:2])]) for box in boxes]
    return join(np.stack([resized(part, size) for part in parts]), len(parts))[0]


def _is_smaller(box: Box, shape: tuple[int, int], size: tuple[int, int]) -> bool:
    rows, columns = box.slices(*shape)
    return rows.stop - rows.start < size[0] and columns.stop - columns.start < size[1]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> (h, w, 3) of `size` (height, width), area-averaged where that shrinks it; itself where nothing changes."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    shrinks = height >= size[0] and width >= size[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def source_of(path: Path) -> str:
    """`CheckedImage.source` without decoding."""
    try:
        return hashlib.sha256(_content(path)).hexdigest()
    except InvalidImageError:
        return ""


def _content(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InvalidImageError("is no regular file")
        if found.st_size > LARGEST_FILE:
            raise InvalidImageError(f"has {found.st_size} bytes; at most {LARGEST_FILE} are read")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InvalidImageError("missing file") from None
    except OSError as error:
        raise InvalidImageError(f"cannot be read ({error.strerror})") from error
    if not content:
        raise InvalidImageError("empty file")
    return content


def _decoded(content: bytes, suffix: str) -> tuple[np.ndarray, list[str]]:
    """Upright uint8 RGB (H, W, 3) and traits."""
    if not content:
        raise InvalidImageError("empty file")
    head = _head(content)
    if head.width * head.height > LARGEST:
        raise InvalidImageError(
            f"claims {head.width}x{head.height} px; at most {LARGEST // 10**6} million px are decoded"
        )
    if min(head.size) < SMALLEST:
        raise InvalidImageError(f"is {head.width}x{head.height} px; expected at least {SMALLEST} on each side")
    turn = TURNS.get(_orientation(head))
    try:
        image, traits = _jpeg(content, head) if content[:2] == b"\xff\xd8" else (_png(content), [])
    except (ValueError, OSError, SyntaxError, cv2.error) as error:
        raise InvalidImageError(f"damaged or cut short ({_words(error)}; {len(content)} bytes)") from error
    traits = [*_traits(content, head, suffix), *traits]
    if turn:
        traits.append("turned upright by its EXIF orientation")
        image = np.ascontiguousarray(turn(image))
    return image, traits


def _head(content: bytes) -> Image.Image:
    """The header, nothing decoded."""
    try:
        return _opened(content)
    except UnidentifiedImageError:
        kind = "a HEIC (save it as JPEG first)" if content[4:12] in HEIC else "something else"
        kind = next((kind for start, kind in KINDS.items() if content.startswith(start)), kind)
        if content.startswith(b"\xff\xd8"):
            raise InvalidImageError(
                f"is a JPEG of a kind that is not read, or its header is damaged ({len(content)} bytes)"
            ) from None
        raise InvalidImageError(f"is neither JPEG nor PNG but {kind} ({len(content)} bytes)") from None
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise InvalidImageError(f"damaged header ({_words(error)})") from error


def _opened(content: bytes) -> Image.Image:
    """As `Image.open`, without its limits of the process on pixels: `LARGEST` is asked instead, with one sentence."""
    opener = {b"\xff\xd8": JpegImagePlugin.jpeg_factory, b"\x89P": PngImagePlugin.PngImageFile}.get(content[:2])
    if opener is None:
        raise UnidentifiedImageError
    try:
        return opener(io.BytesIO(content))
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as Image.open takes them
        raise UnidentifiedImageError from error


def _jpeg(content: bytes, head: Image.Image) -> tuple[np.ndarray, list[str]]:
    """RGB from a JPEG, and traits; a missing scan is an error, and so is any warning of the decoder but a few harmless ones."""
    try:
        if lack := jpeg.lacking(content):
            raise OSError(lack)
    except NotImplementedError as error:
        raise InvalidImageError(
            f"is a JPEG of a kind that is not read ({error}); save it as a baseline or progressive one"
        ) from error
    image = _first_decoder(content, "CMYK" if head.mode == "CMYK" else "RGB")
    if image is None:
        return jpeg.decoded_by_pillow(content), ["of unusual chroma sampling, read by a second decoder"]
    return np.asarray(
        head.convert("RGB")
    ) if head.mode == "CMYK" else image, []  # Pillow turns Adobe's inverted inks, too


def _first_decoder(content: bytes, colours: str) -> np.ndarray | None:
    """A JPEG's pixels; None where this decoder cannot read such files, damaged or not.

    Raises:
        ValueError: damaged.
    """
    try:
        return simplejpeg.decode_jpeg(content, colours, strict=True)
    except ValueError as error:
        try:
            image = simplejpeg.decode_jpeg(content, colours, strict=False)
        except ValueError:
            return None
        if not any(words in str(error) for words in HARMLESS) or not jpeg.is_whole(content):
            raise
        return image


def _png(content: bytes) -> np.ndarray:
    """RGB from a PNG whose every chunk is whole; 16 bits become 8."""
    _head(content).verify()  # checksums up to the end marker; the image object is spent
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InvalidImageError(f"damaged or cut short ({len(content)} bytes)")
    return image


def _traits(content: bytes, head: Image.Image, suffix: str) -> list[str]:
    is_png = head.format == "PNG"
    found = {
        "greyscale": head.mode in ("1", "L", "LA", "I", "I;16"),
        "CMYK": head.mode == "CMYK",
        "16 bits per channel, taken as 8": is_png and content[24] == 16,
        "transparency dropped": head.mode in ("RGBA", "LA") or "transparency" in head.info,
        "PNG under another name": is_png and suffix != ".png",
        "JPEG under another name": not is_png and suffix not in (".jpg", ".jpeg"),
    }
    return [trait for trait, there in found.items() if there]


def _orientation(head: Image.Image) -> int:
    try:
        return int(head.getexif().get(0x0112, 1))
    except (OSError, ValueError, TypeError, SyntaxError, struct.error):  # damaged EXIF: the picture itself is whole
        return 1


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:100]
