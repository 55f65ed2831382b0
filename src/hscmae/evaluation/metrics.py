"""Retrieval metrics of paired embeddings, both directions, with bootstrap intervals.

For every direction each present row of one modality ranks the present rows of the other; definitions are in
``evaluate_embeddings``. Clips, not queries, are resampled for the intervals: a clip drawn twice counts twice in both
directions, its ranked list unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hscmae.data.pairs import BoolArray, Labels
from hscmae.errors import InputError
from hscmae.evaluation.grid import Float64Array, as_rows
from hscmae.evaluation.ranking import rank
from hscmae.evaluation.ranking_job import Ranking

RECALL_LEVELS = tuple(np.linspace(0, 1, 11).tolist())


def direction(source: str, target: str) -> str:
    """Name of a retrieval direction: ``a2v`` and ``v2a`` for audio and visual, else ``{source}2{target}``."""
    short = {"audio": "a", "visual": "v"}
    if source in short and target in short:
        source, target = short[source], short[target]
    return f"{source}2{target}"


def per_query(
    embeddings: Mapping[str, Any],
    labels: Labels | None = None,
    *,
    present: Mapping[str, BoolArray] | None = None,
    k: int = 10,
    recall_levels: npt.ArrayLike = (),
    device: str | torch.device | None = None,
) -> dict[str, tuple[npt.NDArray[np.intp], Ranking]]:
    """Rank both directions; for each, the clips (row numbers) that query and what their ranked lists give.

    Args:
        embeddings: modality name -> array or tensor, shape (n, dim); two modalities or more.
        labels: labels of the n clips, or ``None``.
        present: modality name -> which rows have it, shape (n,); a row that lacks a modality neither queries with it
            nor is found by it. All rows, where not given.
        k: number of ranks that nDCG looks at.
        recall_levels: recall levels for ``Ranking.precision``.
        device: where to compute; by default the CPU, or the embeddings' own device.

    Raises:
        InputError: fewer than two modalities, shapes that do not fit, or a modality without a present row.
    """
    if len(embeddings) < 2:
        raise InputError(f"retrieval needs two modalities, got {', '.join(embeddings) or 'none'}")
    sizes = {name: len(x) for name, x in embeddings.items()}
    n = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1:
        raise InputError(
            "embeddings have different numbers of rows: " + ", ".join(f"{m} {s}" for m, s in sizes.items())
        )
    if labels is not None and len(labels) != n:
        raise InputError(f"labels have {len(labels)} rows, the embeddings have {n}")
    rows, arrays = {}, {}
    for m, x in embeddings.items():
        mask = np.ones(n, dtype=bool) if present is None or m not in present else np.asarray(present[m], dtype=bool)
        if mask.shape != (n,):
            raise InputError(f"present[{m!r}] has shape {mask.shape}, expected ({n},)")
        rows[m] = np.flatnonzero(mask)
        if not len(rows[m]):
            raise InputError(f"{m}: no rows to rank")
        arrays[m] = as_rows(x, m, mask)
        device = device or (x.device if isinstance(x, Tensor) else None)
    rankings = {}
    for source, target in permutations(embeddings, 2):
        queries, gallery = rows[source], rows[target]
        position = np.full(n, -1)
        position[gallery] = np.arange(len(gallery))
        rankings[direction(source, target)] = (
            queries,
            rank(
                embeddings[source][queries],
                embeddings[target][gallery],
                pairs=position[queries],
                labels=None if labels is None else (labels.take(queries), labels.take(gallery)),
                k=k,
                recall_levels=recall_levels,
                device=device,
            ),
        )
    return rankings


def evaluate_embeddings(
    embeddings: Mapping[str, Any],
    labels: Labels | None = None,
    *,
    present: Mapping[str, BoolArray] | None = None,
    silent: Mapping[str, BoolArray] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    ks: Sequence[int] = (1, 5, 10),
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """Cross-modal retrieval metrics of paired embeddings, as a flat, JSON-ready dictionary.

    For each direction ``D`` (``a2v``, ``v2a``, or ``{from}2{to}``) and their plain mean ``avg``:

    - ``D/n_queries``, ``D/n_gallery``: present rows of either modality;
    - ``D/R@k``: share of queries whose true pair is among the first k; ``D/MedR``, ``D/MeanR``: median and mean rank
      of the true pair (queries whose pair lacks the other modality are left out);
    - ``D/mAP``: mean over queries with a relevant item of the mean precision at each relevant rank; relevant items
      share a label with the query, its own pair included;
    - ``D/mAP_cutoffs``: the same with each query's running AP averaged over all cutoffs (reads higher; only for
      comparison with figures published that way);
    - ``D/nDCG@10``: gain = number of shared labels, discount 1 / log2(1 + rank);
    - ``D/ties``: number of items whose score equals that of the item before them, over all lists. Ties count against
      the method.

    A mean also has ``..._ci``: its 95% percentile bootstrap interval over clips. Top-level keys: ``n_queries`` (clips
    that query in any direction), ``n_paired`` (clips with every modality), ``silent/{modality}`` (rows marked silent;
    they are ranked like any other), ``chance/mAP`` (expected mAP of a random order). Without labels the keys that need
    them are absent.

    Args:
        embeddings: modality name -> array or tensor, shape (n, dim).
        labels: labels of the n clips, or ``None``.
        present: modality name -> which rows have it, shape (n,).
        silent: modality name -> rows whose input was silent, shape (n,); only counted.
        bootstrap: number of resamples; 0 leaves the intervals out.
        seed: of the resampling.
        ks: cutoffs of recall.
        device: where to compute; by default the CPU, or the embeddings' own device.

    Raises:
        InputError: see ``per_query``.
    """
    rankings = per_query(embeddings, labels, present=present, device=device)
    n = len(next(iter(embeddings.values())))
    values = {name: _values(rows, ranking, n, labels is not None, ks) for name, (rows, ranking) in rankings.items()}
    means: dict[str, dict[str, float | None]] = {
        name: {key: _mean(x) for key, x in columns.items()} for name, columns in values.items()
    }
    for name, (_, ranking) in rankings.items():
        found = ranking.pair_rank[ranking.pair_rank > 0]
        means[name]["MedR"] = float(np.median(found)) if len(found) else None
        means[name]["ties"] = int(ranking.ties.sum())
    means["avg"] = {
        key: None
        if any(means[name][key] is None for name in rankings)
        else _mean([means[name][key] for name in rankings])
        for key in next(iter(means.values()))
    }
    intervals = _intervals(values, n, bootstrap, seed) if bootstrap else {}

    querying = np.unique(np.concatenate([rows for rows, _ in rankings.values()]))
    result: dict[str, Any] = {
        "n_queries": len(querying),
        "n_paired": int(np.logical_and.reduce([np.isin(np.arange(n), rows) for rows, _ in rankings.values()]).sum()),
    }
    for m, mask in (silent or {}).items():
        result[f"silent/{m}"] = int(np.sum(mask))
    for name, metrics in means.items():
        for key, value in metrics.items():
            result[f"{name}/{key}"] = value
            if key in intervals.get(name, {}):
                result[f"{name}/{key}_ci"] = intervals[name][key]
    for name, (rows, ranking) in rankings.items():
        result[f"{name}/n_queries"], result[f"{name}/n_gallery"] = len(rows), ranking.n_gallery
    if labels is not None:
        chances = [_mean(chance_ap(ranking.n_relevant, ranking.n_gallery)) for _, ranking in rankings.values()]
        result["chance/mAP"] = None if None in chances else _mean(chances)
    return result


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


def per_class_ap(
    embeddings: Mapping[str, Any],
    labels: Labels,
    *,
    present: Mapping[str, BoolArray] | None = None,
    device: str | torch.device | None = None,
) -> dict[str, dict[str, float]]:
    """Direction -> class name -> mean AP of the queries that carry the class; classes without a query are absent."""
    result = {}
    for name, (rows, ranking) in per_query(embeddings, labels, present=present, device=device).items():
        of = labels.take(rows)
        ap = np.repeat(ranking.ap, np.diff(of.indptr))
        valid = ~np.isnan(ap)
        count = np.bincount(of.indices[valid], minlength=len(of.names))
        total = np.bincount(of.indices[valid], weights=ap[valid], minlength=len(of.names))
        result[name] = {of.names[c]: float(total[c] / count[c]) for c in np.flatnonzero(count)}
    return result


def precision_recall(
    embeddings: Mapping[str, Any],
    labels: Labels,
    *,
    recall_levels: Sequence[float] = RECALL_LEVELS,
    present: Mapping[str, BoolArray] | None = None,
    device: str | torch.device | None = None,
) -> dict[str, tuple[Float64Array, Float64Array]]:
    """Direction -> (recall levels, interpolated precision), each of shape (n_levels,), averaged over queries.

    Interpolated precision at recall r is the highest precision at any rank whose recall is at least r (Manning,
    Raghavan and Schuetze, Introduction to Information Retrieval, section 8.4). Queries without a relevant item are left
    out.
    """
    levels = np.asarray(recall_levels, dtype=np.float64)
    curves = {}
    for name, (_, ranking) in per_query(
        embeddings, labels, present=present, recall_levels=levels, device=device
    ).items():
        valid = ranking.n_relevant > 0
        curves[name] = levels, ranking.precision[valid].mean(axis=0) if valid.any() else np.full(len(levels), np.nan)
    return curves


def _values(
    rows: npt.NDArray[np.intp], ranking: Ranking, n: int, labelled: bool, ks: Sequence[int]
) -> dict[str, Float64Array]:
    """Metric -> its value for each clip as a query, shape (n,); NaN where the clip does not count."""
    pair_rank = np.where(ranking.pair_rank > 0, ranking.pair_rank, np.nan)
    columns = {"mAP": ranking.ap, "mAP_cutoffs": ranking.ap_cutoffs, "nDCG@10": ranking.ndcg} if labelled else {}
    columns |= {f"R@{k}": np.where(np.isnan(pair_rank), np.nan, pair_rank <= k) for k in ks} | {"MeanR": pair_rank}
    values = {}
    for key, column in columns.items():
        values[key] = np.full(n, np.nan)
        values[key][rows] = column
    return values


def _mean(values: Any) -> float | None:
    """Mean of the values that are not NaN, ``None`` if there are none (JSON has no NaN)."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else None


