"""Recorded steps, with a stand-in for the CUDA graph, train to the same weights; no step waits for the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import make_pairs
from hscmae.data.pairs import Pairs
from hscmae.methods import HSCMAE, get_method
from hscmae.streams import Noise
from hscmae.training import loop
from hscmae.training.capture import WARM_UP, Captured
from hscmae.training.features import Batch, Features

QUICK: dict[str, Any] = {
    "dim": 6,
    "network_width": 16,
    "training_steps": 10,
    "training_batch_size": 32,
    "training_evaluations": 2,
    "loss_correlation": "frobenius",
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"network_dropout": 0.3, "network_depth": 2},
    {"affinity_source": "queue", "affinity_queue_size": 50},
    {"affinity_source": "train", "affinity_refresh": 3},
    {"affinity_mask_pair": True, "loss_learn_weights": False},
    {"affinity_pair_share": 0.5, "affinity_keys": "teacher"},
    {"loss_distill_weight": 1.0, "loss_cross_weight": 1.0},
    {"loss_distill_weight": 1.0, "loss_distillation": "cosine"},
    {"head_refresh": 4, "head_final": True},
    {"training_precision": "bfloat16"},
    {"loss_global_weight": 0.0, "loss_correlation": "singular"},
]


class Rerun(Captured):
    """In place of a CUDA graph: a replay does the recorded work again and puts its results where they were."""

    replays = 0

    def _warm_up(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return work()

    def _record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], object], dict[str, Tensor]]:
        results: dict[str, Tensor] = {}

        def replay() -> None:
            Rerun.replays += 1
            for name, loss in work().items():
                results.setdefault(name, torch.empty_like(loss)).copy_(loss)

        return replay, results


class Refused(Rerun):
    def _record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], object], dict[str, Tensor]]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def holed(pairs: Pairs) -> Pairs:
    n = len(pairs.ids)
    return replace(pairs, present={"audio": np.arange(n) % 5 != 1, "visual": np.arange(n) % 7 != 2})


def trained(pairs: Pairs, settings: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    model = HSCMAE(**{**QUICK, **settings}).fit(pairs, progress=records.append)
    for record in records:
        del record["seconds"]
    return model.network_.state_dict(), records


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("spoil", [lambda pairs: pairs, holed], ids=["complete", "holed"])
def test_recorded_steps_train_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], spoil: Callable[[Pairs], Pairs]
) -> None:
    data = spoil(make_pairs())
    plain, logged = trained(data, settings)
    monkeypatch.setattr(Rerun, "replays", 0)
    monkeypatch.setattr(loop, "_recorded", lambda compute, objective, _: Rerun(compute))
    recorded, logged_again = trained(data, settings)
    assert Rerun.replays >= QUICK["training_steps"] - WARM_UP
    assert logged == logged_again
    for name, value in plain.items():
        assert torch.equal(recorded[name], value), name


def test_where_recording_fails_the_steps_go_on_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, _ = trained(make_pairs(), {"training_validation_share": 0.0})
    monkeypatch.setattr(loop, "_recorded", lambda compute, objective, _: Refused(compute))
    with caplog.at_level(logging.WARNING):
        unrecorded, _ = trained(make_pairs(), {"training_validation_share": 0.0})
    assert [record.message for record in caplog.records] == [
        "training goes on without a CUDA graph: operation not permitted when stream is capturing"
    ]
    for name, value in plain.items():
        assert torch.equal(unrecorded[name], value), name


def test_only_work_that_is_the_same_at_every_step_is_recorded() -> None:
    def capturable(**settings: Any) -> bool:
        return objective_of(HSCMAE(**{**QUICK, **settings}), make_pairs())[0].capturable

    assert capturable()
    assert not capturable(loss_correlation="singular")
    assert not capturable(affinity_warmup=5)
    assert not objective_of(get_method("infonce")(dim=6), make_pairs())[0].capturable


class NothingThatWaits(TorchDispatchMode):
    """Refuses what asks the device for a value or a size, some of it inside only, and copies between devices."""

    WAITS = ("svd", "eig", "unique", "isin", "nonzero", "masked_select", "_local_scalar")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert not any(word in name for word in self.WAITS), f"{name} waits"
        result = func(*args, **(kwargs or {}))
        places = {x.device for x in (*args, result) if isinstance(x, Tensor) and x.ndim}
        assert len(places) <= 1, f"{name} copies"
        return result


def objective_of(model: Any, pairs: Pairs) -> tuple[loop.Objective, Features]:
    rows = np.arange(len(pairs.ids))
    model.dims_ = pairs.dims
    features = Features(pairs, rows, model._fit_scalers(pairs, rows), torch.device("cpu"))
    return model._build(features, {"warm_start_ridge": 1.0}), features


class AnySource(dict[str, torch.Generator]):
    def __contains__(self, purpose: object) -> bool:
        return True

    def __missing__(self, purpose: str) -> torch.Generator:
        return torch.Generator()


def step_on_a_pretended_gpu(model: Any, pairs: Pairs) -> None:
    """One step on torch's meta device: the code takes the ways of a GPU, and no value is there to be asked for."""
    objective, features = objective_of(model, pairs)
    objective.to("meta")
    batch = features.batch(torch.arange(40))
    x, present = ({m: t.to("meta") for m, t in part.items()} for part in (batch.x, batch.present))
    there = Batch(x, present, batch.rows.to("meta"), complete=batch.complete)
    noise = Noise(0, 0)
    noise.draw_from(AnySource())
    with NothingThatWaits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the meta device
        losses = loop.compute_gradients(objective, list(objective.parameters()), 5.0, loop.State(), there, noise)
    assert all(loss.device.type == "meta" for loss in losses.values())
    assert any(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize("settings", [s for s in SETTINGS if "training_precision" not in s], ids=str)
@pytest.mark.parametrize("spoil", [lambda pairs: pairs, holed], ids=["complete", "holed"])
def test_no_step_waits_for_the_device(settings: dict[str, Any], spoil: Callable[[Pairs], Pairs]) -> None:
    step_on_a_pretended_gpu(HSCMAE(**{**QUICK, **settings}), spoil(make_pairs()))


def test_a_step_that_waits_is_seen() -> None:
    with pytest.raises(AssertionError, match="svd waits"):
        step_on_a_pretended_gpu(HSCMAE(**QUICK | {"loss_correlation": "singular"}), make_pairs())
    with pytest.raises(NotImplementedError, match="nonzero"):
        step_on_a_pretended_gpu(get_method("infonce")(dim=6), holed(make_pairs()))
