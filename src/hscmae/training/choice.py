"""How many steps are chosen on held-out pairs.

Each measurement keeps a number for every held-out pair, not their mean alone: several folds, where pairs are few, count
as one set, and two models are compared pair by pair, which tells them apart where their means' errors overlap.
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
        """The best step by its mean; of several that are equal the last. The start is one of them.

        Held-out sets are small and the best is often so by chance, yet no rule that weighs the error is better: what
        leans towards late steps ends below the start where pairs are wrong, what leans towards the start gives away
        what training gains (``docs/decisions.md``, 2026-11-26).
        """
        return max(self.steps, key=lambda step: (float(self.at(step).mean()), step))


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
