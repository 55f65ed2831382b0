"""How time and memory grow with rows, dimension, batch size and neighbours, a cost model of it, and an extrapolation.

    python -m benchmarks.timings.growth [--threads 2] [--tiny]

Every point runs in a fresh process, which notes its peak of anonymous memory. The model is a non-negative least squares
fit of seconds to counted work, relative errors weighing alike; its error is that of each point predicted from the
others. Writes benchmarks/results/growth.csv and .json, and the plots of docs/performance/.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from benchmarks.pages import RESULTS, ROOT
from benchmarks.timings import ranking
from benchmarks.timings.distributed import Timed
from benchmarks.timings.extrapolation import extrapolate
from benchmarks.timings.figures import figure
from benchmarks.timings.growth_plots import plot
from benchmarks.timings.larger_than_memory import make_store
from benchmarks.timings.training_step import DIMS, products
from hscmae.data.store import open_store
from hscmae.embedding import embed_file
from hscmae.files import write_atomic
from hscmae.methods import HSCMAE, RidgeCCA

WIDTH, DIM, BATCH, K = 1024, 64, 512, 50
WARMUP = 3
PRELOAD = ["hscmae.methods", "hscmae.embedding", "hscmae.evaluation.ranking", "scipy.optimize"]


@dataclass(frozen=True)
class Point:
    """What is measured: an activity, the axis of the curve that it is on, and its sizes."""

    activity: str
    axis: str
    rows: int
    dim: int = DIM
    batch: int = BATCH
    k: int = K


def points(tiny: bool = False) -> list[Point]:
    """All curves."""
    rows = [1 << e for e in (range(11, 14) if tiny else range(12, 17))]
    found = [Point("embed", "rows", n) for n in rows] + [Point("ridge CCA", "rows", n) for n in rows]
    found += [Point("epoch", "rows", n) for n in (rows if tiny else rows[:-1])]
    found += [
        Point("ranking", "rows", n, dim=ranking.DIM)
        for n in ((256, 512, 1024) if tiny else (1000, 2000, 4000, 8000, 16000))
    ]
    found += [Point("permutation", "rows", n * 1000) for n in ((10, 20, 40) if tiny else (1000, 4000, 16000))]
    found += [Point("step", "dim", 4 * BATCH, dim=dim) for dim in ((16, 64) if tiny else (16, 32, 64, 128, 256))]
    batches = (128, 256) if tiny else (128, 256, 512, 1024, 2048)
    found += [Point("step", "batch", 4 * batch, batch=batch) for batch in batches]
    found += [Point("step", "k", 4 * BATCH, k=k) for k in ((5, 50) if tiny else (5, 20, 50, 100, 200))]
    return found


def work(point: Point) -> dict[str, float]:
    """Counted work, by columns of the activity's cost model; a multiplication and an addition are two FLOPs."""
    n, d, (a, v) = point.rows, point.dim, DIMS.values()
    if point.activity == "permutation":
        return {"once": 1, "rows": n}
    if point.activity == "ranking":
        return {"once": 1, "FLOPs": 2 * n * n * d}
    if point.activity == "ridge CCA":
        return {"once": 1, "FLOPs": 2 * n * (a * a + v * v + a * v)}
    if point.activity == "embed":
        return {"once": 1, "FLOPs": 2 * n * sum(m * WIDTH + WIDTH * d + m * d for m in (a, v))}
    steps = n // point.batch if point.activity == "epoch" else 1
    return {name: steps * amount for name, amount in step_work(point.batch, d, point.k).items()}


