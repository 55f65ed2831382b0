"""The deep CCA loss against eigendecompositions written from the definition, and the traps around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hscmae.losses.correlation import correlation_loss

FORMS = ("singular", "frobenius")
both_forms = pytest.mark.parametrize("form", FORMS)


def views(n, d, seed=0, shared=0.8):
    """Two correlated views of uneven variances and nonzero means, float64."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, d))
    pair = [shared * cause + rng.normal(size=(n, d)) for _ in range(2)]
    return [torch.from_numpy(z @ rng.normal(size=(d, d)) + rng.normal(size=d)) for z in pair]


def naive(z1, z2, ridge, form, weight=None):
    """1 - mean correlation by inverse square roots of the regularised covariances."""
    a, b = (np.asarray(z, dtype=np.float64) for z in (z1, z2))
    n, d = a.shape
    a, b = a - a.mean(0), b - b.mean(0)
    w = np.ones(n) if weight is None else np.asarray(weight)

    def inverse_root(cov):
        values, vectors = np.linalg.eigh(cov + ridge * np.trace(cov) / d * np.eye(d))
        return vectors @ np.diag(values**-0.5) @ vectors.T

    t = inverse_root(a.T @ a / n) @ (a.T @ (w[:, None] * b) / w.sum()) @ inverse_root(b.T @ b / n)
    s = np.linalg.svd(t, compute_uv=False)
    return 1 - (s.sum() if form == "singular" else (s**2).sum()) / d


@both_forms
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1e-1, 10.0])
@pytest.mark.parametrize(("n", "d"), [(40, 1), (40, 5), (300, 16)])
def test_equals_eigendecomposition(n, d, ridge, form):
    z1, z2 = views(n, d)
    assert correlation_loss(z1, z2, ridge=ridge, form=form).item() == pytest.approx(
        naive(z1, z2, ridge, form), abs=1e-9
    )


@both_forms
def test_fewer_rows_than_dimensions_with_a_ridge(form):
    z1, z2 = views(6, 11)
    assert correlation_loss(z1, z2, ridge=0.1, form=form).item() == pytest.approx(naive(z1, z2, 0.1, form), abs=1e-9)


@both_forms
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_low_precision_input_is_measured_in_float64(dtype, tolerance, form):
    # Means far from zero: in the input's own type the covariances would be wrong in the leading digits.
    z1, z2 = (100 * z.to(dtype) + 3000 for z in views(200, 12))
    loss = correlation_loss(z1, z2, ridge=1e-3, form=form)
    assert loss.dtype == dtype
    expected = naive(z1.double(), z2.double(), 1e-3, form)
    assert loss.item() == pytest.approx(expected, abs=tolerance)


@both_forms
def test_autocast_does_not_reach_inside(form):
    z1, z2 = (z.float().requires_grad_() for z in views(200, 12))
    outside = correlation_loss(z1, z2, ridge=1e-3, form=form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = correlation_loss(z1, z2, ridge=1e-3, form=form)
    assert inside.item() == outside.item()
    assert inside.dtype == torch.float32


@both_forms
def test_missing_rows_take_no_part(form):
    z1, z2 = views(60, 4)
    valid = torch.arange(60) % 3 != 0
    expected = correlation_loss(z1[valid], z2[valid], ridge=0.05, form=form)
    z1[~valid] = torch.nan  # never read, not even by the gradient
    z2[~valid] = 1e6
    z1.requires_grad_()
    loss = correlation_loss(z1, z2, ridge=0.05, form=form, valid=valid)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, z1)
    assert torch.all(gradient[~valid] == 0)
    assert gradient.isfinite().all()
    assert gradient[valid].abs().max() > 0


@both_forms
def test_weights_count_in_the_cross_covariance_alone(form):
    z1, z2 = views(60, 4)
    weight = torch.from_numpy(np.random.default_rng(1).random(60))
    weight[:20] = 0
    expected = pytest.approx(naive(z1, z2, 0.05, form, weight), abs=1e-9)
    for unit in (1.0, 7.0):
        assert correlation_loss(z1, z2, ridge=0.05, form=form, weight=unit * weight).item() == expected
    valid = torch.arange(60) % 3 != 0
    some = correlation_loss(z1[valid], z2[valid], ridge=0.05, form=form, weight=weight[valid])
    z1[~valid], weight[~valid] = torch.nan, torch.nan  # never read
    torch.testing.assert_close(correlation_loss(z1, z2, ridge=0.05, form=form, valid=valid, weight=weight), some)


@both_forms
def test_equal_weights_change_nothing(form):
    z1, z2 = (z.requires_grad_() for z in views(60, 4))
    plain, weighted = (correlation_loss(z1, z2, form=form, weight=w) for w in (None, torch.full((60,), 0.3)))
    torch.testing.assert_close(weighted, plain, rtol=0, atol=1e-12)
    for a, b in zip(torch.autograd.grad(plain, (z1, z2)), torch.autograd.grad(weighted, (z1, z2)), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-12)


@both_forms
def test_no_valid_row_gives_a_finite_loss_and_no_gradient(form):
    z1, z2 = (z.requires_grad_() for z in views(10, 3))
    loss = correlation_loss(z1, z2, form=form, valid=torch.zeros(10, dtype=torch.bool))
    assert loss.item() == 1
    assert all(torch.all(g == 0) for g in torch.autograd.grad(loss, (z1, z2)))


@both_forms
def test_identical_views_give_zero_without_ridge(form):
    z, _ = views(100, 8)
    assert correlation_loss(z, z, ridge=0, form=form).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("form", "power"), [("singular", 1), ("frobenius", 2)])
