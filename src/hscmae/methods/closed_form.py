"""Choosing the ridge of a closed form without labels, for the CCA baselines and the warm start alike."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hscmae.evaluation.selection import mutual_knn
from hscmae.linear.cca import CanonicalMaps
from hscmae.streams import generator
from hscmae.training.features import Batch

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
ROWS = 8192
HELD_OUT_SHARE = 1 / 7


def choose_ridge(rows: Batch, solve: Callable[[Batch, float], CanonicalMaps], seed: int) -> float:
    """The ridge whose solution on six sevenths of the rows agrees best on the seventh held out.

    Agreement is mutual k-NN across the modalities; why, see ``docs/decisions.md``.

    Args:
        rows: standardised training rows; at most 8,192 of them are used.
        solve: closed form from rows and a ridge.
        seed: draws the rows and the cut.
    """
    order = torch.randperm(len(rows.rows), generator=generator(seed, "ridge"))[:ROWS].to(rows.rows.device)
    cut = max(1, round(len(order) * HELD_OUT_SHARE))
    held_out, fit = _take(rows, order[:cut]), _take(rows, order[cut:])
    complete = torch.stack(list(held_out.present.values())).all(0)
    if complete.sum() < 3:
        return RIDGES[len(RIDGES) // 2]
    scores = {}
    for ridge in RIDGES:
        maps = solve(fit, ridge)
        first, second = (maps(m, x[complete]).cpu().numpy() for m, x in held_out.x.items())
        scores[ridge] = mutual_knn(first, second)
    return max(scores, key=lambda ridge: scores[ridge])


def _take(rows: Batch, index: torch.Tensor) -> Batch:
    x, present = ({m: v[index] for m, v in part.items()} for part in (rows.x, rows.present))
    return Batch(x, present, rows.rows[index])
