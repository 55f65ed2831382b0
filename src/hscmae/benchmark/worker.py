"""One fit in a process of its own, so that its time and its peak memory are its own.

A job comes in and one JSON object goes out, to a file. Labels are looked at only after the fit, and not at all in a
trial.
"""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import os
import resource
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hscmae.benchmark.damage import with_foreign_events, with_missing_values, with_wrong_pairs
from hscmae.benchmark.jobs import RESPLIT, Contender, Job
from hscmae.config import DeepConfig, merge
from hscmae.data.pairs import Pairs
from hscmae.data.splits import resplit, validation_rows
from hscmae.data.store import open_store
from hscmae.errors import HscmaeError, InputError
from hscmae.evaluation.retrieval import Retrieval
from hscmae.evaluation.selection import grounded_rows, nearest
from hscmae.evaluation.structure import structure
from hscmae.evaluation.supervised import evaluate_supervised
from hscmae.files import write_atomic
from hscmae.methods import get_method
from hscmae.methods.base import Method

TEST_SHARE = 0.2
VALIDATION_SHARE = 1 / 7
MISSING_SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
TUNABLE = 40  # of fewer held-out pairs a choice would be chance
MOST_LABELS = 5  # clips with more labels count as having so many
CLASSES_KEPT = 40
STRUCTURE_ROWS = 5000  # silhouette takes time and memory that grow with the square of the rows


def work(job: dict[str, Any], store: str, result: str, threads: int) -> None:
    """Run a job, as JSON, on a store; write what comes of it, or how it failed, to the file ``result``."""
    with Path(os.devnull).open("w") as nowhere:  # what libraries say would tear the parent's progress bar
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        record = run(Job.from_json(job), open_store(store, verify=None)) | {"status": "ok"}
    except Exception as error:
        kind = "" if isinstance(error, HscmaeError) else f"{type(error).__name__}: "
        message = kind + " ".join(str(error).split())
        record = {"status": "failed", "error": message, "traceback": traceback.format_exc()}
    write_atomic(Path(result), json.dumps(_finite(record)).encode())


def end_with_parent() -> None:
    """End this process when the one that asked for it is gone: a killed benchmark leaves nothing that computes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run(job: Job, pairs: Pairs) -> dict[str, Any]:
    """Fit and measure; what the result holds beside the job's name."""
    if job.split.startswith(RESPLIT):
        pairs = resplit(pairs, int(job.split.removeprefix(RESPLIT)), TEST_SHARE)
    return _trial(job, pairs) if job.trial else _test(job, pairs)