def test_identical_views_with_ridge_score_the_shrunken_eigenvalues(form, power):
    z, _ = views(100, 8)
    values = np.linalg.eigvalsh(np.cov(z.numpy().T, bias=True))
    r = 0.3 * values.mean()
    expected = 1 - np.mean((values / (values + r)) ** power)
    assert correlation_loss(z, z, ridge=0.3, form=form).item() == pytest.approx(expected, abs=1e-10)


@both_forms
def test_an_invertible_map_of_one_view_changes_cosines_but_not_the_loss(form):
    z1, z2 = views(200, 6)
    mixed = z2 @ torch.from_numpy(np.random.default_rng(1).normal(size=(6, 6))) - 7
    loss = correlation_loss(z1, z2, ridge=0, form=form).item()
    assert correlation_loss(z1, mixed, ridge=0, form=form).item() == pytest.approx(loss, abs=1e-9)
    cosine = torch.nn.functional.cosine_similarity(z1, z2).mean()
    assert abs(torch.nn.functional.cosine_similarity(z1, mixed).mean() - cosine) > 0.1


@both_forms
@pytest.mark.parametrize("unit", [1e-2, 1e3])
def test_ridge_does_not_depend_on_units(unit, form):
    z1, z2 = views(200, 6)
    loss = correlation_loss(z1, z2, ridge=0.1, form=form).item()
    assert correlation_loss(unit * z1, z2, ridge=0.1, form=form).item() == pytest.approx(loss, abs=1e-7)


@both_forms
def test_never_negative_nor_above_one(form):
    # exp(-w) L + w has no minimum for a negative L.
    for seed in range(20):
        z1, z2 = views(5 + seed, 1 + seed % 7, seed)
        for pair in ((z1, z2), (z1, z1)):
            assert 0 <= correlation_loss(*pair, ridge=1e-3, form=form).item() <= 1


@both_forms
@pytest.mark.parametrize("ridge", [1e-3, 1e-1])
def test_gradcheck(ridge, form):
    z1, z2 = (z.requires_grad_() for z in views(14, 3))
    assert torch.autograd.gradcheck(lambda a, b: correlation_loss(a, b, ridge=ridge, form=form), (z1, z2))


@both_forms
@pytest.mark.parametrize("missing", [False, True])
def test_gradcheck_with_weights(form, missing):
    z1, z2 = (z.requires_grad_() for z in views(14, 3))
    options = {"ridge": 1e-2, "form": form, "valid": torch.arange(14) % 4 != 1 if missing else None}
    weight = torch.from_numpy(np.random.default_rng(1).random(14))
    assert torch.autograd.gradcheck(lambda a, b: correlation_loss(a, b, weight=weight, **options), (z1, z2))


@both_forms
@pytest.mark.parametrize("split", [0.0, 1e-9])
def test_gradcheck_at_nearly_equal_eigenvalues(split, form):
    # White views, one a rotation of the other: every covariance and every correlation has one eigenvalue, thrice.
    q, _ = torch.linalg.qr(views(14, 3)[0] - views(14, 3)[0].mean(0))
    rotation, _ = torch.linalg.qr(views(3, 3, seed=2)[0])
    z1 = (q * (1 + split * torch.arange(3))).requires_grad_()
    z2 = (q @ rotation).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: correlation_loss(a, b, ridge=1e-2, form=form), (z1, z2))


@both_forms
def test_gradcheck_with_missing_rows(form):
    z1, z2 = (z.requires_grad_() for z in views(14, 3))
    valid = torch.arange(14) % 4 != 1
    assert torch.autograd.gradcheck(lambda a, b: correlation_loss(a, b, ridge=1e-2, form=form, valid=valid), (z1, z2))


@both_forms
@pytest.mark.parametrize("ridge", [0.0, 1e-2])
@pytest.mark.parametrize("collapsed", ["one", "both", "constant"])
def test_a_collapsed_view_gives_finite_loss_and_gradient(collapsed, ridge, form):
    z1, z2 = views(50, 4)
    z1 = torch.full_like(z1, 2.5 if collapsed == "constant" else 0.0)
    z2 = torch.zeros_like(z2) if collapsed == "both" else z2
    z1, z2 = z1.requires_grad_(), z2.requires_grad_()
    loss = correlation_loss(z1, z2, ridge=ridge, form=form)
    assert loss.item() == pytest.approx(1, abs=1e-6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (z1, z2)))


def test_a_singular_covariance_is_not_a_number():
    # A factorisation that failed half way would give a finite loss that is wrong (here: millions below 0).
    z, _ = views(40, 8)
    z = 1e6 * torch.nn.functional.pad(z[:, :5], (0, 3))
    z[:, 5:] = z[:, :3] + z[:, 1:4]
    assert correlation_loss(z, z, ridge=0, form="frobenius").isnan()
    assert 0 <= correlation_loss(z, z, ridge=1e-3, form="frobenius") < 1


def test_independent_views_look_correlated_in_a_small_batch():
    rng = np.random.default_rng(0)
    n, d = 128, 32
    sums = []
    for _ in range(20):
        z1, z2 = (torch.from_numpy(rng.normal(size=(n, d))) for _ in range(2))
        sums.append(d * (1 - correlation_loss(z1, z2, ridge=0, form="frobenius").item()))
    assert np.mean(sums) == pytest.approx(d**2 / (n - 1), rel=0.02)
    z1, z2 = (torch.from_numpy(rng.normal(size=(512, 128))) for _ in range(2))
    assert 1 - correlation_loss(z1, z2, ridge=0).item() == pytest.approx(0.44, abs=0.02)
