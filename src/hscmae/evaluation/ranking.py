"""The exact ranking core: every query ranks the whole gallery by cosine, in blocks of bounded memory.

Unit-norm rows are rounded to whole numbers on a grid of 2^-26 (finer than float32), so that every product and every
partial sum of a scalar product is a whole number below 2^53: float64 matrix products then have no rounding error. Equal
embeddings tie exactly, and a ranking does not depend on the block size, on threads, or on the library and device that
multiply. A score and the relevance of its item share one 64-bit key, so that one sort of plain integers (vectorised in
NumPy) gives the order, the pessimistic treatment of ties and the relevance at each rank.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
BLOCK_SCORES = 2**23  # scores held at a time: 64 MiB of keys

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
        recall_levels: recall levels in (0, 1] or 0 at which to give the interpolated precision.
        device: where to compute; by default the CPU, or the device of ``queries`` if that is a tensor.
        block_rows: queries ranked at a time; by default as many as need 64 MiB for their keys.

    Raises:
        InputError: shapes that do not fit, no gallery, values that are not finite, or more than 255 labels on a clip.
    """
    if device is None:
        device = queries.device if isinstance(queries, Tensor) else "cpu"
    q, g = to_grid(queries, "queries"), to_grid(gallery, "gallery")
    if q.shape[1] != g.shape[1]:
        raise InputError(f"queries have dimension {q.shape[1]}, the gallery has {g.shape[1]}")
    n_queries, n_gallery = len(q), len(g)
    if not n_gallery:
        raise InputError("the gallery has no rows")
    pair_of = np.full(n_queries, -1) if pairs is None else np.asarray(pairs, dtype=np.int64)
    if len(pair_of) != n_queries or (labels is not None and (len(labels[0]), len(labels[1])) != (n_queries, n_gallery)):
        raise InputError("pairs and labels must have one entry for each row of the embeddings")
    if pair_of.max(initial=-1) >= n_gallery:
        raise InputError(f"pairs reach row {pair_of.max()}, the gallery has {n_gallery}")
    # Negative, so that the best item has the smallest key; the factor makes room for the gain in the low bits.
    left = torch.from_numpy(q * -(2.0**GAIN_BITS)).to(device)
    right = torch.from_numpy(g).to(device)
    true_pair = torch.from_numpy(pair_of).to(device)
    gains_of = None if labels is None else _Gains(*labels, torch.device(device))
    levels = torch.as_tensor(np.asarray(recall_levels, dtype=np.float64), device=device)
    step = block_rows or max(1, BLOCK_SCORES // n_gallery)

    blocks = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, n_queries, step):
            stop = min(start + step, n_queries)
            keys = (left[start:stop] @ right.T).to(torch.int64)  # (b, n_gallery)
            of_pair = keys.gather(1, true_pair[start:stop, None].clamp(min=0))
            if gains_of is not None:
                keys += gains_of(start, stop)
            keys = _sort_rows(keys, pool)
            pair_rank = torch.searchsorted(keys, of_pair + MAX_GAIN, right=True)[:, 0]
            pair_rank[true_pair[start:stop] < 0] = 0
            ties = ((keys[:, 1:] ^ keys[:, :-1]) >> GAIN_BITS == 0).sum(1)
            gains = keys.view(torch.uint8)[:, :: keys.element_size()]  # the low byte (little-endian machines)
            blocks.append([x.cpu().numpy() for x in (pair_rank, ties, *_summaries(gains, k, levels))])
    if not blocks:
        empty = np.empty(0)
        blocks = [[np.empty(0, np.int64)] * 3 + [empty] * 3 + [np.empty((0, len(levels)))]]
    return Ranking(n_gallery, *(np.concatenate(column) for column in zip(*blocks, strict=True)))


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


