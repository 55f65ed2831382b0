"""VGGish (Hershey et al., ICASSP 2017), as AVE, VEGAS and YouTube-8M have their sound: 128 numbers a second.

Front end: log-mel patches of 96 frames (25 ms every 10 ms, 64 bands from 125 to 7500 Hz, log of magnitude + 0.01). The
network is a local file ``*vggish*.onnx`` or ``.tflite`` that takes a patch (1, 96, 64) or (1, 1, 96, 64) and gives 128
numbers. Where ``vggish_pca_params.npz`` lies beside it (``pca_eigen_vectors``, ``pca_means``), the PCA and the 8 bits
of the published files follow. **Unverified**: the front end is tested against a plain one, but nobody has run this
with the real weights yet; ``hscmae inspect OWN --against PUBLISHED`` says how far own features are from published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.errors import InputError
from hscmae.extract.base import AudioExtractor, Float, Weights
from hscmae.extract.networks import open_network, quantised, read_arrays
from hscmae.extract.weights import find_weights, require_weights, sha256

PATTERNS = ("*vggish*.onnx", "*vggish*.tflite")
PCA = "vggish_pca_params.npz"
DIM = 128
RATE, WINDOW, HOP, FFT = 16_000, 400, 160, 512
BANDS, LOWEST, HIGHEST, OFFSET = 64, 125.0, 7500.0, 0.01
FRAMES = 96


class Vggish(AudioExtractor):
    """A vector for each second, of the 0.96 s from its beginning."""

    name, dim, rate = "vggish", DIM, RATE
    length, hop = FRAMES * HOP + WINDOW - HOP, RATE

    def __init__(self, path: Path) -> None:
        self._network: Callable[[Float], Float] = open_network(path)
        self.sha256 = sha256(path)
        pca = path.with_name(PCA)
        self._pca = read_arrays(pca, "pca_eigen_vectors", "pca_means") if pca.is_file() else None
        self._pca_sha256 = sha256(pca) if self._pca else None
        if self.describe(np.zeros((1, self.length), np.float32)).shape != (1, DIM):
            raise InputError(f"{path}: does not give {DIM} numbers for a patch")

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "pca": self._pca_sha256, "hop": self.hop, "unverified": True}

    def describe(self, batch: Sequence[Float] | Float) -> Float:
        vectors = np.stack([self._network(log_mel(sound)[None, None]).ravel() for sound in batch])  # (n, 128)
        if self._pca is None:
            return vectors
        directions, means = self._pca
        return quantised(np.asarray((vectors - means.ravel()) @ directions.T, np.float32))


def load(weights: Weights = ()) -> Vggish:
    """VGGish from a local file.

    Raises:
        InputError: there is none, or another network.
    """
    found = next(filter(None, (find_weights(pattern, weights) for pattern in PATTERNS)), None)
    help_ = f"convert the published ones to ONNX, with {PCA} beside them"
    return Vggish(found or require_weights("vggish", PATTERNS[0], weights, help_))


def log_mel(sound: Float) -> Float:
    """Log-mel frames of 16 kHz sound (samples,), shape (frames, 64)."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)  # periodic
    magnitude = np.abs(np.fft.rfft(frames * hann, FFT))  # (frames, 257)
    return np.asarray(np.log(magnitude @ _filters() + OFFSET), np.float32)


@cache
def _filters() -> Any:
    """Triangles on the mel scale, shape (257, 64); the constant part is left out."""

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(hertz / 700.0)

    bins = mel(np.linspace(0.0, RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[0] = 0.0
    return filters
