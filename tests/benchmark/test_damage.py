"""Damaged pairs: what is changed, what is not, and that test rows stay whole."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import make_pairs
from hscmae.benchmark.damage import with_foreign_events, with_missing_values, with_wrong_pairs


@pytest.mark.parametrize("damage", [with_wrong_pairs, with_foreign_events])
def test_test_rows_and_labels_stay_and_the_share_is_kept(damage) -> None:
    pairs = make_pairs()
    train, test = pairs.rows_of("train"), pairs.rows_of("test")
    for share in (0.0, 0.25, 0.5):
        damaged = damage(pairs, share, seed=3)
        first = pairs.modalities[0]
        changed = (damaged.features[first] != pairs.features[first]).any(axis=1)
        assert not changed[test].any()
        assert abs(changed.sum() - share * len(train)) <= 3  # a permutation may leave a row where it is
        assert damaged.labels is pairs.labels


def test_wrong_pairs_move_whole_rows_of_the_first_modality() -> None:
    pairs = make_pairs()
    damaged = with_wrong_pairs(pairs, 0.5, seed=0)
    np.testing.assert_array_equal(damaged.features["visual"], pairs.features["visual"])
    np.testing.assert_array_equal(np.sort(damaged.features["audio"], axis=0), np.sort(pairs.features["audio"], axis=0))


def test_a_foreign_event_is_heard_and_seen_of_the_same_clip() -> None:
    pairs = make_pairs()
    damaged = with_foreign_events(pairs, 0.5, seed=0)
    row = int(np.flatnonzero((damaged.features["audio"] != pairs.features["audio"]).any(axis=1))[0])
    foreign = {m: 2 * damaged.features[m][row] - pairs.features[m][row] for m in pairs.modalities}
    source = {m: int(np.abs(pairs.features[m] - foreign[m]).sum(axis=1).argmin()) for m in pairs.modalities}
    assert source["audio"] == source["visual"] != row
    np.testing.assert_allclose(pairs.features["visual"][source["visual"]], foreign["visual"], atol=1e-5)


def test_missing_values_are_filled_and_nested() -> None:
    x, fill = np.ones((50, 40)), np.full(40, 7.0, np.float32)
    few, many = (with_missing_values(x, share, fill, seed=1) == 7 for share in (0.3, 0.8))
    assert few.mean() == pytest.approx(0.3, abs=0.03)
    assert many.mean() == pytest.approx(0.8, abs=0.03)
    assert not (few & ~many).any()
    steps = with_missing_values(np.ones((5, 3, 40)), 0.5, fill, seed=1) == 7
    assert (steps == steps[:, :1]).all()
