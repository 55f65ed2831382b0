"""Several processes against one: the same losses, gradients and state, whatever is switched on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from conftest import make_pairs
from hscmae.config import Loss, Training
from hscmae.data.pairs import Pairs
from hscmae.methods import METHODS, get_method
from hscmae.methods.deep import DeepMethod
from hscmae.training import distributed, shared_memory
from hscmae.training.features import Features
from hscmae.training.loop import Loop
from processes import in_processes

STEPS = 3
ROWS = 70
# Sums over rows in another order, and what a solve with covariances of this ridge makes of their rounding.
TOLERANCE = ROWS * torch.finfo(torch.float64).eps / Loss().ridge
EVERYTHING: dict[str, Any] = {
    "loss_cross_weight": 0.5,
    "loss_distill_weight": 0.5,
    "loss_learn_weights": True,
    "network_dropout": 0.3,
    "warm_start_ridge": 3.0,
    "teacher_decay": 0.5,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "queue": ("hscmae", EVERYTHING | {"affinity_source": "queue", "affinity_queue_size": 50, "head_refresh": 2}),
    "memory": (
        "hscmae",
        EVERYTHING
        | {
            "affinity_source": "train",
            "affinity_keys": "teacher",
            "affinity_refresh": 2,
            "affinity_mask_pair": True,
            "affinity_k": 500,
            "loss_correlation": "frobenius",
            "loss_distillation": "cosine",
        },
    ),
    "own pair a positive": ("hscmae", EVERYTHING | {"affinity_pair_share": 0.4, "loss_learn_weights": False}),
    "sequences": ("hscmae", EVERYTHING | {"pooling": "attention", "masking_steps_ratio": 0.5}),
    "fewer rows than processes": ("hscmae", EVERYTHING | {"training_batch_size": 2}),
}
DOUBTED = ("queue", "memory")
CASES |= {
    name: (name, {"network_dropout": 0.3})
    for name, method in METHODS.items()
    if issubclass(method, DeepMethod) and method.several_processes and name != "hscmae"
}


def holed(sequences: bool) -> Pairs:
    pairs = make_pairs(ROWS)
    n = len(pairs)
    if sequences:
        rng = np.random.default_rng(1)
        steps = {m: rng.normal(size=(n, 5, 1)).astype(np.float32) + x[:, None] for m, x in pairs.features.items()}
        pairs = replace(pairs, features=steps, lengths={m: rng.integers(1, 6, size=n) for m in steps})
    return replace(pairs, present={"audio": np.arange(n) % 5 != 1, "visual": np.arange(n) % 7 != 2})


def trained(case: str) -> dict[str, torch.Tensor]:
    """Losses and gradients of each step, and the state after the last, in float64."""
    name, settings = CASES[case]
    settings = {"dim": 4, "network_width": 8, "training_batch_size": 31} | settings
    method, pairs = get_method(name)(**settings), holed("pooling" in settings)
    assert isinstance(method, DeepMethod)
    rows = np.arange(len(pairs))
    method.dims_, method.scalers_ = pairs.dims, method._fit_scalers(pairs, rows)
    chance = np.where(pairs.complete(), np.random.default_rng(2).random(len(pairs)), 1.0) if case in DOUBTED else None
    features = Features(pairs, rows, method.scalers_, torch.device("cpu"), chance=chance)
    features.resident = {m: x.double() for m, x in features.resident.items()}
    objective = method._build(features, {"warm_start_ridge": 3.0}).double()
    draw = torch.Generator().manual_seed(0)
    for p in objective.parameters():  # a student that is no longer its teacher
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    found: dict[str, torch.Tensor] = {}
    follow = objective.after_step

    def keep(batch: Any, step: int) -> None:
        found.update({f"{step}/{n}": p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None})
        follow(batch, step)

    def note(record: dict[str, Any]) -> None:
        losses = {k: torch.tensor(v, dtype=torch.float64) for k, v in record.items() if k.startswith("loss/")}
        found.update({f"{record['step']}/{k}": v for k, v in losses.items()})

    objective.after_step = keep  # type: ignore[method-assign]
    # The student stays where it is, so that rounding is not carried from step to step.
    size = method.config.training.batch_size
    still = Training(batch_size=size, steps=STEPS, evaluations=STEPS, lr=1e-30, grad_clip=1e30)
    loop = Loop(still, STEPS, 0)
    loop.progress = note
    loop.run("refit", objective, features, STEPS)
    found |= {f"state/{n}": v for n, v in objective.state_dict().items()}
    return found


def worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.save({case: trained(case) for case in CASES}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def worker_of_shared_memory(rank: int, size: int, folder: str) -> None:
    shared_memory.LEAST_BYTES = 1
    worker(rank, size, folder)
    assert distributed._memory.parts


@pytest.fixture(scope="module", params=[(2, worker), (2, worker_of_shared_memory), (4, worker_of_shared_memory)])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    size, work = request.param
    folder = tmp_path_factory.mktemp(f"processes{size}")
    in_processes(work, size, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_state_are_those_of_one_process(case: str, results: Any) -> None:
    one = trained(case)
    assert sum("/loss/" in name for name in one) >= 2 * STEPS
    for several in results:
        assert several[case].keys() == one.keys()
        for name, expected in one.items():
            torch.testing.assert_close(several[case][name], results[0][case][name], rtol=0, atol=0)
            scale = float(expected.double().abs().max()) if expected.numel() else 1.0
            torch.testing.assert_close(several[case][name], expected, rtol=0, atol=TOLERANCE * scale)
