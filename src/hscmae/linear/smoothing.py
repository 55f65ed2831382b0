"""Neighbourhood-smoothed CCA: the local level in closed form.

Affinities are mined over all training rows from a fused embedding, and the cross-covariance is taken between a row
and its partner's *neighbourhood* instead of the partner itself. A wrong pair then counts only through its
neighbours, which is why the method stands up to wrong pairs, and a row that lacks a modality still takes part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.linear.cca import BLOCK, CanonicalMaps, Covariances, blended, covariances, solve_whitened, whitening

# Mining affinities takes time and memory that grow with the square of the rows: callers draw a sample above this.
MAX_ROWS = 50_000
ROUNDS = 2  # affinities from the embedding of ridge CCA, then from that of the first solution


def fuse(z: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
    """Fused embedding ``norm(sum_m norm(z_m))`` over the modalities that a row has; shape (n, dim).

    A row that has none of the modalities becomes the zero vector: it is nobody's neighbour.

    >>> z = {"audio": torch.tensor([[3.0, 0.0], [0.0, 2.0]]), "visual": torch.tensor([[5.0, 0.0], [7.0, 0.0]])}
    >>> fuse(z, {"audio": torch.tensor([True, True]), "visual": torch.tensor([True, False])})
    tensor([[1., 0.],
            [0., 1.]])
    """
    parts = []
    for name, rows in z.items():
        unit = F.normalize(rows, dim=1)  # (n, dim)
        parts.append(unit if present is None else torch.where(present[name][:, None], unit, 0.0))
    return F.normalize(torch.stack(parts).sum(0), dim=1)


def top_neighbours(t: Tensor, k: int, *, block: int = 512) -> tuple[Tensor, Tensor]:
    """The k most similar other rows of each row of a unit-norm embedding, exactly, in blocks of rows.

    Args:
        t: fused embedding, shape (n, dim), unit rows (zero rows allowed).
        k: neighbours a row; at most n - 1 are returned.

    Returns:
        Cosines and row numbers, both of shape (n, min(k, n - 1)), each row descending. A zero row is nobody's
        neighbour and has none: where too few rows are left, the cosine is minus infinity.

    >>> t = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    >>> cosine, index = top_neighbours(t, k=1)
    >>> index.flatten()
    tensor([1, 0, 1])
    """
    n = len(t)
    k = min(k, n - 1)
    alive = t.any(1)
    values, indices = [], []
    for start in range(0, n, block):
        cosine = t[start : start + block] @ t.T  # (b, n)
        rows = torch.arange(len(cosine), device=t.device)
        cosine[rows, rows + start] = -torch.inf
        cosine[~alive[start : start + block]] = -torch.inf
        cosine[:, ~alive] = -torch.inf
        top = cosine.topk(k, dim=1)
        values.append(top.values)
        indices.append(top.indices)
    return torch.cat(values), torch.cat(indices)


def smoothing_operator(t: Tensor, k: int, tau: float) -> Tensor:
    r"""Symmetric normalised affinity :math:`D^{-1/2} S D^{-1/2}` over all rows, sparse, shape (n, n).

    ``S`` is the symmetrised softmax at temperature ``tau`` over each row's top ``k`` cosines, itself excluded.

    >>> t = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=1)
    >>> smoothing_operator(t, k=1, tau=0.1).to_dense()
    tensor([[0., 1., 0., 0.],
            [1., 0., 0., 0.],
            [0., 0., 0., 1.],
            [0., 0., 1., 0.]], dtype=torch.float64)
    """
    n = len(t)
    cosine, index = top_neighbours(t, k)  # (n, k)
    weight = torch.where(cosine.isfinite(), torch.softmax(cosine / tau, dim=1), 0.0)
    rows = torch.arange(n, device=t.device).repeat_interleave(index.shape[1])
    cols, half = index.flatten(), weight.flatten().double() / 2
    rows, cols = torch.cat([rows, cols]), torch.cat([cols, rows])
    degree = torch.zeros(n, dtype=torch.float64, device=t.device).index_add_(0, rows, torch.cat([half, half]))
    scale = degree.clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
    values = torch.cat([half, half]) * scale[rows] * scale[cols]
    pairs = torch.stack([rows, cols])
    return torch.sparse_coo_tensor(pairs, values, (n, n), check_invariants=False).coalesce()


def smoothed_cca(
    x: Mapping[str, Tensor],
    dim: int,
    *,
    ridge: float,
    k: int,
    tau: float,
    hops: int = 1,
    rounds: int = ROUNDS,
    present: Mapping[str, Tensor] | None = None,
    scale: bool = True,
    moments: Covariances | None = None,
    background: Covariances | None = None,
    share: float = 0.0,
) -> CanonicalMaps:
    r"""Ridge CCA whose cross-covariance is :math:`X_1^\top (q I + (1 - q) W^h) X_2`, ``W`` mined from its own solution.

    The pairs' own share :math:`q = k / (k + n)` is next to nothing for many rows; for few it keeps the solution near
    ridge CCA: where nearly all rows are neighbours of each other, neighbourhoods say little and are badly mined.

    Starts from ridge CCA on the pairs, mines ``W`` over all rows, solves, mines again. The smoothed modality needs no
    second centring: the other is centred, so a constant shift drops out of the product.

    Args:
        x: two modalities, standardised, each of shape (n, d_m).
        dim: number of directions.
        ridge: relative ridge of every solve; see ``ridge_cca``.
        k: neighbours a row.
        tau: temperature of the affinities.
        hops: h, how many steps the affinities are followed, as that many sparse products.
        rounds: how often to mine and solve.
        present: modality -> rows that have it, shape (n,).
        scale: see ``ridge_cca``.
        moments: covariances of all rows where ``x`` is a sample of them; those of ``x`` where not given.
        background: covariances of background pairs, towards which all others are drawn; see ``blended``.
        share: of the background.

    >>> cause = torch.randn(300, 2)
    >>> x = {m: cause @ torch.randn(2, d) + torch.randn(300, d) for m, d in (("audio", 5), ("visual", 8))}
    >>> maps = smoothed_cca(x, dim=2, ridge=1.0, k=10, tau=0.1)
    >>> maps("audio", x["audio"]).shape
    torch.Size([300, 2])
    """
    moments = moments or covariances(x, present)
    drawn = blended(moments, background, share)
    factors = whitening(drawn.within, ridge)
    maps = solve_whitened(drawn, factors, dim, scale=scale)
    first, second = x
    # W is symmetric, so either side may be smoothed: that with fewer columns.
    narrow = min(x, key=lambda m: x[m].shape[1])
    wide = second if narrow == first else first

    def centred(m: str, rows: slice) -> Tensor:
        kept = x[m][rows].double() - moments.mean[m]
        return kept if present is None else torch.where(present[m][rows, None], kept, 0.0)

    for _ in range(rounds):
        fused = fuse({m: maps(m, rows) for m, rows in x.items()}, present)
        operator = smoothing_operator(fused, k, tau)
        smoothed = centred(narrow, slice(None))  # (n, d of the narrow)
        for _ in range(hops):
            smoothed = torch.sparse.mm(operator, smoothed)
        cross = smoothed.new_zeros(smoothed.shape[1], x[wide].shape[1])
        for start in range(0, len(smoothed), BLOCK):
            here = slice(start, start + BLOCK)
            cross.addmm_(smoothed[here].T, centred(wide, here))
        cross = torch.lerp(
            (cross if narrow == first else cross.T) / len(smoothed), moments.cross, k / (k + len(smoothed))
        )
        drawn = blended(replace(moments, cross=cross), background, share)
        maps = solve_whitened(drawn, factors, dim, scale=scale)
    return maps
