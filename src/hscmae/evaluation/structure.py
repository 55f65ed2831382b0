"""The structure of an embedding space: how classes cluster in it, and how far apart the modalities lie.

These describe a space; they do not replace retrieval metrics. Silhouette and NMI come from scikit-learn, an extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from hscmae.data.pairs import BoolArray, FloatArray, Labels
from hscmae.errors import InputError
from hscmae.evaluation.selection import effective_rank, nearest, unit_rows
from hscmae.extras import require


def silhouette(x: FloatArray, labels: Labels) -> float:
    """Mean silhouette of the classes under cosine distance, in [-1, 1]; higher is better (Rousseeuw 1987).

    Args:
        x: embeddings, shape (n, dim).
        labels: exactly one class a row.

    Raises:
        InputError: scikit-learn is not installed, labels are not single, or there are not 2 to n - 1 classes.
    """
    metrics = require("sklearn.metrics", "metrics")
    classes = _single(x, labels)
    if not 2 <= len(np.unique(classes)) < len(classes):
        raise InputError(f"silhouette needs 2 to n - 1 classes, got {len(np.unique(classes))} in {len(classes)} rows")
    return float(metrics.silhouette_score(unit_rows(x), classes, metric="cosine"))


def nmi(x: FloatArray, labels: Labels, *, seed: int = 0) -> float:
    """Normalised mutual information of the classes and of k-means clusters, in [0, 1]; higher is better.

    Clusters: k-means on unit-norm rows, as many as there are classes, best of 10 starts. ``2 I(C; K) / (H(C) + H(K))``.

    Args:
        x: embeddings, shape (n, dim).
        labels: exactly one class a row.
        seed: of the starts.

    Raises:
        InputError: scikit-learn is not installed, or labels are not single.
    """
    cluster, metrics = require("sklearn.cluster", "metrics"), require("sklearn.metrics", "metrics")
    classes = _single(x, labels)
    means = cluster.KMeans(len(np.unique(classes)), n_init=10, random_state=seed)
    return float(metrics.normalized_mutual_info_score(classes, means.fit_predict(unit_rows(x))))


def knn_purity(x: FloatArray, labels: Labels, k: int = 10) -> float:
    """Mean share of a row's k nearest neighbours (cosine, itself excluded) that share a label with it, in [0, 1].

    Args:
        x: embeddings, shape (n, dim).
        labels: any number of classes a row; rows without any are not counted as queries.
        k: number of neighbours, at most n - 1.

    Raises:
        InputError: shapes that do not fit, fewer than two rows, or no row with a label.
    """
    if len(labels) != len(x):
        raise InputError(f"labels have {len(labels)} rows, the embeddings have {len(x)}")
    rows = np.flatnonzero(np.diff(labels.indptr))
    if not len(rows):
        raise InputError("k-NN purity needs labels, no row has one")
    hot = labels.one_hot()
    shares = [(hot[of] & hot[row]).any(axis=1).mean() for row, of in enumerate(nearest(x, k))]
    return float(np.mean(np.asarray(shares)[rows]))


def modality_gap(a: FloatArray, v: FloatArray) -> float:
    """Distance between the centres of the two modalities on the unit sphere, in [0, 2]; 0 is no gap.

    ``|mean_i a_i / |a_i| - mean_i v_i / |v_i||`` (Liang et al., Mind the Gap, NeurIPS 2022).

    Args:
        a: embeddings of one modality, shape (n, dim).
        v: embeddings of the other, shape (n', dim).

    Raises:
        InputError: no rows, values that are not finite, or dimensions that differ.
    """
    a, v = unit_rows(a), unit_rows(v)
    if a.shape[1] != v.shape[1]:
        raise InputError(f"modality gap needs one dimension, got {a.shape[1]} and {v.shape[1]}")
    return float(np.linalg.norm(a.mean(axis=0) - v.mean(axis=0)))


def structure(
    embeddings: Mapping[str, FloatArray],
    labels: Labels | None = None,
    *,
    present: Mapping[str, BoolArray] | None = None,
    k: int = 10,
    seed: int = 0,
) -> dict[str, float]:
    """All of the above that the data allows, as a flat dictionary.

    Keys: ``{modality}/effective_rank`` and ``modality_gap`` (``modality_gap/{a}-{b}`` with more than two modalities);
    with labels ``{modality}/knn_purity``; with one label a row also ``{modality}/silhouette`` and ``{modality}/nmi``.

    Args:
        embeddings: modality name -> array, shape (n, dim).
        labels: labels of the n clips, or ``None``.
        present: modality name -> which rows have it, shape (n,).
        k: number of neighbours of the purity.
        seed: of the k-means starts.

    Raises:
        InputError: as the single metrics.
    """
    result: dict[str, float] = {}
    rows = {m: np.flatnonzero((present or {}).get(m, np.ones(len(x), dtype=bool))) for m, x in embeddings.items()}
    for m, x in embeddings.items():
        result[f"{m}/effective_rank"] = effective_rank(x[rows[m]])
        if labels is None:
            continue
        of = labels.take(rows[m])
        result[f"{m}/knn_purity"] = knn_purity(x[rows[m]], of, k)
        if of.is_single:
            result[f"{m}/silhouette"] = silhouette(x[rows[m]], of)
            result[f"{m}/nmi"] = nmi(x[rows[m]], of, seed=seed)
    for a, v in combinations(embeddings, 2):
        name = "modality_gap" if len(embeddings) == 2 else f"modality_gap/{a}-{v}"
        result[name] = modality_gap(embeddings[a][rows[a]], embeddings[v][rows[v]])
    return result


def _single(x: FloatArray, labels: Labels) -> Any:
    if len(labels) != len(x):
        raise InputError(f"labels have {len(labels)} rows, the embeddings have {len(x)}")
    if not labels.is_single:
        raise InputError("silhouette and NMI need exactly one label a row")
    return labels.indices
