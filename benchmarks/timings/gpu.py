"""Every figure on an NVIDIA GPU in one run, once what it computes has been compared with the CPU.

    python -m benchmarks.timings.gpu     # also writes benchmarks/results/gpu.json

Rates are those of the whole training loop: data, teacher, all losses, optimiser, EMA. Each turn of steps ends where the
loop logs and so waits for the device; the first turn, with the closed form and the recording of the step, is left out.
Share of the matrix rate: the towers' minimal products (``training_step.products``) in the time of a whole step; those
between samples come on top and are not counted. Nothing is measured before the checks have passed.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.pages import RESULTS
from benchmarks.timings import ranking, run
from benchmarks.timings.figures import figure
from benchmarks.timings.training_step import DIMS, products
from hscmae.evaluation.ranking import rank
from hscmae.evaluation.ranking_job import Ranking
from hscmae.methods import HSCMAE
from hscmae.methods.hscmae import HSCMAEObjective
from hscmae.streams import Noise
from hscmae.training.capture import WARM_UP, Captured
from hscmae.training.features import Batch
from hscmae.training.loop import Objective, State, compute_gradients

EVERY_LOSS = {"loss_cross_weight": 1.0, "loss_distill_weight": 1.0}
SETTINGS: dict[str, Any] = {
    "loss_correlation": "frobenius",
    "warm_start_kind": "ridge",
    "warm_start_ridge": 1.0,
    "training_validation_share": 0.0,
}


class DrawnOnCPU(Noise):
    """The CPU's masks, wherever the features are: generators of different devices draw different numbers."""

    def keep(self, purpose: str, like: Tensor, probability: float) -> Tensor:
        return super().keep(purpose, like.cpu(), probability).to(like.device)


def fresh(width: int, rows: int, dtype: torch.dtype, device: str) -> tuple[Objective, Batch]:
    """An objective with every loss, and a batch with a few rows that lack a modality; the same on every device."""
    model = HSCMAE(**SETTINGS, **EVERY_LOSS, network_width=width)
    model.dims_ = dict(DIMS)
    source = torch.Generator().manual_seed(0)
    x = {m: torch.randn(rows, d, generator=source).to(device, dtype) for m, d in DIMS.items()}
    present = {m: (torch.rand(rows, generator=source) < 0.9).to(device) for m in DIMS}
    objective = HSCMAEObjective(model.config, model._network(), rows).to(device, dtype)
    return objective, Batch(x, present, torch.arange(rows, device=device))


