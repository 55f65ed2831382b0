"""The exact ranking core: every query ranks the whole gallery by cosine, in blocks of bounded memory.

Unit-norm rows are rounded to whole numbers on a grid of 2^-26 (about float32's own precision), so that every product
and every partial sum of a scalar product is a whole number below 2^53: float64 matrix products then do not round. Equal
embeddings tie exactly, and a ranking does not depend on the block size, on threads, or on the library and device
that multiply. A score and the number of labels shared share one 64-bit key, so that one sort of plain integers (which
NumPy vectorises) gives the order, the pessimistic treatment of ties and the relevance at each rank.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hscmae.data.pairs import BoolArray, IntArray, Labels
from hscmae.errors import InputError, describe_rows

GRID_BITS = 26
GAIN_BITS = 8
MAX_GAIN = 2**GAIN_BITS - 1
BLOCK_SCORES = 2**23  # scores held at a time: 64 MiB
CACHED_SCORES = 2**16  # scores that one thread sorts at a time: 512 KiB, which a core's own cache holds

Float64Array = npt.NDArray[np.float64]


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
class Job:
    """What is to be ranked, in the form that both the CPU and the GPU work on.

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


def rank(
    queries: Any,
    gallery: Any,
    *,
    pairs: npt.ArrayLike | None = None,
    labels: tuple[Labels, Labels] | None = None,
    k: int = 10,
    recall_levels: npt.ArrayLike = (),
    device: str | torch.device | None = None,
    block_rows: int | None = None,
) -> Ranking:
    """Rank the gallery for every query by cosine and summarise each ranked list.

    An item is relevant if it shares a label with the query; its gain is the number of shared labels. Among items of
    equal score the one of lower gain comes first, and the true pair comes last: ties count against the method.
    A row of zeros has cosine 0 with everything.

    Args:
        queries: embeddings, shape (n_queries, dim): a NumPy array or a tensor of any floating type, of any norm.
        gallery: embeddings, shape (n_gallery, dim).
        pairs: position in the gallery of each query's true pair, -1 for none, shape (n_queries,).
        labels: labels of the queries and of the gallery; ``None`` leaves the fields that need them at 0 or NaN.
        k: number of ranks that nDCG looks at.
        recall_levels: recall levels in [0, 1] at which to give the interpolated precision.
        device: where to compute; by default the CPU, or the device of ``queries`` if that is a tensor.
        block_rows: queries ranked at a time; by default as many as need 64 MiB for their scores.

    Raises:
        InputError: shapes that do not fit, no gallery, values that are not finite, or more than 255 labels on a clip.
    """
    if device is None:
        device = queries.device if isinstance(queries, Tensor) else "cpu"
    q, g = to_grid(queries, "queries"), to_grid(gallery, "gallery")
    if q.shape[1] != g.shape[1]:
        raise InputError(f"queries have dimension {q.shape[1]}, the gallery has {g.shape[1]}")
    if not len(g):
        raise InputError("the gallery has no rows")
    pair_of = np.full(len(q), -1) if pairs is None else np.asarray(pairs, dtype=np.int64)
    if pair_of.shape != (len(q),) or (labels is not None and tuple(map(len, labels)) != (len(q), len(g))):
        raise InputError("pairs and labels must have one entry for each row of the embeddings")
    if pair_of.max(initial=-1) >= len(g):
        raise InputError(f"pairs reach row {pair_of.max()}, the gallery has {len(g)}")
    of_queries, of_gallery = labels or (_unlabelled(len(q)), _unlabelled(len(g)))
    rows, classes = _memberships(of_queries, "queries")
    members, of_class = _memberships(of_gallery, "gallery")
    by_class = np.argsort(of_class, kind="stable")
    n_classes = max(len(of_queries.names), len(of_gallery.names))
    job = Job(
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
    if torch.device(device).type == "cpu":
        return rank_rows(job)
    from hscmae.evaluation.ranking_gpu import rank_blocks

    return rank_blocks(job, device)


def rank_rows(job: Job) -> Ranking:
    """Rank on the CPU: blocks of scores by one matrix product, then a few lists at a time in the cache of a core."""
    n, n_gallery = len(job.queries), len(job.gallery)
    left, right = torch.from_numpy(job.queries), torch.from_numpy(job.gallery)
    scores = torch.empty(min(job.step, n), n_gallery, dtype=torch.float64)
    found = Ranking(
        n_gallery=n_gallery,
        pair_rank=np.zeros(n, dtype=np.int64),
        ties=np.zeros(n, dtype=np.int64),
        n_relevant=np.zeros(n, dtype=np.int64),
        ap=np.full(n, np.nan),
        ap_cutoffs=np.full(n, np.nan),
        ndcg=np.full(n, np.nan),
        precision=np.full((n, len(job.levels)), np.nan),
    )
    discount = 1 / np.log2(np.arange(2, min(job.k, n_gallery) + 2))
    ideal = (np.tri(len(discount)) * discount).sum(axis=1)  # DCG of 1, 2, ... items of gain 1 in front
    counting = np.arange(1, n_gallery + 1, dtype=np.float64)

    def rank_some(start: int, first: int, last: int) -> None:
        """Rank the lists from ``first`` to ``last`` of the block that begins at ``start``."""
        keys = scores[first - start : last - start].numpy().astype(np.int64)
        for i, row in enumerate(keys, start=first):
            of_pair = row[job.pair_of[i]]
            for c in job.classes[job.class_start[i] : job.class_start[i + 1]]:
                row[job.members[job.member_start[c] : job.member_start[c + 1]]] += 1
            row.sort()
            if job.pair_of[i] >= 0:
                found.pair_rank[i] = row.searchsorted(of_pair + MAX_GAIN, side="right")
        gains = keys.astype(np.uint8)  # the low byte
        keys |= MAX_GAIN
        tied, relevant = keys[:, 1:] == keys[:, :-1], gains > 0
        dcg = (gains[:, : job.k] * discount).sum(axis=1)
        for i in range(first, last):
            found.ties[i] = np.count_nonzero(tied[i - first])
            at = relevant[i - first].nonzero()[0]
            m = len(at)
            if not m:
                continue
            hits = counting[:m]
            precision = hits / (at + 1)
            summed = precision.cumsum()
            found.n_relevant[i] = m
            found.ap[i] = summed[-1] / m
            until = np.empty_like(at)  # where the next relevant item is
            until[:-1], until[-1] = at[1:], n_gallery
            until -= at
            found.ap_cutoffs[i] = (summed / hits * until).sum() / n_gallery
            if job.class_start[i + 1] - job.class_start[i] == 1:  # every gain is 1
                found.ndcg[i] = dcg[i - first] / ideal[min(m, len(ideal)) - 1]
            else:
                found.ndcg[i] = dcg[i - first] / (_highest(gains[i - first, at], len(discount)) * discount).sum()
            if len(job.levels):
                highest = np.maximum.accumulate(precision[::-1])[::-1]
                # A recall of 0.3 is reached by 3 items of 10, though 0.3 * 10 is above 3 in floating point.
                needed = np.ceil(job.levels * m - 1e-9).astype(np.int64)
                found.precision[i] = highest[np.maximum(needed, 1) - 1]

    at_once = max(1, CACHED_SCORES // n_gallery)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, n, job.step):
            stop = min(start + job.step, n)
            torch.mm(left[start:stop], right.T, out=scores[: stop - start])
            firsts = range(start, stop, at_once)
            lasts = (min(first + at_once, stop) for first in firsts)
            list(pool.map(rank_some, repeat(start), firsts, lasts))
    return found


def _highest(gains: npt.NDArray[np.uint8], k: int) -> npt.NDArray[np.uint8]:
    """The k highest gains, descending, zeros after the last; from the number of items of each gain."""
    counts = np.bincount(gains)[::-1]
    best = np.repeat(np.arange(len(counts), dtype=np.uint8)[::-1], np.minimum(counts, k))[:k]
    return np.pad(best, (0, k - len(best)))


def to_grid(x: Any, name: str = "embeddings") -> Float64Array:
    """Rows at unit norm times 2^26, rounded to whole numbers: scalar products of such rows are exact in float64.

    A row's norm stays below 2^26, hence (Cauchy-Schwarz) every partial sum of a scalar product stays below 2^52.

    Args:
        x: array or tensor, shape (n, dim), of any floating type.
        name: what to call it in messages.

    Raises:
        InputError: not two-dimensional, not numeric, or not finite.
    """
    rows = as_rows(x, name).copy(order="C")
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    rows /= np.where(largest > 0, largest, 1.0)
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    rows *= (2.0**GRID_BITS - np.sqrt(rows.shape[1]) - 1) / np.where(norms > 0, norms, 1.0)
    return np.rint(rows, out=rows)


def as_rows(x: Any, name: str = "embeddings", present: BoolArray | None = None) -> Float64Array:
    """Embeddings as a float64 array of shape (n, dim).

    Args:
        x: array or tensor, shape (n, dim), of any floating type.
        name: what to call it in messages.
        present: rows that must be finite, shape (n,); all of them by default.

    Raises:
        InputError: not two-dimensional, not numeric, or not finite.
    """
    if isinstance(x, Tensor):
        x = x.detach().to("cpu", torch.float64).numpy()
    try:
        rows: Float64Array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected an array of numbers, shape (rows, dim)") from None
    if rows.ndim != 2:
        raise InputError(f"{name}: expected shape (rows, dim), got {rows.shape}")
    finite = np.isfinite(rows).all(axis=1)
    if present is not None:
        finite |= ~present
    if not finite.all():
        raise InputError(f"{name}: not finite in {describe_rows(np.flatnonzero(~finite).tolist())}")
    return rows


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
