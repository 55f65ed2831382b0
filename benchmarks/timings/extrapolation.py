"""100 million pairs on 8 GPUs: an estimate from counted work and stated assumptions, none of it measured on a GPU.

What is counted is the method's own work (``growth.step_work``); what the hardware gives is published peaks times an
assumed utilisation. Closed form, embedding and permutation are this machine's measured curves, carried on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.timings.training_step import DIMS

PAIRS, GPUS, BATCH, DIM, K = 100_000_000, 8, 2048, 64, 50
# Published by NVIDIA for H200 SXM: dense bf16, HBM3e; NVLink 900 GB/s both ways together, so half in one.
PEAK_FLOPS, PEAK_BYTES, LINK_BYTES = 989e12, 4.8e12, 450e9
# Assumed: shares of these peaks that are reached, cautious and hopeful; fixed time of a step's launches and exchanges.
UTILISATION = {"cautious": 0.2, "hopeful": 0.4}
FIXED_SECONDS = {"cautious": 2e-3, "hopeful": 0.5e-3}
STORE_VALUE_BYTES, READ_BYTES = 2, 6e9  # a store in float16, read by one node's NVMe drives


def extrapolate(
    step_work: Callable[[int, int, int], dict[str, float]], here: Callable[[str, int], float]
) -> dict[str, Any]:
    """The estimate and everything that it rests on.

    Args:
        step_work: FLOPs and bytes of a step of so many rows, dimension and neighbours, in one process.
        here: seconds of an activity on so many rows on this machine, by its cost model.
    """
    whole = GPUS * BATCH
    own = step_work(BATCH, DIM, K)
    # Between samples a GPU has its own rows against those of all: n x n becomes n x whole.
    flops = own["FLOPs"] + 14 * BATCH * (whole - BATCH) * DIM
    moved = own["bytes"] / 2 + 4 * 14 * BATCH * (whole - BATCH)  # hidden values in bf16; logits in float32
    parameters = sum(2 * d * 1024 + 1024 * DIM + d * DIM for d in DIMS.values())
    # Clean and masked embeddings and the teacher's of two modalities, there and (but for the teacher's) back.
    gathered = 4 * DIM * 2 * (3 + 2) * (whole - BATCH)
    reduced = 2 * 4 * parameters * (GPUS - 1) / GPUS
    steps = PAIRS // whole
    seconds = {
        name: FIXED_SECONDS[name]
        + flops / (share * PEAK_FLOPS)
        + moved / (2 * share * PEAK_BYTES)  # plain passes over memory reach more of their peak than products do
        + (gathered + reduced) / (share * LINK_BYTES)
        for name, share in UTILISATION.items()
    }
    store = PAIRS * STORE_VALUE_BYTES * sum(DIMS.values())
    reading = store / READ_BYTES
    return {
        "pairs": PAIRS,
        "gpus": GPUS,
        "batch_per_gpu": BATCH,
        "peak_flops": PEAK_FLOPS,
        "peak_bytes": PEAK_BYTES,
        "link_bytes": LINK_BYTES,
        "utilisation": UTILISATION,
        "fixed_seconds": FIXED_SECONDS,
        "mflop_per_clip": flops / BATCH / 1e6,
        "mb_per_step_exchanged": (gathered + reduced) / 1e6,
        "steps": steps,
        "step_seconds": seconds,
        "store_gb": store / 1e9,
        "read_seconds": reading,
        "epoch_seconds": {name: max(steps * step, reading) for name, step in seconds.items()},
        "compute_seconds": {name: steps * step for name, step in seconds.items()},
        "here": {name: here(name, PAIRS) for name in ("ridge CCA", "embed", "permutation")},
    }
