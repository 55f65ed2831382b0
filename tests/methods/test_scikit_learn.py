"""scikit-learn's own checks of an estimator, those that have a meaning for one that is fitted on two modalities.

They give one array: here its left half is one modality and its right half the other. Left out is what speaks of
targets, weights, sparse or one-dimensional input, data frames and a transformer's column names, what wants
scikit-learn's own words in errors, and that a constructor must not look at its settings, which ours validates at once
(into ``config``). That rows embed alike in any batch is asked for in ``test_contract.py``, within rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.utils import estimator_checks as checks

from hscmae.config import flatten
from hscmae.methods import METHODS, Method

QUICK = {"dim": 3, "network_width": 8, "training_steps": 3, "training_batch_size": 16, "training_evaluations": 1}
QUICK |= {"ridge": 1.0, "warm_start_ridge": 1.0, "training_validation_share": 0.0}

OF_SETTINGS = [
    checks.check_estimator_cloneable,
    checks.check_estimator_repr,
    checks.check_estimator_tags_renamed,
    checks.check_get_params_invariance,
    checks.check_mixin_order,
    checks.check_parameters_default_constructible,
    checks.check_set_params,
    checks.check_valid_tag_types,
]
OF_FITS = [
    checks.check_dict_unchanged,
    checks.check_dont_overwrite_parameters,
    checks.check_estimators_dtypes,
    checks.check_estimators_fit_returns_self,
    checks.check_estimators_overwrite_params,
    checks.check_estimators_pickle,
    checks.check_estimators_unfitted,
    checks.check_f_contiguous_array_estimator,
    checks.check_fit_check_is_fitted,
    checks.check_fit_idempotent,
    checks.check_fit_score_takes_y,
    checks.check_inplace_ensure_writeable,
    checks.check_pipeline_consistency,
    checks.check_readonly_memmap_input,
    checks.check_requires_y_none,
]


def halves(x: Any) -> dict[str, np.ndarray]:
    array = np.asarray(x)
    return {"audio": array[:, : array.shape[1] // 2], "visual": array[:, array.shape[1] // 2 :]}


def on_one_array(method: type[Method]) -> type[Method]:
    """The method as the checks call it; found by its name in this module, as pickle wants."""

    def fit(self: Method, x: Any, y: Any = None) -> Method:
        return method.fit(self, halves(x), y)

    def transform(self: Method, x: Any) -> np.ndarray:
        return np.hstack([self.embed(m, rows) for m, rows in halves(x).items()])

    def score(self: Method, x: Any, y: Any = None) -> float:
        return method.score(self, halves(x), y)

    members = {"fit": fit, "transform": transform, "score": score, "__module__": __name__}
    globals()[method.__name__] = type(method.__name__, (method,), members)
    return globals()[method.__name__]


ESTIMATORS = {name: on_one_array(method) for name, method in METHODS.items()}


def quick(name: str) -> Method:
    known = flatten(METHODS[name].Config())
    return ESTIMATORS[name](**{setting: value for setting, value in QUICK.items() if setting in known})


@pytest.mark.parametrize("check", [*OF_SETTINGS, *OF_FITS], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_check(name: str, check: Callable[[str, Method], None]) -> None:
    estimator = quick(name)
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize("name", METHODS)
def test_parallel_search_sends_estimators_to_other_processes(name: str) -> None:
    import pickle

    from conftest import make_pairs

    model, data = METHODS[name](**{k: v for k, v in quick(name).get_params().items() if k != "preset"}), make_pairs(60)
    again = pickle.loads(pickle.dumps(model.fit(data)))
    assert again.get_params() == model.get_params()
    for m, z in model.embed_pairs(data).items():
        np.testing.assert_array_equal(again.embed_pairs(data)[m], z)
