"""Streamed standardisation equals the two passes of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hscmae.data.scaling import Standardizer, fit_standardizer
from hscmae.errors import InputError


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
    present = rng.random(n) < 0.8
    present[0] = True
    mean, scale = two_passes(x[present].astype(np.float64))
    fitted = fit_standardizer(x, present, block=block)
    np.testing.assert_allclose(fitted.mean, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fitted.scale, scale, rtol=1e-5)
    assert fitted.mean.dtype == fitted.scale.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3.3e-9])
def test_constant_columns_get_scale_one(value: float) -> None:
    x = np.column_stack([np.full(1001, value), np.arange(1001.0)])
    fitted = fit_standardizer(x, block=100)
    assert fitted.scale[0] == 1
    np.testing.assert_allclose(fitted.apply(x)[:, 0], 0, atol=1e-6)


def test_sequences_count_their_valid_steps_alone() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    lengths = np.array([4, 0, 1, 2, 3])
    x[1] = x[2, 1:] = 1e9
    valid = np.concatenate([row[:length] for row, length in zip(x, lengths, strict=True)]).astype(np.float64)
    mean, scale = two_passes(valid)
    fitted = fit_standardizer(x, lengths=lengths, block=2)
    np.testing.assert_allclose(fitted.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(fitted.scale, scale, rtol=1e-5)


def test_missing_rows_are_not_read_even_if_not_finite() -> None:
    x = np.array([[1.0], [np.nan], [3.0]])
    fitted = fit_standardizer(x, np.array([True, False, True]))
    assert (fitted.mean[0], fitted.scale[0]) == (2, 1)


def test_apply() -> None:
    scaler = Standardizer(np.array([1.0, 2.0], np.float32), np.array([2.0, 4.0], np.float32))
    applied = scaler.apply(np.array([[3.0, 2.0]], np.float16))
    np.testing.assert_array_equal(applied, [[1.0, 0.0]])
    assert applied.dtype == np.float32
    with pytest.raises(InputError, match="3 columns, the scaler was fitted on 2"):
        scaler.apply(np.ones((1, 3), np.float32))


def test_no_rows() -> None:
    with pytest.raises(InputError, match="no row"):
        fit_standardizer(np.ones((3, 2)), np.zeros(3, dtype=bool))
