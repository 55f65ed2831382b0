"""Embeddings as whole numbers, so that scalar products do not round.

Unit-norm rows are rounded to whole numbers on a grid of 2^-26 (about float32's own precision): every product and every
partial sum of a scalar product is then a whole number below 2^53, and float64 matrix products are exact. Equal
embeddings tie exactly, and a score does not depend on the block size, on threads, or on the library and device that
multiply.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hscmae.data.pairs import BoolArray, Float64Array
from hscmae.errors import InputError, describe_rows

GRID_BITS = 26
BLOCK_SCORES = 2**23  # scores held at a time: 64 MiB


def to_grid(x: Any, name: str = "embeddings") -> Float64Array:
    """Rows at unit norm times 2^26, rounded to whole numbers: scalar products of such rows are exact in float64.

    A row's norm stays below 2^26, hence (Cauchy-Schwarz) every partial sum of a scalar product stays below 2^52.

    Args:
        x: array or tensor, shape (n, dim), of any floating type.
        name: what to call it in messages.

    Raises:
        InputError: not two-dimensional, not numeric, or not finite.
    """
    rows = as_rows(x, name).copy(order="C")  # (n, dim)
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)  # (n, 1)
    rows /= np.where(largest > 0, largest, 1.0)
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))  # (n, 1)
    rows *= (2.0**GRID_BITS - np.sqrt(rows.shape[1]) - 1) / np.where(norms > 0, norms, 1.0)
    return np.rint(rows, out=rows)


def as_rows(x: Any, name: str = "embeddings", present: BoolArray | None = None) -> Float64Array:
    """Embeddings as a float64 array of shape (n, dim).

    Args:
        x: array or tensor, shape (n, dim), of any floating type.
        name: what to call it in messages.
        present: rows that must be finite, shape (n,); all of them by default.

    Raises:
        InputError: not two-dimensional, not numeric, or not finite.
    """
    if hasattr(x, "detach"):  # a tensor; torch itself is not needed here, and its import takes a second
        x = x.detach().cpu().double().numpy()
    try:
        rows: Float64Array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected an array of numbers, shape (rows, dim)") from None
    if rows.ndim != 2:
        raise InputError(f"{name}: expected shape (rows, dim), got {rows.shape}")
    finite = np.isfinite(rows).all(axis=1)
    if present is not None:
        finite |= ~present
    if not finite.all():
        raise InputError(f"{name}: not finite in {describe_rows(np.flatnonzero(~finite).tolist())}")
    return rows
