"""How many steps are chosen on held-out pairs.

Each measurement keeps a number for every held-out pair, not their mean alone: several folds, where pairs are few, count
as one set, and two models are compared pair by pair, which tells them apart where their means' errors overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# The standard error of one model's mean says too much of the difference of two, before and after training: across sets
# of held-out pairs that varies by 0.6 to 0.85 of it (``benchmarks.studies.difference_error``).
OF_A_DIFFERENCE = 0.75


class Measurements:
    """Scores of held-out pairs by fold and step, each of shape (pairs,), float64; higher is better.

    Args:
        saved: scores as ``tensors`` gives them.
        solved_start: whether training begins at a solution, a closed form, rather than at random weights.
    """

    def __init__(self, saved: Mapping[str, Tensor] | None = None, *, solved_start: bool = False) -> None:
        self.solved_start = solved_start
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

    def best(self) -> int:
        """The step with the highest mean; of several that are equal the last."""
        return max(self.steps, key=lambda step: (float(self.at(step).mean()), step))

    def choose(self) -> int:
        """The best step; the start where that is a solution already and the best step is not seen to be better.

        Held-out sets are small and the best is often so by chance. From random weights no rule that weighs the error
        is better; a closed form is left only for what is better pair by pair, by a standard error: training then never
        ended below it (``docs/decisions.md``, 2026-11-27).
        """
        best, start = self.best(), self.steps[0]
        seen = better(self.at(best), self.at(start), errors=OF_A_DIFFERENCE)
        return start if self.solved_start and not seen else best


def standard_error(scores: Tensor) -> float:
    """Of the mean of scores of shape (pairs,).

    Twice that of independent numbers: a pair counts as a query and among the neighbours of others, so that the mean is
    a U-statistic of order 2 (Hoeffding 1948).
    """
    return 2 * float(scores.std()) / math.sqrt(len(scores))


def better(first: Tensor, second: Tensor, *, errors: float = 1.0) -> bool:
    """Whether the first of two models scores the same pairs, shape (pairs,) each, higher by so many standard errors."""
    lead = first - second
    return float(lead.mean()) > errors * standard_error(lead)
