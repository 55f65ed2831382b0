"""Audit: which pairs' two modalities disagree, and how many pairs are wrong.

A model has fitted the wrong pairs that it was trained on, so its own cosines are optimistic about them. Agreement is
therefore cross-fitted: maps solved on the other pairs score a pair, and on the same footing pairs made at random. The
random pairs say how a wrong pair scores, which turns the scores into an estimate of the share of wrong pairs. No
labels are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hscmae.data.pairs import BoolArray, FloatArray, Pairs
from hscmae.errors import InputError, describe_rows
from hscmae.linear.cca import covariances, ridge_cca
from hscmae.linear.kernel import kernel_map
from hscmae.linear.smoothing import smoothed_cca

if TYPE_CHECKING:
    from hscmae.methods.base import Method

Float64Array = npt.NDArray[np.float64]

FOLDS, REPEATS = 8, 3
CELL = 8  # clips that are always held out together, so that all their mutual pairings are
MIN_PAIRS = FOLDS * CELL
LANDMARKS, RANK, FIT_ROWS = 2000, 300, 5000
DIM, RIDGE, NEIGHBOURS, TAU = 64, 3.0, 50, 0.1
MAX_CORRELATION = 0.999
TAIL = np.arange(0.10, 0.71, 0.05)
RESAMPLES = 1000


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
    """

    ids: npt.NDArray[np.bytes_]
    score: Float64Array
    rank: npt.NDArray[np.intp]
    random_better: Float64Array
    unscored: dict[int, str]
    wrong_share: float
    wrong_share_ci: tuple[float, float]

    def most_suspicious(self, count: int | None = None) -> npt.NDArray[np.intp]:
        """Rows that have a score, most suspicious first, at most ``count``."""
        scored = np.flatnonzero(self.rank)
        return scored[np.argsort(self.rank[scored])][:count]

    def as_json(self) -> dict[str, Any]:
        """The audit as the command line prints it; rows without score are listed apart."""
        ids = [clip.decode("utf-8", "replace") for clip in self.ids]
        return {
            "scored": len(ids) - len(self.unscored),
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


def audit(method: Method, data: Pairs | Mapping[str, npt.ArrayLike], *, seen: bool = True, seed: int = 0) -> Audit:
    """Rank pairs by how much their modalities disagree, and estimate the share of wrong pairs.

    Each modality becomes the leading components of a Gaussian kernel on its centred unit-norm rows. In each of several
    random partitions, maps are solved without a fold and score its pairs twice: by cosine under ridge CCA, and by the
    Gaussian log density ratio ``log p(a, v) / p(a) p(v)`` under neighbourhood-smoothed CCA. Both are standardised by
    the random pairs of the fold, and averaged. The cosine under ``method`` has the same weight as these together, on
    pairs it was not trained on; on its own training pairs it would make the ranking worse. Rows that lack a modality,
    or hold the one vector of silence, are no pair and get no score.

    Args:
        method: fitted; says which modalities, of which dimensions, are compared.
        data: the pairs to audit; sequences are pooled by mean.
        seen: whether ``method`` was trained on these pairs.
        seed: of partitions, random pairs and bootstrap.

    Raises:
        InputError: the data lacks one of the method's modalities, holds values that are not finite, or has too few
            complete pairs.
    """
    pairs = _comparable(method, Pairs.of(data).pooled())
    usable = pairs.usable()
    rows = np.flatnonzero(usable.complete())
    if len(rows) < MIN_PAIRS:
        raise InputError(f"{pairs.source}: {len(rows)} complete pairs are too few to audit ({MIN_PAIRS} needed)")
    rng = np.random.default_rng(seed)
    features = {m: x[rows] for m, x in pairs.features.items()}
    embedded = None if seen else {m: torch.from_numpy(method.embed(m, x)) for m, x in features.items()}
    observed, random = _agreement(features, embedded, rng)
    shares = [wrong_share(observed[i], random[i]) for i in rng.integers(len(rows), size=(RESAMPLES, len(rows)))]
    low, high = np.quantile(shares, [0.025, 0.975])

    n = len(pairs)
    score, better, rank = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=np.intp)
    score[rows] = -observed
    sorted_random = np.sort(random[np.isfinite(random)])
    better[rows] = 1 - np.searchsorted(sorted_random, observed, side="right") / len(sorted_random)
    rank[rows[np.argsort(-score[rows], kind="stable")]] = np.arange(1, len(rows) + 1)
    unscored = {row: _reason(pairs, usable, row) for row in np.flatnonzero(rank == 0).tolist()}
    share = wrong_share(observed, random)
    return Audit(pairs.ids, score, rank, better, unscored, share, (float(low), float(high)))


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
    below = (observed[:, None] <= np.nanquantile(random, TAIL)).mean(axis=0)
    design = np.stack([TAIL, TAIL**3], axis=1)
    weight = TAIL[:, None] ** -0.5
    (share, right), *_ = np.linalg.lstsq(weight * design, weight[:, 0] * below)
    if right < 0:  # every pair may be wrong: nothing is left for right ones
        share = below.sum() / TAIL.sum()
    return float(np.clip(share, 0.0, 1.0))


