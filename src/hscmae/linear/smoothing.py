"""Neighbourhood-smoothed CCA: the local level in closed form.

Affinities are mined over all training rows from a fused embedding, and the cross-covariance is taken between a row
and its partner's *neighbourhood* instead of the partner itself. A wrong pair then counts only through its
neighbours, which is why the method stands up to wrong pairs, and a row that lacks a modality still takes part. Pairs
that are known to be doubtful have weights; a pair of weight 0 is two clips that lack a modality each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.linear.cca import (
    BLOCK,
    CanonicalMaps,
    Covariances,
    blended,
    covariances,
    ridge_cca,
    solve_whitened,
    whitening,
)

# Mining affinities takes time and memory that grow with the square of the rows: callers draw a sample above this.
MAX_ROWS = 50_000
ROUNDS = 2  # affinities from the embedding of ridge CCA, then from that of the first solution
NEIGHBOURS = 50, 200
TAU = 0.1  # temperature of the affinities of embeddings


def neighbourhood(rows: int) -> int:
    """How many neighbours a row has among so many: a tenth, at least 50 and at most 200.

    A kind of clips has more of them in more rows; above 200 nothing is gained and time lost (``docs/decisions.md``,
    2026-11-27).

    >>> neighbourhood(100), neighbourhood(1303), neighbourhood(28792)
    (50, 130, 200)
    """
    least, most = NEIGHBOURS
    return min(max(rows // 10, least), most)


def fuse(z: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
    """Fused embedding ``norm(sum_m norm(z_m))`` over the modalities that a row has; shape (n, dim).

    A row that has none of the modalities becomes the zero vector: it is nobody's neighbour.

    >>> z = {"audio": torch.tensor([[3.0, 0.0], [0.0, 2.0]]), "visual": torch.tensor([[5.0, 0.0], [7.0, 0.0]])}
    >>> fuse(z, {"audio": torch.tensor([True, True]), "visual": torch.tensor([True, False])})
    tensor([[1., 0.],
            [0., 1.]])
    """
    return F.normalize(torch.stack(_units(z, present)).sum(0), dim=1)


def ends(z: Mapping[str, Tensor], weight: Tensor, present: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """The two ends of weighted pairs: each modality fused with the other, as far as the pair is trusted.

    ``norm(z_1 + w z_2)`` and ``norm(w z_1 + z_2)`` of the unit rows; both are ``fuse`` where the weight w is 1.

    Args:
        z: two modalities, each of shape (n, dim).
        weight: w, shape (n,), in [0, 1]; 1 where a row lacks a modality.
        present: modality -> rows that have it, shape (n,); all where not given.

    Returns:
        Shape (n, dim) each.

    >>> z = {"audio": torch.tensor([[3.0, 0.0], [1.0, 0.0]]), "visual": torch.tensor([[0.0, 1.0], [0.0, 1.0]])}
    >>> heard, seen = ends(z, torch.tensor([1.0, 0.0]))
    >>> heard.equal(seen), heard[0].equal(fuse(z)[0])
    (False, True)
    >>> torch.stack([heard[1], seen[1]])
    tensor([[1., 0.],
            [0., 1.]])
    """
    first, second = _units(z, present)
    w = weight[:, None].to(first)
    return F.normalize(first + w * second, dim=1), F.normalize(w * first + second, dim=1)


def _units(z: Mapping[str, Tensor], present: Mapping[str, Tensor] | None) -> list[Tensor]:
    """Rows of each modality at unit norm, (n, dim) each; zero where it is missing."""
    units = {m: F.normalize(rows, dim=1) for m, rows in z.items()}
    return [unit if present is None else torch.where(present[m][:, None], unit, 0.0) for m, unit in units.items()]


def top_neighbours(t: Tensor, k: int, *, among: Tensor | None = None, block: int = 512) -> tuple[Tensor, Tensor]:
    """The k most similar other rows of each row of a unit-norm embedding, exactly, in blocks of rows.

    Args:
        t: fused embedding, shape (n, dim), unit rows (zero rows allowed).
        k: neighbours a row; at most n - 1 are returned.
        among: what is searched, shape (n, dim), row by row of the same clips; ``t`` itself where not given.

    Returns:
        Cosines and row numbers, both of shape (n, min(k, n - 1)), each row descending. A zero row is nobody's
        neighbour and has none: where too few rows are left, the cosine is minus infinity.

    >>> t = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    >>> cosine, index = top_neighbours(t, k=1)
    >>> index.flatten()
    tensor([1, 0, 1])
    """
    n, gallery = len(t), t if among is None else among
    k = min(k, n - 1)
    alive, found = t.any(1), gallery.any(1)
    values, indices = [], []
    for start in range(0, n, block):
        cosine = t[start : start + block] @ gallery.T  # (b, n)
        rows = torch.arange(len(cosine), device=t.device)
        cosine[rows, rows + start] = -torch.inf
        cosine[~alive[start : start + block]] = -torch.inf
        cosine[:, ~found] = -torch.inf
        top = cosine.topk(k, dim=1)
        values.append(top.values)
        indices.append(top.indices)
    return torch.cat(values), torch.cat(indices)


def smoothing_operator(t: Tensor, k: int, tau: float, *, other: Tensor | None = None) -> Tensor:
    r"""Symmetric normalised affinity :math:`D^{-1/2} S D^{-1/2}` over all rows, sparse, shape (n, n).

    ``S`` is the symmetrised softmax at temperature ``tau`` over each row's top ``k`` cosines, itself excluded. Of
    weighted pairs it is between the one end and the other, :math:`(A + B^\top) / 2` with the softmax A over the rows
    of ``t`` among ``other`` and B over those of ``other`` among ``t``, and its degrees are those of either side.

    >>> t = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=1)
    >>> smoothing_operator(t, k=1, tau=0.1).to_dense()
    tensor([[0., 1., 0., 0.],
            [1., 0., 0., 0.],
            [0., 0., 0., 1.],
            [0., 0., 1., 0.]], dtype=torch.float64)
    """
    n = len(t)
    there, half = _affinities(t, k, tau, other)  # (n * k,) each
    back, half_back = (there, half) if other is None else _affinities(other, k, tau, t)
    of = torch.arange(n, device=t.device).repeat_interleave(len(there) // n)
    rows, cols, values = torch.cat([of, back]), torch.cat([there, of]), torch.cat([half, half_back])
    scale = _scale(values, rows, n)
    values = values * scale[rows] * (scale if other is None else _scale(values, cols, n))[cols]
    pairs = torch.stack([rows, cols])
    return torch.sparse_coo_tensor(pairs, values, (n, n), check_invariants=False).coalesce()


def _affinities(t: Tensor, k: int, tau: float, among: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each row's neighbours and half of their affinities, one row after the other, (n * k,)."""
    cosine, index = top_neighbours(t, k, among=among)  # (n, k)
    weight = torch.where(cosine.isfinite(), torch.softmax(cosine / tau, dim=1), 0.0)
    return index.flatten(), weight.flatten().double() / 2


