"""The training loop against its limit: the time that its minimal matrix products alone take.

    python benchmarks/training_step.py [--width 1024] [--batch 512] [--threads 2]

Minimal products: every first layer without the gradient of its input, the teacher without any backward pass. Both are
timed in the same process, on the same threads and in the same type, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from hscmae.config import flatten
from hscmae.methods import HSCMAE

DIMS = {"audio": 128, "visual": 1024}
DIM = 64
STEPS = 40
REPEATS = 5


def products(batch: int, width: int) -> list[tuple[int, int, int]]:
    """(m, k, n) of every minimal matrix product of one step with one-layer encoders and linear decoders."""
    found = []
    for d in DIMS.values():
        encode, project, canonical = (batch, d, width), (batch, width, DIM), (batch, d, DIM)
        forward = [encode, project, canonical]
        weights = [(d, batch, width), (width, batch, DIM), (d, batch, DIM)]
        hidden = [(batch, DIM, width)]
        decoder = [(batch, width, d), (width, batch, d), (batch, d, width)]
        clean = forward + weights + hidden
        found += clean + clean + decoder + forward  # CCA path, MAE path with its decoder, teacher
    return found


def limit_seconds(batch: int, width: int, dtype: torch.dtype) -> float:
    """Seconds that the products of one step take."""
    pairs = [(torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)) for m, k, n in products(batch, width)]
    began = time.perf_counter()
    for _ in range(STEPS):
        for a, b in pairs:
            torch.mm(a, b)
    return (time.perf_counter() - began) / STEPS


def step_seconds(batch: int, width: int, precision: str) -> float:
    """Seconds a step of the whole loop: data, teacher, all losses, optimiser, EMA."""
    rng = np.random.default_rng(0)
    data = {m: rng.normal(size=(4 * batch, d)).astype(np.float32) for m, d in DIMS.items()}
    settings: dict[str, Any] = {
        "network_width": width,
        "training_batch_size": batch,
        "training_validation_share": 0.0,
        "training_precision": precision,
        "training_evaluations": 1,
        "warm_start_ridge": 1.0,
        "warm_start_kind": "ridge",
        "training_checkpoint_seconds": 1e9,
    }
    assert settings.keys() <= flatten(HSCMAE.Config()).keys()
    seconds = []
    for steps in (5, 5 + STEPS):
        model = HSCMAE(**settings, training_steps=steps).fit(data)
        seconds.append(float(model.summary_["seconds"]))
    return (seconds[1] - seconds[0]) / STEPS


def rows(batch: int = 512, width: int = 1024) -> list[dict[str, Any]]:
    """One row a precision: clips/s of the loop, those of the limit, their ratio."""
    found = []
    for precision, target in (("float32", 1.25), ("bfloat16", 1.5)):
        dtype = getattr(torch, precision)
        pairs = []
        for _ in range(REPEATS):
            pairs.append((step_seconds(batch, width, precision), limit_seconds(batch, width, dtype)))
        ratio = statistics.median(step / limit for step, limit in pairs)
        fastest = round(batch / statistics.median(limit for _, limit in pairs))
        found.append(
            {
                "name": f"training step, batch {batch}, width {width}, {precision}, {torch.get_num_threads()} threads",
                "value": round(batch / statistics.median(step for step, _ in pairs)),
                "unit": "clips/s",
                "reference": f"matrix products alone: {fastest} clips/s",
                "ratio": round(ratio, 3),
                "target": f"<= {target} x",
                "met": ratio <= target,
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
