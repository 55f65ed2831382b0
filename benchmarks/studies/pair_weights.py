"""What is gained where pairs that are probably wrong count less in the start: smoothed CCA through the kernel view.

    python -m benchmarks.studies.pair_weights ../shared/data

Development cuts of training rows alone (``benchmarks.studies.views``), as they are and with 40 and 60% of the training
pairs permuted; ridge 3, no anchors, no training. The weight of a pair is the chance that it is right, from the audit's
cross-fitted agreement: of p, the share of random pairs that agree better, ``1 - w / f(p)``, with the estimated share w
of wrong pairs and the decreasing density f of p (Grenander 1956); one minus Efron's local false discovery rate (J. Am.
Stat. Assoc. 99, 2004). A weight of 1 is today's smoothed CCA exactly, one of 0 makes of a pair two clips that lack a
modality each. Prints a line a cut: mAP without weights, with them, and with the truth as weights.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import hscmae
from benchmarks.studies.views import CPU, cuts
from hscmae.audit import audit
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.config import HSCMAEConfig
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.cca import CanonicalMaps, covariances, solve_whitened, whitening
from hscmae.linear.smoothing import ROUNDS, smoothed_cca
from hscmae.training.features import Features
from hscmae.training.views import kernel_views

DIM, RIDGE = 64, 3.0


def decreasing_density(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Grenander's estimate at each of n values in [0, 1]: slopes of their distribution's least concave majorant."""
    values, counts = np.unique(p, return_counts=True)
    x = np.concatenate([[0.0], np.maximum(values, 1e-9), [1.0]])
    y = np.concatenate([[0.0], np.cumsum(counts) / len(p), [1.0]])
    corners = [0]
    for i in range(1, len(x)):
        while len(corners) > 1 and (y[i] - y[corners[-1]]) * (x[corners[-1]] - x[corners[-2]]) >= (
            y[corners[-1]] - y[corners[-2]]
        ) * (x[i] - x[corners[-1]]):
            corners.pop()
        corners.append(i)
    at, height = x[corners], y[corners]
    piece = np.clip(np.searchsorted(at, np.maximum(p, 1e-9)), 1, len(at) - 1)
    return (height[piece] - height[piece - 1]) / np.maximum(at[piece] - at[piece - 1], 1e-9)


def chance_of_being_right(pairs: Pairs) -> npt.NDArray[np.float64]:
    """The weight of each pair, shape (n,)."""
    found = audit(hscmae.PCA(dim=8).fit(pairs), pairs, seen=True)
    p = np.nan_to_num(found.random_better, nan=0.0)  # without a score: as good as certain
    return np.clip(1 - found.wrong_share / np.maximum(decreasing_density(p), 1e-9), 0.0, 1.0)


def weighted(x: dict[str, Tensor], weight: npt.NDArray[np.float64]) -> CanonicalMaps:
    """Smoothed CCA of complete pairs, each with a weight of shape (n,)."""
    settings = HSCMAEConfig().warm_start
    (first, second), n, w = x, len(weight), torch.from_numpy(weight)
    moments = covariances(x)
    a, v = (x[m].double() - moments.mean[m] for m in (first, second))
    own = (a * w[:, None]).T @ v / w.sum()
    factors = whitening(moments.within, RIDGE)
    maps = solve_whitened(replace(moments, cross=own), factors, DIM, scale=True)
    share = settings.k / (settings.k + n)
    for _ in range(ROUNDS):
        z = [F.normalize(maps(m, x[m]).double(), dim=1) for m in (first, second)]
        # A clip by its first modality, and by its second: the same where the pair is certain.
        ends = [F.normalize(one + w[:, None] * other, dim=1) for one, other in (z, z[::-1])]
        cosine = ends[0] @ ends[1].T  # (n, n)
        affinity = (_affinity(cosine, settings.k, settings.tau) + _affinity(cosine.T, settings.k, settings.tau).T) / 2
        scale = [affinity.sum(axis).clamp(min=1e-300).rsqrt() for axis in (1, 0)]
        cross = (a * scale[0][:, None]).T @ (affinity @ (v * scale[1][:, None])) / n
        maps = solve_whitened(replace(moments, cross=torch.lerp(cross, own, share)), factors, DIM, scale=True)
    return maps


def _affinity(cosine: Tensor, k: int, tau: float) -> Tensor:
    away = cosine.clone().fill_diagonal_(-torch.inf)
    top = away.topk(min(k, len(away) - 1), dim=1)
    return torch.zeros_like(away).scatter_(1, top.indices, torch.softmax(top.values / tau, dim=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    for name, whole in cuts(arguments.data):
        for share in (0.0, 0.4, 0.6):
            pairs = with_wrong_pairs(whole, share, 0)
            rows = pairs.rows_of("train")
            first = pairs.modalities[0]
            wrong = (np.asarray(pairs.features[first][rows]) != np.asarray(whole.features[first][rows])).any(1)
            model = hscmae.HSCMAE()
            model.dims_ = pairs.dims
            scalers = model._fit_scalers(pairs, rows)
            train, test = (Features(pairs, pairs.rows_of(part), scalers, CPU) for part in ("train", "test"))
            views = kernel_views(train, model.config.view, 0)
            x, tested = (f.through(views).batch(torch.arange(len(f))).x for f in (train, test))
            weight = chance_of_being_right(pairs.take(rows).without_labels())
            start = model.config.warm_start
            found = {
                "without": smoothed_cca(x, DIM, ridge=RIDGE, k=start.k, tau=start.tau),
                "with weights": weighted(x, weight),
                "truth": weighted(x, 1.0 - wrong),
            }
            labels = whole.take(whole.rows_of("test")).labels
            told = []
            for way, maps in found.items():
                z = {m: maps(m, values).numpy() for m, values in tested.items()}
                told.append(f"{way} {Retrieval(z, labels).metrics(bootstrap=0)['avg/mAP']:.4f}")
            told.append(f"mean weight of right pairs {weight[~wrong].mean():.2f}")
            told += [f"of wrong ones {weight[wrong].mean():.2f}"] if wrong.any() else []
            print(f"{name}, {share:.0%} wrong:", "; ".join(told), flush=True)


if __name__ == "__main__":
    main()
