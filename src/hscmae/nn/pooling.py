"""Pooling of sequences to one vector a clip inside the network, over valid steps alone.

It runs before everything else, so that encoders, decoders and canonical maps see vectors as they do without sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hscmae.streams import Noise


class Pooling(nn.Module):
    r"""Mean, maximum, or learned attention over the valid steps of a sequence.

    Attention (Ilse, Tomczak, Welling 2018, with a linear score): :math:`\sum_t a_t x_t`,
    :math:`a = \mathrm{softmax}_t(w \cdot x_t / \sqrt d)`. It begins at :math:`w = 0`, which is the mean.

    Args:
        dim: feature dimension d.
        how: "mean", "max" or "attention".

    >>> x, valid = torch.tensor([[[1.0], [3.0], [100.0]]]), torch.tensor([[True, True, False]])
    >>> [Pooling(1, how)(x, valid).item() for how in ("mean", "max", "attention")]
    [2.0, 3.0, 2.0]
    """

    def __init__(self, dim: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.score = nn.Parameter(torch.zeros(dim)) if how == "attention" else None

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Pool ``x`` (n, t, d) over the steps that ``valid`` (n, t) marks; vectors (n, d) are returned as they are.

        A row without valid steps gives zeros. What the other steps hold never matters, as long as it is finite.
        Products are written out by element, so that autocast leaves them in float32.
        """
        if x.ndim == 2:
            return x
        if valid is None:
            valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if self.how == "max":
            highest = x.masked_fill(~valid[:, :, None], -torch.inf).amax(1)  # (n, d)
            return torch.where(valid.any(1, keepdim=True), highest, 0.0)
        scores = x.new_zeros(valid.shape) if self.score is None else (x * self.score).sum(2) / x.shape[2] ** 0.5
        weights = scores.masked_fill(~valid, torch.finfo(x.dtype).min).softmax(1) * valid  # (n, t)
        return (weights[:, :, None] * x).sum(1)


def hide_steps(valid: Tensor, ratio: float, noise: Noise, modality: str) -> Tensor:
    """Hide a share of each clip's whole steps, drawn at random.

    Args:
        valid: valid steps, shape (n, t), bool.
        ratio: share of a clip's valid steps that is hidden, rounded down, so that one is always left.
        noise: the step's random patterns.
        modality: whose steps these are; each modality has a stream of its own.

    Returns:
        The steps that stay visible, shape (n, t), bool.

    >>> valid = torch.arange(4) < torch.tensor([[4], [3], [1]])
    >>> hide_steps(valid, 0.5, Noise(seed=0, step=0), "audio").sum(1)
    tensor([2, 2, 1])
    """
    place = noise.uniform(f"steps/{modality}", valid).masked_fill(~valid, 2.0).argsort(1).argsort(1)  # (n, t)
    hidden = (ratio * valid.sum(1)).floor()  # (n,)
    return valid & (place >= hidden[:, None])
