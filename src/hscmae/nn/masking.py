"""Masking of feature values for the MAE path: a share of each sample's values is set to zero.

Features are centred, so zero is each feature's mean. Which share is best differs from features to features (from 0.3
to 0.85 among those tried), so by default each sample's own is drawn at random.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hscmae.streams import Noise


def mask_values(x: Tensor, ratio: float, noise: Noise, modality: str, *, spread: float = 0.0) -> tuple[Tensor, Tensor]:
    """Hide each value independently with probability ``ratio``, or with one drawn for its row around it.

    Args:
        x: centred features, shape (n, d).
        ratio: expected share of hidden values, in [0, 1).
        spread: a row's probability is uniform between ``ratio - spread`` and ``ratio + spread``, cut to [0, 1].
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
    share: float | Tensor = ratio
    if spread:
        drawn = noise.uniform(f"mask ratio/{modality}", x[:, :1])  # (n, 1)
        share = torch.lerp(drawn.new_tensor(ratio - spread), drawn.new_tensor(ratio + spread), drawn).clamp(0, 1)
    visible = noise.keep(f"mask/{modality}", x, 1 - share)  # (n, d)
    return x * visible, visible
