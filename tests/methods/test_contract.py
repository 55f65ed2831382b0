"""Every method through the one interface: what a user may rely on, whichever method it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

import hscmae
from conftest import make_pairs
from hscmae.config import DeepConfig, flatten
from hscmae.data.pairs import Labels, Pairs
from hscmae.errors import InputError
from hscmae.methods import METHODS, Method, get_method
from hscmae.nn.anchors import attend

ALIGNMENT = 64  # bytes; where torch puts what it allocates
QUICK = {"dim": 6, "network_width": 16, "training_steps": 6, "training_batch_size": 64, "training_evaluations": 3}


def quick(name: str, **settings: object) -> Method:
    method = get_method(name)
    known = flatten(method.Config())
    return method(**{k: v for k, v in QUICK.items() if k in known} | settings)


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[n for n, m in METHODS.items() if issubclass(m.Config, DeepConfig)])
def deep_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_embeds_unit_rows_of_either_modality_alone(name: str, pairs: Pairs) -> None:
    model = quick(name).fit(pairs)
    for modality, d in pairs.dims.items():
        z = model.embed(modality, np.random.default_rng(1).normal(size=(7, d)))
        assert z.shape == (7, 6)
        assert z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)


def test_a_row_embeds_the_same_in_any_batch(name: str, pairs: Pairs) -> None:
    model = quick(name).fit(pairs)
    x = pairs.features["visual"]
    whole = model.embed("visual", x)
    np.testing.assert_allclose(model.embed("visual", x[17:18]), whole[17:18], atol=1e-5)
    np.testing.assert_allclose(model.embed("visual", x[::-1])[::-1], whole, atol=1e-5)


def test_labels_change_nothing(name: str, pairs: Pairs) -> None:
    shuffled = replace(pairs, labels=Labels.single(np.random.default_rng(0).permutation(pairs.labels.indices)))
    states = [quick(name).fit(p)._tensors() for p in (pairs, shuffled, replace(pairs, labels=None))]
    for other in states[1:]:
        assert states[0].keys() == other.keys()
        assert all(bool((states[0][k] == other[k]).all()) for k in other)


def test_the_seed_decides(deep_name: str, pairs: Pairs) -> None:
    first, same, other = (
        quick(deep_name, seed=s, training_validation_share=0.0).fit(pairs).embed_pairs(pairs)["audio"]
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("change", ["other values", "the vector that four training rows share", "nothing present"])
def test_test_rows_change_nothing(name: str, change: str, pairs: Pairs) -> None:
    train, test = pairs.rows_of("train"), pairs.rows_of("test")
    features = {m: x.copy() for m, x in pairs.features.items()}
    for x in features.values():
        x[train[1:4]] = x[train[0]]  # one row more that holds this vector would make all of them silent
    changed, present = {m: x.copy() for m, x in features.items()}, {}
    for m, x in changed.items():
        if change == "other values":
            x[test] = x[test] * 3 + 1
        elif change == "nothing present":
            present[m] = pairs.split != b"test"
        else:
            x[test] = x[train[0]]
    before, after = replace(pairs, features=features), replace(pairs, features=changed, present=present)
    a, b = quick(name).fit(before), quick(name).fit(after)
    assert a.summary_["complete_pairs"] == b.summary_["complete_pairs"]
    assert all(bool((v == b._tensors()[k]).all()) for k, v in a._tensors().items())


def test_finds_pairs_better_than_chance(name: str) -> None:
    unaligned = name in ("random", "pca")
    results = []
    for seed in range(8 if unaligned else 1):
        data = make_pairs(300, seed=seed)
        results.append(hscmae.evaluate(quick(name, seed=seed).fit(data), data, bootstrap=0))
    gain = np.mean([metrics["avg/mAP"] - metrics["chance/mAP"] for metrics in results])
    assert abs(gain) < 0.08 if unaligned else gain > 0.1


def test_saving_and_loading_gives_the_same_embeddings(name: str, pairs: Pairs, tmp_path: Path) -> None:
    model = quick(name, anchors_share=0.3).fit(pairs)
    model.save(tmp_path / "model")
    again = hscmae.load(tmp_path / "model")
    for tensors in (model._tensors(), again._tensors()):  # equal bits on any processor need equal strides and addresses
        assert all(v.is_contiguous() and v.data_ptr() % ALIGNMENT == 0 for v in tensors.values())
    assert type(again) is type(model)
    assert again.get_params() == model.get_params() | {"preset": "default"}
    for modality, x in pairs.features.items():
        np.testing.assert_array_equal(again.embed(modality, x), model.embed(modality, x))
    files = ["README.md", "config.json", "model.safetensors", "training_rows.safetensors"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == files


@pytest.mark.parametrize("other", ["pca", "ridge-cca"])
def test_any_method_may_have_anchors(other: str, pairs: Pairs, tmp_path: Path) -> None:
    plain = quick(other).fit(pairs)
    model = quick(other, anchors_share=0.5, anchors_rows=30, anchors_tau=0.2).fit(pairs)
    assert plain.anchors_ is None
    assert model.anchors_ is not None and model.anchors_.shape == (30, 6)
    trained = pairs.take(pairs.rows_of("train")).features
    fused = sum(plain.embed(m, x).astype(np.float64) for m, x in trained.items())
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    nearest = (model.anchors_.numpy() @ fused.T).argmax(1)
    assert len(set(nearest)) == 30
    np.testing.assert_allclose(model.anchors_.numpy(), fused[nearest], atol=1e-5)
    z, x = plain.embed("audio", pairs.features["audio"]), pairs.features["audio"]
    expected = attend(torch.from_numpy(z), model.anchors_, tau=0.2, share=0.5)
    np.testing.assert_allclose(model.embed("audio", x), torch.nn.functional.normalize(expected, dim=1), atol=1e-5)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(hscmae.load(tmp_path / "model").embed("audio", x), model.embed("audio", x))


def test_units_of_the_features_do_not_matter(name: str, pairs: Pairs) -> None:
    scaled = replace(pairs, features={m: x * 1024 for m, x in pairs.features.items()})
    a = quick(name).fit(pairs).embed_pairs(pairs)
    b = quick(name).fit(scaled).embed_pairs(scaled)
    for m in a:
        np.testing.assert_allclose(a[m], b[m], atol=2e-3)


def test_rows_that_lack_a_modality_are_used_and_skipped(name: str) -> None:
    data = make_pairs(200)
    present = {"audio": np.arange(200) % 3 != 1, "visual": np.arange(200) % 4 != 2}
    garbage = {m: np.where(present[m][:, None], x, np.nan).astype(np.float32) for m, x in data.features.items()}
    holed = replace(data, features=garbage, present=present)
    model = quick(name).fit(holed)
    z = model.embed_pairs(holed)
    for m in z:
        np.testing.assert_allclose(np.linalg.norm(z[m], axis=1), present[m], atol=1e-5)
    filled = replace(holed, features={m: np.nan_to_num(x, nan=7.0) for m, x in garbage.items()})
    np.testing.assert_array_equal(quick(name).fit(filled).embed_pairs(holed)["audio"], z["audio"])


@pytest.mark.parametrize("value", [1e39, 1e24, 3e20, -1e300])
def test_what_float32_cannot_hold_is_refused_by_its_row(name: str, value: float, pairs: Pairs, tmp_path: Path) -> None:
    model = quick(name, anchors_share=0.5).fit(pairs)
    x = pairs.features["visual"].astype(np.float64)
    x[[3, 9]] = value
    with pytest.raises(InputError, match=r"visual: values too large for float32, .* in rows 3, 9$"):
        model.embed("visual", x)
    changed = replace(pairs, features={**pairs.features, "visual": x})
    with pytest.raises(InputError, match=r"made-up: visual: .* in clip clip00003, clip00009$"):
        model.embed_checked(changed)
    z = model.embed("visual", np.abs(x).clip(max=1e15))  # large, and still of one direction or another
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    if abs(value) > 1e38:
        with pytest.raises(InputError, match=r"visual: values that are not finite in rows 3, 9"):
            quick(name).fit(replace(changed, split=None))


def test_a_row_of_which_nothing_is_seen_is_refused(pairs: Pairs) -> None:
    model = quick("ridge-cca", ridge=1.0).fit(pairs)
    model.maps_.weight["audio"].zero_()
    with pytest.raises(InputError, match=r"audio: .* none that the model sees, in rows 0, 1, 2, 3, 4 and 155 more"):
        model.embed("audio", pairs.features["audio"])


def test_embeds_what_is_meant_by_features(name: str, pairs: Pairs) -> None:
    model, x = quick(name).fit(pairs), np.random.default_rng(0).integers(-3, 4, size=(5, 12))
    expected = model.embed("audio", x.astype(np.float32))
    for given in (x, x.tolist(), torch.tensor(x), torch.tensor(x, dtype=torch.bfloat16).requires_grad_()):
        np.testing.assert_array_equal(model.embed("audio", given), expected)
    again = quick(name).fit({m: torch.from_numpy(v).requires_grad_() for m, v in pairs.features.items()})
    assert np.isfinite(again.embed("audio", x)).all()


def test_a_constant_column_is_harmless(name: str, pairs: Pairs) -> None:
    audio = pairs.features["audio"].copy()
    audio[:, 3] = 5.0
    z = quick(name).fit(replace(pairs, features={**pairs.features, "audio": audio})).embed("audio", audio)
    assert np.isfinite(z).all()


@pytest.mark.parametrize("names", [("text", "motion"), ("a.b", "type"), ("keys", ""), ("%2e", "."), ("a", "a.b")])
def test_other_names_of_modalities(name: str, names: tuple[str, str], pairs: Pairs, tmp_path: Path) -> None:
    first, second = names
    renamed = {first: pairs.features["visual"], second: pairs.features["audio"]}
    model = quick(name).fit(renamed)
    found = hscmae.evaluate(model, renamed, bootstrap=0)
    assert set(found) >= {f"{first}2{second}/R@1", f"{second}2{first}/R@1", "avg/R@1"}
    model.save(tmp_path / "model")
    again = hscmae.load(tmp_path / "model")
    for m, z in model.embed_pairs(renamed).items():
        np.testing.assert_array_equal(again.embed(m, renamed[m]), z)


def test_plain_arrays_in_half_and_double_precision(name: str, pairs: Pairs) -> None:
    for dtype in (np.float16, np.float64):
        arrays = {m: x.astype(dtype) for m, x in pairs.features.items()}
        assert np.isfinite(quick(name).fit(arrays).embed("audio", arrays["audio"])).all()


def test_bad_input_is_named(name: str, pairs: Pairs) -> None:
    x = pairs.features
    with pytest.raises(InputError, match="needs two modalities"):
        quick(name).fit({"audio": x["audio"]})
    with pytest.raises(InputError, match="different numbers of rows"):
        quick(name).fit({"audio": x["audio"][:-1], "visual": x["visual"]})
    with pytest.raises(InputError, match="too few"):
        quick(name).fit({m: v[:5] for m, v in x.items()})
    broken = x["visual"].copy()
    broken[[3, 9], 0] = np.nan
    with pytest.raises(InputError, match=r"visual: values that are not finite in rows 3, 9"):
        quick(name).fit({**x, "visual": broken})
    with pytest.raises(InputError, match="not fitted"):
        quick(name).embed("audio", x["audio"])
    model = quick(name).fit(x)
    with pytest.raises(InputError, match="unknown modality 'smell'"):
        model.embed("smell", x["audio"])
    with pytest.raises(InputError, match=r"expected features of shape \(n, 12\)"):
        model.embed("audio", x["visual"])
    with pytest.raises(InputError, match="not finite in rows 3, 9"):
        model.embed("visual", broken)


def test_scikit_learn_manners(name: str, pairs: Pairs) -> None:
    model = quick(name, seed=3)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert model.set_params(dim=4) is model
    assert model.get_params()["dim"] == 4
    assert "dim=4" in repr(model)
    assert eval(repr(model), vars(hscmae.methods)).get_params() == model.get_params()
    with pytest.raises(InputError, match="unknown setting 'dimm'; did you mean 'dim'"):
        model.set_params(dimm=4)
    for dim in (0, 100_000):
        with pytest.raises(InputError, match=f"dim: .*, got {dim}"):
            get_method(name)(dim=dim)
    with pytest.raises(InputError, match="preset"):
        get_method(name)(preset="nosuch")
    search = GridSearchCV(quick(name), {"dim": [2, 5]}, cv=KFold(3))
    train = replace(pairs, split=None)
    search.fit(train)
    assert search.best_params_["dim"] in (2, 5)
    assert search.best_estimator_.embed("audio", pairs.features["audio"]).shape == (160, search.best_params_["dim"])


def test_the_constructor_shows_its_parameters(name: str) -> None:
    import inspect

    method = get_method(name)
    assert inspect.signature(method).parameters["dim"].default == method.Config().dim


def test_more_dimensions_than_features(name: str, pairs: Pairs) -> None:
    model = quick(name, dim=32).fit(pairs)
    assert model.embed("audio", pairs.features["audio"]).shape == (160, 32)
