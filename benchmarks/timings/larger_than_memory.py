"""Training and embedding from a store larger than memory: peak anonymous memory, and rates against rows in memory.

    python -m benchmarks.timings.larger_than_memory [--gigabytes 8] [--threads 2] [--precision float32] [--folder /tmp]

A store of random rows is made in a temporary folder; a child process trains on it and embeds it while its anonymous
memory (RssAnon: without the page cache) is sampled; another child does the same with rows in memory. Both in one run.
Through the linear view reading alone could be slower; through the kernel view components are computed for each batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timings.figures import figure
from hscmae.data.pairs import Pairs
from hscmae.data.store import StoreWriter, open_store
from hscmae.embedding import embed_file
from hscmae.methods import HSCMAE
from hscmae.training.features import IN_MEMORY_BYTES

DIMS = {"audio": 128, "visual": 1024}
ROW_BYTES = 4 * sum(DIMS.values())
BLOCK = 4096
IN_MEMORY_ROWS = 32_768
MOST_GB = 1.5
LEAST_RATE = 0.85


def make_store(folder: Path, rows: int) -> None:
    """Random rows, all different: one block over and over, each time by another factor."""
    rng = np.random.default_rng(0)
    block = {m: rng.normal(size=(BLOCK, d)).astype(np.float32) for m, d in DIMS.items()}
    with StoreWriter(folder, source="made up") as writer:
        for start in range(0, rows, BLOCK):
            n = min(BLOCK, rows - start)
            ids = np.arange(start, start + n).astype("S10")
            factor = np.float32(1 + start / rows)
            writer.append(Pairs({m: x[:n] * factor for m, x in block.items()}, ids))


def child(store: Path, in_memory: bool, steps: int, warm_start: str, view: str, precision: str, threads: int) -> None:
    """Train and embed; prints seconds of the steps and of embedding a row as JSON."""
    torch.set_num_threads(threads)
    pairs: Any = open_store(store)
    if in_memory:
        pairs = pairs[:IN_MEMORY_ROWS]
    began = time.perf_counter()
    model = HSCMAE(
        training_steps=steps,
        training_validation_share=0.0,
        training_evaluations=1,
        warm_start_kind=warm_start,
        warm_start_ridge=1.0,
        training_precision=precision,
        view_kind=view,
        weigh_pairs=view == "kernel",  # what that costs before the first step is measured once
        network_width=1024,
    ).fit(pairs)
    fitted = time.perf_counter()
    if in_memory:
        model.embed_pairs(pairs)
    else:
        embed_file(model, store, store.parent / "embeddings")
    figures = {
        "fit": fitted - began,
        "step": model.summary_["seconds"] / steps,
        "embed": (time.perf_counter() - fitted) / len(pairs),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def watched(*arguments: object) -> tuple[dict[str, float], float]:
    """Run a child; its figures and its peak of anonymous memory in GB."""
    command = [sys.executable, "-m", __spec__.name, "--child", *map(str, arguments)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
            time.sleep(0.02)
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the child failed with exit code {process.returncode}")
    return json.loads(output), peak * 1024 / 1e9


def rows(
    gigabytes: float = 1.3, threads: int = 2, precision: str = "float32", folder: Path | None = None
) -> list[dict[str, Any]]:
    """Peak memory, and rates of training and embedding against those in memory, through either view."""
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free / 1e9
    gigabytes = min(gigabytes, 0.7 * free)  # the embeddings and some air need room too
    if gigabytes * 1e9 < IN_MEMORY_BYTES:
        reason = f"a store of {gigabytes:.2g} GB would be kept in memory ({free:.1f} GB of disk are free)"
        return [figure("training and embedding from a large store", None, "", reason=reason)]
    full = gigabytes >= 4
    warm_start, steps = ("smoothed", 300) if full else ("ridge", 100)
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        store = Path(place) / "store"
        make_store(store, round(gigabytes * 1e9 / ROW_BYTES))
        for view in ("kernel", "linear"):
            mapped, peak = watched(store, 0, steps, warm_start, view, precision, threads)
            resident, _ = watched(store, 1, steps, "ridge", view, precision, threads)
            shutil.rmtree(store.parent / "embeddings")
            size = f"{gigabytes:.3g} GB store, {view} view"
            found.append(
                figure(
                    f"peak anonymous memory of training and embedding, {size}, {warm_start} start",
                    round(peak, 2),
                    "GB",
                    f"<= {MOST_GB} GB",
                    reference=f"store: {gigabytes:.3g} GB",
                    ratio=round(peak / gigabytes, 3),
                )
            )
            training = f"training, batch 512, width 1024, {precision}"
            for what, name, count in (("step", training, 512), ("embed", "embed to a store", 1)):
                found.append(
                    figure(
                        f"{name}, {size}, {threads} threads",
                        round(count / mapped[what]),
                        "rows/s",
                        f">= {LEAST_RATE} x",
                        reference=f"rows in memory: {round(count / resident[what])} rows/s",
                        ratio=round(resident[what] / mapped[what], 3),
                    )
                )
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        store, in_memory, steps, warm_start, view, precision, threads = sys.argv[2:]
        child(Path(store), in_memory == "1", int(steps), warm_start, view, precision, int(threads))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--gigabytes", type=float, default=8.0)
        parser.add_argument("--threads", type=int, default=2)
        parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
        parser.add_argument("--folder", type=Path, help="where the temporary store is made")
        arguments = parser.parse_args()
        for row in rows(arguments.gigabytes, arguments.threads, arguments.precision, arguments.folder):
            print(row)
