"""How many neighbours a row the affinities of smoothed CCA want, by the number of rows.

    python -m benchmarks.studies.neighbourhoods ../shared/data [--rows 300 1000 4000] [--k 20 50 100 200 300 500]

Development cuts of training rows alone, through the kernel view, at one ridge for all, with anchors as HSC-MAE has
them; of the pool also ten labels that no task of ``quality`` takes, the 26th to the 35th by frequency, where a clip
carries one of them. Prints mAP for each ``k``; at the end the mean and the worst loss, in %, against the best of them,
beside that of the rule (``linear.smoothing.neighbourhood``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import hscmae
from benchmarks.studies.tasks import development, of_labels, pool
from benchmarks.studies.views import CPU, FILES, shortened
from hscmae.config import HSCMAEConfig
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.cca import covariances
from hscmae.linear.smoothing import fuse, neighbourhood, smoothed_cca
from hscmae.methods.closed_form import USUAL_RIDGE
from hscmae.nn.anchors import attend
from hscmae.training.features import Features
from hscmae.training.views import kernel_views


def cuts(data: Path, rows: list[int]) -> Iterator[tuple[str, Pairs]]:
    """Name and pairs of each cut; one with fewer training rows than asked for has all it has."""
    ten = of_labels(pool(data), 25, 35)
    for name, whole in [*((Path(file).stem, hscmae.read(data / file)) for file in FILES), ("ten labels", ten)]:
        cut = development(whole, 0)
        for size in sorted({min(size, len(cut.rows_of("train"))) for size in rows}):
            yield name, shortened(cut, size)


def scores(pairs: Pairs, ks: list[int]) -> dict[int, float]:
    """mAP by k."""
    config = HSCMAEConfig()
    model = hscmae.HSCMAE()
    model.dims_ = {m: x.shape[1] for m, x in pairs.features.items()}
    scalers = model._fit_scalers(pairs, pairs.rows_of("train"))
    plain, tested = (Features(pairs, pairs.rows_of(part), scalers, CPU) for part in ("train", "test"))
    view = kernel_views(plain, config.view, 0)
    train, test = (f.through(view).batch(torch.arange(len(f))) for f in (plain, tested))
    moments, labels = covariances(train.x, train.present), pairs.take(pairs.rows_of("test")).labels
    found = {}
    for k in ks:
        maps = smoothed_cca(
            train.x, 64, ridge=USUAL_RIDGE["smoothed"], k=k, tau=config.warm_start.tau, present=train.present,
            moments=moments,
        )  # fmt: skip
        known = fuse({m: maps(m, x).float() for m, x in train.x.items()}, train.present)[: config.anchors.rows]
        z = {
            m: attend(maps(m, x).float(), known, tau=config.anchors.tau, share=config.anchors.share).numpy()
            for m, x in test.x.items()
        }
        found[k] = float(Retrieval(z, labels).metrics(bootstrap=0)["avg/mAP"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 1000, 4000], help="training rows")
    parser.add_argument("--k", type=int, nargs="+", default=[20, 50, 100, 200, 300, 500])
    arguments = parser.parse_args()
    lost: dict[str, list[float]] = {}
    for name, pairs in cuts(arguments.data, arguments.rows):
        rows = len(pairs.rows_of("train"))
        rule = neighbourhood(rows)
        found = scores(pairs, sorted({*(k for k in arguments.k if k < rows), rule}))
        print(f"{name} {rows}: " + ", ".join(f"k = {k} {value:.4f}" for k, value in found.items()), flush=True)
        best = max(found.values())
        for way, k in [*((f"k = {k}", k) for k in arguments.k), ("the rule", rule)]:
            if k in found:
                lost.setdefault(way, []).append(100 * (found[k] / best - 1))
    for way, of in lost.items():
        print(f"{way}: {np.mean(of):.1f} / {min(of):.1f}, {len(of)} cuts")


if __name__ == "__main__":
    main()
