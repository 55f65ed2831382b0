"""Training pairs in doubt: who is doubted, what it changes, and what it never looks at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae import HSCMAE, Pairs, SmoothedCCA, SmoothedKernelCCA, synthetic_pairs
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.methods.moments import doubt, raw_covariances
from hscmae.training import features as features_module
from hscmae.training.features import Features

QUICK: dict[str, Any] = {
    "dim": 6, "network_width": 16, "training_steps": 6, "training_batch_size": 64, "training_evaluations": 3,
    "view_landmarks": 40, "view_rank": 24,
}  # fmt: skip


@pytest.fixture(scope="module")
def damaged() -> Pairs:
    """300 training pairs, half of them wrong, some rows without a modality, and 60 rows to test on."""
    pairs = make_pairs(360)
    split = np.repeat([b"train", b"test"], [300, 60])
    pairs = with_wrong_pairs(replace(pairs, split=split), 0.5, 0)
    return replace(pairs, present={"audio": np.arange(360) % 9 != 1, "visual": np.arange(360) % 7 != 2})


def test_pairs_alone_are_doubted(damaged: Pairs) -> None:
    rows = damaged.rows_of("train")
    chance, told = doubt(damaged, rows, 0)
    assert chance is not None and chance.shape == (360,)
    assert (chance[~damaged.complete()] == 1).all() and (chance[300:] == 1).all()
    assert 0.1 < (1 - chance[rows][damaged.complete()[rows]]).mean() < 0.6
    low, high = told["wrong_share_ci"]  # type: ignore[misc]
    assert low <= told["wrong_share"] <= high and high > 0.4


def test_other_rows_are_not_looked_at(damaged: Pairs) -> None:
    changed = {m: x.copy() for m, x in damaged.features.items()}
    for x in changed.values():
        x[300:] = np.nan
    first, second = (
        doubt(pairs, damaged.rows_of("train"), 0) for pairs in (damaged, replace(damaged, features=changed))
    )
    assert first[0] is not None and second[0] is not None
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_few_pairs_and_right_ones_are_not_doubted() -> None:
    assert doubt(make_pairs(63), np.arange(63), 0) == (None, {})
    right = make_pairs(300)
    chance, told = doubt(right, np.arange(300), 0)
    assert chance is None and told["wrong_share"] < 0.1  # type: ignore[operator]
    weighed, plain = (HSCMAE(weigh_pairs=on, **QUICK).fit(right).embed_pairs(right) for on in (True, False))
    assert all(np.array_equal(weighed[m], plain[m]) for m in weighed)


def test_a_method_tells_what_it_took_for_wrong_and_forgets_the_rest(damaged: Pairs) -> None:
    model = HSCMAE(**QUICK).fit(damaged)
    assert model.summary_["wrong_share"] > 0.2 and model._chance is None
    assert "wrong_share" not in HSCMAE(weigh_pairs=False, **QUICK).fit(damaged).summary_


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_stand_up_to_wrong_pairs(seed: int) -> None:
    made = synthetic_pairs(
        1000, dims={"audio": 64, "visual": 128}, events=(1, 1), wrong_pairs=0.6, silent=0.0, seed=seed
    ).pairs
    test = made.of_split("test")

    def quality(on: bool) -> float:
        model = SmoothedKernelCCA(dim=16, ridge=3.0, weigh_pairs=on).fit(made)
        return float(Retrieval(model.embed_pairs(test), test.labels).metrics(bootstrap=0)["avg/mAP"])

    assert quality(True) > 1.02 * quality(False)


def test_on_values_the_streamed_covariances_are_weighted(damaged: Pairs) -> None:
    rows = damaged.rows_of("train")
    chance, _ = doubt(damaged, rows, 0)
    assert chance is not None
    found = raw_covariances(damaged, rows, "mean", chance)
    a, v = (damaged.features[m][rows].astype(np.float64) for m in damaged.modalities)
    here, there = (damaged.present[m][rows] for m in damaged.modalities)
    w = np.where(here & there, chance[rows], 0.0)
    a, v = a - a[here].mean(0), v - v[there].mean(0)
    np.testing.assert_allclose(found.cross, a.T @ (w[:, None] * v) / w.sum(), atol=1e-9)
    weighed, plain = (SmoothedCCA(dim=4, ridge=1.0, weigh_pairs=on).fit(damaged) for on in (True, False))
    assert not np.allclose(weighed.maps_.correlation, plain.maps_.correlation, atol=1e-3)


def test_batches_carry_the_chance(damaged: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, rows = np.random.default_rng(0).random(360), np.arange(10, 200)
    scalers = HSCMAE()._fit_scalers(damaged, rows)
    for held in (True, False):
        if not held:
            monkeypatch.setattr(features_module, "IN_MEMORY_BYTES", 0)
        features = Features(damaged, rows, scalers, torch.device("cpu"), chance=chance)
        assert (features.resident is not None) == held
        for one in (features, features.through({})):
            weight = one.batch(torch.tensor([3, 0])).weight
            assert weight is not None
            np.testing.assert_allclose(weight, chance[[13, 10]], rtol=1e-6)
