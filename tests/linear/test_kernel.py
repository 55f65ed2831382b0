"""Kernel features against the kernel itself, and ridge CCA on them against kernel CCA written in the dual."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.kernel import kernel_map


def rows(n, d, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)) + 0.5)


def views(n, seed=0):
    """Two views of a shared cause, of which the second sees only the square of one part."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 2))
    a = cause @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(n, 5))
    v = np.column_stack([cause[:, 0], cause[:, 1] ** 2]) @ rng.normal(size=(2, 7)) + 0.3 * rng.normal(size=(n, 7))
    return {"audio": torch.from_numpy(a + 1), "visual": torch.from_numpy(v - 2)}


def naive_kernel(x, y, train, factor, linear=0.0):
    """The kernel written out row by row; median and mean squared norm over all (couples of) training rows."""
    mean = train.mean(0)
    squared_norm = np.mean([((r - mean) ** 2).sum() for r in train])
    inner = [[(r - mean) @ (s - mean) for s in y] for r in x]
    x, y, train = ([(r - mean) / np.linalg.norm(r - mean) for r in part] for part in (x, y, train))
    apart = sorted(((r - s) ** 2).sum() for r in train for s in train)
    median = apart[(len(apart) - 1) // 2]
    gaussian = [[np.exp(-((r - s) ** 2).sum() / (factor * median)) for s in y] for r in x]
    return np.array(gaussian) + linear * np.array(inner) / squared_norm


@pytest.mark.parametrize("linear", [0.0, 0.3])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_inner_products_are_the_kernel(factor, linear):
    x, new = rows(40, 6), rows(9, 6, seed=1)
    features = kernel_map(x, torch.arange(40), 40, factor=factor, linear=linear)
    for some in (new, x):
        expected = naive_kernel(some.numpy(), x.numpy(), x.numpy(), factor, linear)
        np.testing.assert_allclose(features(some) @ features(x).T, expected, atol=1e-9)


def test_a_row_at_the_mean_is_at_distance_one_from_all_others_and_none_from_itself():
    half = (rows(12, 4) * 64).round() / 64  # sums without rounding: the mean is exactly 0
    x = torch.cat([half, -half, torch.zeros(1, 4, dtype=torch.float64)])
    z = kernel_map(x, torch.arange(25), 25)(x)
    unit = torch.nn.functional.normalize(x, dim=1)
    apart = torch.cdist(unit, unit).square()
    np.testing.assert_allclose(z @ z.T, torch.exp(-apart / apart.median()), atol=1e-9)


def test_with_much_of_the_linear_kernel_it_is_the_linear_one():
    x = rows(40, 6)
    z = kernel_map(x, torch.arange(40), 40, linear=1e9)(x)
    centred = x - x.mean(0)
    expected = centred @ centred.T / centred.square().sum(1).mean()
    np.testing.assert_allclose(z @ z.T / 1e9, expected, atol=1e-6)


def test_components_are_the_leading_ones_and_landmarks_approximate():
    x = rows(60, 6)
    kernel = naive_kernel(x.numpy(), x.numpy(), x.numpy(), 1.0)
    values, vectors = np.linalg.eigh(kernel)
    best = vectors[:, -10:] * values[-10:] @ vectors[:, -10:].T
    z = kernel_map(x, torch.arange(60), 10)(x)
    assert z.shape == (60, 10)
    np.testing.assert_allclose(z @ z.T, best, atol=1e-9)
    # Nystroem: exact on the landmarks, never better than the leading components elsewhere.
    landmarks = torch.tensor([3, 50, 7, 21, 40, 9, 12, 33])
    features = kernel_map(x, landmarks, 512)
    assert features(x).shape == (60, 8)
    assert features.bandwidth == torch.cdist(features.landmarks, features.landmarks).square().median()
    chosen = features(x[landmarks])
    apart = torch.cdist(features.landmarks, features.landmarks).square()
    np.testing.assert_allclose(chosen @ chosen.T, torch.exp(-apart / features.bandwidth), atol=1e-9)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_ridge_cca_on_all_components_is_kernel_cca(ridge):
    n, dim = 60, 3
    x, new = views(n), views(20, seed=5)
    maps_of = {m: kernel_map(v, torch.arange(n), n) for m, v in x.items()}
    z = {m: maps_of[m](v) for m, v in x.items()}
    maps = ridge_cca(covariances(z), dim, ridge)

    # In the dual, with centred kernels K and weights X' a: a' K1 K2 b is largest where a' (K1^2 / n + r K1) a = 1.
    kernel, new_kernel, smooth = {}, {}, {}
    centre = np.eye(n) - 1 / n
    for m, v in x.items():
        raw = naive_kernel(v.numpy(), v.numpy(), v.numpy(), 1.0)
        kernel[m] = centre @ raw @ centre
        new_kernel[m] = (naive_kernel(new[m].numpy(), v.numpy(), v.numpy(), 1.0) - raw.mean(0)) @ centre
        smooth[m] = np.linalg.inv(kernel[m] + ridge * np.trace(kernel[m]) / n * np.eye(n))
    k1, k2 = kernel.values()
    s1, s2 = smooth.values()
    values, variates = scipy.linalg.eig(k1 @ s1 @ k2 @ s2)
    order = np.argsort(-values.real)[:dim]
    correlations = np.sqrt(values.real[order])
    np.testing.assert_allclose(maps.correlation, correlations, rtol=1e-6)
    for i in range(dim):
        dual = {"visual": s2 @ variates.real[:, order[i]], "audio": s1 @ k2 @ s2 @ variates.real[:, order[i]]}
        for m, a in dual.items():
            k = kernel[m]
            a = a / np.sqrt(a @ (k @ k / n + ridge * np.trace(k) / n**2 * k) @ a) * correlations[i]
            found = maps_of[m].then(maps.mean[m], maps.weight[m])
            for expected, got in ((k @ a, found(x[m])[:, i]), (new_kernel[m] @ a, found(new[m])[:, i])):
                expected = expected * np.sign(expected @ got.numpy())
                np.testing.assert_allclose(got, expected, atol=1e-6 * abs(expected).max())


def test_maps_compose_and_change_type():
    x = rows(30, 4)
    features = kernel_map(x, torch.arange(20), 8)
    mean, weight = rows(1, 8)[0], rows(8, 3, seed=2)
    both = features.then(mean, weight)
    np.testing.assert_allclose(both(x), (features(x) - mean) @ weight, atol=1e-12)
    again = both.then(torch.ones(3, dtype=torch.float64), weight[:3])
    np.testing.assert_allclose(again(x), (both(x) - 1) @ weight[:3], atol=1e-12)
    half = both.to(torch.float32)(x)
    assert half.dtype == torch.float32
    np.testing.assert_allclose(half, both(x), atol=1e-3)


def test_repeated_and_constant_rows_stay_finite():
    repeated = rows(10, 4).repeat(4, 1)
    z = kernel_map(repeated, torch.arange(40), 40)(repeated)
    assert z.isfinite().all()
    np.testing.assert_allclose(z @ z.T, (z @ z.T)[:10, :10].repeat(4, 4), atol=1e-6)
    constant = torch.ones(12, 4, dtype=torch.float64)
    assert kernel_map(constant, torch.arange(12), 5)(constant).isfinite().all()


def test_one_column_and_repeated_rows_have_a_kernel():
    source = torch.Generator().manual_seed(0)
    few = torch.randn(3, 5, generator=source).double()
    for x in (torch.randn(40, 1, generator=source).double(), few[torch.arange(40) // 20], few[:1].expand(40, 5)):
        for kernel in (kernel_map(x, torch.arange(30), 8), kernel_map(x, torch.arange(30), 8).to(torch.float32)):
            assert kernel(x).isfinite().all()
    signs = kernel_map(x := torch.randn(40, 1, generator=source).double(), torch.arange(40), 8)(x)
    same = (signs @ signs.T).round().bool()
    assert torch.equal(same, (x > x.mean()) == (x > x.mean()).T)
