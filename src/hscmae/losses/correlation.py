"""Global level: deep CCA between the two modalities' embeddings.

Measured in float64 with autocast off. Cholesky whitening and singular *values* only: gradients of eigenvectors
explode where eigenvalues nearly meet.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor


def correlation_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    ridge: float = 1e-2,
    form: Literal["singular", "frobenius"] = "singular",
    valid: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    r"""One minus the mean canonical correlation of two views. Minimised; lies in [0, 1].

    .. math::
        L = 1 - \frac{1}{d}\sum_i \sigma_i(T)\ \text{(singular)}\quad\text{or}\quad
        1 - \frac{1}{d}\lVert T\rVert_F^2\ \text{(frobenius)},\qquad
        T = L_1^{-1} C_{12} L_2^{-\top},\quad L_m L_m^\top = C_m + r\,\frac{\operatorname{tr} C_m}{d} I

    The trace stays in the graph. The Frobenius form is the sum of *squared* correlations; it needs no SVD and is the
    one that runs inside a CUDA graph. Identical views at ridge 0 give 0.

    Args:
        z1: embeddings of one modality, shape (n, d).
        z2: embeddings of the other, shape (n, d).
        ridge: r, relative to the mean eigenvalue. ``gradcheck`` holds from 1e-3 up.
        form: which sum of correlations.
        valid: rows that have both modalities, shape (n,), bool; the others take no part.
        weight: of each pair in :math:`C_{12}`, shape (n,): its chance of being right. What a modality holds does not
            depend on its partner, so that the other covariances stay as they are.

    Returns:
        Scalar in the type of ``z1``; not a number where a covariance is singular (only at a ridge near 0).

    Relations:
        Andrew et al. 2013 maximise the same trace norm with eigendecompositions; ``linear.cca.ridge_cca`` is its
        closed-form linear solution.

    Recommendations:
        A batch much larger than d: for independent views the squared correlations sum to about d^2/(n - 1) by
        chance alone. Never take a cosine of raw outputs: the loss is unchanged by any invertible map of one view.

    One view and any invertible map of it correlate wholly, independent views hardly:

    >>> noise = torch.Generator().manual_seed(0)
    >>> z, other = torch.randn(2, 500, 4, generator=noise, dtype=torch.float64)
    >>> mixed = z @ torch.randn(4, 4, generator=noise, dtype=torch.float64)
    >>> bool(correlation_loss(z, mixed, ridge=0).abs() < 1e-6), bool(correlation_loss(z, other) > 0.9)
    (True, True)
    """
    loss: Tensor = _Correlation.apply(z1, z2, ridge, form, valid, weight)  # type: ignore[no-untyped-call]
    return loss


class _Correlation(torch.autograd.Function):
    r"""The loss and its gradient in closed form, which Andrew et al. (2013) give for the trace norm.

    For :math:`\sum_i g(\sigma_i)` with :math:`T = U S V^\top` and :math:`M = U g'(S) V^\top` the derivatives by the
    regularised covariances are :math:`L_1^{-\top} M L_2^{-1}` (cross) and
    :math:`-\frac{1}{2} L_1^{-\top} M T^\top L_1^{-1}` (first view); nothing is divided by a difference of
    singular values.
    """

    @staticmethod
    def forward(
        ctx: Any, z1: Tensor, z2: Tensor, ridge: float, form: str, valid: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        with torch.autocast(z1.device.type, enabled=False):
            a, count = _centred(z1.double(), valid)  # (n, d), scalar
            b, _ = _centred(z2.double(), valid)  # (n, d)
            l1, l2 = _cholesky(a.T @ a / count, ridge), _cholesky(b.T @ b / count, ridge)  # (d, d)
            paired_a, paired_b = _weighted(a, valid, weight), _weighted(b, valid, weight)  # (n, d)
            half = torch.linalg.solve_triangular(l1, paired_a.T @ b / count, upper=False)  # (d, d)
            t = torch.linalg.solve_triangular(l2, half.T, upper=False).T  # (d, d)
            if form == "frobenius":
                total, m = t.square().sum(), 2 * t
            else:
                u, s, vt = torch.linalg.svd(t)
                total, m = s.sum(), u @ vt
            d = a.shape[1]
            right = torch.linalg.solve_triangular(l2, m, upper=False, left=False)  # M inv(L2), (d, d)
            cross = torch.linalg.solve_triangular(l1.T, right, upper=True)  # (d, d)
            slopes = []
            for own, other, by_cross, factor, square in (
                (a, paired_b, cross.T, l1, m @ t.T),
                (b, paired_a, cross, l2, m.T @ t),
            ):
                inner = torch.linalg.solve_triangular(factor, square, upper=False, left=False)
                within = torch.linalg.solve_triangular(factor.T, inner, upper=True)  # times -1/2, once from each side
                torch.diagonal(within).add_(ridge / d * torch.diagonal(within).sum())
                slope = (own @ within - other @ by_cross) / (d * count)  # (n, d)
                if weight is not None:  # else it is centred already, as both factors are
                    slope, _ = _centred(slope, valid)
                slopes.append(slope.to(z1.dtype))
            ctx.save_for_backward(*slopes)
            loss: Tensor = (1 - total / d).to(z1.dtype)
            return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, second = ctx.saved_tensors
        return gradient * first, gradient * second, None, None, None, None


def _centred(z: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | int]:
    if valid is None:
        return z - z.mean(0), len(z)
    keep, count = valid[:, None], valid.sum().clamp(min=1)
    z = torch.where(keep, z, 0.0)
    return torch.where(keep, z - z.sum(0) / count, 0.0), count


def _weighted(rows: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
    """Rows (n, d) times their weights, of mean 1 over the valid rows."""
    if weight is None:
        return rows
    w = weight.to(rows) if valid is None else torch.where(valid, weight.to(rows), 0.0)  # (n,)
    count = len(w) if valid is None else valid.sum()
    return rows * (w * count / w.sum().clamp(min=torch.finfo(w.dtype).tiny))[:, None]


def _cholesky(cov: Tensor, ridge: float) -> Tensor:
    # The absolute term is far below any real variance and keeps a collapsed view (all zeros) factorisable.
    shift = ridge * torch.diagonal(cov).mean() + 1e-12
    eye = torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    factor, failed = torch.linalg.cholesky_ex(cov + shift * eye)
    # Not a number stops the run; the half-made factor of a singular covariance would give a finite, wrong loss.
    return torch.where(failed > 0, torch.nan, factor)
