"""What the network's start sees: smoothed CCA on standardised values and on components of several kernels.

    python -m benchmarks.studies.views ../shared/data [--bandwidths 1 3 10] [--linear 0 0.1 0.3]

Development cuts of training rows alone, with 100, 300 and 1,000 pairs to train on; the real clips beside DATA, each of
folds 1 to 4 held out in turn. Ridges are chosen without labels, anchors are left out. Prints mAP, a line a cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

import hscmae
from benchmarks.studies.tasks import clips, development
from hscmae.config import HSCMAEConfig
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.cca import CanonicalMaps, Covariances, covariances
from hscmae.linear.smoothing import smoothed_cca
from hscmae.methods.closed_form import USUAL_RIDGE, CrossFit
from hscmae.training.features import Batch, Features
from hscmae.training.views import kernel_views

FILES = ("yt8m_ave15.h5", "mfeat.h5", "digits.h5", "ccv.h5", "yt8m_pool.h5")
ROWS, TESTED = (100, 300, 1000), 2000
CPU = torch.device("cpu")


def cuts(data: Path) -> Iterator[tuple[str, Pairs]]:
    """Name and pairs of each cut."""
    for file in FILES:
        whole = development(hscmae.read(data / file), 0)
        for rows in ROWS:
            yield f"{Path(file).stem} {rows}", shortened(whole, rows)
    real = clips(data)
    real = real.take(np.flatnonzero([not clip.startswith(b"fold5/") for clip in real.ids.tolist()]))
    for fold in range(1, 5):
        held_out = np.array([clip.startswith(b"fold%d/" % fold) for clip in real.ids.tolist()])
        yield f"clips, fold {fold}", replace(real, split=np.where(held_out, b"test", b"train"))


def shortened(whole: Pairs, rows: int) -> Pairs:
    """So many of the training rows, where there are more, and the first of the test rows."""
    train = np.random.default_rng(0).permutation(whole.rows_of("train"))[:rows]
    return whole.take(np.sort(np.concatenate([train, whole.rows_of("test")[:TESTED]])))


def solve(rows: Batch, ridge: float, moments: Covariances) -> CanonicalMaps:
    start = HSCMAEConfig().warm_start
    return smoothed_cca(rows.x, 64, ridge=ridge, k=start.k, tau=start.tau, present=rows.present, moments=moments)


def score(train: Features, test: Features, pairs: Pairs, usual: float | None) -> float:
    """mAP of the closed form."""
    rows = train.batch(torch.arange(len(train)))
    maps = solve(rows, CrossFit(rows, solve, 0).choose_ridge(usual), covariances(rows.x, rows.present))
    z = {m: maps(m, x).numpy() for m, x in test.batch(torch.arange(len(test))).x.items()}
    found = Retrieval(z, pairs.take(pairs.rows_of("test")).labels).metrics(bootstrap=0)
    return float(found["avg/mAP"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bandwidths", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--linear", type=float, nargs="+", default=[0.0, 0.1], help="shares of the linear kernel")
    arguments = parser.parse_args()
    for name, pairs in cuts(arguments.data):
        model = hscmae.HSCMAE()
        model.dims_ = {m: x.shape[1] for m, x in pairs.features.items()}
        scalers = model._fit_scalers(pairs, pairs.rows_of("train"))
        train, test = (Features(pairs, pairs.rows_of(part), scalers, CPU) for part in ("train", "test"))
        found = {"values": score(train, test, pairs, None)}
        for bandwidth, linear in product(arguments.bandwidths, arguments.linear):
            kernel = model.config.view.model_copy(update={"bandwidth": bandwidth, "linear": linear})
            view = kernel_views(train, kernel, 0)
            found[f"bandwidth {bandwidth:g}, linear {linear:g}"] = score(
                train.through(view), test.through(view), pairs, USUAL_RIDGE["smoothed"]
            )
        print(name, "; ".join(f"{view} {value:.4f}" for view, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
