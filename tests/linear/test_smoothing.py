"""Neighbourhood-smoothed CCA against dense algebra written from the definition, and what it is for: wrong pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hscmae.data.synthetic import synthetic_pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.smoothing import (
    ends,
    fuse,
    neighbourhood,
    refined_cca,
    smoothed_cca,
    smoothing_operator,
    top_neighbours,
)


def unit(z):
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    return np.divide(z, norm, out=np.zeros_like(z), where=norm > 0)


def embedding(n=30, dim=4, seed=0, zero=()):
    z = unit(np.random.default_rng(seed).normal(size=(n, dim)))
    z[list(zero)] = 0
    return z


def naive_soft(t, u, k, tau):
    """Softmax over the k most similar rows of ``u``, itself excluded, by loops over rows."""
    n = len(t)
    soft = np.zeros((n, n))
    for i in range(n):
        others = [j for j in range(n) if j != i and t[i].any() and u[j].any()]
        kept = sorted(others, key=lambda j, i=i: -(t[i] @ u[j]))[:k]
        weights = np.exp([t[i] @ u[j] / tau for j in kept])
        soft[i, kept] = weights / weights.sum()
    return soft


def naive_operator(t, k, tau, other=None):
    """D^-1/2 S D^-1/2, of the two ends of the pairs where these differ."""
    u = t if other is None else other
    s = (naive_soft(t, u, k, tau) + naive_soft(u, t, k, tau).T) / 2
    rows, cols = (np.array([d**-0.5 if d > 0 else 0.0 for d in s.sum(axis)]) for axis in (1, 0))
    return rows[:, None] * s * cols


def views(n=80, d1=5, d2=7, seed=0):
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 3)) * 2
    return {m: cause @ rng.normal(size=(3, d)) + rng.normal(size=(n, d)) for m, d in (("audio", d1), ("visual", d2))}


def naive_smoothed(x, dim, *, ridge, k, tau, hops, rounds, present, weight=None, scale=True):
    """The method with dense matrices; returns W1 W2' (free of signs) and the correlations."""
    (_, a), (_, b) = x.items()
    here1, here2 = present.values()
    mean1, mean2 = a[here1].mean(0), b[here2].mean(0)
    a, b = np.where(here1[:, None], a - mean1, 0), np.where(here2[:, None], b - mean2, 0)

    def root(cov):
        values, vectors = np.linalg.eigh(cov + ridge * np.trace(cov) / len(cov) * np.eye(len(cov)))
        return vectors @ np.diag(values**-0.5) @ vectors.T

    r1, r2 = root(a.T @ a / here1.sum()), root(b.T @ b / here2.sum())

    def solve(cross):
        u, s, vt = np.linalg.svd(r1 @ cross @ r2)
        u, s, vt = u[:, :dim], s[:dim], vt[:dim]
        gain = s if scale else np.ones_like(s)
        return r1 @ u * gain, r2 @ vt.T * gain, s

    w = np.ones(len(a)) if weight is None else weight
    pairs, own = a.T @ (w[:, None] * b) / w[here1 & here2].sum(), k / (k + len(a))
    w1, w2, s = solve(pairs)
    for _ in range(rounds):
        z1, z2 = unit(a @ w1) * here1[:, None], unit(b @ w2) * here2[:, None]
        operator = naive_operator(unit(z1 + w[:, None] * z2), k, tau, unit(w[:, None] * z1 + z2))
        partner = np.linalg.matrix_power(operator, hops) @ b
        partner = partner - partner.mean(0)
        w1, w2, s = solve(own * pairs + (1 - own) * a.T @ partner / len(a))
    return w1 @ w2.T, s


def as_tensors(x):
    return {m: torch.from_numpy(v) for m, v in x.items()}


@pytest.mark.parametrize("block", [1, 7, 30, 2048])
@pytest.mark.parametrize("k", [1, 5, 29, 100])
def test_top_neighbours_equal_a_loop_in_any_block(k, block):
    t = embedding()
    cosine, index = top_neighbours(torch.from_numpy(t), k, block=block)
    assert cosine.shape == index.shape == (30, min(k, 29))
    for i in range(30):
        others = sorted((j for j in range(30) if j != i), key=lambda j, i=i: -(t[i] @ t[j]))[:k]
        assert index[i].tolist() == others
        np.testing.assert_allclose(cosine[i], [t[i] @ t[j] for j in others], atol=1e-12)