def _sort_rows(keys: Tensor, pool: ThreadPoolExecutor) -> Tensor:
    """Sort each row, in place on the CPU (NumPy's vectorised sort, several times faster than torch's there)."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    rows = keys.numpy()
    list(pool.map(lambda part: part.sort(axis=1), np.array_split(rows, min(len(rows), 4 * torch.get_num_threads()))))
    return keys


class _Gains:
    """Number of labels that queries share with every gallery item, a block of queries at a time."""

    def __init__(self, queries: Labels, gallery: Labels, device: torch.device) -> None:
        n_classes = max(len(queries.names), len(gallery.names))
        self.n_gallery = len(gallery)
        rows, classes = _members(queries, "queries")
        self.classes = torch.from_numpy(classes).to(device)
        self.indptr = np.searchsorted(rows, np.arange(len(queries) + 1))
        rows_g, classes_g = _members(gallery, "gallery")
        order = np.argsort(classes_g, kind="stable")
        self.members = torch.from_numpy(rows_g[order]).to(device)  # gallery rows, class by class
        self.first = torch.from_numpy(np.searchsorted(classes_g[order], np.arange(n_classes + 1))).to(device)

    def __call__(self, start: int, stop: int) -> Tensor:
        first, last = self.indptr[start], self.indptr[stop]
        classes = self.classes[first:last]
        device = classes.device
        rows = torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(self.indptr[start : stop + 1]))).to(device)
        begin = self.first[classes]
        length = self.first[classes + 1] - begin
        offset = begin - (length.cumsum(0) - length)
        at = torch.arange(int(length.sum()), device=device) + offset.repeat_interleave(length)
        target = rows.repeat_interleave(length) * self.n_gallery + self.members[at]
        gains = torch.zeros((stop - start) * self.n_gallery, dtype=torch.uint8, device=device)
        gains.scatter_add_(0, target, torch.ones_like(target, dtype=torch.uint8))
        return gains.view(stop - start, self.n_gallery)


def _members(labels: Labels, name: str) -> tuple[IntArray, IntArray]:
    """(row, class) of every membership, each once, ordered by row."""
    rows = np.repeat(np.arange(len(labels)), np.diff(labels.indptr))
    n_classes = max(1, len(labels.names))
    flat = np.unique(rows * n_classes + labels.indices)
    rows, classes = flat // n_classes, flat % n_classes
    too_many = np.flatnonzero(np.bincount(rows, minlength=1) > MAX_GAIN)
    if len(too_many):
        raise InputError(f"labels of the {name}: more than {MAX_GAIN} labels in {describe_rows(too_many.tolist())}")
    return rows, classes


def _summaries(gains: Tensor, k: int, levels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of ``Ranking`` from ``n_relevant`` on, from the gains in ranked order, shape (b, n)."""
    b, n = gains.shape
    row, at = gains.nonzero(as_tuple=True)
    count = torch.bincount(row, minlength=b)
    hits = torch.arange(1, len(row) + 1, device=row.device) - (count.cumsum(0) - count)[row]
    width = max(1, int(count.max()))

    def table(values: Tensor) -> Tensor:  # the values of row i, left-aligned in row i, zeros after them
        out = torch.zeros(b, width, dtype=torch.float64, device=row.device)
        out[row, hits - 1] = values.to(torch.float64)
        return out

    precision = table(hits / (at + 1).to(torch.float64))
    # Running sums, not sums: they add in the same order whatever the width of the table.
    summed = precision.cumsum(1)
    ap = summed[:, -1] / count
    until = torch.cat([at[1:], at.new_full((1,), n)])[: len(at)]  # rank (from 0) of the next relevant item
    until[count.cumsum(0)[count > 0] - 1] = n
    ap_cutoffs = table(summed[row, hits - 1] / hits * (until - at)).cumsum(1)[:, -1] / n

    discount = 1 / torch.log2(torch.arange(2, min(k, n) + 2, dtype=torch.float64, device=row.device))
    ideal = table(gains[row, at]).topk(min(k, width), dim=1).values
    dcg = (gains[:, :k] * discount).cumsum(1)[:, -1]
    ndcg = dcg / (ideal * discount[: ideal.shape[1]]).cumsum(1)[:, -1]

    best = precision.flip(1).cummax(1).values.flip(1)
    needed = torch.ceil(levels * count[:, None] - 1e-9).clamp(min=1).to(torch.int64) - 1  # hits that reach the recall
    curve = best.gather(1, needed.clamp(max=width - 1)) if len(levels) else best.new_empty(b, 0)
    none = count == 0
    for x in (ap, ap_cutoffs, ndcg, curve):
        x[none] = torch.nan
    return count, ap, ap_cutoffs, ndcg, curve