def _scale(values: Tensor, side: Tensor, n: int) -> Tensor:
    """One over the root of the degree of each of n clips on one side of the affinities."""
    degree = torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, side, values)
    return degree.clamp(min=torch.finfo(torch.float64).tiny).rsqrt()


def smoothed_cca(
    x: Mapping[str, Tensor],
    dim: int,
    *,
    ridge: float,
    k: int = 0,
    tau: float,
    hops: int = 1,
    rounds: int = ROUNDS,
    present: Mapping[str, Tensor] | None = None,
    weight: Tensor | None = None,
    scale: bool = True,
    moments: Covariances | None = None,
    background: Covariances | None = None,
    share: float = 0.0,
) -> CanonicalMaps:
    r"""Ridge CCA whose cross-covariance is :math:`X_1^\top (q I + (1 - q) W^h) X_2`, ``W`` mined from its own solution.

    The pairs' own share :math:`q = k / (k + n)` is next to nothing for many rows; for few it keeps the solution near
    ridge CCA: where nearly all rows are neighbours of each other, neighbourhoods say little and are badly mined.

    Starts from ridge CCA on the pairs, mines ``W`` over all rows, solves, mines again. Of weighted pairs ``W`` is
    between their two ends (``ends``), and their own cross-covariance is the weighted one. The smoothed modality needs
    no second centring: the other is centred, so a constant shift drops out of the product.

    Args:
        x: two modalities, standardised, each of shape (n, d_m).
        dim: number of directions.
        ridge: relative ridge of every solve; see ``ridge_cca``.
        k: neighbours a row; 0: ``neighbourhood`` of the rows.
        tau: temperature of the affinities.
        hops: h, how many steps the affinities are followed, as that many sparse products.
        rounds: how often to mine and solve.
        present: modality -> rows that have it, shape (n,).
        weight: the chance of each pair that it is right, shape (n,); 1 where not given.
        scale: see ``ridge_cca``.
        moments: covariances of all rows where ``x`` is a sample of them, so weighted; those of ``x`` where not given.
        background: covariances of background pairs, towards which all others are drawn; see ``blended``.
        share: of the background.

    >>> cause = torch.randn(300, 2)
    >>> x = {m: cause @ torch.randn(2, d) + torch.randn(300, d) for m, d in (("audio", 5), ("visual", 8))}
    >>> maps = smoothed_cca(x, dim=2, ridge=1.0, k=10, tau=0.1)
    >>> maps("audio", x["audio"]).shape
    torch.Size([300, 2])
    """
    moments = moments or covariances(x, present, weight)
    k = k or neighbourhood(len(next(iter(x.values()))))
    drawn = blended(moments, background, share)
    factors = whitening(drawn.within, ridge)
    maps = solve_whitened(drawn, factors, dim, scale=scale)
    n = len(next(iter(x.values())))
    for _ in range(rounds):
        z = {m: maps(m, rows) for m, rows in x.items()}
        cross = torch.lerp(_smoothed_cross(x, z, moments, k, tau, hops, present, weight), moments.cross, k / (k + n))
        drawn = blended(replace(moments, cross=cross), background, share)
        maps = solve_whitened(drawn, factors, dim, scale=scale)
    return maps


