"""Contrastive losses: affinity-weighted InfoNCE (the local level); of baselines, symmetric InfoNCE and SoftCLIP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.losses.affinity import Neighbours, row_blocks


def affinity_infonce(
    query: Tensor,
    keys: Tensor,
    neighbours: Neighbours,
    *,
    tau: float = 0.1,
    pair_share: float = 0.0,
    mask_pair: bool = False,
    query_valid: Tensor | None = None,
    key_valid: Tensor | None = None,
    first: int = 0,
    total: Callable[[Tensor], Tensor] = lambda own: own,
) -> Tensor:
    r"""InfoNCE with soft positives, one direction. Minimised; at least 0 for every row.

    .. math::
        L = -\frac{1}{n}\sum_{ij} W'_{ij} \log \frac{\exp(q_i \cdot k_j / \tau)}{\sum_l \exp(q_i \cdot k_l / \tau)},
        \qquad W' = (1 - p) W + p I

    Key ``first + i`` for ``i < n`` is query ``i``'s own pair. It is a negative (``pair_share`` 0), a positive of weight
    ``pair_share``, or, with ``mask_pair``, left out of the denominator: three different methods. A row without
    neighbours keeps only its own pair's share; with none of either it takes no part in the mean.

    The logits are made in blocks of rows, each with its gradient, so that no (n, m) matrix is ever kept.

    Args:
        query: student embeddings of one modality, shape (n, dim); normalised here.
        keys: embeddings of the other modality, shape (m, dim), m >= n; normalised here.
        neighbours: soft positives among the keys.
        tau: temperature.
        pair_share: p, in [0, 1].
        mask_pair: take a sample's own pair out of the denominator; needs ``pair_share`` 0.
        query_valid: rows whose query exists, shape (n,), bool.
        key_valid: keys that exist, shape (m,), bool; the others are neither positive nor negative.
        first: the key that is the first query's pair, where the queries are one process's share of a global batch.
        total: sums over processes what is summed over their queries.

    Raises:
        ValueError: ``mask_pair`` together with a positive ``pair_share``.

    Relations:
        ``pair_share`` 1 is InfoNCE (van den Oord et al. 2018); soft targets as in SoftCLIP (Gao et al. 2023).

    >>> z = torch.eye(3)  # three clips, each unlike the others
    >>> nearest = Neighbours(torch.tensor([[1], [2], [0]]), torch.ones(3, 1))
    >>> far = affinity_infonce(z, z, nearest, tau=0.1)
    >>> near = affinity_infonce(z, z[[2, 0, 1]], nearest, tau=0.1)  # a key for its neighbour, of the same direction
    >>> bool(near < far)
    True
    >>> own_pair = affinity_infonce(z, z, nearest, tau=1.0, pair_share=1.0)
    >>> own_pair.allclose(F.cross_entropy(z @ z.T, torch.arange(3)))
    True
    """
    if mask_pair and pair_share > 0:
        raise ValueError("a pair that is left out of the denominator cannot have a share: set pair_share to 0")
    own = torch.arange(first, first + len(query), device=query.device)  # (n,)
    soft = neighbours if key_valid is None else neighbours.restricted_to(key_valid)
    index, weight = soft.index, soft.weight  # (n, k), with the own pair (n, k + 1)
    if pair_share > 0:
        pair = torch.full_like(weight[:, :1], pair_share)  # (n, 1)
        if key_valid is not None:
            pair = pair * key_valid[own, None]
        index, weight = torch.cat([index, own[:, None]], 1), torch.cat([(1 - pair_share) * weight, pair], 1)
    if query_valid is not None:
        weight = weight * query_valid[:, None]
    q, k = F.normalize(query, dim=1), F.normalize(keys, dim=1)  # (n, dim), (m, dim)
    offset = None if key_valid is None else torch.where(key_valid, 0.0, -torch.inf).to(q.dtype)  # (m,)
    summed: Tensor = _SoftCrossEntropy.apply(  # type: ignore[no-untyped-call]
        q, k, index, weight, tau, offset, own if mask_pair else None
    )
    sums = total(torch.stack([summed, weight.sum()]))
    return sums[0] / sums[1].clamp(min=torch.finfo(weight.dtype).tiny)


class _SoftCrossEntropy(torch.autograd.Function):
    r""":math:`-\sum_{ij} W_{ij} \log \mathrm{softmax}_j(q_i \cdot k_j / \tau)`, with its gradient made beside it.

    The derivative by a logit is :math:`|W_i| p_{ij} - W_{ij}`; it needs the softmax that the loss has at hand anyway.
    ``offset`` (m,) is minus infinity for keys that are not in the denominator; each query's ``own`` key (n,), where
    given, is not either.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        index: Tensor,
        weight: Tensor,
        tau: float,
        offset: Tensor | None,
        own: Tensor | None,
    ) -> Tensor:
        loss, dq, dk = q.new_zeros(()), torch.empty_like(q), torch.zeros_like(k)  # (), (n, dim), (m, dim)
        for rows in row_blocks(q, k):
            scaled, w = q[rows] / tau, weight[rows]  # (b, dim), (b, k)
            logits = scaled @ k.T  # (b, m)
            mass = w.sum(1, keepdim=True)  # (b, 1)
            attraction = (w * logits.gather(1, index[rows])).sum()
            if offset is not None:
                logits += offset
            if own is not None:
                logits.scatter_(1, own[rows, None], -torch.inf)
            # A row without any key has an infinite log-sum; it has no mass either.
            log_sum = torch.where(mass > 0, logits.logsumexp(1, keepdim=True), 0.0)  # (b, 1)
            loss += (mass * log_sum).sum() - attraction
            slope = logits.sub_(log_sum).exp_().mul_(mass).scatter_add_(1, index[rows], -w)  # (b, m)
            torch.mm(slope, k / tau, out=dq[rows])
            dk.addmm_(slope.T, scaled)
        ctx.save_for_backward(dq, dk)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dq, dk = ctx.saved_tensors
        return gradient * dq, gradient * dk, None, None, None, None, None


