"""Classifiers that see the labels: what they reach, and what they must not look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hscmae
from conftest import make_pairs
from hscmae.data.pairs import Labels, Pairs
from hscmae.errors import InputError
from hscmae.evaluation.supervised import evaluate_supervised
from hscmae.methods import METHODS, PLS


def several_labels(pairs: Pairs) -> Pairs:
    """The same clips, every third of which carries a second label, and one a label of its own."""
    first = pairs.labels.indices
    rows = [[c, (c + 1) % 4] if i % 3 == 0 else [c] for i, c in enumerate(first)]
    rows[7] = [4]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    return replace(pairs, labels=Labels(np.concatenate(rows), indptr, tuple("abcde")))


@pytest.mark.parametrize("multi", [False, True])
def test_labels_help(multi):
    data = make_pairs(400)
    data = several_labels(data) if multi else data
    result = evaluate_supervised(data, bootstrap=20)
    unsupervised = hscmae.evaluate(PLS(dim=6).fit(data), data, bootstrap=20)
    assert result["avg/mAP"] > unsupervised["avg/mAP"] + 0.02
    assert result.keys() == unsupervised.keys() - {"n_trained_on"}
    assert result["chance/mAP"] == unsupervised["chance/mAP"]


def test_labels_of_test_rows_train_nothing():
    data = make_pairs(300)
    test = data.rows_of("test")
    classes = data.labels.indices.copy()
    classes[test] = np.roll(classes[test], 1)
    fooled = evaluate_supervised(replace(data, labels=Labels.single(classes)), bootstrap=0)
    assert abs(fooled["avg/mAP"] - fooled["chance/mAP"]) < 0.1
    honest = evaluate_supervised(data, bootstrap=0)
    assert fooled["avg/R@1"] == honest["avg/R@1"]


def test_vectors_of_test_rows_train_nothing():
    """Not even by making a vector that training rows share so frequent that it counts as silence."""
    data = make_pairs(300)
    train, test = data.rows_of("train"), data.rows_of("test")
    features = {m: x.copy() for m, x in data.features.items()}
    for x in features.values():
        x[train[1:4]] = x[train[0]]
    changed = {m: x.copy() for m, x in features.items()}
    for x in changed.values():
        x[test] = x[train[0]]
    found = [evaluate_supervised(replace(data, features=x), split="train", bootstrap=0) for x in (features, changed)]
    for metrics in found:
        del metrics["silent/audio"], metrics["silent/visual"]  # counted over the whole file
    assert found[0] == found[1]


def test_rows_that_lack_a_modality():
    data = make_pairs(300)
    present = {"audio": np.arange(300) % 4 != 1, "visual": np.arange(300) % 5 != 2}
    features = {m: np.where(present[m][:, None], x, np.nan).astype(np.float32) for m, x in data.features.items()}
    result = evaluate_supervised(replace(data, features=features, present=present), bootstrap=0)
    assert result["avg/mAP"] > result["chance/mAP"] + 0.2
    assert result["a2v/n_gallery"] == present["visual"][data.rows_of("test")].sum()


def test_too_few_labels_are_named():
    data = make_pairs(60)
    with pytest.raises(InputError, match="made-up: has no labels"):
        evaluate_supervised(replace(data, labels=None))
    with pytest.raises(InputError, match="fewer than two classes have 20 training rows"):
        evaluate_supervised(data)


def test_is_no_method():
    assert not any("supervised" in name for name in METHODS)