def _comparable(method: Method, pairs: Pairs) -> Pairs:
    method.require_modalities(pairs)
    for m in method.dims_:
        finite = np.isfinite(pairs.features[m]).all(axis=1)
        bad = np.flatnonzero(~finite & pairs.present[m])
        if len(bad):
            raise InputError(f"{pairs.source}: {m}: values that are not finite in {describe_rows(bad.tolist())}")
    return replace(pairs, features={m: pairs.features[m] for m in method.dims_})


def _reason(pairs: Pairs, usable: Pairs, row: int) -> str:
    missing = [f"no {m}" for m in pairs.modalities if not pairs.present[m][row]]
    silent = [f"silent {m}" for m in pairs.modalities if pairs.present[m][row] and not usable.present[m][row]]
    return ", ".join(missing + silent)


def _agreement(
    features: Mapping[str, FloatArray], embedded: Mapping[str, Tensor] | None, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """Agreement of each pair, (n,), and of its first modality with other clips' second, (n, CELL - 1)."""
    n = len(next(iter(features.values())))
    x = {m: _kernel_components(rows, rng) for m, rows in features.items()}
    # Cells are rows of this table; the last one is filled up with row 0, which is masked wherever it is counted.
    table = np.zeros((-(-n // CELL), CELL), dtype=np.intp)
    table.flat[:n] = rng.permutation(n)
    valid = (np.arange(table.size) < n).reshape(table.shape)
    both = valid[:, :, None] & valid[:, None, :]
    off_diagonal = both & ~np.eye(CELL, dtype=bool)
    total = np.zeros(both.shape)
    for _ in range(REPEATS):
        fold = rng.permutation(len(table)) % min(FOLDS, len(table) // 2)
        for f in range(fold.max() + 1):
            inside = fold == f
            fit = rng.permutation(table[~inside][valid[~inside]])[:FIT_ROWS]
            cells = {m: z[torch.from_numpy(table[inside])] for m, z in x.items()}
            for agreement in _scores({m: z[torch.from_numpy(fit)] for m, z in x.items()}, cells):
                total[inside] += _standardised(agreement, off_diagonal[inside]) / (2 * REPEATS)
    if embedded is not None:
        a, v = (z[torch.from_numpy(table)] for z in embedded.values())
        total = (total + _standardised((a @ v.mT).double().numpy(), off_diagonal)) / 2
    observed, random = np.empty(n), np.full((n, CELL - 1), np.nan)
    observed[table[valid]] = np.diagonal(total, axis1=1, axis2=2)[valid]
    others = np.where(off_diagonal, total, np.nan)[:, ~np.eye(CELL, dtype=bool)].reshape(*table.shape, CELL - 1)
    random[table[valid]] = others[valid]
    return observed, random


def _standardised(agreement: Float64Array, random: BoolArray) -> Float64Array:
    values = agreement[random]
    standardised: Float64Array = (agreement - values.mean()) / max(float(values.std()), np.finfo(np.float64).tiny)
    return standardised


def _kernel_components(x: FloatArray, rng: np.random.Generator) -> Tensor:
    rows = torch.from_numpy(np.asarray(x, dtype=np.float64))
    landmarks = torch.from_numpy(rng.permutation(len(rows))[:LANDMARKS])
    return kernel_map(rows, landmarks, min(RANK, len(landmarks) // 4))(rows)


def _scores(fit: Mapping[str, Tensor], cells: Mapping[str, Tensor]) -> Iterator[Float64Array]:
    """Agreement of all pairings within each cell under maps solved on ``fit``: two arrays (cells, CELL, CELL)."""
    maps = ridge_cca(covariances(fit), DIM, RIDGE)
    a, v = (F.normalize(maps(m, z), dim=2) for m, z in cells.items())
    yield (a @ v.mT).numpy()
    maps = smoothed_cca(fit, DIM, ridge=RIDGE, k=NEIGHBOURS, tau=TAU)
    # Canonical variates of unit variance and correlation c: log p(a, v) / p(a) p(v) is, up to a constant,
    # sum (c a v - c^2 (a^2 + v^2) / 2) / (1 - c^2).
    a, v = (maps(m, z) / maps(m, fit[m]).std(0).clamp(min=torch.finfo(z.dtype).tiny) for m, z in cells.items())
    c = maps.correlation.clamp(max=MAX_CORRELATION)
    own = c.square() / (1 - c.square()) / 2
    yield ((a * c / (1 - c.square())) @ v.mT - (a.square() @ own)[:, :, None] - (v.square() @ own)[:, None, :]).numpy()
