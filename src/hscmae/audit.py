"""Audit: which pairs' two modalities disagree, and how many pairs are wrong.

A model has fitted the wrong pairs that it was trained on, so its own cosines are optimistic about them. Agreement is
therefore cross-fitted: maps solved on the other pairs score a pair, and on the same footing pairs made at random. The
random pairs say how a wrong pair scores, which turns the scores into an estimate of the share of wrong pairs. No
labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.data.pairs import BoolArray, FloatArray, Pairs
from hscmae.data.table import non_finite_rows
from hscmae.errors import InputError, describe_rows
from hscmae.evaluation.grid import Float64Array
from hscmae.evaluation.retrieval import Embedder, Progress
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.kernel import KernelMap, kernel_map
from hscmae.linear.smoothing import smoothed_cca

FOLDS, REPEATS = 8, 3
CELL = 8  # clips that are always held out together, so that all their mutual pairings are
MIN_PAIRS = FOLDS * CELL
LANDMARKS, RANK, FIT_ROWS = 2000, 300, 5000
HELD_ROWS = 10_000  # rows that maps are solved on are drawn from so many, whose components are held in memory
BLOCK = 4096  # rows scored at a time
DIM, RIDGE, NEIGHBOURS, TAU = 64, 3.0, 50, 0.1
MAX_CORRELATION = 0.999
TAIL = np.arange(0.10, 0.71, 0.05)
RESAMPLES = 1000
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found, in the order of the rows of the data.

    Attributes:
        ids: clip identifiers, shape (n,).
        score: suspicion, higher is more suspicious: minus the pair's agreement in standard deviations from the mean of
            random pairs; not a number where there is no pair to judge, shape (n,).
        rank: 1 for the most suspicious pair; 0 where there is no score, shape (n,).
        random_better: share of random pairs that agree better than this pair, shape (n,); not a number without score.
        unscored: row -> why it has no score.
        wrong_share: estimated share of wrong pairs among those scored, in [0, 1].
        wrong_share_ci: its 95% bootstrap interval.
        n_trained_on: scored pairs that the method was trained on, which it does not judge itself.
    """

    ids: npt.NDArray[np.bytes_]
    score: Float64Array
    rank: npt.NDArray[np.intp]
    random_better: Float64Array
    unscored: dict[int, str]
    wrong_share: float
    wrong_share_ci: tuple[float, float]
    n_trained_on: int

    def most_suspicious(self, count: int | None = None) -> npt.NDArray[np.intp]:
        """Rows that have a score, most suspicious first, at most ``count``."""
        scored = np.flatnonzero(self.rank)
        return scored[np.argsort(self.rank[scored])][:count]

    def as_json(self) -> dict[str, Any]:
        """The audit as the command line prints it; rows without score are listed apart."""
        ids = [clip.decode("utf-8", "replace") for clip in self.ids]
        return {
            "scored": len(ids) - len(self.unscored),
            "n_trained_on": self.n_trained_on,
            "estimated_wrong_share": self.wrong_share,
            "estimated_wrong_share_ci": list(self.wrong_share_ci),
            "pairs": [
                {
                    "id": ids[row],
                    "score": float(self.score[row]),
                    "rank": int(self.rank[row]),
                    "random_better": float(self.random_better[row]),
                }
                for row in self.most_suspicious()
            ],
            "unscored": [{"id": ids[row], "reason": reason} for row, reason in self.unscored.items()],
        }


