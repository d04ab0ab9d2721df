"""Shapes in the coordinates of a 320x240 frame, drawn larger, to an eighth of a px."""

import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240
SHIFT = 3  # OpenCV's fixed-point bits: positions to an eighth of a px

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """An RGB picture with shapes in frame coordinates."""

    def __init__(self, colour: Colour, fine: int) -> None:
        self.fine = fine  # px of the canvas per px of the frame
        self.pixels = np.full((HEIGHT * fine, WIDTH * fine, 3), colour, np.uint8)

    def _at(self, points: "list[Point] | np.ndarray") -> np.ndarray:
        return np.round(np.asarray(points, np.float64) * self.fine * 2**SHIFT).astype(np.int32)

    def polygon(self, points: list[Point], colour: Colour) -> None:
        cv2.fillPoly(self.pixels, [self._at(points)], colour, cv2.LINE_AA, SHIFT)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        cv2.polylines(
            self.pixels, [self._at(points)], False, colour, max(1, round(width * self.fine)), cv2.LINE_AA, SHIFT
        )

    def ellipse(self, centre: Point, axes: Point, colour: Colour, angle: float = 0, width: float = -1) -> None:
        cv2.ellipse(
            self.pixels,
            self._at([centre])[0].tolist(),
            self._at([axes])[0].tolist(),
            angle,
            0,
            360,
            colour,
            max(1, round(width * self.fine)) if width > 0 else -1,
            cv2.LINE_AA,
            SHIFT,
        )
