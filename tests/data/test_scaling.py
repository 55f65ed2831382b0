"""Streamed standardisation equals the two passes of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.scaling import CACHED_ROWS, Moments, Standardizer
from hscmae.errors import InputError


def fit(x: np.ndarray, block: int = 4096) -> Standardizer:
    moments = Moments(x.shape[1])
    for start in range(0, len(x), block):
        moments.add(x[start : start + block])
    return moments.standardizer()


def two_passes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = sum(row for row in x) / len(x)
    variance = sum((row - mean) ** 2 for row in x) / len(x)
    scale = np.sqrt(variance)
    return mean, np.where(scale == 0, 1, scale)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(n=st.integers(1, 40), block=st.integers(1, 50), shift=st.sampled_from([0.0, 1.0, 1e3]), seed=st.integers(0, 99))
def test_equals_the_two_pass_reference(n: int, block: int, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, 3)) + shift).astype(np.float32)
    mean, scale = two_passes(x.astype(np.float64))
    fitted = fit(x, block)
    np.testing.assert_allclose(fitted.mean, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fitted.scale, scale, rtol=1e-5)
    assert fitted.mean.dtype == fitted.scale.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3.3e-9])
def test_constant_columns_get_scale_one(value: float) -> None:
    x = np.column_stack([np.full(1001, value), np.arange(1001.0)])
    fitted = fit(x, 100)
    assert fitted.scale[0] == 1
    np.testing.assert_allclose(fitted.apply(x)[:, 0], 0, atol=1e-6)


def test_apply() -> None:
    scaler = Standardizer(np.array([1.0, 2.0], np.float32), np.array([2.0, 4.0], np.float32))
    applied = scaler.apply(np.array([[3.0, 2.0]], np.float16))
    np.testing.assert_array_equal(applied, [[1.0, 0.0]])
    assert applied.dtype == np.float32
    with pytest.raises(InputError, match="3 columns, the scaler was fitted on 2"):
        scaler.apply(np.ones((1, 3), np.float32))


def test_blocks_that_differ_by_far_lose_no_digits() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * CACHED_ROWS, 2)) + np.repeat([0.0, 1e6, -1e6, 0.0], CACHED_ROWS)[:, None]
    fitted = fit(x)
    np.testing.assert_allclose(fitted.scale, x.std(axis=0), rtol=1e-7)


def test_applying_to_many_rows_in_any_type() -> None:
    rng = np.random.default_rng(0)
    scaler = Standardizer(np.float32([1, 2]), np.float32([3, 4]))
    for shape in ((0, 2), (2 * CACHED_ROWS + 3, 2), (CACHED_ROWS + 1, 3, 2)):
        for dtype in (np.float16, np.float32, np.float64):
            x = rng.normal(size=shape).astype(dtype)
            expected = (x.astype(np.float32) - scaler.mean) / scaler.scale
            np.testing.assert_array_equal(scaler.apply(x), expected, strict=True)


def test_no_rows() -> None:
    with pytest.raises(InputError, match="no row"):
        Moments(2).standardizer()
