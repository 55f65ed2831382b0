"""The loop: what it logs and chooses, that parts removed leave the rest alone, and that it stops on nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_pairs
from hscmae.config import Training
from hscmae.data.pairs import Pairs
from hscmae.errors import RunError
from hscmae.methods import HSCMAE, deep, get_method
from hscmae.methods.hscmae import HSCMAEObjective
from hscmae.training.loop import WINDOW_BLOCKS, AdamW, _order, learning_rate

QUICK: dict[str, Any] = {
    "dim": 6,
    "network_width": 16,
    "training_steps": 12,
    "training_batch_size": 32,
    "training_evaluations": 4,
    "training_checkpoint_seconds": 0.0,
}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_metrics_hold_every_figure_of_the_contract(pairs: Pairs, tmp_path: Path) -> None:
    HSCMAE(**QUICK, loss_distill_weight=0.5).fit(pairs, run=tmp_path)
    records = lines(tmp_path)
    select = [r for r in records if r["phase"] == "select"]
    assert [r["step"] for r in select] == [0, 3, 6, 9, 12]
    for record in select[1:]:
        assert {"epoch", "lr", "seconds", "val/alignment_gap", "val/mutual_knn"} <= record.keys()
        for name in ("total", "global", "local", "sample", "distill"):
            assert np.isfinite(record[f"loss/{name}"])
            assert name == "total" or record[f"weight/{name}"] > 0
    steps = [(r["phase"], r["step"]) for r in records]
    assert len(steps) == len(set(steps))


def test_the_chosen_step_is_refitted_on_all_rows(pairs: Pairs, tmp_path: Path) -> None:
    model = HSCMAE(**QUICK).fit(pairs, run=tmp_path)
    select = [r for r in lines(tmp_path) if r["phase"] == "select"]
    history = dict(model.summary_["selection"])
    assert model.summary_["chosen_step"] in history
    assert len(select) == len(history)
    if model.summary_["chosen_step"]:
        assert lines(tmp_path)[-1] == {**lines(tmp_path)[-1], "phase": "refit", "step": model.summary_["chosen_step"]}


def test_without_refit_the_weights_of_the_best_measurement_are_kept(pairs: Pairs, monkeypatch: Any) -> None:
    scores = iter([0.1, 0.2, 0.9, 0.3, 0.4])
    kept: dict[str, torch.Tensor] = {}

    def measure(self: HSCMAE, objective: HSCMAEObjective, **_: Any) -> tuple[dict[str, float], list[float]]:
        score = next(scores)
        if score == 0.9:
            kept.update({n: v.clone() for n, v in objective.teacher.state_dict().items()})
        return {"criterion": score}, [score] * 5

    monkeypatch.setattr(HSCMAE, "_measure", measure)
    model = HSCMAE(**QUICK, training_refit=False).fit(pairs)
    assert model.summary_["chosen_step"] == 6
    trained = {n.removeprefix("network/"): v for n, v in model._tensors().items() if n.startswith("network/")}
    assert trained
    for name, value in trained.items():
        assert torch.equal(value, kept[name]), name


def test_patience_ends_the_choice_early(pairs: Pairs, monkeypatch: Any) -> None:
    scores = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(deep, "FOLDS", 1)
    monkeypatch.setattr(HSCMAE, "_measure", lambda *_, **__: ({}, [next(scores)] * 5))
    model = HSCMAE(**QUICK, training_patience=2).fit(pairs)
    assert [s for s, _ in model.summary_["selection"]] == [0, 3, 6]
    assert model.summary_["chosen_step"] == 0


def test_validation_rows_of_the_data_are_used_for_the_choice(pairs: Pairs) -> None:
    split = pairs.split.copy()
    split[5:30] = b"val"
    model = HSCMAE(**QUICK).fit(replace(pairs, split=split))
    assert model.summary_["rows"] == int((split == b"train").sum())
    changed = {m: np.where(split[:, None] == b"test", 0, x).astype(np.float32) for m, x in pairs.features.items()}
    other = HSCMAE(**QUICK).fit(replace(pairs, split=split, features=changed))
    np.testing.assert_array_equal(other.embed_pairs(pairs)["audio"], model.embed_pairs(pairs)["audio"])


@pytest.mark.parametrize("part", ["global", "local", "sample"])
def test_a_weight_of_0_equals_the_part_removed(pairs: Pairs, monkeypatch: Any, part: str) -> None:
    settings = QUICK | {"loss_learn_weights": False, "training_validation_share": 0.0}
    off = HSCMAE(**settings, **{f"loss_{part}_weight": 0.0}).fit(pairs)
    full_losses = HSCMAEObjective.losses

    def without(self: HSCMAEObjective, *args: Any) -> dict[str, torch.Tensor]:
        return {name: loss * (name != part) for name, loss in full_losses(self, *args).items()}

    monkeypatch.setattr(HSCMAEObjective, "losses", without)
    zeroed = HSCMAE(**settings).fit(pairs)
    a, b = (m.embed_pairs(pairs) for m in (off, zeroed))
    for m in a:
        np.testing.assert_allclose(a[m], b[m], atol=1e-6)


def test_everything_but_the_sample_level_ignores_the_decoder(pairs: Pairs) -> None:
    settings = QUICK | {"loss_sample_weight": 0.0, "training_validation_share": 0.0}
    one, two = (HSCMAE(**settings, network_decoder_depth=d).fit(pairs) for d in (1, 2))
    assert one._tensors().keys() == two._tensors().keys()


@pytest.mark.parametrize(
    "settings",
    [
        {"affinity_source": "queue", "affinity_queue_size": 50},
        {"affinity_source": "queue", "affinity_queue_size": 20},
        {"affinity_source": "train", "affinity_refresh": 3},
        {"affinity_mask_pair": True},
        {"affinity_pair_share": 0.5},
        {"affinity_k": 500},
        {"affinity_warmup": 5},
        {"loss_distill_weight": 1.0, "loss_distillation": "cosine"},
        {"loss_cross_weight": 1.0},
        {"loss_correlation": "frobenius"},
        {"loss_learn_weights": False},
        {"head_final": True, "head_refresh": 4},
        {"teacher_decay": 0.0},
        {"network_dropout": 0.3, "network_depth": 2, "network_decoder_depth": 2},
        {"warm_start_kind": "none"},
        {"warm_start_kind": "ridge"},
        {"masking_ratio": 0.0},
        {"training_precision": "bfloat16"},
        {"training_validation_share": 0.0},
        {"preset": "paper"},
    ],
    ids=str,
)
def test_every_part_trains(settings: dict[str, Any]) -> None:
    data = make_pairs(200)
    present = {"audio": np.arange(200) % 5 != 1, "visual": np.arange(200) % 7 != 2}
    holed = replace(data, present=present)
    z = HSCMAE(**{**QUICK, **settings}).fit(holed).embed_pairs(data)
    assert all(np.isfinite(x).all() for x in z.values())


def test_a_loss_that_is_not_finite_stops_the_run(pairs: Pairs, monkeypatch: Any) -> None:
    full_losses = HSCMAEObjective.losses

    def broken(self: HSCMAEObjective, batch: Any, noise: Any) -> dict[str, torch.Tensor]:
        losses = full_losses(self, batch, noise)
        return losses | {"local": losses["local"] * (float("nan") if noise.step == 4 else 1.0)}

    monkeypatch.setattr(HSCMAEObjective, "losses", broken)
    with pytest.raises(RunError, match="the local loss is not finite at step 5 of phase select"):
        HSCMAE(**QUICK).fit(pairs)


def test_learning_rate_warms_up_and_decays_to_0() -> None:
    settings = Training(warmup=10, lr=0.5)
    rates = [learning_rate(s, 100, settings) for s in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == rates[10] == 0.5
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_the_memory_over_all_training_rows_holds_each_row_in_its_place(pairs: Pairs) -> None:
    seen: list[HSCMAEObjective] = []
    original = HSCMAE._build

    class Spy(HSCMAE):
        def _build(self, features: Any, prepared: Any) -> HSCMAEObjective:
            seen.append(original(self, features, prepared))
            return seen[-1]

    Spy(**QUICK, affinity_source="train", training_validation_share=0.0).fit(pairs)
    memory = seen[0].memory
    assert memory.rows.tolist() == list(range(len(pairs.rows_of("train"))))
    assert bool(memory.present.all())


@pytest.mark.parametrize("rows", [8, 9, 16])
def test_pairs_too_few_to_choose_by_are_all_trained_on(rows: int) -> None:
    model = HSCMAE(**QUICK).fit({m: x[:rows] for m, x in make_pairs().features.items()})
    assert model.summary_["chosen_step"] == 12
    assert model.summary_["selection"] == []


def test_steps_follow_the_epochs_and_the_rows() -> None:
    settings = Training(epochs=30, batch_size=512)
    assert settings.planned_steps(22_500) == 30 * 43
    assert settings.planned_steps(100) == 200
    assert Training(steps=7).planned_steps(22_500) == 7


def test_from_a_closed_form_few_rows_take_few_steps() -> None:
    assert [HSCMAE()._planned_steps(n) for n in (25, 100, 400, 1303)] == [30, 60, 120, 200]
    assert HSCMAE(warm_start_kind="none")._planned_steps(100) == HSCMAE(preset="paper")._planned_steps(100) == 200
    assert HSCMAE(training_steps=7)._planned_steps(100) == 7
    assert HSCMAE()._planned_steps(22_500) == get_method("infonce")()._planned_steps(22_500) == 20 * 43


@pytest.mark.parametrize(("rows", "block"), [(1000, 0), (1000, 3), (1000, 7), (5, 10), (1000, 2000)])
def test_an_epoch_visits_every_row_once_whatever_the_shuffling(rows: int, block: int) -> None:
    orders = [_order(0, epoch, rows, block) for epoch in (0, 1)]
    assert all(order.sort().values.tolist() == list(range(rows)) for order in orders)
    assert not torch.equal(*orders)
    assert torch.equal(_order(0, 0, rows, block), orders[0])


def test_block_shuffling_reads_few_runs_at_a_time() -> None:
    order = _order(0, 0, 10_000, 10)
    for window in order.split(10 * WINDOW_BLOCKS):
        assert len((window // 10).unique()) == -(-len(window) // 10)
    assert (order[: 10 * WINDOW_BLOCKS].diff() == 1).float().mean() < 0.1


def test_the_optimiser_is_torchs_to_the_bit_and_leaves_its_compiler_alone() -> None:
    found = []
    for kind in (torch.optim.AdamW, AdamW):
        weight = torch.nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
        optimiser = kind([{"params": [weight], "weight_decay": 0.1}], lr=0.05, fused=True)
        for step in range(4):
            (weight * (step + 1)).square().sum().backward()
            if step == 2:
                again = kind([{"params": [weight], "weight_decay": 0.1}], lr=0.05, fused=True)
                again.load_state_dict(optimiser.state_dict())
                optimiser = again
            optimiser.step()
            optimiser.zero_grad()
        found.append(weight.detach().clone())
    assert found[0].equal(found[1])
    script = (
        "import sys, hscmae; pairs = hscmae.synthetic_pairs(80, seed=0).pairs; "
        "hscmae.HSCMAE(training_steps=2, network_width=8, dim=4).fit(pairs); print('torch._dynamo' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
