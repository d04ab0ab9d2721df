"""A drawn driver in a drawn car: shapes in the coordinates of a 320x240 frame, drawn larger, to an eighth of a px."""

import math
from dataclasses import dataclass, field

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
        self.pixels = np.empty((HEIGHT * fine, WIDTH * fine, 3), np.uint8)
        cv2.rectangle(self.pixels, (0, 0), (WIDTH * fine, HEIGHT * fine), colour, cv2.FILLED)

    def _at(self, points: "list[Point] | np.ndarray") -> np.ndarray:
        return np.round(np.asarray(points, np.float64) * self.fine * 2**SHIFT).astype(np.int32)

    def polygon(self, points: list[Point], colour: Colour) -> None:
        cv2.fillPoly(self.pixels, [self._at(points)], colour, cv2.LINE_AA, SHIFT)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        thickness = max(1, round(width * self.fine))
        cv2.polylines(self.pixels, [self._at(points)], False, colour, thickness, cv2.LINE_AA, SHIFT)

    def ellipse(self, centre: Point, axes: Point, colour: Colour, angle: float = 0, width: float = -1) -> None:
        middle, sides = self._at([centre, axes]).tolist()
        thickness = max(1, round(width * self.fine)) if width > 0 else -1
        cv2.ellipse(self.pixels, middle, sides, angle, 0, 360, colour, thickness, cv2.LINE_AA, SHIFT)


SKINS: tuple[Colour, ...] = (
    (243, 208, 180),
    (224, 172, 135),
    (198, 134, 94),
    (141, 85, 54),
    (92, 58, 40),
    (236, 190, 158),
)
HAIRS: tuple[Colour, ...] = ((25, 20, 18), (70, 45, 25), (140, 95, 45), (215, 180, 110), (120, 50, 25), (170, 170, 170))
STYLES = ("short", "long", "bald", "cap", "bun")

WHEEL_NEAR, WHEEL_FAR = (214.0, 150.0), (240.0, 112.0)


@dataclass(frozen=True)
class Pose:
    """Where the hands are (near = right), what they hold, where the head looks; the class is nothing but this."""

    near: Point = WHEEL_NEAR
    far: Point = WHEEL_FAR
    look: Point = (9.0, 0.0)  # the face's shift from the head's middle: right is the road, 0 is the camera
    near_holds: str | None = None
    far_holds: str | None = None
    spread: float = 6.0  # px, how much the hands differ between clips


POSES: tuple[Pose, ...] = (
    Pose(),  # safe driving
    Pose(near=(182, 182), near_holds="phone", look=(8, 6)),  # texting, right hand
    Pose(near=(112, 76), near_holds="phone"),  # phone at right ear
    Pose(far=(192, 122), far_holds="phone", look=(8, 5)),  # texting, left hand
    Pose(far=(158, 76), far_holds="phone"),  # phone at left ear
    Pose(near=(276, 196), look=(9, 3)),  # operating the radio
    Pose(near=(160, 92), near_holds="cup", spread=4),  # drinking
    Pose(near=(44, 196), look=(-9, 3), spread=10),  # reaching behind
    Pose(near=(128, 36), look=(6, -3), spread=8),  # hair and makeup
    Pose(near=(166, 152), look=(-2, 0), spread=9),  # talking to passenger, with a hand that talks too
)


def _shade(colour: Colour, factor: float = 1.0, plus: int = 0) -> Colour:
    red, green, blue = (int(min(255, max(0, channel * factor + plus))) for channel in colour)
    return red, green, blue


def _colour(random: np.random.Generator, low: int = 20, high: int = 120) -> Colour:
    red, green, blue = (int(v) for v in random.integers(low, high, 3))
    return red, green, blue


@dataclass(frozen=True)
class Driver:
    """What stays the same for one driver: person, clothes, car, light, camera."""

    skin: Colour
    hair: Colour
    style: str
    glasses: bool
    shirt: Colour
    stripe: Colour | None
    short_sleeves: bool
    build: float
    seat: Point
    upholstery: Colour
    cabin: Colour
    sky: Colour
    ground: Colour
    trousers: Colour
    light: tuple[float, float, float]
    slope: Point
    camera: np.ndarray = field(repr=False)  # float64 (2, 3), where the camera hangs

    @classmethod
    def drawn_by(cls, random: np.random.Generator) -> "Driver":
        """A driver from a random stream."""
        camera = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), random.uniform(-4, 4), random.uniform(0.96, 1.1))
        camera[:, 2] += random.uniform(-8, 8, 2)
        gain = random.uniform(0.72, 1.15)
        return cls(
            skin=SKINS[random.integers(len(SKINS))],
            hair=HAIRS[random.integers(len(HAIRS))],
            style=str(random.choice(STYLES)),
            glasses=bool(random.random() < 0.35),
            shirt=_colour(random, 15, 245),
            stripe=_colour(random, 15, 245) if random.random() < 0.4 else None,
            short_sleeves=bool(random.random() < 0.6),
            build=random.uniform(0.82, 1.28),
            seat=(random.uniform(-14, 12), random.uniform(-10, 10)),
            upholstery=_colour(random),
            cabin=_colour(random),
            sky=_colour(random, 120, 255),
            ground=_colour(random, 40, 200),
            trousers=_colour(random),
            light=tuple(gain * random.uniform(0.88, 1.12, 3)),
            slope=tuple(random.uniform(-0.25, 0.25, 2)),
            camera=camera,
        )


