"""The training loop against its limit: the time that its minimal matrix products alone take.

    python -m benchmarks.timings.training_step [--width 1024] [--batch 512] [--threads 2] [--profile]

Minimal products: every first layer without the gradient of its input, the teacher without any backward pass. Products
between samples (logits, affinities, covariances: 2% of the rest) are left out, so that the limit is rather too fast.
Steps and products take turns every ten steps, in one process, on the same threads and in the same type. Against the
authors' code, repaired so that it runs (410 clips/s), the network has the width and depth of theirs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pages import RESULTS
from benchmarks.timings.figures import figure
from hscmae.files import write_atomic
from hscmae.losses import affinity
from hscmae.methods import HSCMAE
from hscmae.training.precision import speedup

DIMS = {"audio": 128, "visual": 1024}
TURN = 10
TURNS = 9
SLOW = 3.0  # times float32: such a type is not worth minutes of measuring
AUTHORS_CLIPS = 410
PROFILE = RESULTS / "profile.json"


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
    batch: int,
    precision: str,
    *,
    width: int,
    depth: int = 1,
    decoder_depth: int = 1,
    dim: int = 64,
    turns: int = TURNS,
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
        training_steps=TURN * (turns + 1),
        training_evaluations=turns + 1,
        view_kind="linear",
        warm_start_kind="ridge",
        warm_start_ridge=1.0,
    ).fit(data, progress=take_turns)
    # The first turn holds what comes before training. The median: other programs may have disturbed a turn.
    ratios = [step / limit for step, limit in zip(steps[1:], limits[1:], strict=True)]
    limit = statistics.median(limits[1:])
    return limit * statistics.median(ratios), limit


def rows(batch: int = 512, width: int = 1024) -> list[dict[str, Any]]:
    """Two rows a precision: the loop against its limit, and against the authors' code; then, where the time goes."""
    found = []
    for precision, target, times in (("float32", 1.35, 3), ("bfloat16", 1.3, 6)):
        how = f"batch {batch}, {precision}, {torch.get_num_threads()} threads"
        if (slower := 1.0 if precision == "float32" else 1 / speedup(torch.device("cpu"))) > SLOW:
            reason = f"products take {slower:.0f} x their time in float32: this processor has no unit for them"
            found.append(figure(f"training step, width {width}, {how}", None, "clips/s", reason=reason))
            continue
        step, limit = measure(batch, precision, width=width)
        found.append(
            figure(
                f"training step, width {width}, {how}",
                round(batch / step),
                "clips/s",
                f"<= {target} x",
                reference=f"matrix products alone: {round(batch / limit)} clips/s",
                ratio=round(step / limit, 3),
            )
        )
        step, limit = measure(batch, precision, width=1024, depth=3, decoder_depth=3, dim=32, turns=4)
        found.append(
            figure(
                f"training step, the authors' width 1024, depth 3, {how}",
                round(batch / step),
                "clips/s",
                f">= {times} x",
                reference=f"authors' code, repaired: {AUTHORS_CLIPS} clips/s (products alone: {round(batch / limit)})",
                ratio=round(batch / step / AUTHORS_CLIPS, 2),
            )
        )
    return [*found, profile_row(batch, width)]


def profile_row(batch: int, width: int) -> dict[str, Any]:
    """The profile's first figure; the whole of it is kept beside the other results."""
    profile = profiled(batch, width)
    write_atomic(PROFILE, (json.dumps(profile, indent=2) + "\n").encode())
    return figure(
        f"matrix products in the profile of a training step, {profile['what']}",
        round(100 * profile["kinds"]["matrix products"], 1),
        "%",
        reference=f"{profile['milliseconds']} ms a step under the profiler",
        reason="says where the time goes",
    )


# What an operation of the profiler is part of: the first whose words its name holds.
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("matrix products", ("mm", "linear_backward", "einsum", "matmul")),
    ("decompositions", ("svd", "cholesky", "triangular", "eigh", "_Correlation")),
    ("optimiser and EMA", ("adamw", "AdamW", "lerp", "zero_grad", "_foreach", "clip")),
    ("draws", ("random", "bernoulli", "uniform", "normal_", "randperm")),
    ("selection and gathering", ("neighbours", "topk", "sort", "isin", "gather", "scatter", "index")),
    ("layer norm and GELU", ("layer_norm", "gelu")),
)
PROFILED = 40


def profiled(batch: int = 512, width: int = 1024) -> dict[str, Any]:
    """Share of the profiled time of a training step by kind of work, and the ten slowest operations.

    Self CPU time as torch.profiler counts it; what is no operation of torch (Python between them) counts as the
    operation that holds it. FLOPs are counted in the ten steps before: with them, or with shapes, a profiled product
    that writes a large matrix was seen to take two to three times as long.
    """
    rng = np.random.default_rng(0)
    data = {m: rng.normal(size=(4 * batch, d)).astype(np.float32) for m, d in DIMS.items()}
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    counter = FlopCounterMode(display=False)
    # Selection is numpy's, which the profiler does not see: it is given a name.
    select = torch.profiler.record_function("select neighbours")(affinity._largest)

    def follow(record: dict[str, Any]) -> None:
        if record["step"] == 10:
            counter.__enter__()
        elif record["step"] == 20:
            counter.__exit__(None, None, None)
            profiler.start()
        elif record["step"] == 20 + PROFILED:
            profiler.stop()

    with patch.object(affinity, "_largest", select):
        HSCMAE(
            view_kind="linear",
            network_width=width,
            training_batch_size=batch,
            training_validation_share=0.0,
            training_precision="float32",
            training_steps=20 + PROFILED,
            training_evaluations=(20 + PROFILED) // 10,
            warm_start_kind="ridge",
            warm_start_ridge=1.0,
        ).fit(data, progress=follow)
    events = profiler.key_averages()
    spent = {event.key: event.self_cpu_time_total for event in events}
    whole = sum(spent.values())
    kinds = dict.fromkeys([*(kind for kind, _ in KINDS), "elementwise, sums, copies and Python"], 0.0)
    for name, seconds in spent.items():
        kinds[next((kind for kind, words in KINDS if any(word in name for word in words)), list(kinds)[-1])] += seconds
    slowest = sorted(spent.items(), key=lambda item: -item[1])[:10]
    return {
        "what": f"batch {batch}, width {width}, float32, {torch.get_num_threads()} threads",
        "milliseconds": round(whole / 1e3 / PROFILED, 2),
        "mflop_per_clip": round(counter.get_total_flops() / 1e6 / 10 / batch, 2),
        "kinds": {kind: round(seconds / whole, 4) for kind, seconds in kinds.items()},
        "slowest": {name: round(seconds / whole, 4) for name, seconds in slowest},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes, instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.profile:
        print(json.dumps(profiled(arguments.batch, arguments.width), indent=2))
        raise SystemExit
    for row in rows(arguments.batch, arguments.width):
        print(row)
