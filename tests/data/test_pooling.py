"""Pooling over valid steps, against loops."""

import numpy as np
import pytest

from hscmae.data.pairs import Pairs
from hscmae.errors import InputError


@pytest.mark.parametrize(("how", "one"), [("mean", np.mean), ("max", np.max)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_equals_the_loop(how, one, dtype) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 4, 3)).astype(dtype)
    lengths = rng.integers(0, 5, 1500)
    x[np.arange(4) >= lengths[:, None]] = np.inf  # beyond the end: never read
    still = rng.normal(size=(1500, 2)).astype(dtype)
    pairs = Pairs({"audio": x, "visual": still}, lengths={"audio": lengths})
    pooled = pairs.pooled(how)
    for i in range(1500):
        if lengths[i]:
            expected = one(x[i, : lengths[i]].astype(np.float64), axis=0).astype(dtype)
            np.testing.assert_allclose(
                pooled.features["audio"][i], expected, rtol=1e-3 if dtype is np.float16 else 1e-6
            )
    np.testing.assert_array_equal(pooled.present["audio"], lengths > 0)
    assert pooled.features["visual"] is still and not pooled.lengths
    assert pooled.features["audio"].dtype == dtype and np.isfinite(pooled.features["audio"]).all()


def test_without_lengths_all_steps_count_and_vectors_stay() -> None:
    x = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(Pairs({"audio": x}).pooled().features["audio"], x.mean(axis=1))


def test_unknown_pooling() -> None:
    with pytest.raises(InputError, match="mean or max"):
        Pairs({"audio": np.ones((2, 3, 2))}).pooled("sum")
