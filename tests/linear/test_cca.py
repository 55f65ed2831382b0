"""Ridge CCA against eigendecompositions written from the definition, and against libraries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.cross_decomposition import CCA as IterativeCCA

from hscmae.errors import InputError
from hscmae.linear.cca import covariances, ridge_cca, solve_whitened, stream_covariances, whitening


def views(n=200, d1=6, d2=9, seed=0):
    """Two views with a shared cause, uneven variances and nonzero means."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 4)) * [2, 1.5, 1, 0.5]
    return {
        m: torch.from_numpy(
            (cause @ rng.normal(size=(4, d)) + rng.normal(size=(n, d))) @ rng.normal(size=(d, d)) + rng.normal(size=d)
        )
        for m, d in (("audio", d1), ("visual", d2))
    }


def naive_correlations(x, ridge):
    """Square roots of the generalised eigenvalues of C12 C2^-1 C21 against C1."""
    a, b = (v.numpy() - v.numpy().mean(0) for v in x.values())
    c1, c2, c12 = a.T @ a / len(a), b.T @ b / len(b), a.T @ b / len(a)
    c1 = c1 + ridge * np.trace(c1) / len(c1) * np.eye(len(c1))
    c2 = c2 + ridge * np.trace(c2) / len(c2) * np.eye(len(c2))
    values = scipy.linalg.eigh(c12 @ np.linalg.solve(c2, c12.T), c1, eigvals_only=True)[::-1]
    return np.sqrt(np.maximum(values, 0))[: min(a.shape[1], b.shape[1])], (c1, c2, c12)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
@pytest.mark.parametrize(("d1", "d2"), [(6, 9), (9, 6), (5, 5), (1, 4)])
def test_solves_the_eigenproblem(d1, d2, ridge, scale):
    x = views(d1=d1, d2=d2)
    found = min(d1, d2)
    maps = ridge_cca(covariances(x), found, ridge, scale=scale)
    correlations, (c1, c2, c12) = naive_correlations(x, ridge)
    np.testing.assert_allclose(maps.correlation, correlations, atol=1e-10)
    # Each view is white under its regularised covariance, and the cross-covariance is diagonal; the gain comes on top.
    w1, w2 = (w.numpy() for w in maps.weight.values())
    gain = np.diag(correlations) if scale else np.eye(found)
    np.testing.assert_allclose(w1.T @ c1 @ w1, gain**2, atol=1e-10)
    np.testing.assert_allclose(w2.T @ c2 @ w2, gain**2, atol=1e-10)
    np.testing.assert_allclose(w1.T @ c12 @ w2, gain @ np.diag(correlations) @ gain, atol=1e-10)


def test_embeddings_of_the_training_rows_have_the_correlations():
    x = views()
    maps = ridge_cca(covariances(x), 4, 0.0)
    z = {m: maps(m, v).numpy() for m, v in x.items()}
    for i in range(4):
        correlation = np.corrcoef(z["audio"][:, i], z["visual"][:, i])[0, 1]
        assert correlation == pytest.approx(maps.correlation[i].item(), abs=1e-10)
    assert all(abs(rows.mean(0)).max() < 1e-12 for rows in z.values())


