"""The structure of a space against loops and known geometry."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hscmae.data.pairs import Labels
from hscmae.errors import InputError
from hscmae.evaluation.structure import knn_purity, modality_gap, nmi, silhouette, structure


def clusters(spread, n=60, seed=0):
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    return np.eye(3)[classes] * 5 + spread * rng.standard_normal((n, 3)), Labels.single(classes)


def test_silhouette_from_its_definition():
    x, labels = clusters(2.0, n=20)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    away = 1 - unit @ unit.T
    values = []
    for i, own in enumerate(labels.indices):
        means = {c: np.mean([away[i, j] for j in range(20) if j != i and labels.indices[j] == c]) for c in range(3)}
        a, b = means[own], min(value for c, value in means.items() if c != own)
        values.append((b - a) / max(a, b))
    assert silhouette(x, labels) == pytest.approx(np.mean(values), rel=1e-9)


def test_tight_clusters_beat_loose_ones():
    tight, loose = clusters(0.1), clusters(5.0)
    assert silhouette(*tight) > 0.9 > silhouette(*loose)
    assert nmi(*tight) == pytest.approx(1) and nmi(*loose) < 0.7
    assert knn_purity(*tight) == 1 > knn_purity(*loose)


def test_nmi_is_repeatable():
    assert nmi(*clusters(4.0), seed=1) == nmi(*clusters(4.0), seed=1)


def test_purity_from_its_definition():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 4))
    sets = [set(rng.choice(5, size=rng.integers(0, 3), replace=False).tolist()) for _ in range(30)]
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])])
    labels = Labels(np.array([c for s in sets for c in s], dtype=np.int64), indptr, tuple("abcde"))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    shares = []
    for i in range(30):
        if sets[i]:
            near = sorted((j for j in range(30) if j != i), key=lambda j: -(unit[i] @ unit[j]))[:4]
            shares.append(np.mean([bool(sets[i] & sets[j]) for j in near]))
    assert knn_purity(x, labels, k=4) == pytest.approx(np.mean(shares), rel=1e-12)


def test_modality_gap_is_the_distance_of_the_centres():
    assert modality_gap(np.array([[2.0, 0], [0, 3]]), np.array([[0.0, 1], [7, 0]])) == pytest.approx(0)
    assert modality_gap(np.array([[2.0, 0]]), np.array([[-5.0, 0], [-1, 0]])) == pytest.approx(2)
    with pytest.raises(InputError, match="one dimension, got 2 and 3"):
        modality_gap(np.ones((2, 2)), np.ones((2, 3)))


def test_all_of_it_uses_present_rows_only():
    x, labels = clusters(1.0)
    present = np.arange(60) != 5
    whole = structure({"audio": x[present], "visual": x[present]}, labels.take(np.flatnonzero(present)))
    x[5] = np.nan
    assert structure({"audio": x, "visual": x}, labels, present=dict.fromkeys(("audio", "visual"), present)) == whole
    kinds = ("effective_rank", "knn_purity", "silhouette", "nmi")
    assert set(whole) == {f"{m}/{kind}" for m in ("audio", "visual") for kind in kinds} | {"modality_gap"}
    assert whole["modality_gap"] == 0


def test_without_labels_and_with_three_modalities():
    x, _ = clusters(1.0)
    found = structure({"a": x, "b": x, "c": -x})
    gaps = {"modality_gap/a-b", "modality_gap/a-c", "modality_gap/b-c"}
    assert set(found) == {"a/effective_rank", "b/effective_rank", "c/effective_rank"} | gaps


def test_multi_label_leaves_clustering_out():
    x, _ = clusters(1.0, n=3)
    labels = Labels(np.array([0, 1, 0, 1]), np.array([0, 2, 3, 4]), ("a", "b"))
    assert {"audio/effective_rank", "audio/knn_purity"} == set(structure({"audio": x}, labels))
    with pytest.raises(InputError, match="exactly one label"):
        silhouette(x, labels)


def test_a_missing_library_names_the_extra(monkeypatch):
    for name in ("sklearn", "sklearn.metrics", "sklearn.cluster"):
        monkeypatch.setitem(sys.modules, name, None)
    for metric in (silhouette, nmi):
        with pytest.raises(InputError, match=r"\(extra metrics\)"):
            metric(*clusters(1.0))


def test_bad_input_is_named():
    x, labels = clusters(1.0)
    for metric in (silhouette, nmi, knn_purity):
        with pytest.raises(InputError, match="60 rows, the embeddings have 59"):
            metric(x[:59], labels)
    with pytest.raises(InputError, match="got 1 in 60 rows"):
        silhouette(x, Labels.single(np.zeros(60, dtype=int)))
    with pytest.raises(InputError, match="no row has one"):
        knn_purity(x, Labels(np.empty(0, dtype=np.int64), np.zeros(61, dtype=np.int64), ("a",)))
