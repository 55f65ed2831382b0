"""Global level: deep CCA between the two modalities' embeddings.

Measured in float64 with autocast off. Cholesky whitening and singular *values* only: gradients of eigenvectors
explode where eigenvalues nearly meet.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def correlation_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    ridge: float = 1e-2,
    form: Literal["singular", "frobenius"] = "singular",
    valid: Tensor | None = None,
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

    Returns:
        Scalar in the type of ``z1``; not a number where a covariance is singular (only at a ridge near 0).

    Relations:
        Andrew et al. 2013 maximise the same trace norm with eigendecompositions; ``linear.cca.ridge_cca`` is its
        closed-form linear solution.

    Recommendations:
        A batch much larger than d: for independent views the squared correlations sum to about d^2/(n - 1) by
        chance alone. Never take a cosine of raw outputs: the loss is unchanged by any invertible map of one view.
    """
    with torch.autocast(z1.device.type, enabled=False):
        a, b = z1.double(), z2.double()
        if valid is None:
            count = torch.tensor(float(len(a)), dtype=a.dtype, device=a.device)
            a, b = a - a.mean(0), b - b.mean(0)
        else:
            keep = valid[:, None]
            count = valid.sum().clamp(min=1).to(a.dtype)
            a = torch.where(keep, a, 0.0)
            b = torch.where(keep, b, 0.0)
            a = torch.where(keep, a - a.sum(0) / count, 0.0)
            b = torch.where(keep, b - b.sum(0) / count, 0.0)
        l1 = _cholesky(a.T @ a / count, ridge)
        l2 = _cholesky(b.T @ b / count, ridge)
        half = torch.linalg.solve_triangular(l1, a.T @ b / count, upper=False)
        t = torch.linalg.solve_triangular(l2, half.T, upper=False)
        total: Tensor = t.square().sum() if form == "frobenius" else torch.linalg.svdvals(t).sum()
        return (1 - total / a.shape[1]).to(z1.dtype)


def _cholesky(cov: Tensor, ridge: float) -> Tensor:
    # The absolute term is far below any real variance and keeps a collapsed view (all zeros) factorisable.
    shift = ridge * torch.diagonal(cov).mean() + 1e-12
    eye = torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
    factor, failed = torch.linalg.cholesky_ex(cov + shift * eye)
    # Not a number stops the run; the half-made factor of a singular covariance would give a finite, wrong loss.
    return torch.where(failed > 0, torch.nan, factor)