def test_agrees_with_the_iterative_solution_of_scikit_learn():
    x = views()
    a, b = (v.numpy() for v in x.values())
    z1, z2 = IterativeCCA(n_components=3, max_iter=5000, tol=1e-12).fit_transform(a, b)
    theirs = [np.corrcoef(z1[:, i], z2[:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(ridge_cca(covariances(x), 3, 0.0).correlation, theirs, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.5, 10.0])
def test_agrees_with_cca_zoo(ridge):
    linear = pytest.importorskip("cca_zoo.linear")
    x = views()
    a, b = (v.numpy() for v in x.values())
    relative = [ridge * np.trace(np.cov(v.T)) / v.shape[1] for v in (a, b)]
    theirs = linear.RidgeCCA(n_components=5, shrinkage=[r / (1 + r) for r in relative]).fit([a, b])
    ours = ridge_cca(covariances(x), 5, ridge, scale=False)
    for mine, other in zip(ours.weight.values(), theirs.weights_, strict=True):
        cosines = (mine.numpy() * other).sum(0) / np.linalg.norm(mine, axis=0) / np.linalg.norm(other, axis=0)
        np.testing.assert_allclose(abs(cosines), 1, atol=1e-9)


def test_identical_views_score_one_without_ridge_and_less_with():
    x = views()["audio"]
    same = {"one": x, "other": x}
    np.testing.assert_allclose(ridge_cca(covariances(same), 6, 0.0).correlation, 1, atol=1e-10)
    values = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1]
    shrunken = values / (values + 0.2 * values.mean())
    np.testing.assert_allclose(ridge_cca(covariances(same), 6, 0.2).correlation, shrunken, atol=1e-10)


def test_independent_views_look_correlated_when_rows_are_few():
    rng = np.random.default_rng(0)
    x = {m: torch.from_numpy(rng.normal(size=(512, 128))) for m in ("audio", "visual")}
    correlation = ridge_cca(covariances(x), 128, 0.0).correlation
    assert correlation.square().sum().item() == pytest.approx(128**2 / 511, rel=0.05)
    held_out = {m: torch.from_numpy(rng.normal(size=(512, 128))) for m in x}
    maps = ridge_cca(covariances(x), 1, 0.0)
    z = [maps(m, v)[:, 0].numpy() for m, v in held_out.items()]
    assert maps.correlation[0] > 0.7
    assert abs(np.corrcoef(*z)[0, 1]) < 0.15


@pytest.mark.parametrize("unit", [1e-6, 1e4])
def test_the_ridge_does_not_depend_on_units(unit):
    x = views()
    rescaled = {"audio": unit * x["audio"], "visual": x["visual"]}
    maps, other = (ridge_cca(covariances(v), 6, 1.0) for v in (x, rescaled))
    torch.testing.assert_close(other.correlation, maps.correlation, rtol=0, atol=1e-10)
    for m in x:
        # Up to the sign of each direction, common to both modalities.
        torch.testing.assert_close(other(m, rescaled[m]).abs(), maps(m, x[m]).abs(), rtol=1e-8, atol=1e-10)


def test_rows_that_lack_a_modality():
    x = views(60)
    present = {"audio": torch.arange(60) % 5 != 0, "visual": torch.arange(60) % 7 != 0}
    both = present["audio"] & present["visual"]
    full = {m: v.clone() for m, v in x.items()}
    for m in x:
        x[m][~present[m]] = torch.nan  # never read
    moments = covariances(x, present)
    for m in x:
        rows = full[m][present[m]].numpy()
        np.testing.assert_allclose(moments.mean[m], rows.mean(0), atol=1e-12)
        np.testing.assert_allclose(moments.within[m], np.cov(rows.T, bias=True), atol=1e-12)
    a, b = ((full[m] - moments.mean[m])[both].numpy() for m in x)
    np.testing.assert_allclose(moments.cross, a.T @ b / int(both.sum()), atol=1e-12)
    assert ridge_cca(moments, 4, 0.1).correlation.isfinite().all()


@pytest.mark.parametrize("sizes", [[200], [1, 199], [64, 64, 72], [0, 3, 190, 7]])
@pytest.mark.parametrize("drift", [0.0, 1e5])
@pytest.mark.parametrize("weighted", [False, True])
def test_covariances_of_blocks_are_those_of_all_rows(sizes, drift, weighted):
    x = views()
    rng = np.random.default_rng(1)
    present = {m: torch.from_numpy(rng.random(200) < 0.7) for m in x}
    x = {m: rows + drift * torch.arange(200.0).div(64).floor()[:, None].double() for m, rows in x.items()}
    parts = ({m: rows.split(sizes) for m, rows in part.items()} for part in (x, present))
    blocks = [[{m: rows[i] for m, rows in part.items()} for i in range(len(sizes))] for part in parts]
    w = torch.from_numpy(np.where(rng.random(200) < 0.2, 0.0, rng.random(200))) if weighted else torch.ones(200)
    found = stream_covariances(zip(*blocks, w.split(sizes) if weighted else [None] * len(sizes), strict=True))
    (a, b), (in_a, in_b) = (tuple(v.numpy() for v in part.values()) for part in (x, present))
    both = in_a & in_b
    centred = a - a[in_a].mean(0), b - b[in_b].mean(0)
    w = np.where(both, w.numpy(), 0.0)
    cross = np.where(both[:, None], centred[0], 0).T @ (w[:, None] * centred[1]) / w.sum()
    np.testing.assert_allclose(found.cross, cross, rtol=1e-9, atol=1e-9)
    for m, rows, here in (("audio", a, in_a), ("visual", b, in_b)):
        np.testing.assert_allclose(found.mean[m], rows[here].mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.within[m], np.cov(rows[here].T, bias=True), rtol=1e-9, atol=1e-9)


def test_float32_rows_are_solved_in_float64():
    x = {m: (v.float() + 3000) for m, v in views().items()}
    moments = covariances(x)
    for m, v in x.items():
        np.testing.assert_allclose(moments.within[m], np.cov(v.double().numpy().T, bias=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 3, 6, 8])
def test_fewer_directions_are_the_first_and_further_ones_are_zero(dim):
    x = views()
    full, some = (ridge_cca(covariances(x), d, 0.5) for d in (6, dim))
    kept = min(dim, 6)
    for m, weight in some.weight.items():
        assert weight.shape == (x[m].shape[1], dim)
        torch.testing.assert_close(weight[:, :kept], full.weight[m][:, :kept])
        assert not weight[:, kept:].any()
    torch.testing.assert_close(some.correlation[:kept], full.correlation[:kept])
    assert some.correlation[kept:].tolist() == [0] * (dim - kept)


def test_constant_columns_and_fewer_rows_than_columns_need_only_a_ridge():
    x = views(8)
    x["audio"][:, 2] = 4.0
    with pytest.raises(InputError, match="the covariance of audio is singular at ridge 0"):
        ridge_cca(covariances(x), 3, 0.0)
    maps = ridge_cca(covariances(x), 3, 0.1)
    assert all(w.isfinite().all() for w in maps.weight.values())
    torch.testing.assert_close(maps.weight["audio"][2], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_maps_return_the_type_that_they_are_given():
    x = views()
    maps = ridge_cca(covariances(x), 3, 1.0)
    z = maps("audio", x["audio"].float())
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.double(), maps("audio", x["audio"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("d1", "d2"), [(6, 9), (9, 6)])
def test_factors_serve_every_cross_covariance(d1, d2):
    x = views(d1=d1, d2=d2)
    moments = covariances(x)
    factors = whitening(moments.within, 3.0)
    for cross in (moments.cross, moments.cross.flip(0) * 2):
        found = solve_whitened(replace(moments, cross=cross), factors, 4)
        inverse = [torch.linalg.inv(factor) for factor in factors.values()]
        u, s, vt = torch.linalg.svd(inverse[0] @ cross @ inverse[1].T)
        np.testing.assert_allclose(found.correlation, s[:4], atol=1e-12)
        expected = {"audio": inverse[0].T @ u[:, :4] * s[:4], "visual": inverse[1].T @ vt[:4].T * s[:4]}
        sign = (found.weight["audio"] * expected["audio"]).sum(0).sign()
        for m, w in expected.items():
            np.testing.assert_allclose(found.weight[m], w * sign, atol=1e-10)
