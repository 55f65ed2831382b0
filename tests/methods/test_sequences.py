"""Sequences (n, t, d) with lengths through every method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hscmae
from conftest import make_pairs
from hscmae.config import DeepConfig, flatten
from hscmae.data.pairs import Pairs
from hscmae.data.store import open_store, write_store
from hscmae.embedding import embed_file
from hscmae.errors import InputError
from hscmae.methods import METHODS, Method, get_method

QUICK = {"dim": 6, "network_width": 16, "training_steps": 6, "training_batch_size": 64, "training_evaluations": 3}
STEPS = 4


def quick(name: str, **settings: object) -> Method:
    method = get_method(name)
    known = flatten(method.Config())
    return method(**{k: v for k, v in QUICK.items() if k in known} | settings)


def make_sequences(n: int = 160, padding: float = 0.0) -> Pairs:
    """Pairs whose audio is a sequence of noisy copies, padded with any value."""
    base, rng = make_pairs(n), np.random.default_rng(5)
    x = base.features["audio"][:, None] + rng.normal(size=(n, STEPS, 12)).astype(np.float32)
    lengths = rng.integers(1, STEPS + 1, size=n)
    x[np.arange(STEPS) >= lengths[:, None]] = padding
    return replace(base, features={"audio": x, "visual": base.features["visual"]}, lengths={"audio": lengths})


def same(a: Method, b: Method) -> bool:
    first, second = a._tensors(), b._tensors()
    shared = {k for k in first if not k.endswith("pool.score")}
    return shared <= second.keys() and all(torch.equal(first[k], second[k]) for k in shared)


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[n for n, m in METHODS.items() if issubclass(m.Config, DeepConfig)])
def deep_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_equal_to_pooling_the_file_beforehand(name: str, how: str) -> None:
    data = make_sequences()
    a, b = quick(name, pooling=how).fit(data), quick(name).fit(data.pooled(how))  # type: ignore[arg-type]
    assert same(a, b)
    first, second = a.embed_pairs(data), b.embed_pairs(data.pooled(how))  # type: ignore[arg-type]
    for m in first:
        np.testing.assert_array_equal(first[m], second[m])


def variants(name: str) -> list[dict[str, object]]:
    """Settings under which sequences are kept in training."""
    kept: list[dict[str, object]] = [{}]
    if issubclass(get_method(name).Config, DeepConfig):
        kept.append({"pooling": "attention"})
    if name == "hscmae":
        kept += [{"masking_steps_ratio": 0.5}, {"pooling": "max", "masking_steps_ratio": 0.5}]
    return kept


def test_padding_never_matters(name: str) -> None:
    for settings in variants(name):
        zeros, other, nans = make_sequences(), make_sequences(padding=1e4), make_sequences(padding=np.nan)
        model = quick(name, **settings).fit(zeros)
        for padded in (other, nans):
            assert same(model, quick(name, **settings).fit(padded))
            np.testing.assert_array_equal(model.embed_pairs(padded)["audio"], model.embed_pairs(zeros)["audio"])
        metrics = hscmae.evaluate(model, zeros, bootstrap=0)
        assert metrics == hscmae.evaluate(model, nans, bootstrap=0)


def test_one_step_is_the_vector_path_to_the_bit(name: str) -> None:
    vectors = make_pairs()
    one = replace(vectors, features={m: x[:, None] for m, x in vectors.features.items()})
    for settings in variants(name):
        if "pooling" in settings:  # the scores' gradients are zero, but one more term rounds the norm's sum otherwise
            settings["training_grad_clip"] = 1e6
        a, b = quick(name, **settings).fit(one), quick(name, **settings).fit(vectors)
        assert same(a, b)
        for m, z in b.embed_pairs(vectors).items():
            np.testing.assert_array_equal(a.embed_pairs(one)[m], z)


def test_no_hidden_step_and_mean_pooling_in_the_network_is_pooling_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_sequences()
    records: list[dict[str, Any]] = []
    # The first step's losses: an optimiser may make a step of either sign out of a gradient's last bit.
    # Of a row whose values are all hidden, the embedding's direction is rounding: few are hidden.
    one_step = {"training_steps": 1, "training_validation_share": 0.0, "masking_ratio": 0.3, "view_kind": "linear"}
    quick("hscmae", **one_step).fit(data, progress=records.append)
    monkeypatch.setattr(get_method("hscmae"), "_keeps_steps", True)
    quick("hscmae", **one_step).fit(data, progress=records.append)
    before, inside = ({k: v for k, v in r.items() if k.startswith("loss/")} for r in records)
    assert before.keys() == inside.keys() and len(before) > 3
    for name, loss in before.items():
        assert inside[name] == pytest.approx(loss, rel=100 * float(np.finfo(np.float32).eps)), name


def test_hidden_steps_and_attention_change_training(pairs: Pairs) -> None:
    data = make_sequences()
    plain = quick("hscmae", training_validation_share=0.0).fit(data)
    for settings in ({"masking_steps_ratio": 0.5}, {"pooling": "attention"}):
        assert not same(plain, quick("hscmae", training_validation_share=0.0, **settings).fit(data))
    attentive = quick("hscmae", pooling="attention", training_validation_share=0.0).fit(data)
    assert float(attentive._tensors()["network/audio.pool.score"].abs().max()) > 0
    assert float(attentive._tensors()["network/visual.pool.score"].abs().max()) == 0  # vectors have nothing to attend


def test_hiding_steps_leaves_the_mask_of_values_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from hscmae.methods import hscmae as module

    seen: list[torch.Tensor] = []
    original = module.mask_values

    def spy(*arguments: object, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
        result = original(*arguments, **settings)  # type: ignore[arg-type]
        seen.append(result[1])
        return result

    monkeypatch.setattr(module, "mask_values", spy)
    runs = []
    for ratio in (0.0, 0.5):
        seen.clear()
        settings = {"masking_steps_ratio": ratio, "training_validation_share": 0.0, "view_kind": "linear"}
        quick("hscmae", **settings).fit(make_sequences())
        runs.append(list(seen))
    assert len(runs[0]) == len(runs[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_finds_pairs_in_sequences_that_are_kept(deep_name: str) -> None:
    data = make_sequences(300)
    model = quick(deep_name, pooling="attention", training_steps=30).fit(data)
    metrics = hscmae.evaluate(model, data, bootstrap=0)
    assert metrics["avg/mAP"] > metrics["chance/mAP"] + 0.1


def test_attention_is_saved_and_loaded(deep_name: str, tmp_path: Path) -> None:
    data = make_sequences()
    model = quick(deep_name, pooling="attention", training_validation_share=0.0).fit(data)
    model.save(tmp_path / "model")
    again = hscmae.load(tmp_path / "model")
    for m, z in model.embed_pairs(data).items():
        np.testing.assert_array_equal(again.embed_pairs(data)[m], z)


def test_a_clip_without_a_step_lacks_the_modality(name: str, tmp_path: Path) -> None:
    data = make_sequences()
    data.lengths["audio"][[3, 50]] = 0
    write_store(data, tmp_path / "features")
    for settings in variants(name):
        model = quick(name, **settings).fit(data)
        norms = np.linalg.norm(model.embed_pairs(data)["audio"], axis=1)
        np.testing.assert_allclose(norms, ~np.isin(np.arange(160), [3, 50]), atol=1e-5)
        embed_file(model, tmp_path / "features", tmp_path / "z", overwrite=True)
        embedded = open_store(tmp_path / "z")
        assert np.flatnonzero(~embedded.present["audio"]).tolist() == [3, 50]
        assert embedded.features["audio"].shape == (160, 6)


def test_closed_forms_refuse_attention() -> None:
    with pytest.raises(InputError, match=r"pooling: Input should be 'mean' or 'max'"):
        get_method("ridge-cca")(pooling="attention")


def test_faults_in_sequences_are_named(name: str) -> None:
    data = make_sequences()
    data.features["audio"][7, 0, 2] = np.nan
    with pytest.raises(InputError, match="audio: values that are not finite in row 7"):
        quick(name).fit(data)
    with pytest.raises(InputError, match="not finite in row 7"):
        quick(name).fit(make_sequences()).embed("audio", data.features["audio"], lengths=data.lengths["audio"])