def _trial(job: Job, pairs: Pairs) -> dict[str, Any]:
    """The criterion on held-out training pairs, and each one's part; test rows and labels are taken away first."""
    assert pairs.split is not None
    pairs = pairs.take(np.flatnonzero(pairs.split != b"test")).without_labels()
    if not np.any(pairs.split == b"val"):
        split = np.full(len(pairs), b"train", dtype="S5")
        split[validation_rows(pairs.ids, VALIDATION_SHARE, 0)[1]] = b"val"
        pairs = replace(pairs, split=split)
    usable = pairs.usable(among=pairs.rows_of("train")).complete()
    held_out = pairs.take(np.flatnonzero(usable & (pairs.split == b"val")))
    if len(held_out) < TUNABLE:
        raise InputError(f"{len(held_out)} held-out pairs are too few to tune by ({TUNABLE} needed)")
    method = get_method(job.contender.method)
    settings = dict(job.contender.settings)
    if issubclass(method.Config, DeepConfig):
        settings = merge(settings, {"training": {"refit": False}})
    model, cost = _fit(replace(job.contender, settings=settings), pairs, job.seed)
    features = [model.scalers_[m].apply(x) for m, x in held_out.pooled().features.items()]
    near_x, near_y = (nearest(x, max(1, len(x) // 10)) for x in features)
    a, v = model.embed_pairs(held_out).values()
    each = grounded_rows(a, v, near_x, near_y)
    return {"score": float(each.mean()), "each": [round(x, 6) for x in each.tolist()], **cost}


def _test(job: Job, pairs: Pairs) -> dict[str, Any]:
    if job.contender.reads_labels:
        return _with_labels(job, pairs)
    damage = {"": None, "wrong-pairs": with_wrong_pairs, "co-occurrence": with_foreign_events}[job.damage]
    training = pairs if damage is None else damage(pairs, job.share, job.seed)
    model, cost = _fit(job.contender, training, job.seed)
    found = Retrieval.of(model, pairs)
    metrics = found.metrics()
    del metrics["split"]
    record = {**metrics, **cost, "n_train": len(pairs.rows_of("train"))}
    if damage is None:
        record |= {f"structure/{k}": v for k, v in _structure(found).items()}
        record |= _details(found)
    if job.partial:
        test = pairs.of_split(str(found.split))
        record["partial"] = [[share, _with_missing(model, test, found, share, job.seed)] for share in MISSING_SHARES]
    return record


def _with_labels(job: Job, pairs: Pairs) -> dict[str, Any]:
    """What classifiers reach that are shown the labels of the training rows; its time is that of all it does."""
    base, began = peak_rss_mb(), time.perf_counter()
    metrics = evaluate_supervised(pairs, seed=job.seed)
    seconds = time.perf_counter() - began
    return {
        **metrics,
        "split": job.split,
        **_cost(base, seconds),
        "settings": {},
        "n_train": len(pairs.rows_of("train")),
    }


def _cost(base: float, seconds: float) -> dict[str, Any]:
    return {
        "fit_seconds": round(seconds, 4),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "base_rss_mb": round(base, 1),  # of the process before the fit: interpreter and libraries
        "threads": torch.get_num_threads(),
    }


def _fit(contender: Contender, pairs: Pairs, seed: int) -> tuple[Method, dict[str, Any]]:
    method = get_method(contender.method)
    model = method.from_settings({**contender.settings, "seed": seed}, contender.preset)
    base, began = peak_rss_mb(), time.perf_counter()
    model.fit(pairs)
    seconds = time.perf_counter() - began
    cost = _cost(base, seconds)
    return model, {**cost, "settings": model.config.model_dump(mode="json"), "summary": model.summary_}


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MiB, the interpreter and its libraries included."""
    # The kernel's VmHWM starts anew with each program; getrusage's figure comes over from the parent that started it.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _structure(found: Retrieval) -> dict[str, float]:
    rows = np.arange(found.n)
    if len(rows) > STRUCTURE_ROWS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:STRUCTURE_ROWS])
    # Silhouette and clusters need scikit-learn, an extra: without it the rest is still measured.
    labels = found.labels if importlib.util.find_spec("sklearn") else None
    return structure(
        {m: z[rows] for m, z in found.embeddings.items()},
        None if labels is None else labels.take(rows),
        present={m: p[rows] for m, p in found.present.items()},
    )


def _details(found: Retrieval) -> dict[str, Any]:
    """What plots and paired intervals need: curves, classes, and each clip's AP, rounded to six digits."""
    if found.labels is None:
        return {}
    counts = np.diff(found.labels.indptr)
    ap: dict[str, list[float | None]] = {}
    by_labels: dict[str, dict[int, tuple[float, int]]] = {}
    for direction, values in found.values.items():
        column = values["mAP"]
        ap[direction.name] = [None if math.isnan(x) else round(x, 6) for x in column.tolist()]
        by_labels[direction.name] = {}
        for labels in range(1, MOST_LABELS + 1):
            which = (counts == labels if labels < MOST_LABELS else counts >= labels) & ~np.isnan(column)
            if which.any():
                by_labels[direction.name][labels] = float(column[which].mean()), int(which.sum())
    common = {found.labels.names[c] for c in np.argsort(-np.bincount(found.labels.indices))[:CLASSES_KEPT]}
    return {
        "ap": ap,
        "by_labels": by_labels,
        "classes": {d.name: {c: x for c, x in of.items() if c in common} for d, of in found.per_class().items()},
        "precision_recall": {d.name: [x.tolist(), y.tolist()] for d, (x, y) in found.precision_recall().items()},
    }


def _with_missing(model: Method, test: Pairs, clean: Retrieval, share: float, seed: int) -> dict[str, float]:
    """mAP of queries with missing values against whole gallery items, by direction and on average."""
    ap = {}
    for i, (m, x) in enumerate(test.features.items()):
        damaged = with_missing_values(x, share, model.scalers_[m].mean, 1000 * seed + i)
        z = model.embed(m, damaged, present=test.present[m], lengths=test.lengths.get(m))
        found = Retrieval({**clean.embeddings, m: z}, clean.labels, present=clean.present)
        direction = next(direction for direction in found.directions if direction.source == m)
        ap[direction.name] = float(np.nanmean(found.ranking(direction).ap))
    return {**ap, "avg": float(np.mean(list(ap.values())))}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
