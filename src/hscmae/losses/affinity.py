"""Soft top-k affinities mined by the teacher: the local level's targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Soft positives of each sample.

    Attributes:
        index: candidate numbers, shape (n, k).
        weight: W, shape (n, k); rows sum to 1, or to 0 where a sample has no neighbour at all.
    """

    index: Tensor
    weight: Tensor

    def restricted_to(self, valid: Tensor) -> Neighbours:
        """The same with the weight of invalid candidates (``valid`` (m,), bool) given to the valid ones."""
        weight = self.weight * valid[self.index]
        return Neighbours(self.index, weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny))


@torch.no_grad()
def mine_neighbours(fused: Tensor, candidates: Tensor, exclude: Tensor, *, k: int, tau: float) -> Neighbours:
    r"""Top-k cosine affinities, softened.

    .. math:: W_{ij} = \operatorname{softmax}_{j \in \operatorname{top}_k(i)}(t_i \cdot t_j / \tau)

    Args:
        fused: teacher's fused embeddings of the batch, shape (n, dim), unit rows; a zero row has no neighbours.
        candidates: fused embeddings of the candidates, shape (m, dim); a zero row is nobody's neighbour.
        exclude: pairs that are the same clip, shape (n, m), bool.
        k: neighbours a sample; fewer where fewer candidates are left.
        tau: temperature of the soft positives.
    """
    cosine = fused @ candidates.T
    alive = candidates.any(1)
    cosine = cosine.masked_fill(exclude | ~alive, -torch.inf)
    top = cosine.topk(min(k, len(candidates)), dim=1)
    weight = torch.softmax(top.values / tau, dim=1)
    usable = torch.isfinite(top.values) & fused.any(1, keepdim=True)
    # A row without any candidate is all -inf, whose softmax is not a number.
    return Neighbours(top.indices, torch.where(usable, weight, 0.0))
