"""Time of the exact ranking metrics against other exact libraries, in the same run and on the same embeddings.

    python -m benchmarks.timings.ranking

Every library also has to give the same mAP. The large cases run in a process of their own, so that their peak memory is
theirs alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timings.figures import figure
from hscmae.data.pairs import Labels
from hscmae.evaluation.ranking import rank

DIM, CLASSES = 128, 15
IR_QUERIES = 50  # ir_measures takes its input as Python objects: some queries are timed, the rest extrapolated


def single_label(n: int) -> tuple[np.ndarray, np.ndarray, Labels]:
    """Paired embeddings, float32, whose classes overlap, and one class a clip."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, CLASSES, n)
    centres = 0.4 * rng.standard_normal((CLASSES, DIM))
    a, v = ((centres[classes] + rng.standard_normal((n, DIM))).astype(np.float32) for _ in range(2))
    return a, v, Labels.single(classes)


def multi_label(n: int) -> tuple[np.ndarray, np.ndarray, Labels]:
    """The same embeddings with 1 to 6 of 3,000 classes a clip, as uneven as web video: a fifth of pairs share one."""
    a, v, _ = single_label(n)
    rng = np.random.default_rng(1)
    share = 1 / np.arange(1, 3001)
    sets = [np.unique(rng.choice(3000, size, p=share / share.sum())) for size in rng.integers(1, 7, n)]
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])])
    return a, v, Labels(np.concatenate(sets), indptr, tuple(map(str, range(3000))))


def timed(function: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def own(a: np.ndarray, v: np.ndarray, labels: Labels) -> float:
    return float(np.nanmean(rank(a, v, pairs=np.arange(len(a)), labels=(labels, labels)).ap))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scikit_learn(a: np.ndarray, v: np.ndarray, labels: Labels) -> float:
    """``label_ranking_average_precision_score``: mAP where no scores tie, its fastest function for many queries."""
    from sklearn.metrics import label_ranking_average_precision_score

    return float(label_ranking_average_precision_score(labels.indices[:, None] == labels.indices, unit(a) @ unit(v).T))


def metric_learning(a: np.ndarray, v: np.ndarray, labels: Labels) -> float:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    knn = CustomKNN(CosineSimilarity(), batch_size=512)
    calculator = AccuracyCalculator(("mean_average_precision",), device=torch.device("cpu"), knn_func=knn)
    return float(calculator.get_accuracy(a, labels.indices, v, labels.indices)["mean_average_precision"])


def ir_measures(a: np.ndarray, v: np.ndarray, labels: Labels) -> float:
    """On the first ``IR_QUERIES`` queries only."""
    import ir_measures as ir

    scores, classes = (unit(a[:IR_QUERIES]) @ unit(v).T).tolist(), labels.indices.tolist()
    names = [str(j) for j in range(len(v))]
    run = {names[i]: dict(zip(names, row, strict=True)) for i, row in enumerate(scores)}
    qrels = {names[i]: {names[j]: int(c == classes[i]) for j, c in enumerate(classes)} for i in range(IR_QUERIES)}
    return float(ir.calc_aggregate([ir.AP], qrels, run)[ir.AP])


def large(kind: str, n: int, directions: int) -> tuple[float, float]:
    """(seconds, peak memory in bytes) of one or both directions."""
    a, v, labels = {"single": single_label, "multi": multi_label}[kind](n)
    seconds = sum(timed(lambda x=x, y=y: own(x, y, labels))[0] for x, y in ((a, v), (v, a))[:directions])
    # Not getrusage: a started process inherits the peak of the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return seconds, int(status["VmHWM"].split()[0]) * 1024


def rows(
    n: int = 5_000, n_large: int = 58_000, kinds: tuple[str, ...] = ("single", "multi"), directions: int = 2
) -> list[dict[str, Any]]:
    """All figures; ``n = 0`` leaves the rivals out, ``n_large = 0`` the large cases."""
    table = against_rivals(n) if n else []
    for kind in kinds if n_large else ():
        table += large_case(kind, n_large, directions)
    return table


def against_rivals(n: int) -> list[dict[str, Any]]:
    """One direction of ``n`` x ``n``, and the same of other exact libraries, which must find the same mAP."""
    a, v, labels = single_label(n)
    own(a[:100], v[:100], labels.take(np.arange(100)))
    seconds, found = min(timed(lambda: own(a, v, labels)) for _ in range(3))
    some = rank(a[:IR_QUERIES], v, labels=(labels.take(np.arange(IR_QUERIES)), labels)).ap.mean()
    size = f"{n:,} x {n:,}"
    table = [figure(f"mAP {size}, single label, a direction", seconds, "s", "<= 0.5 s")]
    for name, rival, expected, share in (
        ("scikit-learn", scikit_learn, found, 1.0),
        ("pytorch-metric-learning", metric_learning, found, 1.0),
        (f"ir_measures ({IR_QUERIES} queries, extrapolated)", ir_measures, some, IR_QUERIES / n),
    ):
        name = f"mAP {size} against {name}"
        try:
            taken, value = timed(lambda rival=rival: rival(a, v, labels))
        except ImportError as error:
            table.append(figure(name, None, "s", ">= 10 x", reason=str(error)))
            continue
        assert abs(value - expected) < 1e-6, (name, value, expected)
        taken /= share
        table.append(figure(name, seconds, "s", ">= 10 x", reference=f"{taken:.2f} s", ratio=round(taken / seconds, 1)))
    return table


def large_case(kind: str, n: int, directions: int) -> list[dict[str, Any]]:
    """Time and peak memory of a large gallery, in a process of its own."""
    limit = {"single": 60, "multi": 90}[kind] * directions
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, peak = pool.submit(large, kind, n, directions).result()
    name = f"mAP {n:,} x {n:,}, {kind} label, {'a direction' if directions == 1 else 'both directions'}"
    return [
        figure(name, seconds, "s", f"<= {limit} s"),
        figure(f"{name}: peak memory", peak / 1e9, "GB", "<= 1.5 GB"),
    ]


def main() -> None:
    for row in rows():
        print(row)


if __name__ == "__main__":
    main()
