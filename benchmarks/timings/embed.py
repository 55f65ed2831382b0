"""``hscmae embed`` against its limit: the time that its matrix products alone take, in the same process, in turn.

The store is larger than a gigabyte: smaller ones have their checksums verified first, which is not counted here.

python -m benchmarks.timings.embed [--rows 262144] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.timings.figures import figure
from benchmarks.timings.larger_than_memory import DIMS, make_store
from hscmae.config import HSCMAEConfig
from hscmae.data.store import open_store
from hscmae.embedding import embed_file
from hscmae.methods import HSCMAE
from hscmae.methods.base import BLOCK

TARGET = 1.3
REPEATS = 5


def limit_seconds(rows: int, view: str) -> float:
    """Seconds that the products take: kernel view, encoder, projection, canonical map and anchors of each modality."""
    config = HSCMAEConfig()
    width, dim, anchors, landmarks = config.network.width, config.dim, config.anchors.rows, config.view.landmarks
    shapes = []
    for d in DIMS.values():
        inputs = d
        if view == "kernel":
            inputs = config.view.rank
            shapes += [(d, landmarks), (landmarks, inputs)]
        shapes += [(inputs, width), (width, dim), (inputs, dim), (dim, anchors), (anchors, dim)]
    pairs = [(torch.randn(BLOCK, k), torch.randn(n, k)) for k, n in shapes]
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(0, rows, BLOCK):
            for x, weight in pairs:
                torch.nn.functional.linear(x, weight)
    return time.perf_counter() - began


def rows(count: int = 262_144) -> list[dict[str, Any]]:
    """Rows a second of embedding a cached store into a store, and of the products alone; through both views."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        make_store(store, count)
        return [row(store, count, view) for view in ("kernel", "linear")]


def row(store: Path, count: int, view: str) -> dict[str, Any]:
    training = open_store(store)[:4096]
    model = HSCMAE(
        view_kind=view, training_steps=1, training_validation_share=0.0, warm_start_ridge=1.0, weigh_pairs=False
    ).fit(training)
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        embed_file(model, store, store.parent / "embeddings", overwrite=True)
        seconds.append((time.perf_counter() - began, limit_seconds(count, view)))
    ratio = statistics.median(whole / limit for whole, limit in seconds)
    fastest = count / statistics.median(limit for _, limit in seconds)
    return figure(
        f"embed a store of {count} rows, {view} view, {torch.get_num_threads()} threads",
        round(count / statistics.median(whole for whole, _ in seconds)),
        "rows/s",
        f"<= {TARGET} x",
        reference=f"matrix products alone: {round(fastest)} rows/s",
        ratio=round(ratio, 3),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for found in rows(arguments.rows):
        print(found)
