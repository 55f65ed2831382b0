"""Soft top-k affinities mined by the teacher: the local level's targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Numbers in a block of the (n, m) matrices between samples: a few MB that stay near the processor, or fill a GPU.
BLOCK, GPU_BLOCK = 1 << 19, 1 << 26


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Soft positives of each sample.

    Attributes:
        index: candidate numbers, shape (n, k).
        weight: W, shape (n, k); rows sum to 1, or to 0 where a sample has no neighbour at all.

    >>> Neighbours(index=torch.tensor([[1, 2], [0, 2]]), weight=torch.tensor([[0.9, 0.1], [0.5, 0.5]])).index.shape
    torch.Size([2, 2])
    """

    index: Tensor
    weight: Tensor

    def restricted_to(self, valid: Tensor) -> Neighbours:
        """The same with the weight of invalid candidates (``valid`` (m,), bool) given to the valid ones.

        >>> three = Neighbours(torch.tensor([[0, 1, 2]]), torch.tensor([[0.5, 0.25, 0.25]]))
        >>> three.restricted_to(torch.tensor([False, True, True])).weight
        tensor([[0.0000, 0.5000, 0.5000]])
        """
        weight = self.weight * valid[self.index]  # (n, k)
        return Neighbours(self.index, weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny))


@torch.no_grad()
def mine_neighbours(fused: Tensor, candidates: Tensor, itself: Tensor, *, k: int, tau: float) -> Neighbours:
    r"""Top-k cosine affinities, softened.

    .. math:: W_{ij} = \operatorname{softmax}_{j \in \operatorname{top}_k(i)}(t_i \cdot t_j / \tau)

    Args:
        fused: teacher's fused embeddings of the batch, shape (n, dim), unit rows; a zero row has no neighbours.
        candidates: fused embeddings of the candidates, shape (m, dim); a zero row is nobody's neighbour.
        itself: which candidate each sample is, shape (n,), int64; it is not its own neighbour.
        k: neighbours a sample; fewer where fewer candidates are left.
        tau: temperature of the soft positives.

    A clip between two others has both, equally; they have it far more than each other:

    >>> t = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), dim=1)
    >>> mined = mine_neighbours(t, t, torch.arange(3), k=2, tau=0.1)
    >>> mined.weight[1].allclose(torch.tensor(0.5)), bool(mined.weight[0][mined.index[0] == 1] > 0.99)
    (True, True)
    """
    k = min(k, len(candidates))
    offset = torch.where(candidates.any(1), 0.0, -torch.inf).to(fused.dtype)  # (m,)
    index = torch.empty(len(fused), k, dtype=torch.long, device=fused.device)  # (n, k)
    value = fused.new_empty(len(fused), k)  # (n, k)
    for rows in row_blocks(fused, candidates):
        cosine = (fused[rows] @ candidates.T).add_(offset).scatter_(1, itself[rows, None], -torch.inf)  # (b, m)
        index[rows] = _largest(cosine, k)
        value[rows] = cosine.gather(1, index[rows])
    usable = torch.isfinite(value) & fused.any(1, keepdim=True)  # (n, k)
    # A row without any candidate is all -inf, whose softmax is not a number.
    return Neighbours(index, torch.where(usable, torch.softmax(value / tau, dim=1), 0.0))


def row_blocks(rows: Tensor, columns: Tensor) -> Iterator[slice]:
    """Slices of ``rows`` so small that their products with all ``columns`` take little memory.

    >>> [rows.stop for rows in row_blocks(torch.zeros(1000, 2), torch.zeros(1024, 2))]
    [512, 1024]
    """
    size = max(1, (BLOCK if rows.device.type == "cpu" else GPU_BLOCK) // max(1, len(columns)))
    for start in range(0, len(rows), size):
        yield slice(start, start + size)


def _largest(scores: Tensor, k: int) -> Tensor:
    # numpy's selection runs on vector registers: three times as fast as torch's, sorted or not.
    if scores.device.type == "cpu":
        return torch.from_numpy(np.argpartition(scores.numpy(), scores.shape[1] - k, axis=1)[:, -k:])
    return scores.topk(k, dim=1, sorted=False).indices
