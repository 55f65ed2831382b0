"""Memory of teacher embeddings: more candidates for the local level than one batch holds.

As a queue it keeps the clips embedded last; over all training rows it has one place a row. Embeddings are kept as the
teacher gave them, before any head, so that a new head never makes them stale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """A fixed number of places for teacher embeddings of both modalities.

    Buffers: ``z`` (modalities, size, dim), ``present`` (modalities, size), ``rows`` (size,), the training row in each
    place, -1 while empty, and ``next``, the place that a queue fills next.

    Args:
        modalities: number of modalities.
        size: number of places.
        dim: embedding dimension.

    As a queue of four places that is given three clips twice:

    >>> memory = Memory(modalities=2, size=4, dim=5)
    >>> for first in (0, 3):
    ...     rows = torch.arange(first, first + 3)
    ...     memory.push(torch.ones(2, 3, 5), torch.ones(2, 3, dtype=torch.bool), rows)
    >>> memory.rows
    tensor([4, 5, 2, 3])
    >>> memory.without(torch.tensor([5, 9]))
    tensor([ True, False,  True,  True])
    """

    z: Tensor
    present: Tensor
    rows: Tensor
    next: Tensor

    def __init__(self, modalities: int, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("z", torch.zeros(modalities, size, dim))
        self.register_buffer("present", torch.zeros(modalities, size, dtype=torch.bool))
        self.register_buffer("rows", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def write(self, places: Tensor, z: Tensor, present: Tensor, rows: Tensor) -> None:
        """Put entries in the given places (n,): ``z`` (modalities, n, dim), ``present`` (modalities, n), rows (n,)."""
        self.z[:, places] = z.to(self.z.dtype)
        self.present[:, places] = present
        self.rows[places] = rows

    def without(self, rows: Tensor) -> Tensor:
        """Places that hold none of the training rows (n,), shape (size,), bool."""
        # Not torch.isin: it asks a GPU how many rows differ, which no CUDA graph can.
        ordered = rows.sort().values
        nearest = torch.searchsorted(ordered, self.rows).clamp(max=len(ordered) - 1)  # (size,)
        return ordered[nearest] != self.rows

    def push(self, z: Tensor, present: Tensor, rows: Tensor) -> None:
        """Put a batch in the place of the oldest entries; shapes as for ``write``."""
        size = len(self.rows)
        z, present, rows = z[:, -size:], present[:, -size:], rows[-size:]
        places = (self.next + torch.arange(len(rows), device=rows.device)) % size  # (n,)
        self.write(places, z, present, rows)
        self.next.copy_((self.next + len(rows)) % size)
