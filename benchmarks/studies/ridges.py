"""Which ridge a closed form is given, by several rules: mAP lost against the best of six ridges.

    python -m benchmarks.studies.ridges ../shared/data [--scan FILE]

Development cuts of training rows alone (``benchmarks.studies.views``), as they are and with 40 and 60% of the training
pairs permuted; smoothed CCA and ridge CCA, on standardised values and through the default's kernel view. Two criteria
on three folds of the training pairs, mutual k-NN and the rank of the pair (mean of ``-log(rank / n)``), and four rules:
the criterion's best ridge; the one nearest to 3 or 10, or the largest, that is not worse than the best, pair by pair,
by a standard error; always 3 or 10. Prints a table: mean and worst loss in % over the cuts; ``--scan`` keeps every
number as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

import hscmae
from benchmarks.studies.views import CPU, cuts
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.config import HSCMAEConfig
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.evaluation.selection import mutual_rows
from hscmae.linear.cca import CanonicalMaps, covariances, ridge_cca
from hscmae.linear.smoothing import smoothed_cca
from hscmae.methods.closed_form import RIDGES, folds
from hscmae.training.choice import better
from hscmae.training.features import Batch, Features
from hscmae.training.views import kernel_views

Rows = dict[float, torch.Tensor]  # ridge: a number for each held-out pair
USUAL = (3.0, 10.0)


def solve(method: str, rows: Batch, ridge: float) -> CanonicalMaps:
    moments, start = covariances(rows.x, rows.present), HSCMAEConfig().warm_start
    if method == "ridge CCA":
        return ridge_cca(moments, 64, ridge)
    return smoothed_cca(rows.x, 64, ridge=ridge, k=start.k, tau=start.tau, present=rows.present, moments=moments)


def rank_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``-log(rank / n)`` of each pair's partner, the mean of both directions, shape (n,)."""
    a, v = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12) for z in (first, second))
    cosine = a @ v.T
    own = np.diag(cosine)
    ranks = (cosine > own[:, None]).sum(1) + 1, (cosine > own).sum(0) + 1
    return -np.mean([np.log(rank / len(a)) for rank in ranks], axis=0)


def scan(pairs: Pairs, view: str, method: str) -> tuple[dict[float, float], dict[str, Rows]]:
    """mAP of each ridge, and what the criteria say of it."""
    model = hscmae.HSCMAE()
    model.dims_ = {m: x.shape[1] for m, x in pairs.features.items()}
    scalers = model._fit_scalers(pairs, pairs.rows_of("train"))
    train, test = (Features(pairs, pairs.rows_of(part), scalers, CPU) for part in ("train", "test"))
    if view == "kernel":
        views = kernel_views(train, model.config.view, 0)
        train, test = train.through(views), test.through(views)
    rows, tested = (part.batch(torch.arange(len(part))) for part in (train, test))
    labels = pairs.take(pairs.rows_of("test")).labels
    quality: dict[float, float] = {}
    criteria: dict[str, Rows] = {"mutual k-NN": {}, "rank of the pair": {}}
    for ridge in RIDGES:
        maps = solve(method, rows, ridge)
        found = Retrieval({m: maps(m, x).numpy() for m, x in tested.x.items()}, labels).metrics(bootstrap=0)
        quality[ridge] = float(found["avg/mAP"])
        agreement, rank = [], []
        for fit, held_out in folds(rows, 0):
            maps = solve(method, fit, ridge)
            z = [maps(m, x).float().numpy() for m, x in held_out.x.items()]
            agreement.append(mutual_rows(*z))
            rank.append(rank_rows(*z))
        criteria["mutual k-NN"][ridge] = torch.from_numpy(np.concatenate(agreement))
        criteria["rank of the pair"][ridge] = torch.from_numpy(np.concatenate(rank))
    return quality, criteria


def losses(quality: dict[float, float], criteria: dict[str, Rows]) -> dict[str, float]:
    """What each rule loses of the best ridge's mAP."""
    chosen = {f"always {usual:g}": usual for usual in USUAL}
    for name, rows in criteria.items():
        best = max(rows, key=lambda ridge: float(rows[ridge].mean()))
        kept = [ridge for ridge, own in rows.items() if not better(rows[best], own)]
        chosen |= {f"{name}, best": best, f"{name}, largest": max(kept)}
        for usual in USUAL:
            chosen[f"{name}, nearest to {usual:g}"] = min(kept, key=lambda ridge: abs(math.log(ridge / usual)))
    most = max(quality.values())
    return {rule: 1 - quality[ridge] / most for rule, ridge in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scan", type=Path, help="file for every cut's mAP by ridge and loss by rule")
    arguments = parser.parse_args()
    told: dict[tuple[str, str], dict[str, list[float]]] = {}
    kept: dict[str, object] = {}
    for name, pairs in cuts(arguments.data):
        for share in (0.0, 0.4, 0.6):
            damaged = with_wrong_pairs(pairs, share, 0)
            for view in ("values", "kernel"):
                for method in ("smoothed CCA", "ridge CCA"):
                    quality, criteria = scan(damaged, view, method)
                    lost = losses(quality, criteria)
                    for rule, value in lost.items():
                        told.setdefault((view, method), {}).setdefault(rule, []).append(value)
                    kept[f"{name}, {share:.0%} wrong, {view}, {method}"] = {"mAP": quality, "lost": lost}
            print(f"{name}, {share:.0%} wrong", flush=True)
    groups = list(told)
    print("\n| rule | " + " | ".join(f"{method}, {view}" for view, method in groups) + " |")
    print("|---|" + "---|" * len(groups))
    for rule in told[groups[0]]:
        cells = [f"{100 * np.mean(told[g][rule]):.1f} / {100 * np.max(told[g][rule]):.1f}" for g in groups]
        print(f"| {rule} | " + " | ".join(cells) + " |")
    if arguments.scan:
        arguments.scan.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
