"""Contrastive losses: affinity-weighted InfoNCE (the local level); of baselines, symmetric InfoNCE and SoftCLIP."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.losses.affinity import Neighbours


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
    """
    if mask_pair and pair_share > 0:
        raise ValueError("a pair that is left out of the denominator cannot have a share: set pair_share to 0")
    n, m = len(query), len(keys)
    logits = F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T / tau
    row = torch.arange(n, device=query.device)
    own = row + first
    if key_valid is None:
        key_valid = torch.ones(m, dtype=torch.bool, device=query.device)
    compared = logits.masked_fill(~key_valid, -torch.inf)
    if mask_pair:
        compared = compared.masked_fill(own[:, None] == torch.arange(m, device=query.device), -torch.inf)
    log_sum = compared.logsumexp(1)

    soft = neighbours.restricted_to(key_valid)
    pair_weight = pair_share * key_valid[own].to(logits.dtype)
    soft_weight = (1 - pair_share) * soft.weight
    attraction = (soft_weight * logits.gather(1, soft.index)).sum(1) + pair_weight * logits[row, own]
    mass = soft_weight.sum(1) + pair_weight
    takes_part = mass > 0
    if query_valid is not None:
        takes_part = takes_part & query_valid
    # ``where`` on the inputs, not the product: a row without any key has an infinite log-sum.
    per_row = torch.where(takes_part, mass * torch.where(takes_part, log_sum, 0.0) - attraction, 0.0)
    mass = torch.where(takes_part, mass, 0.0)
    sums = total(torch.stack([per_row.sum(), mass.sum()]))
    return sums[0] / sums[1].clamp(min=torch.finfo(mass.dtype).tiny)


def infonce(z1: Tensor, z2: Tensor, *, tau: float = 0.07, valid: Tensor | None = None) -> Tensor:
    r"""Symmetric InfoNCE of a dual encoder (CLIP, Radford et al. 2021), both directions averaged.

    Args:
        z1: embeddings of one modality, shape (n, dim); normalised here.
        z2: embeddings of the other, shape (n, dim); row i of both is a pair.
        tau: temperature.
        valid: rows that have both modalities, shape (n,), bool.
    """
    if valid is not None:
        z1, z2 = z1[valid], z2[valid]
    logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / tau
    target = torch.arange(len(logits), device=logits.device)
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
    """
    if valid is not None:
        z1, z2 = z1[valid], z2[valid]
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    logits = z1 @ z2.T / tau
    own = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
    there, back = ((1 - soft_share) * own + soft_share * (z @ z.T / tau_target).softmax(1).detach() for z in (z1, z2))
    return (F.cross_entropy(logits, there) + F.cross_entropy(logits.T, back)) / 2
