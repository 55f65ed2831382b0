"""Time of the exact ranking metrics against other exact libraries, in the same run and on the same embeddings.

``python benchmarks/ranking.py`` prints one table; ``rows()`` gives it to the joint benchmark. Every library also has to
give the same mAP. The large cases run in a process of their own, so that their peak memory is theirs alone.
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


def row(name: str, value: float, unit: str, limit: float, rival: float | None = None) -> dict[str, Any]:
    """One line of the table; with a rival's time, the target is how many times faster to be."""
    ratio = None if rival is None else rival / value
    met = value <= limit if ratio is None else ratio >= limit
    target = f"<= {limit:g} {unit}" if ratio is None else f">= {limit:g} x"
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": rival,
        "ratio": ratio,
        "target": target,
        "met": met,
    }


def rows(n: int = 5_000, n_large: int = 58_000) -> list[dict[str, Any]]:
    """All figures; ``n_large = 0`` leaves the large cases out."""
    a, v, labels = single_label(n)
    own(a[:100], v[:100], labels.take(np.arange(100)))
    seconds, found = min(timed(lambda: own(a, v, labels)) for _ in range(3))
    size = f"{n:,} x {n:,}"
    table = [row(f"mAP {size}, single label, a direction", seconds, "s", 0.5)]
    for name, rival in (("scikit-learn", scikit_learn), ("pytorch-metric-learning", metric_learning)):
        taken, value = timed(lambda rival=rival: rival(a, v, labels))
        assert abs(value - found) < 1e-6, (name, value, found)
        table.append(row(f"mAP {size} against {name}", seconds, "s", 10, taken))
    taken, value = timed(lambda: ir_measures(a, v, labels))
    expected = rank(a[:IR_QUERIES], v, labels=(labels.take(np.arange(IR_QUERIES)), labels)).ap.mean()
    assert abs(value - expected) < 1e-6, ("ir_measures", value, expected)
    name = f"mAP {size} against ir_measures ({IR_QUERIES} queries, extrapolated)"
    table.append(row(name, seconds, "s", 10, taken * n / IR_QUERIES))
    if n_large:
        size = f"{n_large:,} x {n_large:,}"
        for kind, directions, limit in (("single", 1, 60), ("multi", 2, 180)):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                seconds, peak = pool.submit(large, kind, n_large, directions).result()
            words = f"mAP {size}, {kind} label, {'a direction' if directions == 1 else 'both directions'}"
            table.append(row(words, seconds, "s", limit))
            table.append(row(f"{words}: peak memory", peak / 1e9, "GB", 1.5))
    return table


def main() -> None:
    for line in rows():
        against = "" if line["ratio"] is None else f"{line['reference']:9.2f} s {line['ratio']:7.1f} x"
        verdict = "met" if line["met"] else "missed"
        print(
            f"{line['name']:75s} {line['value']:8.3f} {line['unit']:2s} {against:22s} {line['target']:>10s} {verdict}"
        )


if __name__ == "__main__":
    main()
