"""Anchors: fused embeddings of training clips, to which an embedding attends at the end.

The local level's soft neighbours, carried to clips never seen: an embedding of one modality leans towards the training
clips that it is close to, whose embeddings hold both modalities. What two clips of a kind have in common survives the
averaging, the noise of either does not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 512  # so many rows' cosines with all anchors stay near the processor
MIN_TAU = 0.05  # from here on neither exp(1/tau) nor exp(-1/tau) comes near what float32 can hold


def attend(z: Tensor, anchors: Tensor, *, tau: float, share: float) -> Tensor:
    r"""Lean towards the anchors.

    .. math::
        z' = (1 - p)\,\hat z + p\,\frac{y}{\lVert y \rVert}, \qquad
        y = \operatorname{softmax}(\hat z T^\top / \tau)\,T

    One step of a modern Hopfield network (Ramsauer et al. 2021), or of mean shift on the sphere. A row of zeros stays
    zero where all anchors cancel, and is otherwise drawn to their mean.

    Args:
        z: embeddings, shape (n, dim), of any norm.
        anchors: T, fused embeddings of training clips, shape (m, dim), unit rows.
        tau: temperature.
        share: p, in [0, 1].

    Returns:
        Shape (n, dim), of norm at most 1.

    >>> anchors = torch.eye(2)
    >>> attend(torch.tensor([[3.0, 1.0]]), anchors, tau=0.01, share=1.0).round()  # the nearest anchor
    tensor([[1., 0.]])
    >>> z = torch.nn.functional.normalize(torch.tensor([[3.0, 1.0]]), dim=1)
    >>> attend(z, anchors, tau=0.1, share=0.0).allclose(z)
    True
    """
    z = F.normalize(z, dim=1)  # (n, dim)
    keys = anchors.T / tau  # (dim, m)
    drawn = torch.cat([_weights(rows @ keys, tau) @ anchors for rows in torch.split(z, ROWS)])  # (n, dim)
    return torch.lerp(z, F.normalize(drawn, dim=1), share)  # (n, dim)


def _weights(logits: Tensor, tau: float) -> Tensor:  # (b, m) -> (b, m), in place
    # A softmax less its passes that give the sum 1 (the drawn vector is normalised anyway) and find the maximum.
    if tau < MIN_TAU:
        logits -= logits.amax(1, keepdim=True)
    return logits.exp_()
