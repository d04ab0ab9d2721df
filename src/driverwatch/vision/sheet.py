"""Contact sheets: rows of pictures with captions, on white."""

from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, GAP, TEXT, TITLE = 240, 12, 15, 19  # px: of a picture, between them, heights of letters
INK = {"plain": "#222222", "quiet": "#6b6b6b", "mixed": "#1f5fa8", "mirrored": "#b3401f"}


class Caption(NamedTuple):
    """A line of text, and its ink: one of `INK`."""

    text: str
    ink: str = "plain"


class Cell(NamedTuple):
    """A picture, uint8 RGB (H, W, 3), and the captions under it."""

    picture: np.ndarray
    captions: list[Caption]


class Line(NamedTuple):
    """A row of the sheet: what stands before it, and its cells."""

    name: list[Caption]
    cells: list[Cell]


def contact_sheet(title: list[str], columns: list[str], lines: list[Line]) -> np.ndarray:
    """Lay out a sheet: uint8 RGB (H, W, 3). All pictures are shown `WIDTH` px wide, in their own shape.

    Args:
        title: lines above all, the first one larger.
        columns: what stands above each column.
        lines: at least one, all pictures of one shape, as many in each as there are columns.
    """
    high, wide = lines[0].cells[0].picture.shape[:2]
    picture = WIDTH, max(1, round(WIDTH * high / wide))
    below = (TEXT + 4) * max(len(cell.captions) for line in lines for cell in line.cells)
    margin = max([0, *(int(_font(TEXT).getlength(c.text)) for line in lines for c in line.name)]) + 2 * GAP
    top = GAP + TITLE + 6 + (TEXT + 5) * len(title) + GAP
    size = margin + len(columns) * (WIDTH + GAP), top + len(lines) * (picture[1] + below + GAP) + GAP
    sheet = Image.new("RGB", size, "white")
    for number, text in enumerate(title):
        y = GAP if number == 0 else GAP + TITLE + 6 + (number - 1) * (TEXT + 5)
        _write(
            sheet, (GAP, y), Caption(text, "quiet" if number else "plain"), size[0] - 2 * GAP, TEXT if number else TITLE
        )
    for number, text in enumerate(columns):
        _write(sheet, (margin + number * (WIDTH + GAP), top - TEXT - 7), Caption(text, "quiet"), WIDTH)
    for number, line in enumerate(lines):
        y = top + number * (picture[1] + below + GAP)
        _write_all(sheet, (GAP, y), line.name, margin)
        for place, cell in enumerate(line.cells):
            x = margin + place * (WIDTH + GAP)
            sheet.paste(Image.fromarray(cell.picture).resize(picture, Image.Resampling.LANCZOS), (x, y))
            _write_all(sheet, (x, y + picture[1] + 2), cell.captions, WIDTH)
    return np.array(sheet)


def _write_all(sheet: Image.Image, place: tuple[int, int], captions: list[Caption], room: int) -> None:
    for number, caption in enumerate(captions):
        _write(sheet, (place[0], place[1] + number * (TEXT + 4)), caption, room)


def _write(sheet: Image.Image, place: tuple[int, int], caption: Caption, room: int, height: int = TEXT) -> None:
    """Write a line of text, cut short where it is longer than `room` px."""
    font, text = _font(height), caption.text
    while text and font.getlength(text + "…" * (text != caption.text)) > room:
        text = text[:-1]
    text += "…" * (text != caption.text)
    ImageDraw.Draw(sheet).text(place, text, fill=INK[caption.ink], font=font)


@cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)  # Pillow's own, so that every machine has it
