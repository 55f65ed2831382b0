"""Exact ranking on the CPU: one sort a query, in the cache of a core, each list summarised by itself.

NumPy vectorises the sort of plain integers; that is what the keys of ``ranking_job`` are for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
import numpy.typing as npt
import torch

from hscmae.evaluation.ranking_job import MAX_GAIN, Ranking, RankingJob

CACHED_SCORES = 2**16  # scores that one thread sorts at a time: 512 KiB, which a core's own cache holds


def rank_on_cpu(job: RankingJob, progress: Callable[[int, int], None] | None = None) -> Ranking:
    """Blocks of scores by one matrix product, then a few lists at a time; see ``ranking.rank``."""
    n, n_gallery = len(job.queries), len(job.gallery)
    left, right = torch.from_numpy(job.queries), torch.from_numpy(job.gallery)  # (n, dim), (n_gallery, dim)
    scores = torch.empty(min(job.step, n), n_gallery, dtype=torch.float64)  # (block, n_gallery)
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
    discount = 1 / np.log2(np.arange(2, min(job.k, n_gallery) + 2))  # (min(k, n_gallery),)
    ideal = (np.tri(len(discount)) * discount).sum(axis=1)  # DCG of 1, 2, ... items of gain 1 in front
    counting = np.arange(1, n_gallery + 1, dtype=np.float64)

    def rank_some(start: int, first: int, last: int) -> None:
        """Rank the lists from ``first`` to ``last`` of the block that begins at ``start``."""
        keys = scores[first - start : last - start].numpy().astype(np.int64)  # (lists, n_gallery)
        for i, row in enumerate(keys, start=first):
            of_pair = row[job.pair_of[i]]
            for c in job.classes[job.class_start[i] : job.class_start[i + 1]]:
                row[job.members[job.member_start[c] : job.member_start[c + 1]]] += 1
            row.sort()
            if job.pair_of[i] >= 0:
                found.pair_rank[i] = row.searchsorted(of_pair + MAX_GAIN, side="right")
        gains = keys.astype(np.uint8)  # (lists, n_gallery): the low byte
        keys |= MAX_GAIN
        tied, relevant = keys[:, 1:] == keys[:, :-1], gains > 0
        dcg = (gains[:, : job.k] * discount).sum(axis=1)
        for i in range(first, last):
            found.ties[i] = np.count_nonzero(tied[i - first])
            at = relevant[i - first].nonzero()[0]  # (m,): places of the relevant items
            m = len(at)
            if not m:
                continue
            hits = counting[:m]
            precision = hits / (at + 1)  # (m,)
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
            if progress is not None:
                progress(stop, n)
    return found


def _highest(gains: npt.NDArray[np.uint8], k: int) -> npt.NDArray[np.uint8]:
    """The k highest gains, descending, zeros after the last; from the number of items of each gain."""
    counts = np.bincount(gains)[::-1]
    best = np.repeat(np.arange(len(counts), dtype=np.uint8)[::-1], np.minimum(counts, k))[:k]
    return np.pad(best, (0, k - len(best)))