def refined_cca(
    z: Mapping[str, Tensor],
    dim: int,
    *,
    ridge: float,
    present: Mapping[str, Tensor] | None = None,
    weight: Tensor | None = None,
) -> CanonicalMaps:
    r"""CCA of embeddings that are good already: of pairs and of neighbourhoods, half and half.

    The cross-covariance is :math:`Z_1^\top (I + W) Z_2 / 2`, ``W`` mined from the embeddings themselves, once. What it
    gains over them comes from solving again in few dimensions, where little of a ridge is needed; with wrong pairs
    that is more than the pairs can bear (``docs/decisions.md``, 2026-11-27).

    Args:
        z: embeddings of two modalities, each of shape (n, d); counted by their directions.
        dim: number of directions.
        ridge: see ``ridge_cca``.
        present: modality -> rows that have it, shape (n,).
        weight: see ``smoothed_cca``.

    Returns:
        Maps of unit rows.

    >>> cause = torch.randn(300, 2)
    >>> z = {m: cause @ torch.randn(2, 8) + torch.randn(300, 8) for m in ("audio", "visual")}
    >>> refined_cca(z, dim=2, ridge=1.0)("audio", F.normalize(z["audio"], dim=1)).shape
    torch.Size([300, 2])
    """
    unit = {m: F.normalize(rows, dim=1) for m, rows in z.items()}
    moments = covariances(unit, present, weight)
    k = neighbourhood(len(next(iter(unit.values()))))
    cross = torch.lerp(_smoothed_cross(unit, unit, moments, k, TAU, 1, present, weight), moments.cross, 0.5)
    return ridge_cca(replace(moments, cross=cross), dim, ridge)


def _smoothed_cross(
    x: Mapping[str, Tensor],
    z: Mapping[str, Tensor],
    moments: Covariances,
    k: int,
    tau: float,
    hops: int,
    present: Mapping[str, Tensor] | None,
    weight: Tensor | None,
) -> Tensor:
    """Cross-covariance of rows (n, d_m) and their partners' neighbourhoods, as the embeddings z mine them."""
    first, second = x
    # Either side may be smoothed, by W or its transpose: that with fewer columns.
    narrow = min(x, key=lambda m: x[m].shape[1])
    wide = second if narrow == first else first

    def centred(m: str, rows: slice) -> Tensor:
        kept = x[m][rows].double() - moments.mean[m]
        return kept if present is None else torch.where(present[m][rows, None], kept, 0.0)

    if weight is None:
        operator = smoothing_operator(fuse(z, present), k, tau)
    else:
        one, other = ends(z, weight, present)
        operator = smoothing_operator(one, k, tau, other=other)
        operator = operator.T.coalesce() if narrow == first else operator
    smoothed = centred(narrow, slice(None))  # (n, d of the narrow)
    for _ in range(hops):
        smoothed = torch.sparse.mm(operator, smoothed)
    cross = smoothed.new_zeros(smoothed.shape[1], x[wide].shape[1])
    for start in range(0, len(smoothed), BLOCK):
        here = slice(start, start + BLOCK)
        cross.addmm_(smoothed[here].T, centred(wide, here))
    return (cross if narrow == first else cross.T) / len(smoothed)
