"""Audit: which pairs' two modalities disagree, and how many pairs are wrong.

A model has fitted the wrong pairs that it was trained on, so its own cosines are optimistic about them. Agreement is
therefore cross-fitted (``linear.agreement``): maps solved on the other pairs score a pair. No labels are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, Float64Array, Pairs
from hscmae.data.table import non_finite_rows
from hscmae.errors import InputError, describe_rows
from hscmae.evaluation.retrieval import Embedder, Progress
from hscmae.linear.agreement import MIN_PAIRS, cross_fit, random_better, wrong_share, wrong_share_quantiles

BLOCK = 4096  # rows looked at at a time


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

    Agreement is cross-fitted: see ``linear.agreement.cross_fit``. The cosine under ``method`` has the same weight, on
    pairs it was not trained on; on its own training pairs it would make the ranking worse. Rows that lack a modality,
    or hold the one vector of silence, are no pair and get no score.

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
    cells = cross_fit(pairs.features, rows, rng, progress)
    if unseen.any():
        z = {m: method.embed(m, given.features[m], present=complete, lengths=given.lengths.get(m)) for m in pairs.dims}
        cells.add_cosines({m: x[rows] for m, x in z.items()}, unseen[rows])
    observed, random = cells.agreement()
    low, high = wrong_share_quantiles(observed, random, rng)

    n = len(pairs)
    score, better, rank = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=np.intp)
    score[rows] = -observed
    better[rows] = random_better(observed, random)
    rank[rows[np.argsort(-score[rows], kind="stable")]] = np.arange(1, len(rows) + 1)
    unscored = {row: _reason(pairs, usable, row) for row in np.flatnonzero(rank == 0).tolist()}
    share = wrong_share(observed, random)
    return Audit(pairs.ids, score, rank, better, unscored, share, (low, high), int((complete & ~unseen).sum()))


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