@pytest.mark.parametrize("zero", [(), (4,), (0, 11, 29)])
@pytest.mark.parametrize("k", [1, 6, 40])
def test_operator_equals_dense_loops(k, zero):
    t = embedding(zero=zero)
    t[:, 0] = -abs(t[:, 0])  # many cosines lie below the zero rows' 0 or near it
    operator = smoothing_operator(torch.from_numpy(t), k, 0.2).to_dense().numpy()
    np.testing.assert_allclose(operator, naive_operator(t, k, 0.2), atol=1e-12)


def test_operator_is_symmetric_contracts_and_leaves_zero_rows_out():
    operator = smoothing_operator(torch.from_numpy(embedding(zero=(3,))), 5, 0.1).to_dense().numpy()
    np.testing.assert_allclose(operator, operator.T, atol=1e-15)
    assert np.linalg.eigvalsh(operator).max() == pytest.approx(1, abs=1e-10)
    assert not operator.diagonal().any()
    assert not operator[3].any()


def test_operator_stays_sparse():
    operator = smoothing_operator(torch.from_numpy(embedding(200)), 5, 0.1)
    assert operator.is_sparse
    assert operator._nnz() <= 2 * 5 * 200


def test_fuse_uses_the_modalities_that_a_row_has():
    x = {"audio": embedding(6, seed=1) * 3, "visual": embedding(6, seed=2)}
    present = {"audio": np.array([1, 1, 0, 0, 1, 1], bool), "visual": np.array([1, 0, 1, 0, 1, 1], bool)}
    both = unit(unit(x["audio"]) + unit(x["visual"]))
    np.testing.assert_allclose(fuse(as_tensors(x)).numpy(), both, atol=1e-12)
    x["audio"][2] = np.nan  # never read
    fused = fuse(as_tensors(x), as_tensors(present)).numpy()
    np.testing.assert_allclose(fused[[0, 4, 5]], both[[0, 4, 5]], atol=1e-12)
    np.testing.assert_allclose(fused[1], unit(x["audio"])[1], atol=1e-12)
    np.testing.assert_allclose(fused[2], x["visual"][2], atol=1e-12)
    assert not fused[3].any()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("wide", ["audio", "visual"])
@pytest.mark.parametrize(("hops", "rounds"), [(1, 0), (1, 1), (1, 2), (3, 2)])
def test_equals_dense_algebra(hops, rounds, wide, weighted, missing):
    x = views(**({"d1": 7, "d2": 5} if wide == "audio" else {}))
    present = {m: np.ones(80, dtype=bool) for m in x}
    if missing:
        present = {"audio": np.arange(80) % 4 != 0, "visual": np.arange(80) % 6 != 0}  # some rows lack both
        for m in x:
            x[m][~present[m]] = np.nan  # never read
    settings = {"ridge": 1.0, "k": 6, "tau": 0.15, "hops": hops, "rounds": rounds}
    weight = None
    if weighted:
        weight = np.where(np.arange(80) % 3 == 0, 0.0, np.random.default_rng(5).random(80))
        weight[~(present["audio"] & present["visual"])] = 1
    maps = smoothed_cca(
        as_tensors(x),
        5,
        present=as_tensors(present) if missing else None,
        weight=None if weight is None else torch.from_numpy(weight),
        **settings,
    )
    product, correlations = naive_smoothed(x, 5, present=present, weight=weight, **settings)
    np.testing.assert_allclose(maps.correlation, correlations, atol=1e-9)
    np.testing.assert_allclose(maps.weight["audio"] @ maps.weight["visual"].T, product, atol=1e-9)


@pytest.mark.parametrize("wide", ["audio", "visual"])
def test_pairs_that_are_all_certain_change_nothing(wide):
    x = as_tensors(views(**({"d1": 7, "d2": 5} if wide == "audio" else {})))
    plain, weighted = (smoothed_cca(x, 5, ridge=1.0, k=6, tau=0.1, weight=w) for w in (None, torch.ones(80)))
    for m in x:
        torch.testing.assert_close(weighted.weight[m], plain.weight[m], rtol=0, atol=1e-12)


def test_ends_of_a_pair_in_doubt_are_apart():
    z = {"audio": embedding(6, seed=1), "visual": embedding(6, seed=2)}
    weight = np.array([0.0, 0.5, 1.0, 1.0, 1.0, 1.0])
    present = {"audio": np.array([1, 1, 1, 0, 1, 0], bool), "visual": np.array([1, 1, 1, 1, 0, 0], bool)}
    first, second = ends(as_tensors(z), torch.from_numpy(weight), as_tensors(present))
    np.testing.assert_allclose(first[0], z["audio"][0], atol=1e-12)
    np.testing.assert_allclose(second[0], z["visual"][0], atol=1e-12)
    np.testing.assert_allclose(first[1], unit(z["audio"] + 0.5 * z["visual"])[1], atol=1e-12)
    fused = fuse(as_tensors(z), as_tensors(present))
    for end in (first, second):
        np.testing.assert_allclose(end[2:], fused[2:], atol=1e-12)


