"""JPEG files as markers and scans (ITU-T T.81): whether every coefficient of an image was sent, and a second decoder.

A decoder warns of data that end inside a scan, but takes scans that never came for zeros: a progressive file cut between two
scans and closed with an end marker is a blur, and a file with a scan per colour loses its colours, without a word.
"""

import io
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2  # start of frame: baseline and extended, both Huffman-coded
TABLES = (0xC4, 0xC8, 0xCC)  # among the codes of frames: Huffman tables, reserved, arithmetic conditions
SCAN, END, INTERVAL, RESTARTS = 0xDA, 0xD9, 0xDD, range(0xD0, 0xD8)
MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
COEFFICIENTS = 64  # of a block; number 0 is its mean
MORE = 32  # bytes put behind the data of a scan
TAIL = 8  # bytes of a scan's end that are changed
STEPS = (37, 59, 83, 101, 149, 197, 223, 241)  # each makes other bytes; some codes mean nothing, and change nothing


class Segment(NamedTuple):
    """A marker, its parameters, and where it begins and ends; behind a scan's and a restart's begin entropy-coded data."""

    marker: int
    parameters: bytes
    start: int
    end: int


class Frame(NamedTuple):
    """What a start of frame says: the size in pixels, and each component's sampling factors (horizontal, vertical)."""

    height: int
    width: int
    factors: dict[int, tuple[int, int]]

    @property
    def unit(self) -> tuple[int, int]:
        """Height and width in pixels of what all components have in common."""
        across, down = (max(pair[axis] for pair in self.factors.values()) for axis in (0, 1))
        return 8 * down, 8 * across

    def units(self, components: tuple[int, ...]) -> int:
        """Minimum coded units of a scan (T.81, A.2): blocks of one component, or what all components have in common."""
        down, across = self.unit
        if len(components) == 1:
            own = self.factors[components[0]]
            down, across = down // own[1], across // own[0]
        return math.ceil(self.height / down) * math.ceil(self.width / across)


class Scan(NamedTuple):
    """Which coefficients of which components (by their identifiers) a scan sends, and down to which bit."""

    components: tuple[int, ...]
    first: int  # coefficient
    last: int
    before: int  # lowest bit that earlier scans have sent; 0 where this is the first
    bit: int


def segments(content: bytes) -> Iterator[Segment]:
    """Segments of a file's first picture up to its end marker."""
    at = 2
    while found := MARKER.search(content, at):
        marker, at = found[1][0], found.end()
        bare = marker in RESTARTS or marker in (0x01, END)
        length = 0 if bare else max(int.from_bytes(content[at : at + 2]), 2)
        yield Segment(marker, content[at + 2 : at + length], found.start(), at + length)
        at += length
        if marker == END:
            return


def lacking(content: bytes) -> str | None:
    """What a JPEG does not hold of its picture though each of its scans may be whole; None where nothing is lacking.

    Raises:
        NotImplementedError: lossless, hierarchical or arithmetic-coded: no decoder tells whether such data are whole.
    """
    frame: Segment | None = None
    scans: list[Scan] = []
    for segment in segments(content):
        if 0xC0 <= segment.marker <= 0xCF and segment.marker not in TABLES:
            frame = frame or segment
            if frame.marker not in (*SEQUENTIAL, PROGRESSIVE):
                raise NotImplementedError(f"lossless, hierarchical or arithmetic-coded, SOF{frame.marker - 0xC0}")
        elif segment.marker == SCAN and frame is not None:
            scans.append(_scan(segment.parameters, frame.marker == PROGRESSIVE))
            if scans[0].components == _components(frame) and frame.marker != PROGRESSIVE:
                return None  # all in one scan, as nearly every file: no need to look for others
    return None if frame is None else _unsent(_components(frame), scans)


def _components(frame: Segment) -> tuple[int, ...]:
    return tuple(frame.parameters[6::3])


def _scan(parameters: bytes, progressive: bool) -> Scan:
    """What a scan's header says; a sequential scan sends whole blocks whatever it says (some cameras say nonsense)."""
    count = parameters[0] if parameters else 0
    components, rest = tuple(parameters[1 : 1 + 2 * count : 2]), parameters[1 + 2 * count :]
    if not progressive or len(rest) < 3:
        return Scan(components, 0, COEFFICIENTS - 1, 0, 0)
    return Scan(components, rest[0], rest[1], *divmod(rest[2], 16))