def step_work(n: int, d: int, k: int) -> dict[str, float]:
    """Work of one training step on ``n`` rows.

    Products: those of the towers (``training_step.products``); logits and their two gradients in both directions, and
    affinities, between all rows; covariances and their gradients. Bytes, of float32: optimiser and teacher pass over
    the parameters 12 times, layer norm, GELU and dropout over hidden values 34 times, masks and reconstruction over
    features 12 times, local level over n x n 14 times and over the neighbours 8 times.
    """
    towers = sum(2 * m * i * o for m, i, o in products(n, WIDTH, dim=d))
    parameters = sum(2 * m * WIDTH + WIDTH * d + m * d for m in DIMS.values())
    passes = 12 * parameters + 34 * 2 * n * WIDTH + 12 * n * sum(DIMS.values()) + 14 * n * n + 8 * n * k
    return {
        "steps": 1,
        "FLOPs": towers + 14 * n * n * d + 18 * n * d * d,
        "bytes": 4 * passes,
        "decompositions": d**3,
    }


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Appends the peak of this process's anonymous memory, in GB, while the block runs."""
    peaks, stop, found = [0], threading.Event(), []  # type: ignore[var-annotated]

    def watch() -> None:
        while not stop.is_set():
            status = Path("/proc/self/status").read_text().splitlines()
            peaks.append(next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
            stop.wait(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
        found.append(max(peaks) * 1024 / 1e9)


def measure(point: Point, folder: Path, threads: int) -> tuple[float, float]:
    """(seconds, peak of anonymous memory in GB) of one point; runs in a process of its own."""
    torch.set_num_threads(threads)
    activity = {"embed": embed, "ranking": rank, "ridge CCA": fit_cca, "permutation": permute}.get(
        point.activity, train
    )
    return activity(point, folder / str(point.rows))


def timed(act: Callable[[], object]) -> tuple[float, float]:
    with peak_memory() as peak:
        began = time.perf_counter()
        act()
        seconds = time.perf_counter() - began
    return seconds, peak[0]


def embed(point: Point, store: Path) -> tuple[float, float]:
    start = open_store(store)[:1024]
    model = HSCMAE(
        dim=point.dim,
        network_width=WIDTH,
        training_steps=1,
        training_validation_share=0.0,
        warm_start_ridge=1.0,
        weigh_pairs=False,
    ).fit(start)
    return timed(lambda: embed_file(model, store, store.parent / "embeddings", overwrite=True))


def fit_cca(point: Point, store: Path) -> tuple[float, float]:
    return timed(lambda: RidgeCCA(dim=point.dim, ridge=1.0).fit(open_store(store)))


def rank(point: Point, store: Path) -> tuple[float, float]:
    a, v, labels = ranking.single_label(point.rows)
    return timed(lambda: ranking.own(a, v, labels))


def permute(point: Point, store: Path) -> tuple[float, float]:
    return timed(lambda: torch.randperm(point.rows))


def train(point: Point, store: Path) -> tuple[float, float]:
    """One epoch over a store, or the median step on rows in memory."""
    epoch = point.activity == "epoch"
    steps = WARMUP + (point.rows // point.batch if epoch else max(8, 15 * BATCH // point.batch))
    rng = np.random.default_rng(0)
    data = (
        open_store(store)
        if epoch
        else {m: rng.normal(size=(point.rows, d)).astype(np.float32) for m, d in DIMS.items()}
    )
    model = Timed(
        dim=point.dim,
        affinity_k=point.k,
        network_width=WIDTH,
        training_batch_size=point.batch,
        training_steps=steps,
        training_validation_share=0.0,
        training_precision="float32",
        weigh_pairs=False,
        training_evaluations=1,
        warm_start_kind="ridge",
        warm_start_ridge=1.0,
    )
    _, peak = timed(lambda: model.fit(data))
    seconds = np.diff(model.ended[WARMUP - 1 :])
    return float(seconds.sum() if epoch else statistics.median(seconds)), peak


def curves(threads: int, tiny: bool) -> list[dict[str, Any]]:
    """Every point with its seconds, peak memory and counted work."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        chosen = points(tiny)
        for rows in sorted({point.rows for point in chosen if point.activity in ("embed", "ridge CCA", "epoch")}):
            make_store(folder / str(rows), rows)
        for point in chosen:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                seconds, peak = pool.submit(measure, point, folder, threads).result()
            found.append({**asdict(point), "seconds": seconds, "peak_gb": peak, "work": work(point)})
    return found


def fit(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Coefficients of seconds = sum over columns of coefficient x work, all at least 0, and the model's error.

    Returns:
        ``coefficients`` by column, ``errors``: of each point predicted from the others, relative; ``median_error``,
        ``largest_error``, ``points``.
    """
    columns = list(measured[0]["work"])
    seconds = np.array([m["seconds"] for m in measured])
    amounts = np.array([[m["work"][c] for c in columns] for m in measured], dtype=float)
    scale = amounts.max(0)
    shares = amounts / scale / seconds[:, None]  # each relative to its point's seconds: what is fitted is 1

    def solve(kept: np.ndarray) -> np.ndarray:
        return nnls(shares[kept], np.ones(kept.sum()))[0]

    everything = np.ones(len(measured), dtype=bool)
    errors = []
    for i in range(len(measured)):
        others = everything.copy()
        others[i] = False
        errors.append(float(shares[i] @ solve(others) - 1))
    return {
        "coefficients": dict(zip(columns, (solve(everything) / scale).tolist(), strict=True)),
        "errors": errors,
        "median_error": float(np.median(np.abs(errors))),
        "largest_error": float(np.abs(errors).max()),
        "points": len(measured),
    }


def predict(model: dict[str, Any], amounts: dict[str, float]) -> float:
    """Seconds that the model gives for counted work."""
    return sum(model["coefficients"][name] * amount for name, amount in amounts.items())


def family(activity: str) -> str:
    """Steps and epochs share one model."""
    return "training" if activity in ("step", "epoch") else activity


def study(threads: int, tiny: bool = False) -> dict[str, Any]:
    """Measure, fit, extrapolate."""
    measured = curves(threads, tiny)
    names = dict.fromkeys(family(m["activity"]) for m in measured)
    models = {name: fit([m for m in measured if family(m["activity"]) == name]) for name in names}
    for m in measured:
        m["predicted"] = predict(models[family(m["activity"])], m["work"])
    seconds = {name: model["coefficients"] for name, model in models.items()}
    far = extrapolate(step_work, lambda name, n: predict(models[name], work(Point(name, "rows", n))))
    return {"threads": threads, "points": measured, "models": models, "coefficients": seconds, "extrapolation": far}


def write(found: dict[str, Any], results: Path, plots: Path) -> None:
    """growth.csv, growth.json and the plots."""
    table = io.StringIO()
    columns = ["activity", "axis", "rows", "dim", "batch", "k", "seconds", "peak_gb", "predicted"]
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found["points"])
    for folder in (results, plots):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(results / "growth.csv", table.getvalue().encode())
    write_atomic(results / "growth.json", (json.dumps(found, indent=1) + "\n").encode())
    plot(found["points"], plots)


def rows(threads: int | None = None, tiny: bool = False) -> list[dict[str, Any]]:
    """What the curves say, in figures; writes them and the plots, unless ``tiny``."""
    found = study(threads or torch.get_num_threads(), tiny)
    if not tiny:
        write(found, RESULTS, ROOT / "docs" / "performance")
    table = []
    for activity in ("embed", "ridge CCA", "epoch"):
        curve = [m for m in found["points"] if m["activity"] == activity]
        least, most = (m["seconds"] / m["rows"] for m in (curve[0], curve[-1]))
        table.append(
            figure(
                f"growth of {activity}: time a row at {curve[-1]['rows']:,} rows",
                round(1e6 * most, 2),
                "us",
                "<= 1.25 x",
                reference=f"at {curve[0]['rows']:,} rows: {1e6 * least:.2f} us",
                ratio=round(most / least, 3),
            )
        )
    for name in ("training", "embed", "ridge CCA", "ranking"):
        model = found["models"][name]
        table.append(
            figure(
                f"cost model of {name}: median error of a point predicted from the other {model['points'] - 1}",
                round(100 * model["median_error"], 1),
                "%",
                "<= 15 %",
                reference=f"largest: {100 * model['largest_error']:.0f} %",
            )
        )
    epoch = found["extrapolation"]["epoch_seconds"]
    table.append(
        figure(
            "EXTRAPOLATION: one epoch of 100 million pairs on 8 GPUs",
            round(epoch["cautious"]),
            "s",
            reference=f"at twice the utilisation: {epoch['hopeful']:.0f} s",
            reason="extrapolated, not measured",
        )
    )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that it works; writes nothing")
    arguments = parser.parse_args()
    for row in rows(arguments.threads, arguments.tiny):
        print(row)
