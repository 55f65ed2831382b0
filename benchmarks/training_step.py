"""The training loop against its limit: the time that its minimal matrix products alone take.

    python benchmarks/training_step.py [--width 1024] [--batch 512] [--threads 2]

Minimal products: every first layer without the gradient of its input, the teacher without any backward pass. Products
between samples (logits, affinities, covariances: 2% of the rest) are left out, so that the limit is rather too fast.
Steps and products take turns every ten steps, in one process, on the same threads and in the same type. Against the
authors' code, repaired so that it runs (410 clips/s), the network has the width and depth of theirs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from hscmae.methods import HSCMAE

DIMS = {"audio": 128, "visual": 1024}
TURN = 10
TURNS = 9
AUTHORS_CLIPS = 410


def products(
    batch: int, width: int, depth: int = 1, decoder_depth: int = 1, dim: int = 64
) -> list[tuple[int, int, int]]:
    """(m, k, n) of every minimal matrix product of one step."""
    found = []
    for d in DIMS.values():
        encoder = [(d, width)] + [(width, width)] * (depth - 1)
        heads = [(width, dim), (d, dim)]  # projection of the hidden representation, canonical map of the features
        decoder = [(width, width)] * (decoder_depth - 1) + [(width, d)]
        forward = [(batch, i, o) for i, o in encoder + heads]
        weights = [(i, batch, o) for i, o in encoder + heads]
        inputs = [(batch, o, i) for i, o in [*encoder[1:], heads[0]]]
        student = forward + weights + inputs
        found += student + student + forward  # CCA path, MAE path, teacher
        for i, o in decoder:
            found += [(batch, i, o), (i, batch, o), (batch, o, i)]
    return found


def measure(
    batch: int, precision: str, *, width: int, depth: int = 1, decoder_depth: int = 1, dim: int = 64
) -> tuple[float, float]:
    """Seconds of one step of the whole loop (data, teacher, all losses, optimiser, EMA), and of its products alone."""
    dtype = getattr(torch, precision)
    shapes = products(batch, width, depth, decoder_depth, dim)
    pairs = [(torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)) for m, k, n in shapes]
    rng = np.random.default_rng(0)
    data = {m: rng.normal(size=(4 * batch, d)).astype(np.float32) for m, d in DIMS.items()}
    steps, limits = [], []
    began = time.perf_counter()

    def take_turns(_: dict[str, Any]) -> None:
        nonlocal began
        steps.append((time.perf_counter() - began) / TURN)
        began = time.perf_counter()
        for _turn in range(TURN):
            for a, b in pairs:
                torch.mm(a, b)
        limits.append((time.perf_counter() - began) / TURN)
        began = time.perf_counter()

    HSCMAE(
        dim=dim,
        network_width=width,
        network_depth=depth,
        network_decoder_depth=decoder_depth,
        training_batch_size=batch,
        training_validation_share=0.0,
        training_precision=precision,
        training_steps=TURN * (TURNS + 1),
        training_evaluations=TURNS + 1,
        warm_start_kind="ridge",
        warm_start_ridge=1.0,
    ).fit(data, progress=take_turns)
    # The first turn holds what comes before training. The median: other programs may have disturbed a turn.
    ratios = [step / limit for step, limit in zip(steps[1:], limits[1:], strict=True)]
    limit = statistics.median(limits[1:])
    return limit * statistics.median(ratios), limit


def rows(batch: int = 512, width: int = 1024) -> list[dict[str, Any]]:
    """Two rows a precision: the loop against its limit, and against the authors' code."""
    found = []
    for precision, target, times in (("float32", 1.25, 3), ("bfloat16", 1.5, 6)):
        how = f"batch {batch}, {precision}, {torch.get_num_threads()} threads"
        step, limit = measure(batch, precision, width=width)
        found.append(
            {
                "name": f"training step, width {width}, {how}",
                "value": round(batch / step),
                "unit": "clips/s",
                "reference": f"matrix products alone: {round(batch / limit)} clips/s",
                "ratio": round(step / limit, 3),
                "target": f"<= {target} x",
                "met": step / limit <= target,
            }
        )
        step, limit = measure(batch, precision, width=1024, depth=3, decoder_depth=3, dim=32)
        found.append(
            {
                "name": f"training step, the authors' width 1024, depth 3, {how}",
                "value": round(batch / step),
                "unit": "clips/s",
                "reference": f"authors' code: {AUTHORS_CLIPS} clips/s (products alone: {round(batch / limit)})",
                "ratio": round(batch / step / AUTHORS_CLIPS, 2),
                "target": f">= {times} x",
                "met": batch / step >= times * AUTHORS_CLIPS,
            }
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for row in rows(arguments.batch, arguments.width):
        print(row)
