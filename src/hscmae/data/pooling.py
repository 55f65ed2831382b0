"""Sequences (n, steps, d) to one vector a clip, over the valid steps alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from hscmae.data.pairs import FloatArray, IntArray, Pairs
from hscmae.errors import InputError

How = Literal["mean", "max"]


def pool(pairs: Pairs, how: How = "mean") -> Pairs:
    """Every sequence pooled over its valid steps; vectors stay as they are.

    A row without valid steps lacks the modality afterwards.

    Raises:
        InputError: ``how`` is neither "mean" nor "max".
    """
    if how not in ("mean", "max"):
        raise InputError(f"pooling must be mean or max, got {how!r}")
    features, present = dict(pairs.features), dict(pairs.present)
    for m in pairs.lengths:
        features[m] = pool_steps(pairs.features[m], pairs.lengths[m], how)
        present[m] = present[m] & (pairs.lengths[m] > 0)
    return replace(pairs, features=features, present=present, lengths={})


def pool_steps(x: FloatArray, lengths: IntArray, how: How, block: int = 1024) -> FloatArray:
    """Mean (in float64) or maximum over the first ``lengths[i]`` steps of row i; zeros where there are none.

    Args:
        x: sequences, shape (n, steps, d).
        lengths: valid steps of each row, shape (n,).
        how: "mean" or "max".
        block: rows read at a time.

    Returns:
        Shape (n, d), of the type of ``x``.
    """
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
