"""Weights that balance the losses, learned or fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BOUND = 2.0


class LossWeights(nn.Module):
    r"""Homoscedastic weighting (Kendall et al. 2018): :math:`\sum_i e^{-w_i} L_i + w_i`, each ``w_i`` in [-2, 2].

    Fixed weights :math:`\lambda_i` give :math:`\sum_i \lambda_i L_i`. Learned ones start at
    :math:`w_i = -\log \lambda_i` (bounded). Every loss must be at least 0: a negative one has no minimum.

    Args:
        initial: loss name -> weight; a weight of 0 removes the loss, and it gets no parameter.
        learned: learn the weights. The optimiser must give them no weight decay.

    Recommendations:
        Learned weights drive every term towards the same size, so that an almost solved loss gets the largest
        weight; compare with fixed ones.

    >>> weights = LossWeights({"global": 1.0, "local": 0.5, "sample": 0.0}, learned=False)
    >>> weights({"global": torch.tensor(2.0), "local": torch.tensor(4.0)})
    tensor(4.)
    >>> weights.current()
    {'global': 1.0, 'local': 0.5}
    >>> len(list(LossWeights({"global": 1.0, "local": 0.5, "sample": 0.0}, learned=True).parameters()))
    2
    """

    def __init__(self, initial: Mapping[str, float], *, learned: bool) -> None:
        super().__init__()
        self.fixed = {name: weight for name, weight in initial.items() if weight > 0}
        start = {name: max(-BOUND, min(BOUND, -math.log(weight))) for name, weight in self.fixed.items()}
        self.log_variance = (
            nn.ParameterDict({name: nn.Parameter(torch.tensor(w)) for name, w in start.items()}) if learned else None
        )

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted total of the losses that are present, a scalar."""
        if self.log_variance is None:
            return torch.stack([self.fixed[name] * loss for name, loss in losses.items()]).sum()
        w = self.log_variance
        return torch.stack([(-w[name]).exp() * loss + w[name] for name, loss in losses.items()]).sum()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring learned weights back into [-2, 2]; to be called after each optimiser step."""
        if self.log_variance is not None:
            for w in self.log_variance.values():
                w.clamp_(-BOUND, BOUND)

    def current(self) -> dict[str, float]:
        """The factor on each loss at this moment."""
        if self.log_variance is None:
            return dict(self.fixed)
        return {name: math.exp(-float(w.detach())) for name, w in self.log_variance.items()}
