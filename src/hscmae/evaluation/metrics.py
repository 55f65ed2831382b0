"""From ranked lists to figures: values of each clip, their means, bootstrap intervals, and what chance would give.

Clips, not queries, are resampled for the intervals: a clip drawn twice counts twice in both directions, its ranked list
unchanged. What the figures are called and mean is said in ``retrieval.Retrieval.metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import Float64Array, Labels
from hscmae.evaluation.ranking_job import Ranking

RECALL_AT = (1, 5, 10)

Rows = npt.NDArray[np.intp]


def per_clip(ranking: Ranking, queries: Rows, n: int, *, labelled: bool) -> dict[str, Float64Array]:
    """Metric -> its value for each of n clips as a query, shape (n,); NaN where the clip does not count.

    Args:
        ranking: what each query found.
        queries: the clips that query, shape (n_queries,).
        n: number of clips.
        labelled: whether there are labels, and so the metrics that need them.
    """
    pair_rank = np.where(ranking.pair_rank > 0, ranking.pair_rank, np.nan)
    columns = {"mAP": ranking.ap, "mAP_cutoffs": ranking.ap_cutoffs, "nDCG@10": ranking.ndcg} if labelled else {}
    columns |= {f"R@{k}": np.where(np.isnan(pair_rank), np.nan, pair_rank <= k) for k in RECALL_AT} | {
        "MeanR": pair_rank
    }
    values = {}
    for key, column in columns.items():
        values[key] = np.full(n, np.nan)
        values[key][queries] = column
    return values


def per_class(ranking: Ranking, labels: Labels) -> dict[str, float]:
    """Class name -> mean AP of the queries that carry the class; classes without a query are absent.

    Args:
        ranking: what each query found.
        labels: of the queries, shape (n_queries,).
    """
    ap = np.repeat(ranking.ap, np.diff(labels.indptr))  # (memberships,)
    valid = ~np.isnan(ap)
    count = np.bincount(labels.indices[valid], minlength=len(labels.names))  # (n_classes,)
    total = np.bincount(labels.indices[valid], weights=ap[valid], minlength=len(labels.names))
    return {labels.names[c]: float(total[c] / count[c]) for c in np.flatnonzero(count)}


def chance_ap(n_relevant: npt.ArrayLike, n_gallery: int) -> Float64Array:
    """Expected average precision of a uniformly random order; NaN without a relevant item.

    With R relevant among N items: E[AP] = (H_N + (R - 1) / (N - 1) * (N - H_N)) / N, where H_N = 1 + 1/2 + ... + 1/N:
    an item at rank i, given that it is relevant, has (i - 1)(R - 1)/(N - 1) relevant ones before it on average.

    >>> chance_ap([1, 2], 2).tolist()
    [0.75, 1.0]
    """
    relevant = np.asarray(n_relevant, dtype=np.float64)
    harmonic = float((1 / np.arange(1, n_gallery + 1)).sum())
    expected = (harmonic + (relevant - 1) / max(1, n_gallery - 1) * (n_gallery - harmonic)) / n_gallery
    return np.where(relevant > 0, expected, np.nan)


def mean_of(values: Any) -> float | None:
    """Mean of the values that are not NaN, ``None`` if there are none (JSON has no NaN)."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else None


def bootstrap_intervals(
    values: Mapping[str, Mapping[str, Float64Array]], n: int, resamples: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Direction (and ``avg``) -> metric -> 95% percentile interval of its mean over resampled clips.

    Args:
        values: direction -> metric -> values of the n clips, shape (n,); NaN where a clip does not count.
        n: number of clips.
        resamples: how many.
        seed: of the resampling.
    """
    keys = list(next(iter(values.values())))
    table = np.stack([values[name][key] for name in values for key in keys], axis=1)  # (n, directions * metrics)
    valid = ~np.isnan(table)
    both = np.concatenate([np.where(valid, table, 0.0), valid], axis=1)  # (n, 2 * directions * metrics)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, both.shape[1]))
    for i in range(resamples):
        sums[i] = np.bincount(rng.integers(n, size=n), minlength=n) @ both
    total, count = np.split(sums, 2, axis=1)
    with np.errstate(invalid="ignore"):  # a resample without any valid clip has no mean
        means = (total / count).reshape(resamples, len(values), len(keys))  # (resamples, directions, metrics)
    means = np.concatenate([means, means.mean(axis=1, keepdims=True)], axis=1)
    result: dict[str, dict[str, list[float]]] = {}
    for i, name in enumerate([*values, "avg"]):
        result[name] = {}
        for j, key in enumerate(keys):
            kept = means[:, i, j][~np.isnan(means[:, i, j])]
            if len(kept):
                result[name][key] = [float(x) for x in np.percentile(kept, (2.5, 97.5))]
    return result
