"""Exact ranking on a GPU: a block of queries at a time instead of one list after another.

It builds the same keys as the CPU from the same whole numbers, so ranks, ties and numbers of relevant items are the
same; sums of precisions add in another order, so they may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from hscmae.evaluation.ranking_job import GAIN_BITS, MAX_GAIN, Ranking, RankingJob


def rank_on_gpu(job: RankingJob, device: torch.device, progress: Callable[[int, int], None] | None = None) -> Ranking:
    """Rank on ``device``, which may be any; see ``ranking.rank``."""
    on = {
        f.name: torch.as_tensor(getattr(job, f.name), device=device) for f in fields(job) if f.name not in ("k", "step")
    }
    n, n_gallery = len(job.queries), len(job.gallery)
    blocks = []
    for start in range(0, max(n, 1), job.step):
        stop = min(start + job.step, n)
        keys = (on["queries"][start:stop] @ on["gallery"].T).to(torch.int64)  # (block, n_gallery)
        pair = on["pair_of"][start:stop]  # (block,)
        of_pair = keys.gather(1, pair[:, None].clamp(min=0))  # (block, 1)
        # Every (query, item) with a shared label, once a label: the members of each class of each query.
        classes = on["classes"][job.class_start[start] : job.class_start[stop]]
        row = torch.arange(stop - start, device=device).repeat_interleave(on["class_start"][start : stop + 1].diff())
        first = on["member_start"][classes]
        length = on["member_start"][classes + 1] - first
        offset = (first - (length.cumsum(0) - length)).repeat_interleave(length)
        item = on["members"][torch.arange(len(offset), device=device) + offset]
        target = row.repeat_interleave(length) * n_gallery + item  # (shared labels of the block,)
        keys.view(-1).scatter_add_(0, target, torch.ones_like(target))

        keys = keys.sort(dim=1).values
        pair_rank = torch.searchsorted(keys, of_pair + MAX_GAIN, right=True)[:, 0].where(pair >= 0, 0)  # (block,)
        ties = ((keys[:, 1:] ^ keys[:, :-1]) >> GAIN_BITS == 0).sum(1)  # (block,)
        gains = keys & MAX_GAIN  # (block, n_gallery)
        summaries = _summaries(gains, job.k, on["levels"])
        blocks.append([x.cpu().numpy() for x in (pair_rank, ties, *summaries)])
        if progress is not None:
            progress(stop, n)
    return Ranking(n_gallery, *(np.concatenate(column) for column in zip(*blocks, strict=True)))


def _summaries(gains: Tensor, k: int, levels: Tensor) -> tuple[Tensor, ...]:
    """The fields of ``Ranking`` from ``n_relevant`` on, from the gains in ranked order, shape (block, n)."""
    b, n = gains.shape
    device = gains.device
    row, at = gains.nonzero(as_tuple=True)  # (relevant items,) each
    count = torch.bincount(row, minlength=b)  # (block,)
    hits = torch.arange(1, len(row) + 1, device=device) - (count.cumsum(0) - count)[row]
    width = int(count.max()) if len(row) else 1
    cell = row * width + hits - 1

    def table(values: Tensor) -> Tensor:  # the values of list i at the left of row i, zeros after them
        cells = torch.zeros(b * width, dtype=torch.float64, device=device)
        cells[cell] = values.to(torch.float64)
        return cells.view(b, width)

    precision = table(hits / (at + 1).to(torch.float64))  # (block, width)
    summed = precision.cumsum(1)
    ap = summed[:, -1] / count
    until = torch.cat([at[1:], at.new_full((1,), n)])[: len(at)]  # where the next relevant item is
    until[(count.cumsum(0) - 1)[count > 0]] = n
    ap_cutoffs = table(summed.view(-1)[cell] * (until - at) / hits).sum(1) / n

    discount = 1 / torch.log2(torch.arange(2, min(k, n) + 2, dtype=torch.float64, device=device))
    best = table(gains[row, at]).topk(min(k, width), dim=1).values
    ndcg = (gains[:, :k] * discount).sum(1) / (best * discount[: best.shape[1]]).sum(1)

    highest = precision.flip(1).cummax(1).values.flip(1) if len(levels) else precision
    needed = torch.ceil(levels * count[:, None] - 1e-9).to(torch.int64).clamp(1, width)
    curve = highest.gather(1, needed - 1)
    for x in (ap, ap_cutoffs, ndcg, curve):
        x[count == 0] = torch.nan
    return count, ap, ap_cutoffs, ndcg, curve
