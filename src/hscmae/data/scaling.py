"""Standardisation of features: mean 0 and scale 1 a column, from training rows alone.

Fitted in one pass over blocks in float64, so a memory-mapped store larger than memory will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import FloatArray
from hscmae.errors import InputError

CACHED_ROWS = 512  # so many rows of doubles stay in the cache between one operation and the next


@dataclass(frozen=True, eq=False)
class Standardizer:
    """``(x - mean) / scale`` for one modality.

    Attributes:
        mean: column means, shape (d,), float32.
        scale: column standard deviations (dividing by n), shape (d,), float32; 1 for constant columns.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def apply(self, x: FloatArray) -> npt.NDArray[np.float32]:
        """Standardised rows, float32; ``x`` has shape (..., d), and what float32 cannot hold becomes infinite.

        Raises:
            InputError: another number of columns.
        """
        if x.shape[-1] != len(self.mean):
            raise InputError(f"features have {x.shape[-1]} columns, the scaler was fitted on {len(self.mean)}")
        scaled = np.empty(x.shape, np.float32)
        for first in range(0, len(x), CACHED_ROWS):
            part = scaled[first : first + CACHED_ROWS]
            with np.errstate(over="ignore"):
                np.subtract(x[first : first + CACHED_ROWS].astype(np.float32, copy=False), self.mean, out=part)
                part /= self.scale
        return scaled


class Moments:
    """Mean and variance of columns, gathered block by block in float64.

    Blocks are merged by Chan, Golub and LeVeque (1979): with counts n_a, n_b and difference of means delta,
    ``M2 = M2_a + M2_b + delta^2 n_a n_b / (n_a + n_b)``.
    """

    def __init__(self, dim: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(dim), np.zeros(dim)

    def add(self, rows: FloatArray) -> None:
        """Count rows of shape (n, d)."""
        for first in range(0, len(rows), CACHED_ROWS):
            values = rows[first : first + CACHED_ROWS].astype(np.float64)
            n = len(values)
            mean = values.mean(axis=0)
            values -= mean
            delta = mean - self.mean
            self.squares += np.einsum("ij,ij->j", values, values) + delta**2 * (self.count * n / (self.count + n))
            self.mean += delta * (n / (self.count + n))
            self.count += n

    def standardizer(self) -> Standardizer:
        """The standardiser of the rows counted so far.

        Raises:
            InputError: there were none.
        """
        if not self.count:
            raise InputError("no row has the modality to be scaled")
        return standardizer_of(self.mean, self.squares / self.count)


def standardizer_of(mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> Standardizer:
    """A standardiser from moments of shape (d,).

    A column whose deviation is below float32's resolution of its mean counts as constant and has scale 1.
    """
    scale = np.sqrt(variance)
    scale[scale <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    scale32 = scale.astype(np.float32)
    scale32[scale32 == 0] = 1.0
    return Standardizer(mean.astype(np.float32), scale32)
