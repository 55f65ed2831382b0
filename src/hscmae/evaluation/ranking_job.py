"""What is to be ranked and what comes of it, in the form that the CPU and the GPU both work on.

A score and the number of labels shared share one 64-bit key, so that one sort of plain integers gives the order, the
pessimistic treatment of ties and the relevance at each rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import Float64Array, IntArray, Labels
from hscmae.errors import InputError, describe_rows
from hscmae.evaluation.grid import BLOCK_SCORES, to_grid

GAIN_BITS = 8
MAX_GAIN = 2**GAIN_BITS - 1


@dataclass(frozen=True, eq=False)
class Ranking:
    """What each query's ranked list gives; every array has one entry a query, shape (n_queries,).

    Attributes:
        n_gallery: number of ranked items.
        pair_rank: rank of the query's true pair, 1 is best; 0 where the query has none in the gallery.
        ties: number of items whose score equals that of the item just before them in the list.
        n_relevant: number of relevant items; 0 without labels.
        ap: average precision, the mean of the precision at each relevant rank; NaN without a relevant item.
        ap_cutoffs: mean over all cutoffs 1..n_gallery of the running AP (the mean of the precision at the relevant
            ranks up to the cutoff, 0 before the first one); NaN without a relevant item.
        ndcg: normalised discounted cumulative gain of the first ``k`` ranks; NaN without a relevant item.
        precision: interpolated precision (the best precision at this recall or a higher one) at each recall level,
            shape (n_queries, n_levels); NaN without a relevant item; no columns where no levels were asked for.
    """

    n_gallery: int
    pair_rank: IntArray
    ties: IntArray
    n_relevant: IntArray
    ap: Float64Array
    ap_cutoffs: Float64Array
    ndcg: Float64Array
    precision: Float64Array


@dataclass(frozen=True, eq=False)
class RankingJob:
    """What is to be ranked.

    Attributes:
        queries: whole numbers from ``to_grid`` times ``-2**GAIN_BITS``: the best item gets the smallest score, and the
            low bits of a score are free for the gain. Shape (n_queries, dim).
        gallery: whole numbers from ``to_grid``, shape (n_gallery, dim).
        pair_of: position in the gallery of each query's true pair or -1, shape (n_queries,).
        classes: classes of all queries, those of query ``i`` at ``class_start[i]:class_start[i + 1]``.
        class_start: shape (n_queries + 1,).
        members: gallery rows of all classes, those of class ``c`` at ``member_start[c]:member_start[c + 1]``.
        member_start: shape (n_classes + 1,).
        k: number of ranks that nDCG looks at.
        levels: recall levels, shape (n_levels,).
        step: number of queries in a block.
    """

    queries: Float64Array
    gallery: Float64Array
    pair_of: IntArray
    classes: IntArray
    class_start: IntArray
    members: IntArray
    member_start: IntArray
    k: int
    levels: Float64Array
    step: int


def ranking_job(
    queries: Any,
    gallery: Any,
    *,
    pairs: npt.ArrayLike | None,
    labels: tuple[Labels, Labels] | None,
    k: int,
    recall_levels: npt.ArrayLike,
    block_rows: int | None,
) -> RankingJob:
    """The job for the arguments of ``ranking.rank``.

    Raises:
        InputError: shapes that do not fit, no gallery, values that are not finite, or more than 255 labels on a clip.
    """
    q, g = to_grid(queries, "queries"), to_grid(gallery, "gallery")  # (n_queries, dim), (n_gallery, dim)
    if q.shape[1] != g.shape[1]:
        raise InputError(f"queries have dimension {q.shape[1]}, the gallery has {g.shape[1]}")
    if not len(g):
        raise InputError("the gallery has no rows")
    pair_of = np.full(len(q), -1) if pairs is None else np.asarray(pairs, dtype=np.int64)  # (n_queries,)
    if pair_of.shape != (len(q),) or (labels is not None and tuple(map(len, labels)) != (len(q), len(g))):
        raise InputError("pairs and labels must have one entry for each row of the embeddings")
    if pair_of.max(initial=-1) >= len(g):
        raise InputError(f"pairs reach row {pair_of.max()}, the gallery has {len(g)}")
    of_queries, of_gallery = labels or (_unlabelled(len(q)), _unlabelled(len(g)))
    rows, classes = _memberships(of_queries, "queries")
    members, of_class = _memberships(of_gallery, "gallery")
    by_class = np.argsort(of_class, kind="stable")
    n_classes = max(len(of_queries.names), len(of_gallery.names))
    return RankingJob(
        queries=np.multiply(q, -(2.0**GAIN_BITS), out=q),
        gallery=g,
        pair_of=pair_of,
        classes=classes,
        class_start=np.searchsorted(rows, np.arange(len(q) + 1)),
        members=members[by_class],
        member_start=np.searchsorted(of_class[by_class], np.arange(n_classes + 1)),
        k=k,
        levels=np.asarray(recall_levels, dtype=np.float64),
        step=block_rows or max(1, BLOCK_SCORES // len(g)),
    )


def _unlabelled(n: int) -> Labels:
    return Labels(np.empty(0, dtype=np.int64), np.zeros(n + 1, dtype=np.int64), ())


def _memberships(labels: Labels, name: str) -> tuple[IntArray, IntArray]:
    """(row, class) of every membership, each once, ordered by row."""
    n_classes = max(1, len(labels.names))
    rows = np.repeat(np.arange(len(labels)), np.diff(labels.indptr))
    rows, classes = np.divmod(np.unique(rows * n_classes + labels.indices), n_classes)
    too_many = np.flatnonzero(np.bincount(rows, minlength=1) > MAX_GAIN)
    if len(too_many):
        raise InputError(f"labels of the {name}: more than {MAX_GAIN} labels in {describe_rows(too_many.tolist())}")
    return rows, classes
