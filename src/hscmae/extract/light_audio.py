"""The light audio extractor: statistics of the log-mel spectrogram.

For each of 64 mel bands: mean level, its standard deviation and its mean absolute change from frame to frame (steady
or struck?); for eight groups of bands: how strongly the level swings at eight rates from 0.5 to 40 Hz (barking,
ticking, ringing). Loudness is taken out first. Digital silence gives one fixed vector, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.extract.base import AudioExtractor, Weights
from hscmae.extract.media import RATE

WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms every 10 ms
BANDS, GROUPS = 64, 8
RATES = np.geomspace(0.5, 40.0, 9)  # Hz, edges of the swings
DIM = 3 * BANDS + GROUPS * (len(RATES) - 1)
FLOOR = 1e-3
BLOCK = 4096  # frames

Float = npt.NDArray[np.float32]


class LightAudio(AudioExtractor):
    """One vector a window."""

    name, dim, rate, sequence = "light", DIM, RATE, False

    def fingerprint(self) -> dict[str, Any]:
        return {"version": 1}

    def describe(self, batch: Sequence[Float] | Float) -> Float:
        return np.stack([describe(sound) for sound in batch])


def load(weights: Weights = ()) -> LightAudio:
    """The extractor; it has no weights."""
    return LightAudio()


def describe(sound: Float) -> Float:
    """Features of a recording.

    Args:
        sound: samples at ``RATE`` Hz, shape (samples,), at least one.

    Returns:
        Shape (``DIM``,).
    """
    levels = log_mel(sound)  # (frames, BANDS)
    change = np.abs(np.diff(levels, axis=0)).mean(axis=0) if len(levels) > 1 else np.zeros(BANDS, np.float32)
    return np.concatenate([levels.mean(axis=0), levels.std(axis=0), change, _swings(levels)]).astype(np.float32)


def log_mel(sound: Float) -> Float:
    """log(1 + power / FLOOR) in mel bands of the sound at RMS 1, shape (frames, BANDS); exactly 0 for silence."""
    rms = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    sound = np.pad(sound / np.float32(max(rms, 1e-4)), (0, max(0, WINDOW - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    window = np.hanning(WINDOW).astype(np.float32)
    blocks = []
    for start in range(0, len(frames), BLOCK):
        spectrum = np.fft.rfft(frames[start : start + BLOCK] * window, FFT)
        blocks.append(np.log1p((spectrum.real**2 + spectrum.imag**2) @ _filters() / (WINDOW * FLOOR)))
    return np.concatenate(blocks).astype(np.float32)


@cache
def _filters() -> Float:
    """Triangular mel filters of unit sum, shape (FFT // 2 + 1, BANDS), from 50 Hz to 7.8 kHz."""
    mel = np.linspace(1127 * np.log1p(50 / 700), 1127 * np.log1p(7800 / 700), BANDS + 2)
    edges = 700 * np.expm1(mel / 1127)
    frequency = np.fft.rfftfreq(FFT, 1 / RATE)[:, None]
    width = np.maximum(np.diff(edges), RATE / FFT)  # never narrower than the spectrum's own steps
    rising, falling = 1 - (edges[1:-1] - frequency) / width[:-1], 1 - (frequency - edges[1:-1]) / width[1:]
    filters = np.maximum(np.minimum(rising, falling), 0.0)
    return np.asarray(filters / filters.sum(axis=0), dtype=np.float32)


def _swings(levels: Float) -> Float:
    """Root power of the swings of each group's level in each range of rates, shape (GROUPS * (len(RATES) - 1),)."""
    grouped = levels.reshape(len(levels), GROUPS, -1).mean(axis=2)
    grouped = grouped - grouped.mean(axis=0)
    # Padding to a power of two above 5 s keeps the ranges of rates comparable between short recordings.
    size = max(512, 1 << (len(grouped) - 1).bit_length())
    power = np.abs(np.fft.rfft(grouped, size, axis=0)) ** 2 / (size * len(grouped))
    rate = np.fft.rfftfreq(size, HOP / RATE)
    sums = [power[(rate >= low) & (rate < high)].sum(axis=0) for low, high in pairwise(RATES)]
    return np.asarray(np.sqrt(np.stack(sums, axis=1)).ravel(), dtype=np.float32)
