"""Ridge canonical correlation analysis in closed form: the one piece of linear algebra under everything.

The warm start of the network, the linear head between a deep model and its cosine, and the CCA baselines are all the
same solve, written here once: regularise the two covariances, whiten by Cholesky, take singular values. ``smoothing``
changes the cross-covariance that goes in, nothing else. All of it runs in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.errors import InputError

BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Covariances:
    """Second moments of two modalities.

    Attributes:
        mean: modality -> mean over the rows that have it, shape (d_m,), float64.
        within: modality -> covariance, shape (d_m, d_m), float64.
        cross: covariance of the first modality with the second, shape (d_1, d_2), float64.

    >>> moments = covariances({"audio": torch.randn(50, 3), "visual": torch.randn(50, 4)})
    >>> moments.within["visual"].shape, moments.cross.shape
    (torch.Size([4, 4]), torch.Size([3, 4]))
    """

    mean: Mapping[str, Tensor]
    within: Mapping[str, Tensor]
    cross: Tensor


@dataclass(frozen=True, eq=False)
class CanonicalMaps:
    """One affine map per modality into the canonical space, ``z_m = (x_m - mean_m) @ weight_m``.

    Attributes:
        mean: modality -> shape (d_m,).
        weight: modality -> shape (d_m, dim).
        correlation: canonical correlations after the ridge, descending, shape (dim,).

    >>> mean, weight = {"audio": torch.tensor([1.0, 2.0])}, {"audio": torch.tensor([[2.0], [0.0]])}
    >>> maps = CanonicalMaps(mean, weight, torch.ones(1))
    >>> maps("audio", torch.tensor([[4.0, 7.0]]))
    tensor([[6.]])
    """

    mean: Mapping[str, Tensor]
    weight: Mapping[str, Tensor]
    correlation: Tensor

    def __call__(self, modality: str, x: Tensor) -> Tensor:
        """Map rows of one modality, shape (n, d_m) -> (n, dim), in the type of ``x``."""
        weight = self.weight[modality].to(x)  # (d_m, dim)
        return x @ weight - self.mean[modality].to(x) @ weight


# Features and presence of some rows as ``covariances`` takes them, and the weights of their pairs.
Rows = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor | None]


def covariances(
    x: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None, weight: Tensor | None = None
) -> Covariances:
    """Covariances of two modalities in which rows may lack one.

    A modality's own covariance uses every row that has it; the cross-covariance uses the rows that have both.

    Args:
        x: two modalities, each of shape (n, d_m).
        present: modality -> rows that have it, shape (n,), bool; all where not given.
        weight: of each pair in the cross-covariance, shape (n,); all alike where not given.

    >>> x = {"audio": torch.tensor([[1.0], [3.0]]), "visual": torch.tensor([[0.0, 4.0], [2.0, 0.0]])}
    >>> moments = covariances(x)
    >>> moments.mean["visual"], moments.cross
    (tensor([1., 2.], dtype=torch.float64), tensor([[ 1., -2.]], dtype=torch.float64))
    """
    if present is None:
        present = {m: torch.ones(len(rows), dtype=torch.bool, device=rows.device) for m, rows in x.items()}
    size = max(len(rows) for rows in x.values())
    return stream_covariances(
        (
            {m: rows[start : start + BLOCK] for m, rows in x.items()},
            {m: rows[start : start + BLOCK] for m, rows in present.items()},
            None if weight is None else weight[start : start + BLOCK],
        )
        for start in range(0, size, BLOCK)
    )


def stream_covariances(blocks: Iterable[Rows]) -> Covariances:
    """``covariances`` in one pass over blocks of rows, for data larger than memory.

    Args:
        blocks: features and presence of some rows and weights of their pairs, as ``covariances`` takes them.

    >>> x = {"audio": torch.randn(40, 2).double(), "visual": torch.randn(40, 3).double()}
    >>> present = {m: torch.ones(10, dtype=torch.bool) for m in x}
    >>> blocks = (({m: v[i : i + 10] for m, v in x.items()}, present, None) for i in range(0, 40, 10))
    >>> stream_covariances(blocks).cross.allclose(covariances(x).cross)
    True
    """
    within: dict[str, _Comoment] = {}
    cross: _Comoment | None = None
    for x, present, weight in blocks:
        (first, a), (second, b) = ((m, rows.double()) for m, rows in x.items())
        if cross is None:
            within = {first: _Comoment(a, a), second: _Comoment(b, b)}
            cross = _Comoment(a, b)
        within[first].add(a[present[first]])
        within[second].add(b[present[second]])
        both = present[first] & present[second]
        cross.add(a[both], b[both], weight=None if weight is None else weight[both])
    assert cross is not None
    # Each modality is centred on all its rows, not on those of the pairs alone.
    away = [of_pairs - whole.mean[0] for of_pairs, whole in zip(cross.mean, within.values(), strict=True)]
    return Covariances(
        mean={m: moment.mean[0] for m, moment in within.items()},
        within={m: moment.products / max(moment.count, 1) for m, moment in within.items()},
        cross=(cross.products + cross.count * torch.outer(*away)) / (cross.count or 1),
    )


def blended(moments: Covariances, background: Covariances | None, share: float) -> Covariances:
    r"""Covariances drawn towards those of background pairs, :math:`(1 - p)\,C + p\,C_{\text{background}}`.

    The estimate under a conjugate prior, in which the background stands for :math:`p\,n / (1 - p)` rows; the means
    stay those of the training rows.

    Args:
        moments: of the training rows.
        background: of the background pairs, in the same units; ``None`` for none.
        share: p, in [0, 1].

    >>> one = Covariances({}, {"audio": torch.eye(1), "visual": torch.eye(1)}, torch.tensor([[1.0]]))
    >>> other = Covariances({}, {"audio": torch.eye(1) * 3, "visual": torch.eye(1)}, torch.tensor([[0.0]]))
    >>> drawn = blended(one, other, share=0.5)
    >>> drawn.within["audio"], drawn.cross
    (tensor([[2.]]), tensor([[0.5000]]))
    """
    if background is None:
        return moments
    within = {m: torch.lerp(cov, background.within[m].to(cov), share) for m, cov in moments.within.items()}
    cross = torch.lerp(moments.cross, background.cross.to(moments.cross), share)
    return Covariances(moments.mean, within, cross)


class _Comoment:
    """Sum of products of centred rows, merged block by block as Chan, Golub and LeVeque (1979) merge variances."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.count = 0.0  # of rows, or the sum of their weights
        self.mean = [x.new_zeros(x.shape[1]) for x in (a, b)]
        self.products = a.new_zeros(a.shape[1], b.shape[1])

    def add(self, *rows: Tensor, weight: Tensor | None = None) -> None:
        """Count rows of shape (n, d), with weights (n,); of one modality with itself, or of two."""
        n = len(rows[0]) if weight is None else float(weight.sum())
        if not n:
            return
        means = [x.mean(0) if weight is None else weight.to(x) @ x / n for x in rows]
        centred = [x - mean for x, mean in zip(rows, means, strict=True)]
        counted = centred[0] if weight is None else centred[0] * weight.to(centred[0])[:, None]
        self.products.addmm_(counted.T, centred[-1])
        away = [mean - whole for mean, whole in zip((means[0], means[-1]), self.mean, strict=True)]
        self.products.addr_(*away, alpha=self.count * n / (self.count + n))
        for whole, delta in zip(self.mean, away, strict=True):
            whole += delta * (n / (self.count + n))
        self.count += n