def draw(
    driver: Driver, label: int, clip: np.random.Generator, frame: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
    """Draw one frame.

    Args:
        label: class, 0..9.
        clip: random stream of the clip, started again for each of its frames; decides the pose.
        frame: random stream of the frame; decides a small tremble and the noise.
        size: height, width.

    Returns:
        uint8 RGB (height, width, 3).
    """
    pose = _held(POSES[label], clip, frame)
    canvas = Canvas(driver.cabin, math.ceil(max(size[1] / WIDTH, size[0] / HEIGHT)))
    shift = np.asarray(driver.seat) + frame.normal(0, 0.5, 2)
    _scenery(canvas, driver, clip)
    _person(canvas, driver, pose, shift)
    matrix = driver.camera.copy()
    matrix[:, 2] += frame.normal(0, 0.4, 2)
    matrix[:, 2] *= canvas.fine
    picture = cv2.warpAffine(
        canvas.pixels, matrix, canvas.pixels.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return _lit(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), driver, frame)


def _held(pose: Pose, clip: np.random.Generator, frame: np.random.Generator) -> Pose:
    """The class' pose as this clip and frame have it."""

    def moved(point: Point, spread: float) -> Point:
        x, y = np.asarray(point) + clip.uniform(-spread, spread, 2) + frame.normal(0, 0.5, 2)
        return float(x), float(y)

    near, far = moved(pose.near, pose.spread), moved(pose.far, pose.spread)
    if pose.near == WHEEL_NEAR and clip.random() < 0.25:  # one hand rests in the lap
        near = moved((178, 206), 6)
    return Pose(near, far, moved(pose.look, 1.5), pose.near_holds, pose.far_holds)


def _scenery(canvas: Canvas, driver: Driver, clip: np.random.Generator) -> None:
    """Window with the world outside, door, seat, dashboard, radio."""
    canvas.polygon([(60, 10), (300, 4), (318, 92), (70, 104)], driver.sky)
    horizon = clip.uniform(50, 80)
    canvas.polygon([(66, horizon), (312, horizon - 6), (318, 92), (70, 104)], driver.ground)
    for _ in range(4):  # what passes by
        x, y = clip.uniform(70, 300), clip.uniform(20, 88)
        canvas.ellipse((x, y), (clip.uniform(6, 22), clip.uniform(4, 14)), _colour(clip, 30, 250))
    canvas.line([(60, 10), (70, 104), (318, 92)], (30, 30, 34), 5)
    canvas.line([(196, 6), (204, 98)], (30, 30, 34), 4)
    canvas.polygon([(236, 128), (320, 100), (320, 240), (222, 240)], _shade(driver.cabin, plus=-14))
    canvas.polygon([(258, 176), (312, 164), (316, 216), (262, 224)], (18, 18, 22))
    canvas.line([(266, 186), (308, 177)], (90, 150, 170), 4)


def _person(canvas: Canvas, driver: Driver, pose: Pose, shift: np.ndarray) -> None:
    """Seat, far arm, torso, head, wheel, near arm: from far to near."""
    x, y = shift
    build = driver.build
    seat = _shade(driver.upholstery, plus=25)
    canvas.polygon([(62 + x, 110 + y), (118 + x, 100 + y), (140 + x, 240), (40 + x, 240)], driver.upholstery)
    canvas.ellipse((92 + x, 74 + y), (19, 27), seat, angle=-8)
    head = (128.0 + x, 72.0 + y)
    _arm(canvas, driver, (148 + x, 122 + y), pose.far, pose.far_holds, 0.8, behind=True)
    torso = [
        (108 + x, 104 + y),
        (150 + x, 106 + y),
        (146 + 22 * build + x, 190 + y),
        (150 + 10 * build + x, 240),
        (88 - 10 * build + x, 240),
        (100 - 8 * build + x, 150 + y),
    ]
    canvas.polygon(torso, driver.shirt)
    for step in range(3 if driver.stripe else 0):
        top = 126 + 26 * step + y
        canvas.line([(102 + x, top), (156 + x, top + 4)], driver.stripe or driver.shirt, 6)
    canvas.polygon([(110 + x, 206 + y), (214 + x, 196 + y), (232 + x, 240), (96 + x, 240)], driver.trousers)
    canvas.line([(124 + x, 92 + y), (126 + x, 108 + y)], driver.skin, 16)
    _head(canvas, driver, head, pose.look)
    canvas.ellipse((236, 138), (19, 42), (24, 24, 26), angle=14, width=6)
    canvas.line([(222, 142), (252, 134)], (40, 40, 44), 6)
    if pose.far_holds != "phone" or pose.far[1] > 100:
        canvas.ellipse(pose.far, (7, 7), driver.skin)
    _arm(canvas, driver, (116 + x, 124 + y), pose.near, pose.near_holds, 1.0, behind=False)


def _arm(
    canvas: Canvas, driver: Driver, shoulder: Point, hand: Point, holds: str | None, scale: float, behind: bool
) -> None:
    """Upper arm and forearm, bent at an elbow that hangs below; hand and what it holds."""
    middle = (np.asarray(shoulder) + hand) / 2
    reach = float(np.hypot(*(np.asarray(hand) - shoulder)))
    drop = max(0.0, 118 - reach) * 0.55 + 6
    elbow = (float(middle[0]) + (8 if hand[1] < shoulder[1] else 0), float(middle[1]) + drop)
    tone = _shade(driver.shirt, 0.82 if behind else 1.0)
    width = 15 * scale * (0.75 + 0.25 * driver.build)
    canvas.line([shoulder, elbow], tone, width)
    canvas.line([elbow, hand], driver.skin if driver.short_sleeves else tone, width * 0.8)
    _hold(canvas, hand, holds)
    canvas.ellipse(hand, (8 * scale, 8 * scale), driver.skin)


def _hold(canvas: Canvas, hand: Point, holds: str | None) -> None:
    x, y = hand
    if holds == "phone":
        canvas.polygon([(x - 5, y - 15), (x + 7, y - 13), (x + 5, y + 9), (x - 7, y + 7)], (12, 12, 16))
        canvas.polygon([(x - 3, y - 12), (x + 5, y - 11), (x + 4, y + 2), (x - 5, y + 1)], (150, 205, 240))
    elif holds == "cup":
        canvas.polygon([(x - 8, y - 16), (x + 10, y - 14), (x + 6, y + 14), (x - 6, y + 13)], (250, 248, 240))
        canvas.line([(x - 7, y - 4), (x + 8, y - 2)], (190, 40, 40), 6)


def _head(canvas: Canvas, driver: Driver, centre: Point, look: Point) -> None:
    """Hair, face, eyes, glasses, mouth; the face's place on the head tells where it looks."""
    x, y = centre
    if driver.style == "long":
        canvas.ellipse((x - 6, y + 12), (21, 34), driver.hair)
    if driver.style == "bun":
        canvas.ellipse((x - 18, y - 16), (10, 10), driver.hair)
    canvas.ellipse((x, y), (20, 25), driver.skin if driver.style == "bald" else driver.hair)
    face = (x + look[0] * 0.6, y + 4 + look[1])
    canvas.ellipse(face, (16, 20), driver.skin)
    if driver.style == "cap":
        canvas.ellipse((x, y - 14), (21, 12), driver.shirt)
        canvas.line([(x, y - 10), (x + 2.6 * look[0], y - 8)], driver.shirt, 5)
    eyes = [(face[0] + look[0] * 0.7 + side, face[1] - 4) for side in (-6, 6)]
    for eye in eyes:
        canvas.ellipse(eye, (2.6, 2.2), (20, 16, 14))
        if driver.glasses:
            canvas.ellipse(eye, (5, 4.5), (30, 30, 30), width=1.5)
    nose = (face[0] + look[0] * 1.5, face[1] + 4)
    canvas.line([(face[0] + look[0] * 0.9, face[1] - 2), nose], _shade(driver.skin, 0.75), 2.5)
    mouth = face[0] + look[0] * 0.7
    canvas.line([(mouth - 5, face[1] + 11), (mouth + 5, face[1] + 11)], (150, 60, 60), 2)


def _lit(picture: np.ndarray, driver: Driver, frame: np.random.Generator) -> np.ndarray:
    """Light of the day, falling off to one side, and the sensor's noise."""
    height, width = picture.shape[:2]
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    ramp = 1 + np.float32(driver.slope[0]) * across[:, None] + np.float32(driver.slope[1]) * down[:, None, None]
    lit = picture * (ramp * np.asarray(driver.light, np.float32) * np.float32(frame.normal(1, 0.01)))
    lit += 3 * frame.standard_normal(picture.shape, np.float32)
    return np.clip(lit + 0.5, 0, 255).astype(np.uint8)
