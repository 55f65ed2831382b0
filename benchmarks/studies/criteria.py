"""Criteria that were measured beside those of ``hscmae.evaluation.selection``, and choose worse.

All take the embeddings of n held-out pairs in the two modalities, row ``i`` of one paired with row ``i`` of the other,
and return one number.
"""

from __future__ import annotations

import numpy as np

from hscmae.data.pairs import FloatArray, IntArray
from hscmae.evaluation.grid import BLOCK_SCORES, to_grid
from hscmae.evaluation.selection import centred, paired


def linear_cka(a: FloatArray, v: FloatArray) -> float:
    """Linear centred kernel alignment of the two embeddings, in [0, 1]; higher is better.

    ``|A'V|_F^2 / (|A'A|_F |V'V|_F)`` with centred columns (Kornblith et al., ICML 2019). Rows are taken as they are,
    not at unit norm; the dimensions may differ. 0 where an embedding is constant.

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim'), paired by row.

    Raises:
        InputError: numbers of rows that differ, no rows, or values that are not finite.
    """
    a, v = map(centred, paired(a, v, same_dim=False))
    scale = float(np.linalg.norm(a.T @ a) * np.linalg.norm(v.T @ v))
    return float(np.linalg.norm(a.T @ v) ** 2 / scale) if scale > 0 else 0.0


def paired_mrr(a: FloatArray, v: FloatArray) -> float:
    """Mean reciprocal rank of the true pair, both directions averaged, in (0, 1]; higher is better, ties pessimistic.

    ``mean_i 1 / rank_i`` (Voorhees, TREC-8, 1999). Raises ``InputError`` like ``alignment_gap``.
    """
    return float(np.mean([(1 / ranks).mean() for ranks in _pair_ranks(a, v)]))


def mean_rank(a: FloatArray, v: FloatArray) -> float:
    """Mean rank of the true pair, both directions averaged, scaled to [0, 1]; 0 is best, 1/2 is chance.

    ``mean_i (rank_i - 1) / (n - 1)``, ties pessimistic. Holds up between models of different dimension. Raises
    ``InputError`` like ``alignment_gap``.
    """
    return float(np.mean([(ranks - 1).mean() / max(1, len(ranks) - 1) for ranks in _pair_ranks(a, v)]))


def held_out_correlation(a: FloatArray, v: FloatArray) -> float:
    """Mean over the dimensions of the Pearson correlation of a coordinate between the modalities, in [-1, 1].

    ``mean_j corr(a[:, j], v[:, j])`` on pairs that were not fitted (Andrew et al., Deep CCA, ICML 2013, report its
    sum). Higher is better; a constant coordinate counts 0. Depends on the basis: meaningful for canonical directions.

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n, dim), paired by row.

    Raises:
        InputError: shapes that differ, no rows, or values that are not finite.
    """
    a, v = map(centred, paired(a, v))
    scale = np.sqrt((a * a).sum(axis=0) * (v * v).sum(axis=0))
    return float(np.mean((a * v).sum(axis=0) / np.where(scale > 0, scale, np.inf)))


def _pair_ranks(a: FloatArray, v: FloatArray) -> list[IntArray]:
    """Rank of each true pair in either direction, 1 is best, behind every item of equal score."""
    a, v = (to_grid(x) for x in paired(a, v))
    step = max(1, BLOCK_SCORES // len(a))
    ranks = []
    for queries, gallery in ((a, v), (v, a)):
        blocks = []
        for start in range(0, len(a), step):
            scores = queries[start : start + step] @ gallery.T
            own = scores[np.arange(len(scores)), np.arange(start, start + len(scores))]
            blocks.append(np.count_nonzero(scores >= own[:, None], axis=1))
        ranks.append(np.concatenate(blocks))
    return ranks
