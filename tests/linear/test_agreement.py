"""Agreement of pairs: the estimated share of wrong ones, and each one's chance of being right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

import hscmae.linear.agreement as module
from conftest import make_pairs
from hscmae.data.synthetic import synthetic_pairs
from hscmae.linear.agreement import (
    chance_right,
    cross_fit,
    decreasing_density,
    random_better,
    wrong_share,
    wrong_share_quantiles,
)


def test_agreement_is_in_standard_deviations_of_random_pairs() -> None:
    random = cross_fit(make_pairs(300).features, np.arange(300), np.random.default_rng(0)).agreement()[1]
    assert np.nanmean(random) == pytest.approx(0, abs=1e-12)
    assert np.nanstd(random) == pytest.approx(1, abs=1e-12)


def test_resampled_shares_are_those_of_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 50)
    rng = np.random.default_rng(0)
    observed, random = rng.normal(0.5, 1, 90), rng.normal(size=(90, 7))
    random[3, 2:] = np.nan
    found = module._resampled_shares(observed, random, np.random.default_rng(1))
    draws = np.random.default_rng(1).integers(90, size=(50, 90))
    np.testing.assert_allclose(found, [wrong_share(observed[i], random[i]) for i in draws], atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_share_of_a_known_mixture(share: float) -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(20_000) < share
    observed = rng.normal(np.where(wrong, 0.0, 2.5), 1.0)
    assert wrong_share(observed, rng.normal(size=100_000)) == pytest.approx(share, abs=0.015)


def test_share_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    random = rng.normal(size=5000)
    assert wrong_share(rng.normal(-1.0, 1.0, 2000), random) == 1.0
    assert wrong_share(rng.normal(9.0, 1.0, 2000), random) == 0.0


@pytest.mark.parametrize("dims", [(1, 1), (1, 3), (2, 70)])
def test_narrow_features_have_an_agreement(dims: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(100, d)) for m, d in zip(("audio", "visual"), dims, strict=True)}
    observed, random = cross_fit(features, np.arange(100), rng).agreement()
    assert np.isfinite(observed).all()
    assert np.isfinite(random).sum(1).min() >= 3  # the last cell holds four pairs


def test_the_interval_holds_the_share_and_narrows() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (100, 10_000):
        observed = rng.normal(np.where(np.arange(n) < 0.3 * n, 0.0, 2.5), 1.0)
        low, high = wrong_share_quantiles(observed, rng.normal(size=(n, 7)), rng)
        assert low <= 0.3 <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_the_share_of_random_pairs_that_agree_better_is_counted() -> None:
    random = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, np.nan]])
    assert random_better(np.array([0.0, 1.0, 2.5, 9.0]), random).tolist() == [1.0, 0.75, 0.5, 0.0]


@settings(deadline=None)
@given(st.lists(st.integers(1, 4096), min_size=1, max_size=40), st.booleans())
def test_the_density_is_that_of_isotonic_regression(values: list[int], whole: bool) -> None:
    p = np.array(values + values[:3] + [4096] * whole) / 4096
    at, counts = np.unique(p, return_counts=True)
    gaps = np.diff(np.concatenate([[0.0], at, [] if at[-1] == 1 else [1.0]]))
    mass = np.concatenate([counts / len(p), [] if at[-1] == 1 else [0.0]])
    falling = IsotonicRegression(increasing=False).fit(np.arange(len(gaps)), mass / gaps, sample_weight=gaps)
    expected = falling.predict(np.searchsorted(at, p))
    np.testing.assert_allclose(decreasing_density(p), expected, rtol=1e-6)


def test_the_density_integrates_to_one_and_falls() -> None:
    p = np.random.default_rng(0).random(500) ** 3 + 1e-6
    p /= p.max()
    order = np.argsort(p)
    density = decreasing_density(p)[order]
    assert (np.diff(density) <= 1e-12).all()
    edges = np.concatenate([[0.0], p[order]])
    assert float(density @ np.diff(edges)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_chances_of_a_known_mixture(share: float) -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    wrong = rng.random(n) < share
    # Right pairs have density 4 (1 - p)^3; a pair's true chance is their part of the mixture's.
    p = np.where(wrong, rng.random(n), rng.beta(1, 4, n))
    right = (1 - share) * 4 * (1 - p) ** 3
    assert np.abs(chance_right(p, share) - right / (right + share)).mean() < 0.03
    assert (1 - chance_right(p, share)).mean() == pytest.approx(share, abs=0.02)


def test_without_wrong_pairs_none_is_doubted_and_with_nothing_else_all_are() -> None:
    p = np.random.default_rng(0).random(500)
    assert (chance_right(p, 0.0) == 1).all()
    assert chance_right(p, 1.0).mean() < 0.1


def test_pairs_made_wrong_have_less_of_a_chance() -> None:
    made = synthetic_pairs(
        700, dims={"audio": 64, "visual": 128}, wrong_pairs=0.3, noise=0.3, silent=0.0, test_share=0.0, seed=1
    )
    rng = np.random.default_rng(0)
    observed, random = cross_fit(made.pairs.features, np.arange(700), rng).agreement()
    chance = chance_right(random_better(observed, random), wrong_share_quantiles(observed, random, rng)[0])
    assert chance[~made.wrong].mean() > chance[made.wrong].mean() + 0.2
