"""The closed-form rivals against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.cross_decomposition
import sklearn.decomposition
import torch

from conftest import make_pairs
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError
from hscmae.evaluation.selection import alignment_gap
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.methods import PCA, PLS, KernelCCA, get_method


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


def test_plain_cca_of_too_few_pairs_says_what_to_do():
    data = make_pairs(30, dims=(12, 40))
    with pytest.raises(InputError, match=r"^the covariance of visual is singular at ridge 0: .* a ridge above 0$"):
        get_method("cca")(ridge=0.0).fit(dict(data.features))


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


@pytest.mark.parametrize("name", ["kernel-cca", "smoothed-kernel-cca"])
def test_a_kernel_finds_what_no_line_does(name):
    # The second modality sees the first's angle doubled: opposite directions of one are the same in the other.
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    data = {
        m: np.column_stack([np.cos(turns * angle), np.sin(turns * angle)]) + 0.05 * rng.normal(size=(400, 2))
        for m, turns in (("audio", 1), ("visual", 2))
    }
    models = [get_method(n)(dim=4, ridge=0.1).fit(data) for n in ("ridge-cca", name)]
    linear, kernel = (alignment_gap(*model.embed_pairs(data).values()) for model in models)
    assert linear < 0.2
    assert kernel > 0.9


def test_landmarks_approximate_the_kernel_and_bound_the_model():
    data = make_pairs(300)
    arrays = dict(data.features)
    exact, few = (KernelCCA(dim=4, ridge=1.0, landmarks=n, rank=60).fit(arrays) for n in (300, 100))
    assert {m: k.landmarks.shape for m, k in few.kernels_.items()} == {m: (100, d) for m, d in data.dims.items()}
    assert {k.basis.shape for k in few.kernels_.values()} == {(100, 4)}
    assert not exact.uses_seed(300)
    assert few.uses_seed(300)
    for m, x in arrays.items():
        cosines = [z @ z.T for z in (exact.embed(m, x), few.embed(m, x))]
        assert np.corrcoef(cosines[0].ravel(), cosines[1].ravel())[0, 1] > 0.95


def test_landmarks_are_rows_that_have_the_modality():
    arrays = dict(make_pairs(60).features)
    present = {m: np.ones(60, dtype=bool) for m in arrays}
    present["audio"][::2] = False
    model = KernelCCA(dim=4, ridge=1.0).fit(Pairs(features=arrays, present=present, ids=make_pairs(60).ids))
    assert {m: len(k.landmarks) for m, k in model.kernels_.items()} == {"audio": 30, "visual": 60}
