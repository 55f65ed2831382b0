"""Sample level: masked reconstruction, on hidden values only."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_reconstruction(
    predicted: Tensor, x: Tensor, visible: Tensor, present: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Squared error summed over hidden values, and their number.

    .. math:: L = \frac{\sum_{ij} (1 - v_{ij})(\hat x_{ij} - x_{ij})^2}{\sum_{ij} (1 - v_{ij})}

    The two sums are returned apart, so that the mean is over the hidden values of *all* modalities and processes.

    Args:
        predicted: decoder output, shape (n, d).
        x: unmasked standardised features, shape (n, d).
        visible: 1 where a value was shown, 0 where it was hidden, shape (n, d).
        present: rows that have the modality, shape (n,), bool.

    Returns:
        Sum of squared errors and count of hidden values, both scalars.
    """
    hidden = 1 - visible
    if present is not None:
        hidden = hidden * present[:, None]
        x = torch.where(present[:, None], x, 0.0)
    return ((predicted - x).square() * hidden).sum(), hidden.sum()