def test_no_rounds_is_ridge_cca():
    x = as_tensors(views())
    maps = smoothed_cca(x, 5, ridge=2.0, k=6, tau=0.1, rounds=0, scale=False)
    expected = ridge_cca(covariances(x), 5, 2.0, scale=False)
    for m in x:
        assert torch.equal(maps.weight[m], expected.weight[m])


@pytest.mark.parametrize("wrong", [0.0, 0.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_beats_ridge_cca_on_clean_and_on_wrong_pairs(seed, wrong):
    # Each at its best ridge: smoothing regularises by itself, so that it wants a smaller one.
    pairs = synthetic_pairs(
        1000, dims={"audio": 128, "visual": 256}, events=(1, 1), wrong_pairs=wrong, silent=0.0, seed=seed
    ).pairs
    train, test = pairs.of_split("train"), pairs.of_split("test")
    scale = {m: (v.mean(0), v.std(0) + 1e-6) for m, v in train.features.items()}
    x = {m: torch.from_numpy((v - scale[m][0]) / scale[m][1]) for m, v in train.features.items()}
    y = {m: torch.from_numpy((v - scale[m][0]) / scale[m][1]) for m, v in test.features.items()}

    def quality(maps):
        return Retrieval({m: maps(m, v) for m, v in y.items()}, test.labels).metrics(bootstrap=0)["avg/mAP"]

    ridges = (0.3, 1.0, 3.0, 10.0)
    plain = max(quality(ridge_cca(covariances(x), 32, r)) for r in ridges)
    smooth = max(quality(smoothed_cca(x, 32, ridge=r, k=30, tau=0.1)) for r in ridges)
    assert smooth > 1.08 * plain


def test_without_a_number_of_neighbours_a_tenth_of_the_rows_is_taken():
    x = {m: torch.from_numpy(v) for m, v in views(700).items()}
    tenth, fifty, unasked = (smoothed_cca(x, 3, ridge=1.0, tau=0.1, **k) for k in ({"k": 70}, {"k": 50}, {}))
    for m in x:
        assert unasked.weight[m].equal(tenth.weight[m])
        assert not unasked.weight[m].allclose(fifty.weight[m])
    assert [neighbourhood(n) for n in (1, 500, 1999, 10**6)] == [50, 50, 199, 200]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_refined_solution_equals_dense_algebra(weighted, missing):
    z = views(d1=6, d2=6)
    rng = np.random.default_rng(1)
    here = {m: rng.random(80) > (0.2 if missing else -1) for m in z}
    weight = rng.random(80) if weighted else None
    units = {m: unit(rows) for m, rows in z.items()}
    a, b = (np.where(here[m][:, None], u - u[here[m]].mean(0), 0) for m, u in units.items())
    w = np.ones(80) if weight is None else np.where(here["audio"] & here["visual"], weight, 1.0)
    both = here["audio"] & here["visual"]
    pairs = a.T @ (np.where(both, w, 0)[:, None] * b) / w[both].sum()
    z1, z2 = (units[m] * here[m][:, None] for m in z)
    operator = naive_operator(unit(z1 + w[:, None] * z2), 50, 0.1, unit(w[:, None] * z1 + z2))
    cross = (pairs + a.T @ operator @ b / 80) / 2
    (r1, r2) = (
        np.linalg.cholesky(np.linalg.inv(c + 0.7 * np.trace(c) / 6 * np.eye(6)))
        for c in (a.T @ a / here["audio"].sum(), b.T @ b / here["visual"].sum())
    )
    u, s, vt = np.linalg.svd(r1.T @ cross @ r2)
    expected = (r1 @ u[:, :3] * s[:3]) @ (r2 @ vt[:3].T * s[:3]).T
    maps = refined_cca(
        as_tensors(z),
        3,
        ridge=0.7,
        present={m: torch.from_numpy(rows) for m, rows in here.items()},
        weight=None if weight is None else torch.from_numpy(w),
    )
    np.testing.assert_allclose(maps.weight["audio"] @ maps.weight["visual"].T, expected, atol=1e-9)
    np.testing.assert_allclose(maps.correlation, s[:3], atol=1e-10)


def test_refining_counts_directions_alone():
    z = as_tensors(views(d1=6, d2=6))
    longer = {m: rows * torch.rand(80, 1, dtype=rows.dtype).add(0.5) for m, rows in z.items()}
    first, second = (refined_cca(rows, 3, ridge=1.0) for rows in (z, longer))
    torch.testing.assert_close(first.correlation, second.correlation)
