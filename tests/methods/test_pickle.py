"""Pickled as scikit-learn's users do it, by ``pickle`` or ``joblib``: settings or the artefact, nothing else."""

from __future__ import annotations

import copy
import pickle
import pickletools
from pathlib import Path

import joblib
import numpy as np
import pytest

import hscmae
from hscmae.data.pairs import Pairs
from hscmae.errors import InputError
from hscmae.methods import METHODS
from methods.test_contract import quick


@pytest.mark.parametrize("name", METHODS)
def test_a_fitted_one_comes_back(name: str, pairs: Pairs, tmp_path: Path) -> None:
    model = quick(name, anchors_share=0.3).fit(pairs)
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(again) is type(model) and again.get_params() == model.get_params()
        for m, x in pairs.features.items():
            np.testing.assert_array_equal(again.embed(m, x), model.embed(m, x))
        np.testing.assert_array_equal(again.trained_on(pairs), model.trained_on(pairs))


def test_one_that_is_not_fitted_keeps_its_settings() -> None:
    again = pickle.loads(pickle.dumps(hscmae.HSCMAE(preset="paper", dim=7)))
    assert repr(again) == "HSCMAE(preset='paper', dim=7)"
    with pytest.raises(InputError, match="not fitted"):
        again.embed("audio", np.ones((1, 2)))


def test_it_holds_the_artefact_and_no_other_object(pairs: Pairs) -> None:
    content = pickle.dumps(quick("hscmae").fit(pairs), protocol=2)
    named = {argument for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    assert named - {"_codecs encode"} == {"hscmae.methods.hscmae HSCMAE"}  # protocol 2 writes bytes as text


def test_a_changed_one_is_refused(pairs: Pairs) -> None:
    content = pickle.dumps(model := quick("pca").fit(pairs))
    weights = model.__getstate__()["files"]["model.safetensors"]
    with pytest.raises(InputError, match="checksum wrong"):
        pickle.loads(content.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