def infonce(z1: Tensor, z2: Tensor, *, tau: float = 0.07, valid: Tensor | None = None) -> Tensor:
    r"""Symmetric InfoNCE of a dual encoder (CLIP, Radford et al. 2021), both directions averaged.

    Args:
        z1: embeddings of one modality, shape (n, dim); normalised here.
        z2: embeddings of the other, shape (n, dim); row i of both is a pair.
        tau: temperature.
        valid: rows that have both modalities, shape (n,), bool.

    Pairs that agree cost little, pairs swapped much; a batch whose embeddings are all alike costs log n:

    >>> z = torch.eye(4)
    >>> bool(infonce(z, z) < 0.01), bool(infonce(z, z.flip(0)) > 10)
    (True, True)
    >>> torch.exp(infonce(torch.ones(4, 2), torch.ones(4, 2))).round()
    tensor(4.)
    """
    if valid is not None:
        z1, z2 = z1[valid], z2[valid]
    logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / tau  # (n, n)
    target = torch.arange(len(logits), device=logits.device)  # (n,)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def softclip(
    z1: Tensor,
    z2: Tensor,
    *,
    tau: float = 0.07,
    soft_share: float = 0.3,
    tau_target: float = 0.1,
    valid: Tensor | None = None,
) -> Tensor:
    r"""Symmetric InfoNCE with targets softened by similarities within a modality (SoftCLIP, Gao et al. 2023).

    .. math::
        L_{12} = -\frac{1}{n}\sum_{ij} Q_{ij} \log \operatorname{softmax}_j\frac{z_{1,i} \cdot z_{2,j}}{\tau},\qquad
        Q_{ij} = (1 - s)\,[i = j] + s \operatorname{softmax}_j\frac{z_{1,i} \cdot z_{1,j}}{\tau_Q}

    and likewise from the other modality; the two are averaged. No gradient flows through the targets. The paper's
    divergence from the targets has the same gradient.

    Args:
        z1: embeddings of one modality, shape (n, dim); normalised here.
        z2: embeddings of the other, shape (n, dim); row i of both is a pair.
        tau: temperature.
        soft_share: s, in [0, 1]; 0 is InfoNCE.
        tau_target: temperature of the soft targets, the sample itself among them.
        valid: rows that have both modalities, shape (n,), bool.

    With hard targets it is InfoNCE; with soft ones, clips that are alike within a modality may agree across:

    >>> z1, z2 = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.eye(3)[:, :2]
    >>> softclip(z1, z2, tau=1.0, soft_share=0.0).allclose(infonce(z1, z2, tau=1.0))
    True
    >>> bool(softclip(z1, z1, soft_share=0.5) < softclip(z1, z1.flip(0), soft_share=0.5))
    True
    """
    if valid is not None:
        z1, z2 = z1[valid], z2[valid]
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)  # (n, dim)
    logits = z1 @ z2.T / tau  # (n, n)
    own = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)  # (n, n)
    there, back = ((1 - soft_share) * own + soft_share * (z @ z.T / tau_target).softmax(1).detach() for z in (z1, z2))
    return (F.cross_entropy(logits, there) + F.cross_entropy(logits.T, back)) / 2