def ridge_cca(moments: Covariances, dim: int, ridge: float, *, scale: bool = True) -> CanonicalMaps:
    r"""Regularised linear CCA (Hotelling 1936; ridge after Vinod 1976), solved in closed form.

    With :math:`\tilde C_m = C_m + r\,\frac{\operatorname{tr} C_m}{d_m} I = L_m L_m^\top` the singular value
    decomposition :math:`L_1^{-1} C_{12} L_2^{-\top} = U S V^\top` gives the maps :math:`L_1^{-\top} U` and
    :math:`L_2^{-\top} V` and the correlations :math:`S`. A ridge relative to the mean eigenvalue does not depend on
    the features' units.

    Args:
        moments: covariances of the two modalities.
        dim: number of directions; there are at most ``min(d_1, d_2)``, further ones are zero.
        ridge: r, relative to each covariance's mean eigenvalue; 10 to 30 serves small noisy sets, 0 is plain CCA and
            needs covariances of full rank.
        scale: multiply each direction by its correlation, so that a cosine weighs it by how far it can be trusted.

    Raises:
        InputError: a covariance is singular at this ridge.

    Two views of one hidden number, each with noise in a dimension of its own:

    >>> cause, noise = torch.randn(500, 1).double(), torch.randn(2, 500, 1).double()
    >>> x = {"audio": torch.hstack([cause, noise[0]]), "visual": torch.hstack([noise[1], -2 * cause])}
    >>> maps = ridge_cca(covariances(x), dim=1, ridge=0.0)
    >>> z = {m: maps(m, rows) for m, rows in x.items()}
    >>> maps.correlation.allclose(torch.ones(1).double()), z["audio"].allclose(z["visual"])
    (True, True)
    """
    return solve_whitened(moments, whitening(moments.within, ridge), dim, scale=scale)


