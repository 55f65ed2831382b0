"""Choosing the ridge of a closed form without labels, for the CCA baselines and the warm start alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hscmae.evaluation.selection import mutual_knn
from hscmae.linear.cca import CanonicalMaps, Covariances, covariances
from hscmae.streams import generator
from hscmae.training.features import Batch

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
KERNEL_RIDGES = (*RIDGES, 100.0)
ROWS = 6144
FOLDS = 3


def choose_ridge(
    rows: Batch,
    solve: Callable[[Batch, float, Covariances], CanonicalMaps],
    seed: int,
    candidates: Sequence[float] = RIDGES,
) -> float:
    """The ridge whose solutions agree best on rows that they were not fitted on.

    Agreement is mutual k-NN across the modalities, the mean over three folds; why, see ``docs/decisions.md``.

    Args:
        rows: standardised training rows; at most 6,144 of them are used.
        solve: closed form from rows, a ridge and the covariances of the rows.
        seed: draws the rows and the folds.
        candidates: the ridges to choose from.
    """
    order = torch.randperm(len(rows.rows), generator=generator(seed, "ridge"))[:ROWS].to(rows.rows.device)
    scores = dict.fromkeys(candidates, 0.0)
    for fold in range(FOLDS):
        held_out = _take(rows, order[fold::FOLDS])
        fit = _take(rows, torch.cat([order[other::FOLDS] for other in range(FOLDS) if other != fold]))
        complete = torch.stack(list(held_out.present.values())).all(0)
        if complete.sum() < 3:
            return candidates[len(candidates) // 2]
        moments = covariances(fit.x, fit.present)
        for ridge in candidates:
            maps = solve(fit, ridge, moments)
            first, second = (maps(m, x[complete]).cpu().numpy() for m, x in held_out.x.items())
            scores[ridge] += mutual_knn(first, second)
    return max(scores, key=lambda ridge: scores[ridge])


def _take(rows: Batch, index: torch.Tensor) -> Batch:
    x, present = ({m: v[index] for m, v in part.items()} for part in (rows.x, rows.present))
    return Batch(x, present, rows.rows[index])