def _intervals(
    values: Mapping[str, Mapping[str, Float64Array]], n: int, bootstrap: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Direction (and ``avg``) -> metric -> 95% percentile interval over resampled clips."""
    keys = list(next(iter(values.values())))
    table = np.stack([values[name][key] for name in values for key in keys], axis=1)  # (n, directions * metrics)
    valid = ~np.isnan(table)
    both = np.concatenate([np.where(valid, table, 0.0), valid], axis=1)
    rng = np.random.default_rng(seed)
    sums = np.empty((bootstrap, both.shape[1]))
    for i in range(bootstrap):
        sums[i] = np.bincount(rng.integers(n, size=n), minlength=n) @ both
    total, count = np.split(sums, 2, axis=1)
    with np.errstate(invalid="ignore"):  # a resample without any valid clip has no mean
        means = (total / count).reshape(bootstrap, len(values), len(keys))
    means = np.concatenate([means, means.mean(axis=1, keepdims=True)], axis=1)
    result: dict[str, dict[str, list[float]]] = {}
    for i, name in enumerate([*values, "avg"]):
        result[name] = {}
        for j, key in enumerate(keys):
            kept = means[:, i, j][~np.isnan(means[:, i, j])]
            if len(kept):
                result[name][key] = [float(x) for x in np.percentile(kept, (2.5, 97.5))]
    return result
