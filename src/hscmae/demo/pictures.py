"""Twelve kinds of object and six scenes, drawn with Pillow so that one knows each by eye.

Every object is drawn on a tile of 100 x 100 units by a function of a pen, a random generator and a ``size`` in
[0, 1], the same that sets the pitch of its sound; colours and details vary by the generator. Tiles are flipped, tilted,
scaled and put on a scene that says nothing about them; then light, contrast and camera noise vary.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hscmae.extras import require

if TYPE_CHECKING:
    from PIL import Image

PIXELS = 128
TILE = 240  # pixels of a tile, scaled down when placed: that smooths the edges
Rng = np.random.Generator
Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


def _hsv(rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """A random colour within ranges of hue (turns), saturation and value."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value))
    return int(255 * red), int(255 * green), int(255 * blue)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(part * factor)) for part in colour)
    return red, green, blue


class Pen:
    """Draws on a transparent or coloured tile in units of 1/100 of its side, y downwards."""

    def __init__(self, pixels: int, ground: Colour | None = None) -> None:
        self.image: Image.Image = require("PIL.Image", "media").new(
            "RGBA", (pixels, pixels), (*ground, 255) if ground else 0
        )
        self._draw: Any = require("PIL.ImageDraw", "media").Draw(self.image)
        self._unit = pixels / 100

    def _scaled(self, points: Points) -> list[tuple[float, float]]:
        return [(x * self._unit, y * self._unit) for x, y in points]

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        self._draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0) -> None:
        self._draw.rounded_rectangle(self._scaled([(x0, y0), (x1, y1)]), radius * self._unit, fill=fill)

    def shape(self, points: Points, fill: Colour) -> None:
        self._draw.polygon(self._scaled(points), fill=fill)

    def line(self, points: Points, fill: Colour, width: float = 2) -> None:
        self._draw.line(self._scaled(points), fill=fill, width=max(1, round(width * self._unit)), joint="curve")

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: Colour, width: float = 2
    ) -> None:
        box = self._scaled([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.arc(box, start, end, fill=fill, width=max(1, round(width * self._unit)))


BLACK, WHITE, DARK = (15, 15, 18), (248, 248, 244), (50, 48, 52)


def _dog(pen: Pen, rng: Rng, size: float) -> None:
    coat = _hsv(rng, (0.05, 0.11), (0.25, 0.75), (0.45, 0.9))
    ear, muzzle = _shade(coat, 0.6), _shade(coat, 1.35)
    pen.oval(50, 48, 30, 33, coat)
    if rng.random() < 0.4:
        pen.oval(62, 38, 13, 14, ear)
    length = 24 + 10 * size
    for side in (-1, 1):  # long ears that hang
        pen.shape(
            [
                (50 + side * 18, 16),
                (50 + side * 36, 18),
                (50 + side * 44, 22 + length),
                (50 + side * 34, 30 + length),
                (50 + side * 27, 38),
            ],
            ear,
        )
        pen.oval(50 + side * 37, 24 + length, 8, 9, ear)
        pen.oval(50 + side * 12, 40, 5, 6, WHITE)
        pen.oval(50 + side * 12, 41, 3.5, 4.5, BLACK)
    pen.oval(50, 67, 20, 18, muzzle)
    if rng.random() < 0.7:
        pen.box(44, 74, 56, 94, (225, 95, 110), 6)
    pen.oval(50, 58, 9, 6.5, BLACK)
    pen.line([(50, 62), (50, 73)], BLACK, 2)
    pen.arc(42, 70, 8, 7, 10, 170, BLACK, 2)
    pen.arc(58, 70, 8, 7, 10, 170, BLACK, 2)


def _cat(pen: Pen, rng: Rng, size: float) -> None:
    coat = _hsv(rng, (0.04, 0.1), (0.0, 0.75), (0.3, 0.9))
    eye = _hsv(rng, (0.15, 0.4), (0.6, 0.9), (0.8, 0.95))
    for side in (-1, 1):  # pointed ears that stand
        pen.shape([(50 + side * 36, 6), (50 + side * 37, 50), (50 + side * 6, 28)], coat)
        pen.shape([(50 + side * 32, 16), (50 + side * 32, 38), (50 + side * 16, 29)], (230, 160, 165))
    pen.oval(50, 56, 38, 34, coat)
    for x in (40, 50, 60):
        pen.line([(x, 24), (x + (50 - x) * 0.2, 38)], _shade(coat, 0.6), 3)
    for side in (-1, 1):
        pen.oval(50 + side * 16, 50, 9, 8, eye)
        pen.oval(50 + side * 16, 50, 2.5, 7.5, BLACK)
    pen.oval(50, 74, 15, 11, _shade(coat, 1.4))
    pen.shape([(44, 64), (56, 64), (50, 71)], (215, 110, 120))
    pen.arc(45, 72, 5, 5, 0, 170, BLACK, 1.8)
    pen.arc(55, 72, 5, 5, 10, 180, BLACK, 1.8)
    whisker = WHITE if sum(coat) < 380 else DARK
    for side in (-1, 1):
        for y in (62, 70, 78):
            pen.line([(50 + side * 16, 70 + (y - 70) * 0.4), (50 + side * 47, y)], whisker, 1.4)


def _bird(pen: Pen, rng: Rng, size: float) -> None:
    body = _hsv(rng, (0.0, 1.0), (0.55, 0.9), (0.6, 0.95))
    belly = _hsv(rng, (0.05, 0.15), (0.3, 0.7), (0.85, 1.0))
    for x in (46, 56):
        pen.line([(x, 74), (x, 90), (x - 7, 93)], (170, 110, 40), 2.5)
        pen.line([(x, 90), (x + 6, 93)], (170, 110, 40), 2.5)
    pen.shape([(66, 56), (97, 40), (99, 52), (72, 70)], _shade(body, 0.7))  # tail
    pen.oval(50, 57, 27, 21, body)
    pen.oval(44, 63, 18, 14, belly)
    pen.oval(29, 36, 16, 15, body)
    pen.shape([(15, 31), (15, 42), (1, 38)], (245, 165, 30))  # beak
    pen.oval(25, 33, 4, 4, WHITE)
    pen.oval(24.5, 33, 2.4, 2.4, BLACK)
    pen.shape([(44, 46), (64, 46), (84, 68), (58, 68)], _shade(body, 0.6))  # wing
    pen.oval(52, 55, 12, 10, _shade(body, 0.6))


def _bell(pen: Pen, rng: Rng, size: float) -> None:
    metal = _hsv(rng, (0.1, 0.15), (0.55, 0.95), (0.65, 0.95))
    pen.arc(50, 14, 9, 9, 0, 360, _shade(metal, 0.7), 4)
    pen.oval(50, 86, 9, 8, _shade(metal, 0.5))  # clapper
    turn = np.linspace(0, 1, 24)
    half = 12 + 16 * np.sqrt(turn) + 14 * turn**6
    left = [(50 - h, 22 + 58 * u) for u, h in zip(turn, half, strict=True)]
    pen.shape(left + [(100 - x, y) for x, y in reversed(left)], metal)
    pen.oval(50, 26, 15, 9, metal)
    pen.box(6, 76, 94, 84, _shade(metal, 0.8), 4)
    pen.line([(30, 62), (70, 62)], _shade(metal, 0.75), 2.5)
    pen.line([(36, 34), (31, 56)], _shade(metal, 1.5), 5)


def _telephone(pen: Pen, rng: Rng, size: float) -> None:
    body = _hsv(rng, (0.0, 1.0), (0.0, 0.9), (0.15, 0.85))
    dark = _shade(body, 0.65)
    pen.shape([(30, 34), (70, 34), (92, 84), (8, 84)], body)
    pen.box(6, 80, 94, 90, dark, 4)
    pen.box(34, 26, 42, 40, dark)
    pen.box(58, 26, 66, 40, dark)
    pen.arc(50, 38, 40, 26, 190, 350, dark, 11)  # handset
    pen.oval(13, 35, 12, 11, dark)
    pen.oval(87, 35, 12, 11, dark)
    pen.oval(50, 61, 21, 20, WHITE)
    for k in range(10):
        angle = 2 * np.pi * (k / 12 - 0.15)
        pen.oval(50 + 15 * np.cos(angle), 61 + 14.5 * np.sin(angle), 3, 3, DARK)
    pen.oval(50, 61, 7, 7, body)


def _clock(pen: Pen, rng: Rng, size: float) -> None:
    rim = _hsv(rng, (0.0, 1.0), (0.2, 0.9), (0.25, 0.8))
    pen.oval(50, 50, 46, 46, rim)
    pen.oval(50, 50, 39, 39, WHITE)
    for k in range(12):
        angle = np.pi * k / 6
        x, y = np.sin(angle), -np.cos(angle)
        inner = 29 if k % 3 == 0 else 32
        pen.line([(50 + inner * x, 50 + inner * y), (50 + 37 * x, 50 + 37 * y)], BLACK, 4.5 if k % 3 == 0 else 2.5)
    hour = rng.uniform(0, 2 * np.pi)
    for angle, length, width in ((hour, 20, 5), (12 * hour, 31, 3.5)):
        pen.line([(50, 50), (50 + length * np.sin(angle), 50 - length * np.cos(angle))], BLACK, width)
    second = rng.uniform(0, 2 * np.pi)
    pen.line([(50, 50), (50 + 33 * np.sin(second), 50 - 33 * np.cos(second))], (210, 40, 40), 1.5)
    pen.oval(50, 50, 4, 4, BLACK)


def _drum(pen: Pen, rng: Rng, size: float) -> None:
    shell = _hsv(rng, (0.0, 1.0), (0.6, 0.95), (0.5, 0.9))
    wood, gold = (196, 142, 84), (232, 190, 70)
    bottom = 72 + 16 * size
    pen.oval(50, bottom, 42, 11, _shade(gold, 0.8))
    pen.box(8, 40, 92, bottom, shell)
    pen.oval(50, bottom - 5, 42, 11, shell)
    zigzag = [(8 + 12 * k, 47 + (bottom - 45) * (k % 2) - 4 * abs(k - 3.5) / 3.5) for k in range(8)]
    pen.line(zigzag, WHITE, 3)
    pen.oval(50, 42, 43, 14, gold)
    pen.oval(50, 40, 41, 12, WHITE)
    for x0, x1 in ((14, 46), (88, 56)):
        pen.line([(x0, 4), (x1, 38)], wood, 4)
        pen.oval(x1, 38, 4.5, 4, _shade(wood, 0.8))


def _violin(pen: Pen, rng: Rng, size: float) -> None:
    wood = _hsv(rng, (0.03, 0.09), (0.65, 0.95), (0.45, 0.85))
    dark = _shade(wood, 0.45)
    for grow, colour in ((2.0, dark), (0.0, wood)):
        pen.oval(50, 53, 17 + grow, 14 + grow, colour)
        pen.oval(50, 78, 22 + grow, 18 + grow, colour)
        pen.box(37 - grow, 54, 63 + grow, 74, colour)
    for side in (-1, 1):  # the waist
        pen.oval(50 + side * 20, 63.5, 6, 6, dark)
        pen.arc(50 + side * 10.5, 67, 2.5, 6, 90, 270, BLACK, 1.6)
    pen.box(46, 8, 54, 62, BLACK, 2)
    pen.oval(50, 7, 6, 6, dark)
    for y in (12, 18):
        pen.line([(40, y), (60, y)], dark, 2.5)
    pen.box(41, 74, 59, 77, (225, 190, 130))
    pen.shape([(46, 80), (54, 80), (53, 93), (47, 93)], BLACK)
    for x in (47.5, 49.2, 50.8, 52.5):
        pen.line([(x, 12), (x, 82)], (235, 225, 200), 0.7)
    pen.line([(76, 6), (88, 96)], (110, 62, 30), 2.8)  # bow
    pen.line([(73, 9), (84, 94)], WHITE, 1.4)


def _wheels(pen: Pen, places: Sequence[float], y: float, radius: float) -> None:
    for x in places:
        pen.oval(x, y, radius, radius, BLACK)
        pen.oval(x, y, radius * 0.5, radius * 0.5, (190, 190, 195))


def _siren(pen: Pen, rng: Rng, size: float) -> None:
    body = (250, 250, 248) if rng.random() < 0.8 else (250, 225, 70)
    stripe, glass = _hsv(rng, (-0.03, 0.04), (0.8, 1.0), (0.75, 0.95)), (130, 180, 215)
    lamp = (40, 90, 250) if rng.random() < 0.75 else (245, 50, 40)
    pen.box(32, 17, 48, 28, lamp, 3)
    for angle in (200, 230, 260, 280, 310, 340):
        x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        pen.line([(40 + 11 * x, 22 + 10 * y), (40 + 20 * x, 22 + 18 * y)], lamp, 2)
    pen.box(3, 26, 68, 78, body, 4)
    pen.shape([(66, 34), (80, 34), (91, 54), (97, 57), (97, 78), (66, 78)], body)
    pen.shape([(70, 38), (79, 38), (87, 54), (70, 54)], glass)
    pen.box(3, 62, 97, 69, stripe)
    pen.box(23, 30, 35, 60, stripe)  # cross
    pen.box(14, 39, 44, 51, stripe)
    pen.line([(67, 30), (67, 76)], (160, 160, 165), 1.5)
    _wheels(pen, (23, 77), 79, 11)


def _engine(pen: Pen, rng: Rng, size: float) -> None:
    paint, glass = _hsv(rng, (0.0, 1.0), (0.5, 0.95), (0.45, 0.95)), (165, 205, 230)
    if size > 0.6:  # a lorry
        load = _hsv(rng, (0.0, 1.0), (0.1, 0.6), (0.5, 0.9))
        pen.box(2, 22, 64, 74, load)
        for x in (14, 26, 38, 50):
            pen.line([(x, 24), (x, 72)], _shade(load, 0.75), 1.5)
        pen.shape([(67, 36), (84, 36), (93, 54), (97, 58), (97, 76), (67, 76)], paint)
        pen.shape([(72, 40), (82, 40), (89, 54), (72, 54)], glass)
        pen.box(2, 73, 97, 78, DARK)
        _wheels(pen, (15, 32, 82), 79, 10)
    else:
        pen.shape([(18, 52), (32, 32), (64, 32), (80, 52)], paint)
        pen.shape([(25, 51), (35, 36), (48, 36), (48, 51)], glass)
        pen.shape([(52, 51), (52, 36), (62, 36), (73, 51)], glass)
        pen.box(3, 50, 97, 74, paint, 8)
        pen.box(3, 66, 97, 74, _shade(paint, 0.7), 4)
        pen.oval(93, 58, 4, 4, (255, 235, 140))
        pen.line([(50, 54), (50, 70)], _shade(paint, 0.6), 1.5)
        _wheels(pen, (24, 76), 74, 11)


def _rain(pen: Pen, rng: Rng, size: float) -> None:
    cloud = _hsv(rng, (0.55, 0.65), (0.05, 0.25), (0.5, 0.85))
    for x, y, radius in ((24, 32, 18), (44, 22, 21), (66, 27, 19), (80, 36, 15)):
        pen.oval(x, y + 3, radius, radius, _shade(cloud, 0.8))
    for x, y, radius in ((24, 32, 17), (44, 22, 20), (66, 27, 18), (80, 36, 14)):
        pen.oval(x, y, radius, radius, cloud)
    pen.box(14, 32, 88, 50, cloud, 9)
    drop = _hsv(rng, (0.54, 0.62), (0.6, 0.9), (0.75, 1.0))
    for row, y in enumerate((58, 72, 86)):
        for k in range(4 + round(2 * size)):
            at = 14 + 7 * (row % 2) + k * 74 / (4 + round(2 * size)) + rng.uniform(-2, 2)
            pen.shape([(at + 3, y - 5), (at - 2.6, y + 4), (at + 2.6, y + 4)], drop)
            pen.oval(at, y + 5, 2.9, 3.4, drop)


def _waves(pen: Pen, rng: Rng, size: float) -> None:
    sea = _hsv(rng, (0.5, 0.62), (0.6, 0.95), (0.5, 0.9))
    sail = _hsv(rng, (0.0, 1.0), (0.0, 0.8), (0.85, 1.0))
    mast = rng.uniform(38, 62)
    pen.line([(mast, 6), (mast, 52)], (110, 70, 40), 2.5)
    pen.shape([(mast + 2, 8), (mast + 2, 44), (mast + 26, 44)], sail)
    pen.shape([(mast - 3, 14), (mast - 3, 44), (mast - 20, 44)], _shade(sail, 0.85))
    pen.shape([(mast - 24, 47), (mast + 28, 47), (mast + 18, 60), (mast - 16, 60)], (140, 80, 45))
    for row, y in enumerate((58, 70, 82)):
        colour = _shade(sea, 1.15 - 0.18 * row)
        pen.box(0, y, 100, 98, colour)
        for k in range(-1, 5):  # crests with foam
            x = k * 25 + 12 * (row % 2) + 10
            pen.shape([(x - 14, y + 1), (x + 2, y - 6 - 4 * size), (x + 12, y + 1)], colour)
            pen.arc(x, y + 1, 12, 7 + 3 * size, 195, 330, WHITE, 2.4)


EVENTS: Mapping[str, Callable[[Pen, Rng, float], None]] = {
    "dog": _dog, "cat": _cat, "bird": _bird, "bell": _bell, "telephone": _telephone, "clock": _clock,
    "drum": _drum, "violin": _violin, "siren": _siren, "engine": _engine, "rain": _rain, "waves": _waves,
}  # fmt: skip


def _street(rng: Rng) -> Pen:
    pen = Pen(PIXELS, _hsv(rng, (0.53, 0.62), (0.1, 0.4), (0.75, 0.95)))
    x = -5.0
    while x < 100:
        width, top = rng.uniform(14, 26), rng.uniform(12, 50)
        wall = _hsv(rng, (0.0, 1.0), (0.05, 0.3), (0.45, 0.8))
        pen.box(x, top, x + width, 80, wall)
        for wx in np.arange(x + 3, x + width - 4, 6):
            for wy in np.arange(top + 4, 74, 8):
                pen.box(wx, wy, wx + 3, wy + 4, _shade(wall, rng.choice([0.55, 1.3])))
        x += width
    road = _hsv(rng, (0.6, 0.7), (0.0, 0.1), (0.3, 0.5))
    pen.box(0, 78, 100, 100, road)
    for x in range(4, 100, 22):
        pen.box(x, 88, x + 11, 90, _shade(road, 1.8))
    return pen


def _forest(rng: Rng) -> Pen:
    pen = Pen(PIXELS, _hsv(rng, (0.28, 0.45), (0.2, 0.45), (0.6, 0.85)))
    for _ in range(9):
        x, height, green = rng.uniform(-5, 105), rng.uniform(45, 85), _hsv(rng, (0.25, 0.4), (0.5, 0.8), (0.25, 0.5))
        pen.box(x - 2, 88 - height * 0.4, x + 2, 90, (92, 64, 40))
        for part in (0.0, 0.3, 0.6):
            top = 85 - height * (1 - part * 0.75)
            pen.shape(
                [(x, top), (x - 8 - 8 * part, top + height * 0.38), (x + 8 + 8 * part, top + height * 0.38)], green
            )
    pen.box(0, 86, 100, 100, _hsv(rng, (0.2, 0.33), (0.4, 0.7), (0.3, 0.5)))
    return pen


def _room(rng: Rng) -> Pen:
    wall = _hsv(rng, (0.0, 1.0), (0.08, 0.35), (0.7, 0.95))
    pen = Pen(PIXELS, wall)
    if rng.random() < 0.5:
        for stripe in range(0, 100, 10):
            pen.box(stripe, 0, stripe + 4, 80, _shade(wall, 0.92))
    x = rng.uniform(5, 60)
    pen.box(x, 8, x + 32, 44, (245, 245, 240))
    pen.box(x + 3, 11, x + 29, 41, (170, 210, 240))
    pen.line([(x + 16, 8), (x + 16, 44)], (245, 245, 240), 2)
    pen.line([(x, 26), (x + 32, 26)], (245, 245, 240), 2)
    floor = _hsv(rng, (0.05, 0.1), (0.4, 0.7), (0.4, 0.7))
    pen.box(0, 80, 100, 100, floor)
    for y in (86, 93):
        pen.line([(0, y), (100, y)], _shade(floor, 0.8), 1)
    return pen


def _night(rng: Rng) -> Pen:
    pen = Pen(PIXELS, _hsv(rng, (0.62, 0.72), (0.5, 0.8), (0.12, 0.32)))
    for x, y in rng.uniform(0, 100, (40, 2)):
        pen.oval(x, y * 0.8, 0.7, 0.7, (240, 240, 210))
    x, y = rng.uniform(12, 88), rng.uniform(10, 25)
    pen.oval(x, y, 8, 8, (245, 240, 200))
    hill = _hsv(rng, (0.4, 0.65), (0.3, 0.5), (0.08, 0.18))
    pen.oval(rng.uniform(0, 50), 105, 60, 25, hill)
    pen.oval(rng.uniform(50, 100), 108, 60, 25, _shade(hill, 1.3))
    return pen


def _crowd(rng: Rng) -> Pen:
    pen = Pen(PIXELS, _hsv(rng, (0.75, 1.1), (0.3, 0.7), (0.35, 0.7)))
    for y in (70, 80, 92):
        for k in range(9):
            x, colour = k * 13 + rng.uniform(-4, 4), _hsv(rng, (0.0, 1.0), (0.2, 0.6), (0.2, 0.55))
            pen.oval(x, y + 12, 8, 9, colour)
            pen.oval(x, y, 4.5, 5.5, _hsv(rng, (0.04, 0.09), (0.3, 0.6), (0.4, 0.85)))
    return pen


def _field(rng: Rng) -> Pen:
    pen = Pen(PIXELS, _hsv(rng, (0.52, 0.6), (0.3, 0.6), (0.85, 1.0)))
    pen.oval(rng.uniform(10, 90), rng.uniform(8, 25), 8, 8, (255, 225, 90))
    grass = _hsv(rng, (0.2, 0.33), (0.5, 0.75), (0.5, 0.8))
    pen.oval(rng.uniform(-10, 40), 100, 70, rng.uniform(30, 45), grass)
    pen.oval(rng.uniform(60, 110), 104, 70, rng.uniform(30, 45), _shade(grass, 0.85))
    return pen


SCENES: Mapping[str, Callable[[Rng], Pen]] = {
    "street": _street, "forest": _forest, "room": _room, "night": _night, "crowd": _crowd, "field": _field,
}  # fmt: skip


def paint(rng: Rng, events: Sequence[tuple[str, float]], scene: str) -> npt.NDArray[np.uint8]:
    """A picture of the events (kind, size) on a scene.

    Args:
        rng: gives every variation, so that the same state gives the same picture.
        events: what is seen.
        scene: a key of ``SCENES``.

    Returns:
        Shape (PIXELS, PIXELS, 3), RGB.
    """
    pil = require("PIL.Image", "media")
    picture = SCENES[scene](rng).image
    # One object may fill the picture; several share a grid of four places.
    places = rng.permutation([(0.27, 0.28), (0.73, 0.28), (0.27, 0.74), (0.73, 0.74)])
    for (kind, size), place in zip(events, places, strict=False):
        pen = Pen(TILE)
        EVENTS[kind](pen, rng, size)
        alone = len(events) == 1
        side = int(PIXELS * (rng.uniform(0.5, 0.75) + 0.15 * size if alone else rng.uniform(0.4, 0.48) + 0.06 * size))
        tile = pen.image if rng.random() < 0.5 else pen.image.transpose(pil.Transpose.FLIP_LEFT_RIGHT)
        tile = tile.resize((side, side), pil.Resampling.LANCZOS).rotate(rng.normal(0, 5), pil.Resampling.BICUBIC)
        centre = np.array([0.5, 0.52]) + rng.normal(0, 0.06, 2) if alone else place + rng.normal(0, 0.025, 2)
        corner = np.clip(centre * PIXELS - side / 2, -4, PIXELS - side + 4).astype(int)
        picture.paste(tile, (int(corner[0]), int(corner[1])), tile)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64) / 255
    pixels = (pixels - 0.5) * rng.uniform(0.75, 1.1) + 0.5 + rng.uniform(-0.1, 0.1)  # contrast and light
    pixels = pixels * rng.uniform(0.92, 1.08, 3) + rng.uniform(0.0, 0.04) * rng.normal(size=pixels.shape)
    return np.asarray(np.clip(np.round(pixels * 255), 0, 255), dtype=np.uint8)
