"""What ``evaluate`` takes for data: what is meant is accepted, the rest is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import hscmae
from conftest import make_pairs
from hscmae.data.pairs import Labels, Pairs
from hscmae.errors import InputError
from hscmae.methods import Method, get_method

PAIRS = make_pairs()
FEATURES = dict(PAIRS.features)
CLASSES = PAIRS.labels.indices


@pytest.fixture(scope="module")
def model() -> Method:
    return get_method("ridge-cca")(dim=4).fit(PAIRS)


def evaluate(model: Method, data: Any) -> dict[str, Any]:
    return hscmae.evaluate(model, data, bootstrap=0)


def test_a_dictionary_without_labels_tells_how_pairs_are_found(model: Method) -> None:
    found = evaluate(model, FEATURES)
    assert found == evaluate(model, Pairs(FEATURES))
    assert found["split"] == "all" and found["avg/R@10"] > 0.2 and "avg/mAP" not in found


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES,
        CLASSES.tolist(),
        [f"kind {c}" for c in CLASSES],
        np.array([f"kind {c}" for c in CLASSES], dtype=np.bytes_),
        torch.from_numpy(CLASSES),
        PAIRS.labels.one_hot(),
        PAIRS.labels,
    ],
)
def test_a_dictionary_may_hold_labels(model: Method, labels: Any) -> None:
    assert evaluate(model, {**FEATURES, "labels": labels}) == evaluate(model, Pairs(FEATURES, labels=PAIRS.labels))


@pytest.mark.parametrize("none", [-1, ""])
def test_a_clip_without_a_label_is_searched_and_asks_for_none(model: Method, none: Any) -> None:
    bare = np.arange(len(PAIRS)) % 7 == 0
    labels = np.where(bare, none, CLASSES if none == -1 else np.array([f"kind {c}" for c in CLASSES]))
    found = evaluate(model, {**FEATURES, "labels": labels})
    rows = [[] if without else [c] for without, c in zip(bare, CLASSES, strict=True)]
    indptr = np.cumsum([0, *map(len, rows)])
    assert found == evaluate(
        model, Pairs(FEATURES, labels=Labels(np.concatenate(rows).astype(int), indptr, (*"0123",)))
    )
    assert found["a2v/n_queries"] == found["a2v/n_gallery"] == len(PAIRS)


def test_a_dictionary_may_hold_ids_and_a_split(model: Method) -> None:
    columns = {"labels": PAIRS.labels, "split": PAIRS.split.astype(str), "ids": PAIRS.ids.astype(str)}
    assert evaluate(model, FEATURES | columns) == evaluate(model, PAIRS)


def test_columns_beside_the_features_train_as_pairs_do(model: Method) -> None:
    again = get_method("ridge-cca")(dim=4).fit({**FEATURES, "labels": CLASSES, "split": PAIRS.split})
    assert all(torch.equal(value, again._tensors()[name]) for name, value in model._tensors().items())


@pytest.mark.parametrize(
    "turned",
    [
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x).double(),
        lambda x: x.tolist(),
    ],
)
def test_features_in_other_clothes(model: Method, turned: Any) -> None:
    found = evaluate(model, {**{m: turned(x) for m, x in FEATURES.items()}, "labels": CLASSES})
    assert found == evaluate(model, Pairs(FEATURES, labels=CLASSES))


def test_features_of_fewer_digits(model: Method) -> None:
    whole = {m: np.rint(4 * x).astype(int) for m, x in FEATURES.items()}
    assert evaluate(model, whole) == evaluate(model, {m: x.astype(np.float32) for m, x in whole.items()})
    short = {m: torch.from_numpy(x).bfloat16() for m, x in FEATURES.items()}
    assert evaluate(model, short) == evaluate(model, {m: x.float() for m, x in short.items()})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**FEATURES, "labels": CLASSES[:9]}, "labels has 9 rows, the features have 160"),
        ({**FEATURES, "labels": CLASSES - 2}, r"labels: expected class numbers from 0 on \(-1: none\)"),
        ({**FEATURES, "labels": CLASSES + 0.5}, "labels: expected class numbers"),
        ({**FEATURES, "split": ["here"] * 160}, "split"),
        ({**FEATURES, "audio": [["a"] * 12] * 160}, "audio: expected floating point features"),
        ({**FEATURES, "audio": FEATURES["audio"] * np.nan}, "audio: values that are not finite in rows 0"),
        ({**FEATURES, "audio": FEATURES["audio"][:, :5]}, "audio has 5 dimensions, the model 12"),
        ({"audio": FEATURES["audio"], "labels": CLASSES}, "has no visual, which the model was trained on"),
        ({"labels": CLASSES}, "no features"),
        ({**FEATURES, "audio": torch.from_numpy(FEATURES["audio"]).to_sparse()}, "audio: not an array"),
        ({**FEATURES, "audio": torch.from_numpy(FEATURES["audio"]).to("meta")}, "audio: not an array"),
        (FEATURES["audio"], "expected Pairs or a mapping"),
    ],
)
def test_the_rest_is_refused_in_one_line(model: Method, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        evaluate(model, data)
    assert "\n" not in str(refused.value)


def test_a_model_that_was_never_fitted_says_so() -> None:
    with pytest.raises(InputError, match="not fitted yet"):
        evaluate(get_method("ridge-cca")(), FEATURES)
