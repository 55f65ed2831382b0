"""Label-free criteria against loops, closed forms and the cases that must not fool them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.criteria import held_out_correlation, linear_cka, mean_rank, paired_mrr
from hscmae.errors import InputError
from hscmae.evaluation.selection import (
    alignment_gap,
    effective_rank,
    feature_knn,
    grounded_knn,
    mutual_knn,
    nearest,
    scales,
)

CRITERIA = (alignment_gap, mutual_knn, linear_cka, paired_mrr, mean_rank, held_out_correlation)


def pairs(n=40, dim=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, dim))
    return a, a + noise * rng.standard_normal((n, dim))


def cosine(x, y):
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def naive_gap(a, v):
    true = [cosine(x, y) for x, y in zip(a, v, strict=True)]
    return sum(true) / len(a) - sum(cosine(x, y) for x in a for y in v) / len(a) ** 2


def naive_knn(a, v, k):
    def neighbours(x, i):
        return set(sorted((j for j in range(len(x)) if j != i), key=lambda j: -cosine(x[i], x[j]))[:k])

    k = min(k, len(a) - 1)
    return sum(len(neighbours(a, i) & neighbours(v, i)) for i in range(len(a))) / (len(a) * k)


def naive_feature_knn(a, v, x, y, k):
    def found(query, gallery, i):
        others = [j for j in range(len(gallery)) if j != i]
        return set(sorted(others, key=lambda j: -cosine(query[i], gallery[j]))[:k])

    k = min(k, len(a) - 1)
    shares = [
        len(found(z, among, i) & found(own, own, i)) / k
        for z, among, own in ((a, v, y), (v, a, x))
        for i in range(len(a))
    ]
    return sum(shares) / len(shares)


def naive_cka(a, v):
    n = len(a)
    centre = np.eye(n) - 1 / n
    x, y = centre @ a @ a.T @ centre, centre @ v @ v.T @ centre
    return np.trace(x @ y) / np.sqrt(np.trace(x @ x) * np.trace(y @ y))


def naive_ranks(a, v):
    return [
        [sum(cosine(x[i], y[j]) >= cosine(x[i], y[i]) for j in range(len(x))) for i in range(len(x))]
        for x, y in ((a, v), (v, a))
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 3, 11, 40])
def test_equals_the_formulas(n, dtype):
    a, v = (x.astype(dtype) for x in pairs(n))
    wide = [x.astype(np.float64) for x in (a, v)]
    assert alignment_gap(a, v) == pytest.approx(naive_gap(*wide), abs=1e-12)
    assert linear_cka(a, v) == pytest.approx(naive_cka(*wide), rel=1e-10)
    for k in (1, 5, 100):
        assert mutual_knn(a, v, k) == pytest.approx(naive_knn(*wide, k), rel=1e-12)
    ranks = np.array(naive_ranks(*wide))
    assert paired_mrr(a, v) == pytest.approx((1 / ranks).mean(), rel=1e-12)
    assert mean_rank(a, v) == pytest.approx((ranks - 1).mean() / (n - 1), rel=1e-12)
    correlations = [np.corrcoef(wide[0][:, j], wide[1][:, j])[0, 1] for j in range(6)]
    assert held_out_correlation(a, v) == pytest.approx(np.mean(correlations), rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 11, 40])
def test_feature_knn_equals_its_formula(n):
    a, v = pairs(n)
    x, y = np.hstack([a, pairs(n, 3, seed=1)[0]]), v[:, :4]
    for k in (1, 5, 100):
        assert feature_knn(a, v, x, y, k) == pytest.approx(naive_feature_knn(a, v, x, y, k), rel=1e-12)
    assert feature_knn(a, v, x, y) == feature_knn(a, v, x, y, max(1, n // 10))
    assert grounded_knn(a, v, x, y) == pytest.approx(mutual_knn(a, v) * feature_knn(a, v, x, y) ** 0.5)


def test_feature_knn_is_whole_where_the_features_are_the_embedding_and_falls_with_blur():
    a, _ = pairs(300, 8)
    assert feature_knn(a, a, a, a) == 1
    few = a[:, :2]  # agrees with itself, but says little of the features
    assert mutual_knn(few, few) == 1
    assert feature_knn(few, few, a, a) < 0.5


def test_perfect_pairs():
    a, _ = pairs()
    assert mutual_knn(a, a) == 1
    assert linear_cka(a, a) == pytest.approx(1)
    assert paired_mrr(a, a) == 1
    assert mean_rank(a, a) == 0
    assert held_out_correlation(a, a) == pytest.approx(1)


def test_unrelated_embeddings_are_at_chance():
    rng = np.random.default_rng(1)
    a, v = rng.standard_normal((2, 2000, 16))
    assert abs(alignment_gap(a, v)) < 0.02
    assert mutual_knn(a, v, 10) == pytest.approx(10 / 1999, rel=0.25)
    assert mean_rank(a, v) == pytest.approx(0.5, abs=0.03)
    assert abs(held_out_correlation(a, v)) < 0.03
    assert linear_cka(a, v) < 0.02


@pytest.mark.parametrize("value", [1.0, 0.3])
def test_a_collapsed_embedding_is_not_rewarded(value):
    a = v = np.full((300, 8), value)
    assert alignment_gap(a, v) == pytest.approx(0, abs=1e-12)
    assert mutual_knn(a, v, 10) < 0.15
    assert paired_mrr(a, v) == pytest.approx(1 / 300)
    assert mean_rank(a, v) == 1
    assert effective_rank(a) == 0
    assert linear_cka(a, v) == pytest.approx(0, abs=1e-9)
    assert held_out_correlation(a, v) == pytest.approx(0, abs=1e-9)


def test_more_noise_is_worse():
    for criterion in CRITERIA:
        values = [criterion(*pairs(300, 8, noise)) for noise in (0.2, 1.0, 4.0)]
        assert values == sorted(values, reverse=criterion is not mean_rank), criterion.__name__


def test_joint_rotation_changes_nothing():
    a, v = pairs()
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))[0]
    for criterion in (alignment_gap, mutual_knn, linear_cka, paired_mrr, mean_rank):
        assert criterion(a @ turn, v @ turn) == pytest.approx(criterion(a, v), rel=1e-10), criterion.__name__


def test_modalities_of_different_dimension():
    a, v = pairs()
    assert mutual_knn(a, np.hstack([v, np.zeros((40, 3))])) == mutual_knn(a, v)
    assert linear_cka(a, np.hstack([v, np.zeros((40, 3))])) == pytest.approx(linear_cka(a, v))
    with pytest.raises(InputError, match=r"\(40, 6\) and \(40, 5\)"):
        alignment_gap(a, v[:, :5])


def test_effective_rank_counts_dimensions():
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((200, 5)) - 0.0)[0]
    basis -= basis.mean(axis=0)
    basis = np.linalg.qr(basis)[0]
    assert effective_rank(basis) == pytest.approx(5)
    assert effective_rank(np.hstack([basis[:, :2], np.zeros((200, 3))]) + 7.0) == pytest.approx(2)
    share = np.array([3.0, 1.0]) / 4
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank(basis[:, :2] * [3.0, 1.0]) == pytest.approx(expected)


def test_nearest_in_blocks(monkeypatch):
    from benchmarks.studies import criteria
    from hscmae.evaluation import selection

    a, v = pairs(37)
    expected = mutual_knn(a, v, 4), paired_mrr(a, v), mean_rank(a, v)
    neighbours = np.sort(nearest(a, 4), axis=1)
    across = nearest(a, 4, v)
    assert not (across == np.arange(37)[:, None]).any()
    monkeypatch.setattr(selection, "BLOCK_SCORES", 100)
    monkeypatch.setattr(criteria, "BLOCK_SCORES", 100)
    assert (mutual_knn(a, v, 4), paired_mrr(a, v), mean_rank(a, v)) == expected
    np.testing.assert_array_equal(np.sort(nearest(a, 4), axis=1), neighbours)
    np.testing.assert_array_equal(nearest(a, 4, v), across)
    assert not (neighbours == np.arange(37)[:, None]).any()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_bad_input_is_named(criterion):
    with pytest.raises(InputError, match="match by row"):
        criterion(np.ones((3, 2)), np.ones((4, 2)))
    with pytest.raises(InputError, match="no rows"):
        criterion(np.ones((0, 2)), np.ones((0, 2)))
    with pytest.raises(InputError, match="not finite in row 1"):
        criterion(np.ones((2, 2)), np.array([[0, 1], [np.nan, 1]]))


def test_neighbours_need_two_rows():
    with pytest.raises(InputError, match="two rows"):
        mutual_knn(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(InputError, match="k of at least 1"):
        mutual_knn(np.ones((3, 2)), np.ones((3, 2)), k=0)


@pytest.mark.parametrize(
    ("n", "ks"), [(2, (1,)), (9, (1,)), (10, (1, 2)), (45, (2, 4, 9)), (150, (7, 15, 30)), (3000, (150, 300, 600))]
)
def test_agreement_is_the_mean_over_shares_of_the_pairs(n: int, ks: tuple[int, ...]) -> None:
    assert scales(n) == ks
    a, v = pairs(min(n, 320))
    expected = np.mean([naive_knn(a, v, k) for k in scales(len(a))])
    assert mutual_knn(a, v) == pytest.approx(expected, rel=1e-12)
