"""What a head on the embeddings is worth, and whether it is seen without labels where it is not.

    python -m benchmarks.studies.heads ../shared/data [--whole] [--only NAME ...]

Development cuts of training rows alone (``benchmarks.studies.views``; with ``--whole`` those of
``benchmarks.studies.steps``), as they are and with 40 and 60% of the training pairs permuted. HSC-MAE is trained by its
default; several heads are then fitted to the embeddings of its training rows, and test rows of the cut retrieved
without and with each, with anchors where the default took them. Prints both for each cut, then a table: mean and worst
change of mAP against no head, in %. *Where it helps* is the default's own choice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import hscmae
from benchmarks.studies.steps import whole_cuts
from benchmarks.studies.views import cuts
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.linear.cca import CanonicalMaps, covariances, ridge_cca
from hscmae.linear.smoothing import fuse, refined_cca
from hscmae.methods.moments import doubt
from hscmae.nn.anchors import attend

RIDGES = (0.3, 0.5, 0.7, 1.0, 3.0)


def heads(pairs: Pairs) -> dict[str, float]:
    """mAP by head."""
    pairs = pairs.usable(among=pairs.rows_of("train"))
    model = hscmae.HSCMAE().fit(pairs.without_labels())
    anchors, rows = model.config.anchors, pairs.rows_of("train")
    share = anchors.share if model.anchors_ is not None else 0.0
    model.head_ = model.anchors_ = None
    known, z = (
        {m: torch.from_numpy(x) for m, x in model.embed_pairs(pairs.of_split(part)).items()}
        for part in ("train", "test")
    )
    chance, _ = doubt(pairs, rows, 0)
    weight = None if chance is None else torch.from_numpy(chance[rows].astype(np.float32))
    labels, size, dim = pairs.of_split("test").labels, model.config.head.ridge, model.config.dim

    def quality(head: CanonicalMaps | None) -> float:
        through = [part if head is None else {m: head(m, x) for m, x in part.items()} for part in (known, z)]
        found = {
            m: attend(x, fuse(through[0])[: anchors.rows], tau=anchors.tau, share=share) for m, x in through[1].items()
        }
        return float(Retrieval({m: x.numpy() for m, x in found.items()}, labels).metrics(bootstrap=0)["avg/mAP"])

    found = {"none": quality(None)}
    for ridge in RIDGES:
        found[f"smoothed, ridge {ridge:g}"] = quality(refined_cca(known, dim, ridge=ridge, weight=weight))
    unit = {m: F.normalize(x, dim=1) for m, x in known.items()}
    found[f"ridge CCA, ridge {size:g}"] = quality(ridge_cca(covariances(unit, weight=weight), dim, size))
    found["where it helps"] = found[f"smoothed, ridge {size:g}" if model.summary_["head"] else "none"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of the cuts' names")
    parser.add_argument("--whole", action="store_true", help="cuts of all training rows, none of them permuted")
    arguments = parser.parse_args()
    shares = (0.0,) if arguments.whole else (0.0, 0.4, 0.6)
    changes: dict[str, dict[float, list[float]]] = {}
    for name, pairs in (whole_cuts if arguments.whole else cuts)(arguments.data):
        if not name.startswith(tuple(arguments.only)):
            continue
        for share in shares:
            found = heads(with_wrong_pairs(pairs, share, 0))
            print(f"{name}, {share:.0%} wrong:", ", ".join(f"{k} {v:.4f}" for k, v in found.items()), flush=True)
            for head, value in found.items():
                changes.setdefault(head, {}).setdefault(share, []).append(value / found["none"] - 1)
    print("\n| head | " + " | ".join(f"{share:.0%} wrong" for share in shares) + " |\n|---|" + "---|" * len(shares))
    for head, by_share in changes.items():
        print(
            f"| {head} | "
            + " | ".join(f"{100 * np.mean(v):+.1f} / {100 * np.min(v):+.1f}" for v in by_share.values())
            + " |"
        )


if __name__ == "__main__":
    main()
