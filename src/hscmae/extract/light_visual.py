"""The light visual extractor: histograms of colour, gradients and shape.

Colour: hue by saturation, and grey levels, of the whole picture. Gradients: orientations in 4 x 4 cells (HOG, Dalal
and Triggs 2005). Shape: how often two orientations meet at a short distance anywhere in the picture (co-occurrence
HOG, Watanabe et al. 2009): curves, corners and bars wherever they are. Histograms are compared by their square roots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.extract.base import VisualExtractor, Weights
from hscmae.extract.media import Fit
from hscmae.extras import require

SIDE = 128  # pixels to which pictures are scaled
HUES, SATURATIONS, GREYS = 12, 3, 8
ORIENTATIONS, CELLS = 8, 4
OFFSETS = ((0, 4), (4, 0), (4, 4), (-4, 4), (0, 10), (10, 0))  # pixels down and right
DIM = HUES * SATURATIONS + GREYS + CELLS * CELLS * ORIENTATIONS + len(OFFSETS) * ORIENTATIONS**2

Float = npt.NDArray[np.float32]


class LightVisual(VisualExtractor):
    """One vector a window: the mean over its pictures."""

    name, dim, sequence = "light", DIM, False
    fit = Fit(SIDE, SIDE, "box", squash=True)

    def fingerprint(self) -> dict[str, Any]:
        return {"version": 2, "fit": self.fit.as_json()}

    def describe(self, batch: npt.NDArray[np.uint8]) -> Float:
        return np.stack([describe(picture) for picture in batch])


def load(weights: Weights = ()) -> LightVisual:
    """The extractor; it has no weights."""
    return LightVisual()


def describe(picture: npt.NDArray[np.uint8]) -> Float:
    """Features of a picture.

    Args:
        picture: shape (``SIDE``, ``SIDE``, 3), RGB.

    Returns:
        Shape (``DIM``,).
    """
    small = require("PIL.Image", "media").fromarray(picture)
    colours = np.asarray(small.convert("HSV"), dtype=np.intp).reshape(-1, 3)
    grey = np.asarray(small.convert("L"), dtype=np.float32) / np.float32(255)
    orientation, strength = _gradients(grey)
    return np.concatenate([_colour(colours), _cells(orientation, strength), _shape(orientation, strength)])


def _root(histogram: npt.NDArray[Any]) -> Float:
    """Square root of a histogram's shares."""
    return np.asarray(np.sqrt(histogram / (histogram.sum() + 1e-9)), dtype=np.float32)


def _colour(hsv: npt.NDArray[np.intp]) -> Float:
    hue, saturation, value = hsv.T
    coloured = (saturation > 40) & (value > 40)  # greys and blacks have no hue
    # Bins of hue are centred on red, yellow, green, ...: else red would fall into two.
    cell = (hue * HUES + 128) // 256 % HUES * SATURATIONS + saturation * SATURATIONS // 256
    hues = np.bincount(cell[coloured], minlength=HUES * SATURATIONS)
    greys = np.bincount(value[~coloured] * GREYS // 256, minlength=GREYS)
    return _root(np.concatenate([hues, greys]))


def _gradients(grey: Float) -> tuple[npt.NDArray[np.intp], Float]:
    """Orientation (unsigned, ``ORIENTATIONS`` bins) and strength of the smoothed grey picture at each pixel."""
    for axis in (0, 1):
        grey = np.asarray((np.roll(grey, 1, axis) + 2 * grey + np.roll(grey, -1, axis)) / 4, dtype=np.float32)
    down, right = np.gradient(grey)
    turn = np.arctan2(down, right) / np.pi % 1.0
    # Square root: a faint outline counts almost as much as a strong one; the threshold keeps noise out.
    strength = np.sqrt(np.maximum(np.hypot(down, right) - 0.02, 0.0))
    return np.round(turn * ORIENTATIONS).astype(np.intp) % ORIENTATIONS, strength


def _cells(orientation: npt.NDArray[np.intp], strength: Float) -> Float:
    place = np.arange(SIDE) * CELLS // SIDE
    cell = (place[:, None] * CELLS + place) * ORIENTATIONS + orientation
    return _root(np.bincount(cell.ravel(), strength.ravel(), CELLS * CELLS * ORIENTATIONS))


def _shape(orientation: npt.NDArray[np.intp], strength: Float) -> Float:
    histograms = []
    for down, right in OFFSETS:
        here = np.s_[max(0, -down) : SIDE - max(0, down), : SIDE - right]
        there = np.s_[max(0, down) : SIDE + min(0, down), right:]
        meet = orientation[here] * ORIENTATIONS + orientation[there]
        weight = np.sqrt(strength[here] * strength[there])
        histograms.append(_root(np.bincount(meet.ravel(), weight.ravel(), ORIENTATIONS**2)))
    return np.concatenate(histograms)
