"""Sample level: masked reconstruction, on hidden values only."""

from __future__ import annotations

from typing import Any

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

    >>> x, visible = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    >>> masked_reconstruction(torch.zeros(2, 2), x, visible)
    (tensor(29.), tensor(3.))
    >>> masked_reconstruction(torch.zeros(2, 2), x, visible, present=torch.tensor([True, False]))
    (tensor(4.), tensor(1.))
    """
    if present is None:
        squares: Tensor = _HiddenSquares.apply(predicted, x, visible)  # type: ignore[no-untyped-call]
        return squares, (visible.numel() - visible.sum()).to(visible.dtype)
    shown = visible.masked_fill(~present[:, None], 1.0)  # (n, d)
    return masked_reconstruction(predicted, x.masked_fill(~present[:, None], 0.0), shown)


class _HiddenSquares(torch.autograd.Function):
    r""":math:`\sum_{ij} (1 - v_{ij})(\hat x_{ij} - x_{ij})^2` in few passes over memory, which is what it costs."""

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        error = predicted - x  # (n, d)
        error.addcmul_(error, visible, value=-1)
        ctx.save_for_backward(error)
        return torch.dot(error.flatten(), error.flatten())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (error,) = ctx.saved_tensors
        return (2 * gradient) * error, None, None
