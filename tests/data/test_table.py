"""Rows that are not finite, found by the quick test of sums, against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from hscmae.data.table import non_finite_rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(40, 1), (40, 9), (40, 3, 5)])
def test_finds_what_isfinite_finds(dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = (rng.uniform(-1, 1, shape) * np.finfo(dtype).max).astype(dtype)  # sums overflow where no value does
    flat = x.reshape(40, -1)
    for row, value in ((3, np.nan), (5, np.inf), (6, -np.inf), (11, np.nan)):
        flat[row, rng.integers(flat.shape[1])] = value
    flat[7, [0, -1]] = np.inf, -np.inf
    present = np.arange(40) != 11
    lengths = rng.integers(0, 4, 40) if x.ndim == 3 else None
    bad = ~np.isfinite(x)
    if lengths is not None:
        bad &= (np.arange(3) < lengths[:, None])[:, :, None]
    expected = np.flatnonzero(bad.reshape(40, -1).any(1) & present)
    np.testing.assert_array_equal(non_finite_rows(x, present, lengths), expected)
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(non_finite_rows(strided, present, lengths), expected)
    assert len(non_finite_rows(x[:0], present[:0], None if lengths is None else lengths[:0])) == 0
