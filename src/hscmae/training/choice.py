"""How many steps are chosen on held-out pairs.

Each measurement keeps a number for every held-out pair, not their mean alone: two candidates are compared pair by pair,
which tells them apart where their means' errors overlap. Several folds, where pairs are few, count as one set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Measurements:
    """Scores of held-out pairs by fold and step, each of shape (pairs,), float64; higher is better."""

    def __init__(self, saved: Mapping[str, Tensor] | None = None) -> None:
        self.scores: dict[tuple[int, int], Tensor] = {}
        for name, scores in (saved or {}).items():
            fold, step = name.split("/")
            self.scores[int(fold), int(step)] = scores

    def tensors(self) -> dict[str, Tensor]:
        """By name, as the constructor takes them back."""
        return {f"{fold}/{step}": scores for (fold, step), scores in self.scores.items()}

    @property
    def steps(self) -> list[int]:
        """Steps that every fold has measured, ascending."""
        folds = [{step for fold, step in self.scores if fold == own} for own in {fold for fold, _ in self.scores}]
        return sorted(set.intersection(*folds)) if folds else []

    def at(self, step: int) -> Tensor:
        """Scores of the pairs of all folds, shape (pairs,)."""
        return torch.cat([scores for (_, of), scores in sorted(self.scores.items()) if of == step])

    def choose(self) -> int:
        """The last step within one standard error of the best, unless it is worse than the start.

        Held-out sets are small: of steps that the criterion cannot tell apart the last is taken, because what training
        adds beside the criterion (content kept under masking) grows on. Whether a step is worse than the first one is
        seen pair by pair.
        """
        scores = {step: self.at(step) for step in self.steps}
        start, best = scores[self.steps[0]], max(scores.values(), key=lambda own: float(own.mean()))
        enough = float(best.mean()) - standard_error(best)
        kept = [step for step, own in scores.items() if float(own.mean()) >= enough and not better(start, own)]
        return max(kept, default=self.steps[0])


def standard_error(scores: Tensor) -> float:
    """Of the mean of scores of shape (pairs,).

    Twice that of independent numbers: a pair counts as a query and among the neighbours of others, so that the mean is
    a U-statistic of order 2 (Hoeffding 1948).
    """
    return 2 * float(scores.std()) / math.sqrt(len(scores))


def better(first: Tensor, second: Tensor) -> bool:
    """Whether the first of two models scores the same pairs, shape (pairs,) each, higher by over a standard error."""
    lead = first - second
    return float(lead.mean()) > standard_error(lead)