def results(objective: Objective, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    gradients = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    return {name: loss.clone() for name, loss in losses.items()} | gradients


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference over all losses and gradients, relative to the norm of each."""
    assert found.keys() == expected.keys()
    tiny = torch.finfo(torch.float64).tiny
    pairs = [(found[name].double().cpu(), value.double().cpu()) for name, value in expected.items()]
    return max(float((a - b).norm() / b.norm().clamp(min=tiny)) for a, b in pairs)


def step_against_cpu(device: str, *, width: int, rows: int) -> float:
    """How far losses and gradients of one step in float64 are from the CPU's."""
    found = []
    for place in (device, "cpu"):
        objective, batch = fresh(width, rows, torch.float64, place)
        found.append(
            results(
                objective,
                compute_gradients(objective, list(objective.parameters()), 5.0, State(), batch, DrawnOnCPU(0, 0)),
            )
        )
    return largest_difference(*found)


def recorded_against_plain(device: str, *, width: int, rows: int, kind: type[Captured]) -> float:
    """How far losses and gradients of replayed steps are from those of the same steps taken as they are."""
    objective, batch = fresh(width, rows, torch.float32, device)
    worst = 0.0

    def compute(batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return compute_gradients(objective, list(objective.parameters()), 5.0, State(), batch, noise)

    recorded = kind(compute)
    for step in range(WARM_UP + 3):
        turned = Batch({m: x.roll(step, 0) for m, x in batch.x.items()}, batch.present, batch.rows)
        found = results(objective, recorded(turned, Noise(0, step)))
        if step >= WARM_UP:
            assert recorded.replay is not None, "the step could not be recorded; the warning above says why"
            replayed = {name: p.grad for name, p in objective.named_parameters()}
            expected = results(objective, compute(turned, Noise(0, step)))
            for name, parameter in objective.named_parameters():  # where the recording writes the next ones
                parameter.grad = replayed[name]
            worst = max(worst, largest_difference(found, expected))
    return worst


def ranking_against_cpu(device: str, n: int) -> float:
    """Largest difference of any figure of any ranked list; ranks, ties and counts must be equal."""
    worst = 0.0
    for made in (ranking.single_label, ranking.multi_label):
        a, v, labels = made(n)
        found, expected = (
            rank(a, v, pairs=np.arange(n), labels=(labels, labels), device=place) for place in (device, "cpu")
        )
        for field in fields(Ranking):
            ours, theirs = getattr(found, field.name), getattr(expected, field.name)
            if np.asarray(theirs).dtype.kind == "i":
                assert np.array_equal(ours, theirs), field.name
            else:
                np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12, err_msg=field.name)
                worst = max(worst, float(np.nanmax(np.abs(ours - theirs), initial=0.0)))
    return worst


def turns(device: str, *, pairs: int, batch: int, steps: int, count: int, **settings: Any) -> list[float]:
    """Seconds of each of ``count`` turns of ``steps`` steps, after a first one that is not timed."""
    rng = np.random.default_rng(0)
    data = {m: rng.standard_normal((pairs, d), dtype=np.float32) for m, d in DIMS.items()}
    ended: list[float] = []
    HSCMAE(
        **SETTINGS | settings,
        training_device=device,
        training_batch_size=batch,
        training_steps=steps * (count + 1),
        training_evaluations=count + 1,
    ).fit(data, progress=lambda _: ended.append(time.perf_counter()))
    took: list[float] = np.diff(ended).tolist()
    return took


def matrix_rate(device: str, *, size: int, repeats: int = 50) -> float:
    """Measured floating point operations a second of bf16 matrix products."""
    a = torch.randn(size, size, device=device).to(torch.bfloat16)
    out = a @ a
    seconds = []
    for _ in range(3):
        float(out[0, 0])  # waits
        began = time.perf_counter()
        for _ in range(repeats):
            torch.mm(a, a, out=out)
        float(out[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 * repeats / min(seconds)


def rows(
    device: str = "cuda",
    *,
    width: int = 1024,
    pairs: int = 22_500,
    batch: int = 512,
    epochs: int = 100,
    large_batch: int = 16_384,
    matrix: int = 8192,
    gallery: int = 58_000,
    checked: int = 2_000,
    kind: type[Captured] = Captured,
) -> list[dict[str, Any]]:
    """The checks' differences, then the timings; none where there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU at hand: nothing to measure")
        return []
    name = torch.cuda.get_device_name() if device == "cuda" else device
    checks = [
        ("one step in float64 against the CPU", step_against_cpu(device, width=width, rows=batch), 1e-7),
        ("recorded steps against plain ones", recorded_against_plain(device, width=width, rows=batch, kind=kind), 1e-4),
        ("ranked lists against the CPU", ranking_against_cpu(device, checked), 1e-10),
    ]
    found = [
        figure(f"{name}: {what}, largest difference", value, "", f"<= {most} of 1") for what, value, most in checks
    ]
    assert all(row["met"] for row in found), found

    how = {"network_width": width, "training_precision": "bfloat16"}
    steps = epochs * (pairs // batch) // 20
    took = turns(device, pairs=pairs, batch=batch, steps=steps, count=20, **how, **EVERY_LOSS)
    what = f"width {width}, batch {batch}, every loss, bf16"
    rate = round(steps * batch / statistics.median(took))
    found.append(figure(f"{name}: training, {what}", rate, "clips/s", ">= 300000 clips/s"))
    job = f"{name}: training, {pairs} pairs x {epochs} epochs, {what}"
    found.append(figure(job, round(sum(took), 2), "s", "<= 10 s"))

    took = turns(device, pairs=4 * large_batch, batch=large_batch, steps=20, count=3, **how)
    peak = matrix_rate(device, size=matrix)
    work = sum(2 * m * k * n for m, k, n in products(large_batch, width)) / (statistics.median(took) / 20)
    share = round(100 * work / peak, 1)
    reference = f"bf16 products of {matrix} x {matrix}: {peak / 1e12:.3g} TFLOP/s"
    shown = f"{name}: matrix rate of training, width {width}, batch {large_batch}"
    found.append(figure(shown, share, "%", ">= 20 %", reference=reference))

    a, v, labels = ranking.single_label(gallery)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        rank(a, v, pairs=np.arange(gallery), labels=(labels, labels), device=device)
        seconds.append(time.perf_counter() - began)
    size = f"{gallery:,} x {gallery:,}"
    found.append(figure(f"{name}: mAP {size}, single label, a direction", round(min(seconds), 3), "s", "<= 2 s"))
    return found


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    found = rows()
    if found:
        run.show(found)
        run.write(found, RESULTS / "gpu.json")


if __name__ == "__main__":
    main()
