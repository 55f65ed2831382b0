"""Sequences (n, steps, d) to one vector a clip, over the valid steps alone."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hscmae.errors import InputError

How = Literal["mean", "max"]


def pool_steps(x: npt.NDArray[Any], lengths: npt.NDArray[np.int64], how: How, block: int = 1024) -> npt.NDArray[Any]:
    """Mean (in float64) or maximum over the first ``lengths[i]`` steps of row i; zeros where there are none.

    >>> pool_steps(np.array([[[1.0], [3.0], [9.0]]]), np.array([2]), "mean")
    array([[2.]])

    Args:
        x: sequences, shape (n, steps, d).
        lengths: valid steps of each row, shape (n,).
        how: "mean" or "max".
        block: rows read at a time.

    Returns:
        Shape (n, d), of the type of ``x``.

    Raises:
        InputError: ``how`` is neither "mean" nor "max".
    """
    if how not in ("mean", "max"):
        raise InputError(f"pooling must be mean or max, got {how!r}")
    pooled = np.zeros((x.shape[0], x.shape[2]), dtype=x.dtype)
    for start in range(0, len(x), block):
        rows = np.asarray(x[start : start + block])
        steps = lengths[start : start + block]
        valid = (np.arange(rows.shape[1]) < steps[:, None])[:, :, None]
        if how == "mean":
            total = np.where(valid, rows, 0).sum(axis=1, dtype=np.float64)
            pooled[start : start + block] = total / np.maximum(steps, 1)[:, None]
        elif rows.shape[1]:
            highest = np.where(valid, rows, -np.inf).max(axis=1)
            pooled[start : start + block] = np.where(steps[:, None] > 0, highest, 0)
    return pooled