def audit(
    method: Embedder,
    data: Pairs | Mapping[str, npt.ArrayLike],
    *,
    seen: bool | BoolArray | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Rank pairs by how much their modalities disagree, and estimate the share of wrong pairs.

    Each modality becomes the leading components of a Gaussian kernel on its centred unit-norm rows. In each of several
    random partitions, maps are solved without a fold and score its pairs twice: by cosine under ridge CCA, and by the
    Gaussian log density ratio ``log p(a, v) / p(a) p(v)`` under neighbourhood-smoothed CCA. Both are standardised by
    the random pairs of the fold, and averaged. The cosine under ``method`` has the same weight as these together, on
    pairs it was not trained on; on its own training pairs it would make the ranking worse. Rows that lack a modality,
    or hold the one vector of silence, are no pair and get no score. Beside the features, memory is bounded but for
    about 600 bytes a row.

    Args:
        method: fitted; says which modalities, of which dimensions, are compared.
        data: the pairs to audit; sequences are pooled by mean.
        seen: whether ``method`` was trained on these pairs; for all of them, or for each, shape (n,). Where not given,
            as the method knows them again; if it does not know, on all of them.
        seed: of partitions, random pairs and bootstrap.
        progress: called with a stage's name, what is done and what there is.

    Raises:
        InputError: the data lacks one of the method's modalities, holds values that are not finite, or has too few
            complete pairs.
    """
    given = Pairs.of(data)
    pairs = _comparable(method, given.pooled())
    usable = pairs.usable()
    complete = usable.complete()
    rows = np.flatnonzero(complete)
    if len(rows) < MIN_PAIRS:
        raise InputError(f"{pairs.source}: {len(rows)} complete pairs are too few to audit ({MIN_PAIRS} needed)")
    rng = np.random.default_rng(seed)
    if seen is None:
        known = method.trained_on(given)
        seen = True if known is None else known
    unseen = complete & ~np.broadcast_to(np.asarray(seen, dtype=bool), len(pairs))  # (n,)
    cells = _cells(pairs.features, rows, rng, progress)
    if unseen.any():
        z = {m: method.embed(m, given.features[m], present=complete, lengths=given.lengths.get(m)) for m in pairs.dims}
        cells.add_cosines({m: x[rows] for m, x in z.items()}, unseen[rows])
    observed, random = cells.agreement()
    low, high = np.quantile(_resampled_shares(observed, random, rng), [0.025, 0.975])

    n = len(pairs)
    score, better, rank = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=np.intp)
    score[rows] = -observed
    sorted_random = np.sort(random[np.isfinite(random)])
    better[rows] = 1 - np.searchsorted(sorted_random, observed, side="right") / len(sorted_random)
    rank[rows[np.argsort(-score[rows], kind="stable")]] = np.arange(1, len(rows) + 1)
    unscored = {row: _reason(pairs, usable, row) for row in np.flatnonzero(rank == 0).tolist()}
    share = wrong_share(observed, random)
    return Audit(
        pairs.ids, score, rank, better, unscored, share, (float(low), float(high)), int((complete & ~unseen).sum())
    )


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


def _comparable(method: Embedder, pairs: Pairs) -> Pairs:
    method.require_modalities(pairs)
    for m in method.dims_:
        x, present = pairs.features[m], pairs.present[m]
        bad: list[int] = []
        for start in range(0, len(x), BLOCK):
            here = slice(start, start + BLOCK)
            bad += (non_finite_rows(np.asarray(x[here]), present[here]) + start).tolist()
        if bad:
            raise InputError(f"{pairs.source}: {m}: values that are not finite in {describe_rows(bad)}")
    return replace(
        pairs,
        features={m: pairs.features[m] for m in method.dims_},
        present={m: pairs.present[m] for m in method.dims_},
    )


def _reason(pairs: Pairs, usable: Pairs, row: int) -> str:
    missing = [f"no {m}" for m in pairs.modalities if not pairs.present[m][row]]
    silent = [f"silent {m}" for m in pairs.modalities if pairs.present[m][row] and not usable.present[m][row]]
    return ", ".join(missing + silent)


@dataclass(eq=False)
class _Cells:
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


def _cells(
    features: Mapping[str, FloatArray],
    rows: npt.NDArray[np.intp],
    rng: np.random.Generator,
    progress: Progress | None,
) -> _Cells:
    """The cross-fitted agreement of the given rows."""
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
    for repeat in range(REPEATS):
        fold = rng.permutation(len(table)) % min(FOLDS, len(table) // 2)  # (cells,)
        folds.append(fold)
        scores.append([])
        for f in range(fold.max() + 1):
            others = table[fold != f][valid[fold != f]]
            fit = torch.from_numpy(place[rng.permutation(others[place[others] >= 0])[:FIT_ROWS]])
            scores[repeat].append(_solve({m: z[fit] for m, z in x.items()}))
            if progress is not None:
                progress("solve maps", repeat * (fold.max() + 1) + f + 1, REPEATS * (fold.max() + 1))

    found = np.empty((REPEATS, 2, *table.shape, CELL))  # (repeats, scores, cells, CELL, CELL)
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

    cells = _Cells(table, valid, np.zeros(found.shape[2:]), [np.ones(n, dtype=bool)])
    random = cells.random
    for repeat, fold in enumerate(folds):
        for f in range(fold.max() + 1):
            inside = fold == f
            for agreement in found[repeat]:
                cells.total[inside] += _standardised(agreement[inside], random[inside]) / (2 * REPEATS)
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
    ridge = ridge_cca(covariances(fit), DIM, RIDGE)
    smoothed = smoothed_cca(fit, DIM, ridge=RIDGE, k=NEIGHBOURS, tau=TAU)
    spread = {m: smoothed(m, z).std(0).clamp(min=TINY) for m, z in fit.items()}
    c = smoothed.correlation.clamp(max=MAX_CORRELATION)

    def score(cells: Mapping[str, Tensor]) -> Float64Array:
        a, v = (F.normalize(ridge(m, z), dim=2) for m, z in cells.items())
        cosine = a @ v.mT
        # Canonical variates of unit variance and correlation c: log p(a, v) / p(a) p(v) is, up to a constant,
        # sum (c a v - c^2 (a^2 + v^2) / 2) / (1 - c^2).
        a, v = (smoothed(m, z) / spread[m] for m, z in cells.items())
        own = c.square() / (1 - c.square()) / 2
        ratio = (a * c / (1 - c.square())) @ v.mT - (a.square() @ own)[:, :, None] - (v.square() @ own)[:, None, :]
        both: Float64Array = torch.stack([cosine, ratio]).numpy()
        return both

    return score
