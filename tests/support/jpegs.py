"""JPEGs that no common encoder writes: any chroma sampling, restart interval, and order of scans."""

import struct
from collections.abc import Callable, Iterator, Sequence
from math import ceil

import cv2
import numpy as np

Factors = Sequence[tuple[int, int]]  # horizontal and vertical sampling of each component
AC = [(run << 4) | size for run in range(16) for size in range(1, 11)] + [0x00, 0xF0]  # 8-bit codes, by place
DC = list(range(12))  # 4-bit codes
STEP = 12  # of every coefficient
ORDER = sorted(np.ndindex(8, 8), key=lambda at: (sum(at), at[1] if sum(at) % 2 == 0 else at[0]))  # zigzag
Band = tuple[tuple[int, ...], int, int]  # components of a scan, its first and last coefficient


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def encoded(picture: np.ndarray, factors: Factors, restart: int = 0, scans: Sequence[Band] | None = None) -> bytes:
    """A JPEG of uint8 (H, W, C), its channels taken as the components; baseline, or with `scans` of part of the band progressive.

    Every code of a Huffman table has one length, so that coding is simple.
    """
    height, width, channels = picture.shape
    scans = [(tuple(range(channels)), 0, 63)] if scans is None else scans
    frame = struct.pack(">BHHB", 8, height, width, channels)
    frame += b"".join(bytes([i + 1, h << 4 | v, 0]) for i, (h, v) in enumerate(factors))
    progressive = any((first, last) != (0, 63) for _, first, last in scans)
    content = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([STEP]) * 64) + segment(0xC2 if progressive else 0xC0, frame)
    content += segment(0xC4, b"\x00" + bytes([0, 0, 0, 12, *[0] * 12, *DC]))
    content += segment(0xC4, b"\x10" + bytes([*[0] * 7, len(AC), *[0] * 8, *AC]))
    content += segment(0xDD, struct.pack(">H", restart)) if restart else b""
    blocks = [_blocks(picture[..., i], factors, i) for i in range(channels)]
    for components, first, last in scans:
        selectors = b"".join(bytes([i + 1, 0]) for i in components)
        content += segment(0xDA, bytes([len(components)]) + selectors + bytes([first, last, 0]))
        content += _coded(
            [blocks[i] for i in components],
            [factors[i] for i in components],
            first,
            last,
            restart,
            picture.shape,
            factors,
        )
    return content + b"\xff\xd9"


def _blocks(channel: np.ndarray, factors: Factors, number: int) -> np.ndarray:
    """Quantised coefficients int (rows, columns, 64) in zigzag order, of whole units."""
    across, down = (max(pair[axis] for pair in factors) for axis in (0, 1))
    h, v = factors[number]
    rows, columns = -(-channel.shape[0] // (8 * down)), -(-channel.shape[1] // (8 * across))
    padded = np.pad(
        channel, ((0, rows * 8 * down - channel.shape[0]), (0, columns * 8 * across - channel.shape[1])), "edge"
    )
    small = cv2.resize(padded, (columns * 8 * h, rows * 8 * v), interpolation=cv2.INTER_AREA).astype(np.float32) - 128
    blocks = small.reshape(rows * v, 8, columns * h, 8).transpose(0, 2, 1, 3)
    found = np.array([[np.rint(cv2.dct(np.ascontiguousarray(b)) / STEP) for b in row] for row in blocks]).astype(int)
    return found[:, :, [y for y, _ in ORDER], [x for _, x in ORDER]]


def _coded(
    blocks: list[np.ndarray],
    own: Factors,
    first: int,
    last: int,
    restart: int,
    shape: tuple[int, ...],
    factors: Factors,
) -> bytes:
    made, bits, before = [], "", [0] * len(blocks)
    for number, unit in enumerate(_units(blocks, own, shape, factors)):
        if restart and number and number % restart == 0:
            made += [_stuffed(bits), bytes([0xFF, 0xD0 + (number // restart - 1) % 8])]
            bits, before = "", [0] * len(blocks)
        for place, block in unit:
            if first == 0:
                bits += _value(int(block[0]) - before[place], lambda size: f"{size:04b}")
                before[place] = int(block[0])
            bits += _band(block[max(first, 1) : last + 1])
    return b"".join([*made, _stuffed(bits)])


def _units(
    blocks: list[np.ndarray], own: Factors, shape: tuple[int, ...], factors: Factors
) -> Iterator[list[tuple[int, np.ndarray]]]:
    if len(blocks) == 1:  # one block a unit, without those that only fill up units of several components
        across, down = (max(pair[axis] for pair in factors) for axis in (0, 1))
        (h, v), (height, width) = own[0], shape[:2]
        rows, columns = ceil(ceil(height * v / down) / 8), ceil(ceil(width * h / across) / 8)
        yield from ([(0, blocks[0][y, x])] for y in range(rows) for x in range(columns))
        return
    for y in range(blocks[0].shape[0] // own[0][1]):
        for x in range(blocks[0].shape[1] // own[0][0]):
            yield [
                (place, blocks[place][y * v + j, x * h + i])
                for place, (h, v) in enumerate(own)
                for j in range(v)
                for i in range(h)
            ]


def _value(value: int, code: Callable[[int], str]) -> str:
    size = abs(value).bit_length()
    rest = value if value > 0 else value + (1 << size) - 1
    return code(size) + (f"{rest:0{size}b}" if size else "")


def _band(values: np.ndarray) -> str:
    bits, run = "", 0
    for value in values.tolist():
        if value == 0:
            run += 1
            continue
        bits += f"{AC.index(0xF0):08b}" * (run // 16)
        bits += _value(value, lambda size, run=run % 16: f"{AC.index(run << 4 | size):08b}")
        run = 0
    return bits + (f"{AC.index(0):08b}" if run else "")


def _stuffed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