def _unsent(components: tuple[int, ...], scans: list[Scan]) -> str | None:
    """Which share of the coefficients was sent down to bit 0, in words; None for all."""
    sent = {component: np.full(COEFFICIENTS, 16) for component in components}
    for scan in scans:
        for component in set(scan.components) & set(components):
            bits = sent[component][scan.first : scan.last + 1]
            bits[(bits == scan.before) | (scan.before == 0)] = scan.bit
    whole = sum(int((bits == 0).sum()) for bits in sent.values())
    if whole == COEFFICIENTS * len(sent):
        return None
    return f"its {len(scans)} scans hold {whole} of {COEFFICIENTS * len(sent)} coefficients in full"


def decoded_by_pillow(content: bytes) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a JPEG whose chroma sampling the first decoder does not know, if its data are whole.

    Pillow hides libjpeg's warnings, so its pixels are asked instead: data that are whole are followed by nothing that would
    still be decoded (bytes put behind them change nothing), and are needed to their end (other bytes there change the picture).

    Raises:
        OSError: damaged, or cut short.
    """
    pixels = _pixels(content)
    if not is_whole(content):
        raise OSError("its data end too early or too late")
    return pixels


def is_whole(content: bytes) -> bool:
    """Whether the entropy-coded data of each scan end where the picture's do, in a file that Pillow decodes.

    Of progressive files only that they do not end too early: their last bytes may change nothing.
    """
    found = list(segments(content))
    coded = [(a.end, b.start, b.marker) for a, b in pairwise(found) if a.marker in (SCAN, *RESTARTS)]
    if not coded or found[-1].marker != END or not _restarts_are_all_there(found):
        return False
    sequential = any(segment.marker in SEQUENTIAL for segment in found)
    content = _uncropped(content, found) if sequential else content
    pixels, ends = _pixels(content), [0, *(end for _, end, _ in coded), len(content)]
    pieces = [content[a:b] for a, b in pairwise(ends)]
    if not all(np.array_equal(_pixels(_other_bytes(step, MORE).join(pieces)), pixels) for step in STEPS):
        return False
    last = [(start, end) for start, end, then in coded if then not in RESTARTS]  # of each scan
    return not sequential or all(_is_needed(content, start, end, pixels) for start, end in last)


def _restarts_are_all_there(found: list[Segment]) -> bool:
    """Whether each scan has as many restart markers as its size and their interval ask for, counted from 0 to 7 and again."""
    frame = _frame(next(segment.parameters for segment in found if segment.marker in (*SEQUENTIAL, PROGRESSIVE)))
    interval, expected, seen = 0, list[int](), list[int]()
    for segment in found:
        if segment.marker in RESTARTS:
            seen.append(segment.marker - RESTARTS[0])
        elif seen != expected:
            return False
        elif segment.marker == INTERVAL:
            interval = int.from_bytes(segment.parameters[:2])
        elif segment.marker == SCAN:
            parts = math.ceil(frame.units(_scan(segment.parameters, False).components) / interval) if interval else 1
            seen, expected = [], [number % len(RESTARTS) for number in range(parts - 1)]
    return True


def _frame(parameters: bytes) -> Frame:
    height, width = (int.from_bytes(parameters[at : at + 2]) for at in (1, 3))
    factors = (divmod(byte, 16) for byte in parameters[7::3])
    return Frame(height, width, dict(zip(parameters[6::3], factors, strict=False)))


def _other_bytes(step: int, count: int) -> bytes:
    """Bytes from 0 to 254; which, `step` says."""
    return bytes(step * place % 255 for place in range(1, count + 1))


def _is_needed(content: bytes, start: int, end: int, pixels: np.ndarray) -> bool:
    """Whether the picture is another one with other bytes in place of the last of some entropy-coded data."""
    at = max(start, end - TAIL)
    at -= at > start and content[at - 1] == 0xFF  # a 255 and the 0 behind it stay together
    for step in STEPS:
        try:
            if not np.array_equal(_pixels(content[:at] + _other_bytes(step, end - at) + content[end:]), pixels):
                return True
        except OSError:
            return True
    return False


def _uncropped(content: bytes, found: list[Segment]) -> bytes:
    """The file with its size up to whole units, so that every block of a scan of all components is seen."""
    start = next(segment for segment in found if segment.marker in SEQUENTIAL)
    scan = next(segment for segment in found if segment.marker == SCAN)
    if len(_scan(scan.parameters, False).components) == 1:
        return content  # such a scan has no other blocks than are seen, and of a larger picture it would have more
    frame = _frame(start.parameters)
    size = [min(-(-px // unit) * unit, 65535) for px, unit in zip(frame[:2], frame.unit, strict=True)]
    at = start.end - len(start.parameters) + 1
    return content[:at] + b"".join(px.to_bytes(2) for px in size) + content[at + 4 :]


def _pixels(content: bytes) -> np.ndarray:
    with JpegImageFile(io.BytesIO(content)) as image:  # not Image.open, which has a limit of the process on pixels
        return np.asarray(image.convert("RGB"))
