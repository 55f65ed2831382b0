"""What an extractor is.

An extractor turns equal pieces of one modality into vectors. Its vector of a piece depends on that piece alone, to the
bit, whatever the pieces beside it: so features do not depend on batches, neighbours or the number of workers. Own
extractors are entry points of the group ``hscmae.extractors``: a function of a list of weights (files and folders, see
``weights.py``) that gives an ``AudioExtractor`` or a ``VisualExtractor``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hscmae.extract.media import Fit, steps_of

MODALITIES = ("audio", "visual")

Float = npt.NDArray[np.float32]
Weights = Sequence[Path]


class Extractor(ABC):
    """Common to both modalities.

    Attributes:
        name: by which it is chosen.
        modality: "audio" or "visual".
        dim: length of a vector.
        sequence: whether a window becomes a vector a second; else one vector.
        windows_at_once: windows that it is given together where so many wait; 1 unless it runs on a GPU.
    """

    name: str
    modality: ClassVar[str]
    dim: int
    sequence: bool = True
    windows_at_once: int = 1

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What features depend on beside the media: SHA-256 of the weights, constants; JSON, compared as a whole."""

    @abstractmethod
    def steps(self, windows: Sequence[Any]) -> list[Float]:
        """Features of windows, each of shape (steps, ``dim``)."""


class AudioExtractor(Extractor):
    """Describes sounds.

    Attributes:
        rate: samples a second.
        length: samples of a piece; ``None`` to be given whole windows.
        hop: samples from one piece to the next.
    """

    modality = "audio"
    rate: int
    length: int | None = None
    hop: int = 0

    @abstractmethod
    def describe(self, batch: Sequence[Float] | Float) -> Float:
        """Vectors of sounds.

        Args:
            batch: pieces (n, ``length``) of samples in [-1, 1], or n windows of any length where ``length`` is None.

        Returns:
            Shape (n, ``dim``).
        """

    def steps(self, windows: Sequence[Float]) -> list[Float]:
        if self.length is None:
            return list(self.describe(windows)[:, None])
        pieces = [_pieces(sound, self.length, self.hop) for sound in windows]
        vectors = self.describe(np.concatenate(pieces))
        ends = np.cumsum([len(part) for part in pieces])
        return [
            self._by_second(part, len(sound)) for part, sound in zip(np.split(vectors, ends[:-1]), windows, strict=True)
        ]

    def _by_second(self, vectors: Float, samples: int) -> Float:
        """The mean of the pieces whose middle lies in each second; all of them where it is no sequence."""
        assert self.length is not None
        if not self.sequence:
            return np.asarray(vectors.mean(axis=0, dtype=np.float64, keepdims=True), np.float32)
        count = steps_of(0.0, samples / self.rate)
        middle = (np.arange(len(vectors)) * self.hop + self.length / 2) / self.rate
        second = np.minimum(middle.astype(int), count - 1)
        near = [np.abs(second - k) == np.abs(second - k).min() for k in range(count)]
        return np.stack([vectors[rows].mean(axis=0, dtype=np.float64) for rows in near]).astype(np.float32)


class VisualExtractor(Extractor):
    """Describes pictures.

    Attributes:
        fit: how pictures are brought to its size.
    """

    modality = "visual"
    fit: Fit

    @abstractmethod
    def describe(self, batch: npt.NDArray[np.uint8]) -> Float:
        """Vectors of pictures.

        Args:
            batch: shape (n, crop, crop, 3), RGB.

        Returns:
            Shape (n, ``dim``).
        """

    def steps(self, windows: Sequence[tuple[npt.NDArray[np.uint8], tuple[int, ...]]]) -> list[Float]:
        vectors = self.describe(np.concatenate([pictures for pictures, _ in windows]))
        ends = np.cumsum([len(pictures) for pictures, _ in windows])
        found = []
        for part, (_, steps) in zip(np.split(vectors, ends[:-1]), windows, strict=True):
            by_second = part[list(steps)]
            if not self.sequence:
                by_second = by_second.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
            found.append(by_second)
        return found


def _pieces(sound: Float, length: int, hop: int) -> Float:
    """Pieces every ``hop`` samples, those whose middle lies in the sound, the last filled up with silence."""
    count = max(1, -(-(len(sound) - length // 2) // hop))
    sound = np.pad(sound, (0, max(0, (count - 1) * hop + length - len(sound))))
    return np.lib.stride_tricks.sliding_window_view(sound, length)[::hop][:count]


def in_batches(network: Callable[[npt.NDArray[Any]], Float], batch: npt.NDArray[Any], size: int) -> Float:
    """``network`` of ``size`` pieces at a time, the last batch filled up: each piece is computed alike in each run."""
    parts = []
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        full = part if len(part) == size else np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        parts.append(network(full)[: len(part)])
    return np.concatenate(parts)
