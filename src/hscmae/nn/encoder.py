"""Encoder ``f_m`` and decoder ``g_m``: plain multi-layer perceptrons on feature vectors.

No batch statistics anywhere: a row's embedding must not depend on its batch, and several processes must agree.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hscmae.streams import Noise


class Encoder(nn.Module):
    """``h = f(x)``: ``depth`` layers of linear, layer norm, GELU, dropout; (n, d) -> (n, width).

    Args:
        dim: feature dimension d.
        width: hidden width.
        depth: number of layers.
        dropout: share of hidden units dropped where a forward pass is given ``noise``.

    >>> import torch
    >>> encoder, x = Encoder(12, width=8, depth=2, dropout=0.5), torch.ones(3, 12)
    >>> encoder(x).shape
    torch.Size([3, 8])
    >>> torch.equal(encoder(x), encoder(x)), bool((encoder(x, Noise(seed=0, step=0)) == 0).any())
    (True, True)
    """

    def __init__(self, dim: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        sizes = [dim] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.dropout = dropout

    def forward(self, x: Tensor, noise: Noise | None = None, purpose: str = "") -> Tensor:
        """Encode; dropout acts only where ``noise`` is given, drawn under ``purpose``."""
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = F.gelu(norm(layer(x)))  # (n, width)
            if noise is not None and self.dropout > 0:
                keep = 1 - self.dropout
                x = x * noise.keep(f"dropout/{purpose}/{i}", x, keep) / keep
        return x


def decoder(width: int, dim: int, depth: int) -> nn.Sequential:
    """``x = g(h)``: ``depth - 1`` hidden layers with GELU, then a linear layer; (n, width) -> (n, dim).

    >>> import torch
    >>> decoder(width=8, dim=12, depth=2)(torch.ones(3, 8)).shape
    torch.Size([3, 12])
    """
    hidden: list[nn.Module] = []
    for _ in range(depth - 1):
        hidden += [nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*hidden, nn.Linear(width, dim))
