"""Choosing without labels, on rows held out in turn: the ridge of a closed form, whether anchors and a head help it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from hscmae.config import Anchors
from hscmae.evaluation.selection import grounded_rows, mutual_rows, nearest
from hscmae.linear.cca import CanonicalMaps, Covariances, covariances
from hscmae.linear.smoothing import fuse, refined_cca
from hscmae.nn.anchors import attend
from hscmae.streams import generator
from hscmae.training.choice import better
from hscmae.training.features import Batch

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# Through the kernel view one ridge is near the best on all features that were looked at; on values none is.
USUAL_RIDGE = {"ridge": 10.0, "smoothed": 3.0}
ROWS = 4096
FOLDS = 3


def choose_ridge(
    rows: Batch, solve: Callable[[Batch, float, Covariances], CanonicalMaps], seed: int, usual: float | None = None
) -> float:
    """The ridge whose solutions agree best on rows that they were not fitted on; of what is as good, a usual one.

    Agreement is mutual k-NN across the modalities over three folds. Of few pairs, or wrong ones, its curve is flatter
    than its noise: where a usual ridge is known, it is left only for solutions that agree better pair by pair, by a
    standard error, and of those that do not agree worse than the best the nearest to it is taken. What that gains:
    ``docs/decisions.md``, 2026-11-26.

    Args:
        rows: standardised training rows; at most 4,096 of them are used.
        solve: closed form from rows, a ridge and the covariances of the rows.
        seed: draws the rows and the folds.
        usual: a ridge that is good for most features; the best is taken where there is none.
    """
    agreement: dict[float, list[torch.Tensor]] = {ridge: [] for ridge in RIDGES}
    for fit, held_out in folds(rows, seed):
        moments = covariances(fit.x, fit.present, fit.weight)
        for ridge in RIDGES:
            maps = solve(fit, ridge, moments)
            first, second = (maps(m, x).cpu().numpy() for m, x in held_out.x.items())
            agreement[ridge].append(torch.from_numpy(mutual_rows(first, second)))
    if not any(agreement.values()):
        return usual or RIDGES[len(RIDGES) // 2]
    scores = {ridge: torch.cat(parts) for ridge, parts in agreement.items()}
    best = max(scores, key=lambda ridge: float(scores[ridge].mean()))
    if usual is None:
        return best
    kept = [ridge for ridge, own in scores.items() if not better(scores[best], own)]
    return min(kept, key=lambda ridge: abs(math.log(ridge / usual)))


def anchors_help(
    rows: Batch, solve: Callable[[Batch, Covariances], CanonicalMaps], anchors: Anchors, seed: int
) -> bool:
    """Whether a closed form is at least as good with anchors as without, on rows not fitted.

    Anchors blur, and mutual k-NN rises with blurring: so it is multiplied by feature k-NN, which falls.

    Args:
        rows: see ``choose_ridge``.
        solve: closed form from rows and their covariances.
        anchors: their settings.
        seed: draws the rows and the folds.
    """
    leads = []
    for fit, held_out in folds(rows, seed):
        maps = solve(fit, covariances(fit.x, fit.present, fit.weight))
        known = fuse({m: maps(m, x).float() for m, x in fit.x.items()}, fit.present)[: anchors.rows]
        plain = {m: maps(m, x).float() for m, x in held_out.x.items()}
        drawn = {m: attend(z, known, tau=anchors.tau, share=anchors.share) for m, z in plain.items()}
        near = [nearest(x.cpu().numpy(), max(1, len(x) // 10)) for x in held_out.x.values()]
        scores = []
        for way in (drawn, plain):
            first, second = (z.cpu().numpy() for z in way.values())
            scores.append(torch.from_numpy(grounded_rows(first, second, near[0], near[1], power=1.0)))
        leads.append(scores[1] - scores[0])
    if not leads:
        return True
    return float(torch.cat(leads).mean()) <= 0


def head_helps(
    rows: Batch,
    solve: Callable[[Batch, Covariances], CanonicalMaps],
    dim: int,
    ridge: float,
    anchors: Anchors,
    seed: int,
) -> bool:
    """Whether ``refined_cca`` on the embeddings of a closed form is better than without, on rows not fitted.

    By mutual k-NN times the root of feature k-NN, by a standard error: it is where pairs are right, and where many of
    them are wrong, which costs a refined solution more, it is not.

    Args:
        rows: see ``choose_ridge``.
        solve: closed form from rows and their covariances.
        dim: number of directions.
        ridge: of the head.
        anchors: as they will be used; of no share where they will not.
        seed: draws the rows and the folds.
    """
    scores: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
    for fit, held_out in folds(rows, seed):
        maps = solve(fit, covariances(fit.x, fit.present, fit.weight))
        known, plain = ({m: maps(m, x).float() for m, x in part.x.items()} for part in (fit, held_out))
        head = refined_cca(known, dim, ridge=ridge, present=fit.present, weight=fit.weight)
        near = [nearest(x.cpu().numpy(), max(1, len(x) // 10)) for x in held_out.x.values()]
        refined = tuple({m: head(m, F.normalize(z, dim=1)) for m, z in part.items()} for part in (known, plain))
        for own, (fitted, z) in zip(scores, (refined, (known, plain)), strict=True):
            if anchors.share:
                targets = fuse(fitted, fit.present)[: anchors.rows]
                z = {m: attend(part, targets, tau=anchors.tau, share=anchors.share) for m, part in z.items()}
            first, second = (part.cpu().numpy() for part in z.values())
            own.append(torch.from_numpy(grounded_rows(first, second, near[0], near[1])))
    return bool(scores[0]) and better(torch.cat(scores[0]), torch.cat(scores[1]))


def folds(rows: Batch, seed: int) -> Iterator[tuple[Batch, Batch]]:
    """Rows to fit on and complete rows to measure on, three times; none where there are too few to measure on."""
    order = torch.randperm(len(rows.rows), generator=generator(seed, "ridge"))[:ROWS].to(rows.rows.device)
    for fold in range(FOLDS):
        held_out = _take(rows, order[fold::FOLDS])
        complete = torch.stack(list(held_out.present.values())).all(0)
        if complete.sum() < 3:
            return
        fit = _take(rows, torch.cat([order[other::FOLDS] for other in range(FOLDS) if other != fold]))
        yield fit, _take(held_out, complete)


def _take(rows: Batch, index: torch.Tensor) -> Batch:
    x, present = ({m: v[index] for m, v in part.items()} for part in (rows.x, rows.present))
    weight = None if rows.weight is None else rows.weight[index]
    return Batch(x, present, rows.rows[index], weight=weight)
