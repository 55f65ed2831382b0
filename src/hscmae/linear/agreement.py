"""Agreement: how well the two modalities of a pair fit each other, and the chance that the pair is right.

Maps have fitted the wrong pairs that they were solved on, and so agree with them. Agreement is therefore cross-fitted:
maps solved on the other pairs score a pair, and on the same footing pairs made at random. The random pairs say how a
wrong pair scores, which turns agreement into an estimate of the share of wrong pairs, and into the chance of each that
it is right. No labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.data.pairs import BoolArray, Float64Array, FloatArray
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.kernel import KernelMap, kernel_map
from hscmae.linear.smoothing import smoothed_cca

Progress = Callable[[str, int, int], None]  # stage, done, total

FOLDS, REPEATS = 8, 3
CELL = 8  # clips that are always held out together, so that all their mutual pairings are
MIN_PAIRS = FOLDS * CELL
LANDMARKS, RANK, FIT_ROWS = 2000, 300, 5000
HELD_ROWS = 10_000  # rows that maps are solved on are drawn from so many, whose components are held in memory
BLOCK = 4096  # rows scored at a time
DIM, RIDGE, NEIGHBOURS, TAU = 64, 3.0, 50, 0.1
LOWER, UPPER = 0.025, 0.975  # of the 95% interval
MIN_CORRELATION, MAX_CORRELATION = 1e-6, 0.999  # below: directions that narrow features do not have
TAIL = np.arange(0.10, 0.71, 0.05)
RESAMPLES = 1000
LEAST_P = 1e-9  # no random pair was better: as near to 0 as keeps a density finite
TINY = float(np.finfo(np.float64).tiny)


def wrong_share(observed: Float64Array, random: Float64Array) -> float:
    """Share of wrong pairs from the agreement of observed pairs and of random ones.

    Of the observed pairs, a share F(q) agrees less than the q-quantile of random pairs. Wrong pairs add ``share * q``
    to it; right pairs are the rarer the lower, ``b q^3`` for q up to 0.7. Both coefficients are fitted by weighted
    least squares. The first term alone is Storey's estimator (J. R. Stat. Soc. B 64, 2002), which counts the right
    pairs down there as wrong.

    Args:
        observed: agreement of the pairs, shape (n,).
        random: agreement of random pairs, any shape; values that are not a number do not count.
    """
    below = (observed[:, None] <= np.nanquantile(random, TAIL)).mean(axis=0)  # (tail,)
    return float(_share_of(below[None])[0])


def wrong_share_quantiles(
    observed: Float64Array, random: Float64Array, rng: np.random.Generator, levels: Sequence[float] = (LOWER, UPPER)
) -> list[float]:
    """Bootstrap quantiles of ``wrong_share`` over resamples of the clips, those of its 95% interval where not given."""
    found: list[float] = np.quantile(_resampled_shares(observed, random, rng), levels).tolist()
    return found


def random_better(observed: Float64Array, random: Float64Array) -> Float64Array:
    """Of each pair the share of random pairs that agree better: p, uniform for wrong pairs, shape (n,)."""
    ascending = np.sort(random[np.isfinite(random)])
    share: Float64Array = 1 - np.searchsorted(ascending, observed, side="right") / len(ascending)
    return share


def chance_right(p: Float64Array, share: float) -> Float64Array:
    r"""The chance of each pair that it is right, :math:`1 - w / f(p)`, one minus Efron's local false discovery rate.

    p is uniform for the share w of the pairs that is wrong, and the likelier the smaller for right ones: its density f
    over all pairs falls, and is Grenander's estimate, the slopes of the least concave majorant of the distribution
    (Grenander 1956; Efron, J. Am. Stat. Assoc. 99, 2004).

    Args:
        p: share of random pairs that agree better, shape (n,), in [0, 1].
        share: w, of wrong pairs, in [0, 1].

    Returns:
        Shape (n,), in [0, 1].

    >>> p = np.concatenate([np.full(60, 0.01), np.arange(1, 41) / 40])
    >>> chance = chance_right(p, share=0.4)
    >>> bool(chance[:60].min() > 0.98), bool(chance[60:].mean() < 0.1)
    (True, True)
    """
    falling: Float64Array = 1 - share / np.maximum(decreasing_density(p), TINY)
    return falling.clip(0.0, 1.0)


def decreasing_density(p: Float64Array) -> Float64Array:
    """Grenander's estimate of a density that falls over [0, 1], at the n values that it is estimated from, (n,).

    >>> decreasing_density(np.array([0.25, 0.5, 0.5, 1.0]))
    array([1.5, 1.5, 1.5, 0.5])
    """
    values, counts = np.unique(np.maximum(p, LEAST_P), return_counts=True)
    x, y = np.concatenate([[0.0], values]), np.concatenate([[0.0], np.cumsum(counts) / len(p)])
    if values[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, 1.0)
    corners = [0]
    for i in range(1, len(x)):
        while len(corners) > 1 and _slope(x, y, corners[-2], corners[-1]) <= _slope(x, y, corners[-1], i):
            corners.pop()
        corners.append(i)
    at = x[corners]
    density = np.diff(y[corners]) / np.diff(at)  # (pieces,)
    found: Float64Array = density[np.searchsorted(at[1:-1], np.maximum(p, LEAST_P))]
    return found


def _slope(x: Float64Array, y: Float64Array, first: int, last: int) -> float:
    return float((y[last] - y[first]) / (x[last] - x[first]))


def _share_of(below: Float64Array) -> Float64Array:
    """The share of wrong pairs for each row of F at the quantiles ``TAIL``, shape (k, tail) -> (k,)."""
    design = np.stack([TAIL, TAIL**3], axis=1)  # (tail, 2)
    weight = TAIL[:, None] ** -0.5
    (share, right), *_ = np.linalg.lstsq(weight * design, weight * below.T)  # (k,) each
    # Where right pairs would count negative, every pair may be wrong: nothing is left for right ones.
    shares: Float64Array = np.clip(np.where(right < 0, below.sum(axis=1) / TAIL.sum(), share), 0.0, 1.0)
    return shares


def _resampled_shares(observed: Float64Array, random: Float64Array, rng: np.random.Generator) -> Float64Array:
    """``wrong_share`` of ``RESAMPLES`` resamples of the clips, shape (RESAMPLES,).

    What a resample holds are numbers of times that clips are drawn: quantiles and shares come from cumulative sums of
    these over values that are sorted once.
    """
    n = len(observed)
    clip, column = np.nonzero(np.isfinite(random))
    values = random[clip, column]
    order = np.argsort(values)
    values, owner = values[order], clip[order]  # (random pairs,): ascending, and whose they are
    by_agreement = np.argsort(observed)
    ascending = observed[by_agreement]  # (n,)
    below = np.empty((RESAMPLES, len(TAIL)))
    for i in range(RESAMPLES):
        drawn = np.bincount(rng.integers(n, size=n), minlength=n)  # (n,)
        until = np.cumsum(drawn[owner])  # (random pairs,): how many of the resample are at most so high
        place = TAIL * (until[-1] - 1)
        low, high = (values[np.searchsorted(until, np.floor(place) + more, side="right")] for more in (0, 1))
        quantiles = low + (high - low) * (place % 1)  # (tail,)
        counts = np.concatenate([[0], np.cumsum(drawn[by_agreement])])
        below[i] = counts[np.searchsorted(ascending, quantiles, side="right")] / n
    return _share_of(below)


@dataclass(eq=False)
class Cells:
    """Pairs in cells of ``CELL``, within which every first modality is compared with every second.

    Attributes:
        table: pairs of each cell, shape (cells, CELL). The last cell is filled up with pair 0, masked wherever it is
            counted.
        valid: which entries of the table are pairs, shape (cells, CELL).
        total: agreement of all pairings, shape (cells, CELL, CELL); the pairs themselves are on the diagonal.
        groups: sets of pairs that are judged by different means, each a mask of shape (n,).
    """

    table: npt.NDArray[np.intp]
    valid: BoolArray
    total: Float64Array
    groups: list[BoolArray]

    @property
    def random(self) -> BoolArray:
        """Which pairings are of different pairs, shape (cells, CELL, CELL)."""
        return self.valid[:, :, None] & self.valid[:, None, :] & ~np.eye(CELL, dtype=bool)

    def add_cosines(self, embedded: Mapping[str, FloatArray], which: BoolArray) -> None:
        """Average the agreement of some pairs, ``which`` of shape (n,), with the cosines of embeddings (n, dim)."""
        a, v = (z[self.table] for z in embedded.values())  # (cells, CELL, dim)
        of = which[self.table]  # (cells, CELL)
        cosine = _standardised((a @ v.swapaxes(1, 2)).astype(np.float64), self.random & of[:, :, None])
        self.total[of] = (self.total[of] + cosine[of]) / 2
        self.groups = [group for group in (which, ~which) if group.any()]

    def agreement(self) -> tuple[Float64Array, Float64Array]:
        """Agreement of each pair, (n,), and of its first modality with other clips' second, (n, CELL - 1).

        In standard deviations from the mean of the random pairs, in each group.
        """
        n = int(self.valid.sum())
        observed, random = np.empty(n), np.full((n, CELL - 1), np.nan)
        observed[self.table[self.valid]] = np.diagonal(self.total, axis1=1, axis2=2)[self.valid]
        others = np.where(self.random, self.total, np.nan)[:, ~np.eye(CELL, dtype=bool)]
        random[self.table[self.valid]] = others.reshape(*self.table.shape, CELL - 1)[self.valid]
        for group in self.groups:
            middle, spread = np.nanmean(random[group]), max(np.nanstd(random[group]), TINY)
            observed[group], random[group] = (observed[group] - middle) / spread, (random[group] - middle) / spread
        return observed, random


def cross_fit(
    features: Mapping[str, FloatArray],
    rows: npt.NDArray[np.intp],
    rng: np.random.Generator,
    progress: Progress | None = None,
    repeats: int = REPEATS,
) -> Cells:
    """The cross-fitted agreement of the given rows, which have both modalities, at least ``MIN_PAIRS`` of them.

    Each modality becomes the leading components of a Gaussian kernel on its centred unit-norm rows. In each of several
    random partitions, maps are solved without a fold and score its pairs twice: by cosine under ridge CCA, and by the
    Gaussian log density ratio ``log p(a, v) / p(a) p(v)`` under neighbourhood-smoothed CCA. Both are standardised by
    the random pairs of the fold, and averaged. Beside the features, memory is bounded but for about 600 bytes a row.

    Args:
        features: two modalities, each of shape (n, d_m), as extracted.
        rows: which of the n rows.
        rng: of partitions, landmarks and random pairs.
        progress: called with a stage's name, what is done and what there is.
        repeats: number of partitions.
    """
    n = len(rows)
    held = np.arange(n) if n <= HELD_ROWS else np.sort(rng.permutation(n)[:HELD_ROWS])
    place = np.full(n, -1)
    place[held] = np.arange(len(held))
    maps: dict[str, KernelMap] = {}
    x: dict[str, Tensor] = {}  # components of the rows that are held, (held, rank)
    for m, values in features.items():
        doubles = torch.from_numpy(np.asarray(values[rows[held]], dtype=np.float64))
        landmarks = torch.from_numpy(rng.permutation(len(held))[:LANDMARKS])
        maps[m] = kernel_map(doubles, landmarks, min(RANK, len(landmarks) // 4))
        x[m] = maps[m](doubles)

    def components(m: str, chosen: npt.NDArray[np.intp]) -> Tensor:
        """Of pairs given in a table (cells, CELL): (cells, CELL, rank)."""
        if n == len(held):
            return x[m][torch.from_numpy(chosen)]
        doubles = torch.from_numpy(np.asarray(features[m][rows[chosen.ravel()]], dtype=np.float64))
        return maps[m](doubles).reshape(*chosen.shape, -1)

    table = np.zeros((-(-n // CELL), CELL), dtype=np.intp)
    table.flat[:n] = rng.permutation(n)
    valid = (np.arange(table.size) < n).reshape(table.shape)
    folds: list[npt.NDArray[np.intp]] = []
    scores: list[list[Callable[[Mapping[str, Tensor]], Float64Array]]] = []
    for repeat in range(repeats):
        fold = rng.permutation(len(table)) % min(FOLDS, len(table) // 2)  # (cells,)
        folds.append(fold)
        scores.append([])
        for f in range(fold.max() + 1):
            others = table[fold != f][valid[fold != f]]
            fit = torch.from_numpy(place[rng.permutation(others[place[others] >= 0])[:FIT_ROWS]])
            scores[repeat].append(_solve({m: z[fit] for m, z in x.items()}))
            if progress is not None:
                progress("solve maps", repeat * (fold.max() + 1) + f + 1, repeats * (fold.max() + 1))

    found = np.empty((repeats, 2, *table.shape, CELL))  # (repeats, scores, cells, CELL, CELL)
    for start in range(0, len(table), BLOCK // CELL):
        here = slice(start, start + BLOCK // CELL)
        z = {m: components(m, table[here]) for m in features}
        for repeat, fold in enumerate(folds):
            for f in np.unique(fold[here]):
                inside = np.flatnonzero(fold[here] == f)
                these = {m: c[torch.from_numpy(inside)] for m, c in z.items()}
                found[repeat][:, start + inside] = scores[repeat][f](these)
        if progress is not None:
            progress("score pairs", min(here.stop * CELL, n), n)

    cells = Cells(table, valid, np.zeros(found.shape[2:]), [np.ones(n, dtype=bool)])
    random = cells.random
    for repeat, fold in enumerate(folds):
        for f in range(fold.max() + 1):
            inside = fold == f
            for agreement in found[repeat]:
                cells.total[inside] += _standardised(agreement[inside], random[inside]) / (2 * repeats)
    return cells


def _standardised(agreement: Float64Array, random: BoolArray) -> Float64Array:
    values = agreement[random]
    standardised: Float64Array = (agreement - values.mean()) / max(float(values.std()), TINY)
    return standardised


def _solve(fit: Mapping[str, Tensor]) -> Callable[[Mapping[str, Tensor]], Float64Array]:
    """Maps solved on ``fit``, (rows, rank) each, as a function from cells of components to the agreement of pairings.

    Returns:
        Components (cells, CELL, rank) by modality -> both scores, shape (2, cells, CELL, CELL).
    """
    moments = covariances(fit)
    ridge = ridge_cca(moments, DIM, RIDGE)
    smoothed = smoothed_cca(fit, DIM, ridge=RIDGE, k=NEIGHBOURS, tau=TAU, moments=moments)
    kept = smoothed.correlation > MIN_CORRELATION
    c = smoothed.correlation[kept].clamp(max=MAX_CORRELATION)
    spread = {m: smoothed(m, z)[:, kept].std(0).clamp(min=TINY) for m, z in fit.items()}

    def score(cells: Mapping[str, Tensor]) -> Float64Array:
        a, v = (F.normalize(ridge(m, z), dim=2) for m, z in cells.items())
        cosine = a @ v.mT
        # Canonical variates of unit variance and correlation c: log p(a, v) / p(a) p(v) is, up to a constant,
        # sum (c a v - c^2 (a^2 + v^2) / 2) / (1 - c^2).
        a, v = (smoothed(m, z)[..., kept] / spread[m] for m, z in cells.items())
        own = c.square() / (1 - c.square()) / 2
        ratio = (a * c / (1 - c.square())) @ v.mT - (a.square() @ own)[:, :, None] - (v.square() @ own)[:, None, :]
        both: Float64Array = torch.stack([cosine, ratio]).numpy()
        return both

    return score