def whitening(within: Mapping[str, Tensor], ridge: float) -> dict[str, Tensor]:
    """Cholesky factors :math:`L_m` of the regularised covariances; see ``ridge_cca``, which raises the same.

    >>> whitening({"audio": torch.tensor([[4.0, 0.0], [0.0, 4.0]])}, ridge=1.25)["audio"]
    tensor([[3., 0.],
            [0., 3.]])
    """
    factors = {}
    for m, cov in within.items():
        size = ridge * torch.diagonal(cov).mean() + torch.finfo(cov.dtype).tiny
        cov = cov + size * torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
        factors[m], failed = torch.linalg.cholesky_ex(cov)
        # What a column adds to those before it may be rounding, of either sign.
        least = torch.diagonal(factors[m]).square().min()
        if failed or least <= len(cov) * torch.finfo(cov.dtype).eps * torch.diagonal(cov).mean():
            raise InputError(
                f"the covariance of {m} is singular at ridge {ridge:g}: columns repeat one another, or are more than "
                "the rows; give a ridge above 0"
            )
    return factors


def solve_whitened(
    moments: Covariances, factors: Mapping[str, Tensor], dim: int, *, scale: bool = True
) -> CanonicalMaps:
    """``ridge_cca`` from the Cholesky factors, which serve every cross-covariance of the same rows.

    >>> moments = covariances({"audio": torch.randn(50, 3), "visual": torch.randn(50, 4)})
    >>> maps = solve_whitened(moments, whitening(moments.within, 1.0), dim=2)
    >>> maps.weight["audio"].equal(ridge_cca(moments, dim=2, ridge=1.0).weight["audio"])
    True
    """
    a, b = factors.values()  # (d_1, d_1), (d_2, d_2)
    whitened = torch.linalg.solve_triangular(a, moments.cross, upper=False)  # (d_1, d_2)
    whitened = torch.linalg.solve_triangular(b.T, whitened, upper=True, left=False)  # (d_1, d_2)
    # The leading singular vectors by the narrower side's eigenvectors, which are found sooner; what squaring costs in
    # digits falls on correlations below 1e-6.
    tall = len(a) >= len(b)
    sides = whitened if tall else whitened.T
    values, vectors = torch.linalg.eigh(sides.T @ sides)  # (d of the narrower,), ascending
    s, v = values.flip(0)[:dim].clamp(min=0).sqrt(), vectors.flip(1)[:, :dim]
    u = sides @ v  # of the wider, times s; at most dim columns
    first, second = (u, v * s) if scale else (F.normalize(u, dim=0), v)
    directions = (first, second) if tall else (second, first)
    missing = (0, dim - len(s))
    weight = {
        m: F.pad(torch.linalg.solve_triangular(factor.T, axes, upper=True), missing)
        for (m, factor), axes in zip(factors.items(), directions, strict=True)
    }
    # Row by row, as a loaded model has it: other strides round products otherwise.
    weight = {m: w.contiguous() for m, w in weight.items()}
    return CanonicalMaps(dict(moments.mean), weight, F.pad(s, missing))
