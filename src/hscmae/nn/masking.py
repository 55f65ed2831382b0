"""Masking of feature values for the MAE path: a share of each sample's values is set to zero.

Features are standardised, so zero is each feature's mean.
"""

from __future__ import annotations

from torch import Tensor

from hscmae.streams import Noise


def mask_values(x: Tensor, ratio: float, noise: Noise, modality: str) -> tuple[Tensor, Tensor]:
    """Hide each value independently with probability ``ratio``.

    Args:
        x: standardised features, shape (n, d).
        ratio: expected share of hidden values, in [0, 1).
        noise: the step's random patterns.
        modality: whose features these are; each modality has a stream of its own.

    Returns:
        Features with hidden values zeroed, and the pattern of visible values (1 visible, 0 hidden), both (n, d).

    >>> import torch
    >>> x = torch.randn(100, 50)
    >>> shown, visible = mask_values(x, 0.75, Noise(seed=0, step=0), "audio")
    >>> torch.equal(shown, x * visible), abs(visible.mean().item() - 0.25) < 0.02
    (True, True)
    """
    visible = noise.keep(f"mask/{modality}", x, 1 - ratio)  # (n, d)
    return x * visible, visible
