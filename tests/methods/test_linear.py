"""The closed-form rivals against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.cross_decomposition
import sklearn.decomposition
import torch

from conftest import make_pairs
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.methods import PCA, PLS


def standardised(model, data):
    return {m: model.scalers_[m].apply(x).astype(np.float64) for m, x in data.features.items()}


def mapped(model, x):
    return {m: model.maps_(m, torch.from_numpy(rows)).numpy() for m, rows in x.items()}


def assert_same_up_to_signs(found, expected):
    signs = {m: np.sign((found[m] * expected[m]).sum(0)) for m in found}
    first, second = signs.values()
    np.testing.assert_array_equal(first, second)
    for m in found:
        np.testing.assert_allclose(found[m] * signs[m], expected[m], atol=1e-4)


def test_pca_is_scikit_learns():
    data = make_pairs(160)
    model = PCA(dim=5).fit(dict(data.features))
    x = standardised(model, data)
    for m, z in mapped(model, x).items():
        np.testing.assert_allclose(z, sklearn.decomposition.PCA(5).fit_transform(x[m]), atol=1e-4)


@pytest.mark.parametrize("scale", [False, True])
def test_pls_is_scikit_learns(scale):
    data = make_pairs(160)
    model = PLS(dim=5, scale=scale).fit(dict(data.features))
    x = standardised(model, data)
    reference = sklearn.cross_decomposition.PLSSVD(5, scale=False).fit(x["audio"], x["visual"])
    expected = dict(zip(x, reference.transform(x["audio"], x["visual"]), strict=True))
    if scale:
        s = np.linalg.svd((x["audio"] - x["audio"].mean(0)).T @ x["visual"], compute_uv=False)[:5]
        expected = {m: z * s / s[0] for m, z in expected.items()}
    assert_same_up_to_signs(mapped(model, x), expected)


def test_pls_is_ridge_cca_at_an_endless_ridge():
    data = make_pairs(160)
    model = PLS(dim=5).fit(dict(data.features))
    x = standardised(model, data)
    maps = ridge_cca(covariances({m: torch.from_numpy(rows) for m, rows in x.items()}), 5, 1e9)
    limit = {m: maps(m, torch.from_numpy(rows)).numpy() for m, rows in x.items()}
    found = mapped(model, x)
    for m in found:
        limit[m] *= np.linalg.norm(found[m]) / np.linalg.norm(limit[m])
    assert_same_up_to_signs(found, limit)
