"""For scale: what classifiers that were shown the labels reach. Not a method, and never among them.

One linear classifier a modality, trained with the labels of the training rows; a clip's embedding is its posteriors at
unit norm, so that two clips are close where the same classes are likely. Retrieval without labels is compared with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import BoolArray, FloatArray, IntArray, Pairs
from hscmae.data.pooling import pool_steps
from hscmae.data.scaling import Moments
from hscmae.errors import InputError
from hscmae.evaluation.retrieval import Retrieval
from hscmae.extras import require

MIN_ROWS = 20
MAX_CLASSES = 128
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 3
ROWS_TO_CHOOSE = 4096
CLASSES_TO_CHOOSE = 16


def evaluate_supervised(
    data: Pairs | Mapping[str, npt.ArrayLike],
    *,
    split: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Retrieval on the posteriors of linear classifiers that were trained WITH the labels of the training rows.

    Logistic regression on standardised features: multinomial where every clip has one class, else one classifier for
    each class against the rest. The inverse strength C of its L2 penalty is chosen by three-fold cross-validation
    within the training rows (log loss; at most 4,096 rows and, of several labels a clip, the 16 most frequent take part
    in the choice), from 1e-5 upwards for as long as the loss falls. Rare classes are cut: of those with 20 training
    rows or more the 128 most frequent are learned; metrics count all classes, as for every method. Training and
    validation rows train.

    Args:
        data: pairs with labels and, as a rule, a split; without one all rows both train and are measured.
        split: which rows to measure on, as for ``evaluate``.
        bootstrap: resamples of the 95% intervals; 0 leaves them out.
        seed: of the folds and the resampling.

    Returns:
        What ``evaluate`` returns for a method.

    Raises:
        InputError: no labels, or fewer than two classes with 20 training rows; scikit-learn is not installed.
    """
    pairs = Pairs.of(data)
    if pairs.labels is None:
        raise InputError(f"{pairs.source}: has no labels to train classifiers with")
    training = np.ones(len(pairs), dtype=bool) if pairs.split is None else pairs.split != b"test"
    vectors = pairs.usable(among=np.flatnonzero(training))
    hot = pairs.labels.one_hot()
    counts = hot[training & vectors.complete()].sum(axis=0)
    classes = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    classes = classes[counts[classes] >= MIN_ROWS]
    if len(classes) < 2:
        raise InputError(f"{pairs.source}: fewer than two classes have {MIN_ROWS} training rows")
    scalers, classifiers = {}, {}
    for m, x in vectors.features.items():
        rows = np.flatnonzero(training & vectors.present[m])
        if pairs.labels.is_single:
            rows = rows[hot[rows][:, classes].any(axis=1)]
        moments = Moments(x.shape[1])
        moments.add(x[rows])
        scalers[m] = moments.standardizer()
        classifiers[m] = _fit(scalers[m].apply(x[rows]), hot[rows][:, classes], pairs.labels.is_single, seed)

    def embed(modality: str, x: FloatArray, *, present: BoolArray, lengths: IntArray | None) -> FloatArray:
        x = x if lengths is None else pool_steps(x, lengths, "mean")
        out = np.zeros((len(x), len(classes)))
        if present.any():
            posterior = classifiers[modality].predict_proba(scalers[modality].apply(x[present]))
            out[present] = posterior / np.linalg.norm(posterior, axis=1, keepdims=True)
        return out

    found = Retrieval.embedded(embed, pairs, pairs.modalities, split=split)
    return found.metrics(bootstrap=bootstrap, seed=seed)


def _fit(x: npt.NDArray[np.float32], hot: BoolArray, single: bool, seed: int) -> Any:
    order = np.random.default_rng(seed).permutation(len(x))[:ROWS_TO_CHOOSE]
    shown = np.arange(hot.shape[1]) if single else np.arange(min(CLASSES_TO_CHOOSE, hot.shape[1]))
    best, best_loss = STRENGTHS[0], np.inf
    for strength in STRENGTHS:
        loss = 0.0
        for fold in range(FOLDS):
            held_out, fit = order[fold::FOLDS], np.delete(order, np.s_[fold::FOLDS])
            classifier = _train(x[fit], hot[np.ix_(fit, shown)], single, strength)
            posterior = np.clip(classifier.predict_proba(x[held_out]), 1e-7, 1 - 1e-7)
            loss -= float(np.log(np.where(hot[np.ix_(held_out, shown)], posterior, 1 - posterior)).mean())
        if loss >= best_loss:
            break
        best, best_loss = strength, loss
    return _train(x, hot, single, best)


def _train(x: npt.NDArray[np.float32], hot: BoolArray, single: bool, strength: float) -> Any:
    linear_model = require("sklearn.linear_model", "metrics")
    classifier = linear_model.LogisticRegression(C=strength, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=require("sklearn.exceptions", "metrics").ConvergenceWarning)
        if single:
            return classifier.fit(x, hot.argmax(axis=1))
        return require("sklearn.multiclass", "metrics").OneVsRestClassifier(classifier).fit(x, hot.astype(int))
