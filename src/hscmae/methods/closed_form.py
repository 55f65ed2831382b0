"""Choosing without labels, on rows held out in turn: the ridge of a closed form, whether anchors and a head help it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

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


class CrossFit:
    """A closed form solved without each of three folds of some rows in turn, at any ridge; solutions are kept.

    Args:
        rows: standardised training rows; at most 4,096 of them are used.
        solve: closed form from rows, a ridge and the covariances of the rows.
        seed: draws the rows and the folds.
    """

    def __init__(self, rows: Batch, solve: Callable[[Batch, float, Covariances], CanonicalMaps], seed: int) -> None:
        self.solve = solve
        self.parts = list(folds(rows, seed))
        self.moments = [covariances(fit.x, fit.present, fit.weight) for fit, _ in self.parts]
        self.solved: dict[float, list[CanonicalMaps]] = {}

    @cached_property
    def near(self) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Held-out rows' neighbours by what the closed form sees, of either modality."""
        found = []
        for _, held_out in self.parts:
            first, second = (nearest(x.cpu().numpy(), max(1, len(x) // 10)) for x in held_out.x.values())
            found.append((first, second))
        return found

    def solutions(self, ridge: float) -> list[CanonicalMaps]:
        """One a fold; none where there are too few rows to measure on."""
        if ridge not in self.solved:
            self.solved[ridge] = [
                self.solve(fit, ridge, moments) for (fit, _), moments in zip(self.parts, self.moments, strict=True)
            ]
        return self.solved[ridge]

    def choose_ridge(self, usual: float | None = None) -> float:
        """The ridge whose solutions agree best on rows that they were not fitted on; of what is as good, a usual one.

        Agreement is mutual k-NN across the modalities. Of few pairs, or wrong ones, its curve is flatter than its
        noise: where a usual ridge is known, it is left only for solutions that agree better pair by pair, by a
        standard error, and of those that do not agree worse than the best the nearest to it is taken. What that gains:
        ``docs/decisions.md``, 2026-11-26.

        Args:
            usual: a ridge that is good for most features; the best is taken where there is none.
        """
        scores: dict[float, Tensor] = {}
        for ridge in RIDGES if self.parts else ():
            agreement = []
            for maps, (_, held_out) in zip(self.solutions(ridge), self.parts, strict=True):
                first, second = (z.cpu().numpy() for z in _embedded(maps, held_out.x).values())
                agreement.append(torch.from_numpy(mutual_rows(first, second)))
            scores[ridge] = torch.cat(agreement)
        if not scores:
            return usual or RIDGES[len(RIDGES) // 2]
        best = max(scores, key=lambda ridge: float(scores[ridge].mean()))
        if usual is None:
            return best
        kept = [ridge for ridge, own in scores.items() if not better(scores[best], own)]
        return min(kept, key=lambda ridge: abs(math.log(ridge / usual)))

    def anchors_help(self, ridge: float, anchors: Anchors) -> bool:
        """Whether the closed form is at least as good with anchors as without.

        Anchors blur, and mutual k-NN rises with blurring: so it is multiplied by feature k-NN, which falls.
        """
        plain, drawn = (self._scores(ridge, own, power=1.0) for own in (Anchors(), anchors))
        return not len(plain) or float((plain - drawn).mean()) <= 0

    def head_helps(self, ridge: float, dim: int, head: float, anchors: Anchors) -> bool:
        """Whether ``refined_cca`` on the embeddings is better than without, by a standard error.

        By mutual k-NN times the root of feature k-NN. It is where pairs are right; where many of them are wrong,
        which costs a refined solution more, it is not (``docs/decisions.md``, 2026-11-27).

        Args:
            ridge: of the closed form.
            dim: number of directions.
            head: ridge of the head.
            anchors: as they will be used; of no share where they will not.
        """

        def refined(fit: Batch, z: Mapping[str, Tensor]) -> CanonicalMaps:
            return refined_cca(z, dim, ridge=head, present=fit.present, weight=fit.weight)

        without, headed = (self._scores(ridge, anchors, own) for own in (None, refined))
        return len(without) > 0 and better(headed, without)

    def _scores(
        self,
        ridge: float,
        anchors: Anchors,
        head: Callable[[Batch, Mapping[str, Tensor]], CanonicalMaps] | None = None,
        power: float = 0.5,
    ) -> Tensor:
        """The criterion for each held-out pair, shape (pairs,); see ``grounded_rows``."""
        scores = [torch.empty(0, dtype=torch.float64)]
        for maps, (fit, held_out), near in zip(self.solutions(ridge), self.parts, self.near, strict=True):
            known, z = ({m: x.float() for m, x in _embedded(maps, part.x).items()} for part in (fit, held_out))
            if head is not None:
                final = head(fit, known)
                known, z = ({m: final(m, F.normalize(x, dim=1)) for m, x in part.items()} for part in (known, z))
            if anchors.share:
                targets = fuse(known, fit.present)[: anchors.rows]
                z = {m: attend(x, targets, tau=anchors.tau, share=anchors.share) for m, x in z.items()}
            first, second = (x.cpu().numpy() for x in z.values())
            scores.append(torch.from_numpy(grounded_rows(first, second, *near, power=power)))
        return torch.cat(scores)


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


def _embedded(maps: CanonicalMaps, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {m: maps(m, rows) for m, rows in x.items()}


def _take(rows: Batch, index: Tensor) -> Batch:
    x, present = ({m: v[index] for m, v in part.items()} for part in (rows.x, rows.present))
    weight = None if rows.weight is None else rows.weight[index]
    return Batch(x, present, rows.rows[index], weight=weight)
