"""The kernel view: what the network sees, where it begins, and where it is left out."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hscmae
from conftest import make_pairs
from hscmae.artifact import CONFIG
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.config import DeepConfig, View
from hscmae.data.pairs import Pairs
from hscmae.linear.kernel import kernel_map
from hscmae.methods import HSCMAE, METHODS, get_method
from hscmae.training import features as features_module
from hscmae.training.features import Features
from hscmae.training.views import kernel_views

DEEP = [name for name, method in METHODS.items() if issubclass(method.Config, DeepConfig)]
QUICK: dict[str, Any] = {
    "dim": 6,
    "network_width": 16,
    "training_steps": 6,
    "training_batch_size": 64,
    "training_evaluations": 3,
    "view_kind": "kernel",
    "view_landmarks": 40,
    "view_rank": 24,
}


def standardised(pairs: Pairs) -> Features:
    rows = np.arange(len(pairs))
    return Features(pairs, rows, HSCMAE()._fit_scalers(pairs, rows), torch.device("cpu"))


def holed(pairs: Pairs) -> Pairs:
    n = len(pairs)
    return replace(pairs, present={"audio": np.arange(n) % 5 != 1, "visual": np.arange(n) % 7 != 2})


@pytest.mark.parametrize("landmarks", [40, 1000])
@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_training_begins_at_smoothed_kernel_cca(landmarks: int, wrong: float) -> None:
    pairs, shape = make_pairs(300), {"landmarks": landmarks, "rank": 24, "linear": 0.1}
    pairs = with_wrong_pairs(replace(pairs, split=np.repeat(b"train", 300)), wrong, 0)
    closed = get_method("smoothed-kernel-cca")(dim=6, ridge=1.0, weigh_pairs=True, **shape).fit(pairs)
    assert (closed.summary_["wrong_share"] > 0.2) == bool(wrong)
    untrained = {"training_steps": 1, "training_lr": 1e-30, "training_validation_share": 0.0, "anchors_share": 0.0}
    view = {f"view_{name}": value for name, value in shape.items()}
    model = HSCMAE(**{**QUICK, **untrained, **view}, warm_start_ridge=1.0).fit(pairs)
    for m, z in closed.embed_pairs(pairs).items():
        np.testing.assert_allclose(model.embed_pairs(pairs)[m], z, atol=1e-5)


def test_components_are_those_of_the_kernel_centred_and_on_one_scale() -> None:
    pairs = holed(make_pairs(90))
    features = standardised(pairs)
    views = kernel_views(features, View(landmarks=1000, rank=30), 0)
    for m, x in features.through(views).batch(torch.arange(90)).x.items():
        heard = features.present[m]
        assert not x[~heard].any()
        np.testing.assert_allclose(x[heard].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(x[heard].var(0, correction=0).mean(), 1, atol=1e-5)
        rows = features.batch(torch.arange(90)).x[m][heard].double()
        z = kernel_map(rows, torch.arange(len(rows)), 30, linear=View().linear)(rows)
        z -= z.mean(0)
        z /= z.var(0, correction=0).mean().sqrt()
        np.testing.assert_allclose(x[heard] @ x[heard].T, z @ z.T, atol=1e-3)


def test_rows_read_as_they_are_asked_for_are_those_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = holed(make_pairs(90))
    views = kernel_views(standardised(pairs), View(landmarks=40, rank=24), 0)
    resident = standardised(pairs).through(views)
    monkeypatch.setattr(features_module, "IN_MEMORY_BYTES", 0)
    mapped = standardised(pairs).through(views)
    assert mapped.resident is None and resident.resident is not None
    for m, view in kernel_views(mapped.through({}), View(landmarks=40, rank=24), 0).items():
        assert all(torch.equal(value, vars(views[m])[name]) for name, value in vars(view).items())
    positions = torch.tensor([3, 70, 5])
    for m, x in resident.batch(positions).x.items():
        torch.testing.assert_close(mapped.batch(positions).x[m], x, atol=1e-5, rtol=1e-5)


def test_what_rounding_hides_is_0() -> None:
    """Features of two dimensions have few components that float32 can tell from noise."""
    base = make_pairs(200)
    plane = {
        m: (x[:, :2] @ np.random.default_rng(0).normal(size=(2, 9))).astype(np.float32)
        for m, x in base.features.items()
    }
    features = standardised(replace(base, features=plane))
    for m, view in kernel_views(features, View(landmarks=150, rank=100), 0).items():
        dead = ~view.basis.any(0)
        assert 20 < int(dead.sum()) < 100
        rows = features.batch(torch.arange(200)).x[m]
        exact = view.to(torch.float64)(rows)
        np.testing.assert_allclose(view(rows), exact, atol=0.02)


@pytest.mark.parametrize("name", DEEP)
def test_any_deep_method_may_have_it(name: str, tmp_path: Path) -> None:
    data = make_pairs(300)
    model = get_method(name)(**QUICK | {"training_steps": 30}).fit(data)
    assert model.network_.tower("audio").encoder.layers[0].in_features == 24
    metrics = hscmae.evaluate(model, data, bootstrap=0)
    assert metrics["avg/mAP"] > metrics["chance/mAP"] + 0.1
    model.save(tmp_path / "model")
    for m, z in model.embed_pairs(data).items():
        np.testing.assert_array_equal(hscmae.load(tmp_path / "model").embed_pairs(data)[m], z)


def test_the_default_has_it_the_paper_and_the_rivals_do_not() -> None:
    assert HSCMAE().config.view.kind == "kernel"
    assert HSCMAE(preset="paper").config.view.kind == "linear"
    assert {get_method(name)().config.view.kind for name in DEEP if name != "hscmae"} == {"linear"}


@pytest.mark.parametrize("settings", [{"pooling": "attention"}, {"masking_steps_ratio": 0.5}], ids=str)
def test_a_network_that_pools_sequences_sees_values(settings: dict[str, Any]) -> None:
    model = HSCMAE(**QUICK | settings).fit(make_pairs())
    assert not model.views_
    assert model.network_.tower("audio").encoder.layers[0].in_features == 12


def test_with_background_pairs_the_network_sees_values_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = HSCMAE(**QUICK).fit(make_pairs(40), background=make_pairs(100))
    assert not model.views_
    assert "standardised values, not kernel components" in caplog.text


def test_a_second_fit_forgets_the_view_of_the_first() -> None:
    model = HSCMAE(**QUICK).fit(make_pairs())
    assert model.views_
    model.set_params(view_kind="linear").fit(make_pairs())
    assert not model.views_
    again = HSCMAE(**QUICK | {"view_kind": "linear"}).fit(make_pairs())
    np.testing.assert_array_equal(*(m.embed_pairs(make_pairs())["audio"] for m in (model, again)))


def test_an_artefact_from_before_there_were_views_is_linear(tmp_path: Path) -> None:
    model = HSCMAE(**QUICK | {"view_kind": "linear"}).fit(make_pairs())
    model.save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    del config["settings"]["view"], config["settings"]["masking"]["spread"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    again = hscmae.load(tmp_path)
    assert not again.views_
    np.testing.assert_array_equal(*(m.embed_pairs(make_pairs())["audio"] for m in (model, again)))
