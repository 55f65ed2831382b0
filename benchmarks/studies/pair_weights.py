"""What is gained where pairs that are probably wrong count less in the start: smoothed CCA through the kernel view.

    python -m benchmarks.studies.pair_weights ../shared/data [--permutations 3]

Development cuts of training rows alone (``benchmarks.studies.views``), as they are and with 40 and 60% of the training
pairs permuted; ridge 3, no anchors, no training. Pairs are weighted by the chance that they are right
(``linear.agreement``), with the share of wrong pairs at its estimate, a standard error below it, or at the lower end of
its 95% interval; and by the truth. Prints a line a cut, then a table: mean and worst change of mAP against no weights,
in %, by the number of pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import hscmae
from benchmarks.studies.views import CPU, cuts
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.agreement import LOWER, chance_right, cross_fit, random_better, wrong_share, wrong_share_quantiles
from hscmae.linear.smoothing import smoothed_cca
from hscmae.methods.moments import ERROR_BELOW
from hscmae.training.features import Features
from hscmae.training.views import kernel_views

DIM, RIDGE = 64, 3.0
SHARES = (0.0, 0.4, 0.6)


def chances(pairs: hscmae.Pairs) -> dict[str, np.ndarray]:
    """Weights of the pairs by what is taken for the share of wrong ones."""
    rng = np.random.default_rng(0)
    observed, random = cross_fit(pairs.features, np.arange(len(pairs)), rng).agreement()
    low, sure = wrong_share_quantiles(observed, random, rng, (LOWER, ERROR_BELOW))
    p = random_better(observed, random)
    shares = {"estimate": wrong_share(observed, random), "a standard error below": sure, "lower end": low}
    return {name: chance_right(p, share) for name, share in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--permutations", type=int, default=1, help="of cuts with fewer than 300 pairs")
    arguments = parser.parse_args()
    changes: dict[tuple[str, str, float], list[float]] = {}
    for name, whole in cuts(arguments.data):
        group = "real clips" if "fold" in name else f"{name.split()[-1]} pairs"
        for share in SHARES:
            for seed in range(arguments.permutations if share and len(whole.rows_of("train")) < 300 else 1):
                pairs = with_wrong_pairs(whole, share, seed)
                rows = pairs.rows_of("train")
                first = pairs.modalities[0]
                wrong = (np.asarray(pairs.features[first][rows]) != np.asarray(whole.features[first][rows])).any(1)
                model = hscmae.HSCMAE()
                model.dims_ = pairs.dims
                scalers = model._fit_scalers(pairs, rows)
                train, test = (Features(pairs, pairs.rows_of(part), scalers, CPU) for part in ("train", "test"))
                views = kernel_views(train, model.config.view, 0)
                x, tested = (f.through(views).batch(torch.arange(len(f))).x for f in (train, test))
                labels = whole.take(whole.rows_of("test")).labels
                start = model.config.warm_start
                found = {}
                weights = {"none": None, **chances(pairs.take(rows).without_labels()), "truth": 1.0 - wrong}
                for way, weight in weights.items():
                    w = None if weight is None else torch.from_numpy(weight)
                    maps = smoothed_cca(x, DIM, ridge=RIDGE, k=start.k, tau=start.tau, weight=w)
                    z = {m: maps(m, values).numpy() for m, values in tested.items()}
                    found[way] = float(Retrieval(z, labels).metrics(bootstrap=0)["avg/mAP"])
                    changes.setdefault((way, group, share), []).append(found[way] / found["none"] - 1)
                told = "; ".join(f"{way} {value:.4f}" for way, value in found.items())
                print(f"{name}, {share:.0%} wrong, permutation {seed}: {told}", flush=True)
    groups = list(dict.fromkeys((group, share) for _, group, share in changes))
    print("\n| share of wrong pairs | " + " | ".join(f"{group}, {share:.0%}" for group, share in groups) + " |")
    print("|---|" + "---|" * len(groups))
    for way in dict.fromkeys(way for way, _, _ in changes):
        cells = [changes[way, group, share] for group, share in groups]
        print(f"| {way} | " + " | ".join(f"{100 * np.mean(v):+.1f} / {100 * np.min(v):+.1f}" for v in cells) + " |")


if __name__ == "__main__":
    main()
