"""Exact ranking: every query ranks the whole gallery by cosine, in blocks of bounded memory, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from hscmae.data.pairs import Labels
from hscmae.evaluation.ranking_cpu import rank_on_cpu
from hscmae.evaluation.ranking_gpu import rank_on_gpu
from hscmae.evaluation.ranking_job import Ranking, ranking_job


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
    progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """Rank the gallery for every query by cosine and summarise each ranked list.

    An item is relevant if it shares a label with the query; its gain is the number of shared labels. Among items of
    equal score the one of lower gain comes first, and the true pair comes last: ties count against the method.
    A row of zeros has cosine 0 with everything. Ranks are the same on every device; means over ranks may differ in the
    last bits.

    >>> import numpy as np
    >>> rank(np.eye(2), np.eye(2), pairs=[0, 1], labels=(Labels.single([0, 1]), Labels.single([0, 1]))).ap.tolist()
    [1.0, 1.0]

    Args:
        queries: embeddings, shape (n_queries, dim): a NumPy array or a tensor of any floating type, of any norm.
        gallery: embeddings, shape (n_gallery, dim).
        pairs: position in the gallery of each query's true pair, -1 for none, shape (n_queries,).
        labels: labels of the queries and of the gallery; ``None`` leaves the fields that need them at 0 or NaN.
        k: number of ranks that nDCG looks at.
        recall_levels: recall levels in [0, 1] at which to give the interpolated precision.
        device: where to compute; by default the GPU where there is one.
        block_rows: queries ranked at a time; by default as many as need 64 MiB for their scores.
        progress: called with the number of queries ranked and of all queries, block by block.

    Raises:
        InputError: shapes that do not fit, no gallery, values that are not finite, or more than 255 labels on a clip.
    """
    job = ranking_job(
        queries, gallery, pairs=pairs, labels=labels, k=k, recall_levels=recall_levels, block_rows=block_rows
    )
    where = _default_device(queries) if device is None else torch.device(device)
    return rank_on_cpu(job, progress) if where.type == "cpu" else rank_on_gpu(job, where, progress)


def _default_device(queries: Any) -> torch.device:
    if isinstance(queries, Tensor) and queries.device.type == "cuda":
        return queries.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
