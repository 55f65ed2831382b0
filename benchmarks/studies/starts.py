"""What could be chosen, and what would choose it: steps by shares of anchors, on splits of the training rows alone.

    python -m benchmarks.studies.starts ../shared/data/mfeat.h5 "" "masking.spread=0" --splits 2 --output FILE.csv

One training a variant and split; at each measured step and for each share of anchors the mAP on development rows (the
file's test rows are never read) and the label-free criteria on held-out pairs.
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hscmae
from benchmarks.studies.criteria import mean_rank, paired_mrr
from benchmarks.studies.tasks import development
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Retrieval
from hscmae.evaluation.selection import alignment_gap, effective_rank, feature_knn, mutual_knn
from hscmae.linear.smoothing import fuse
from hscmae.methods.hscmae import HSCMAE
from hscmae.nn.anchors import attend
from hscmae.runs import settings_from
from hscmae.streams import generator
from hscmae.training.features import Features

SHARES = (0.0, 0.3, 0.6)
TAUS = (0.1,)


def append(output: Path, where: dict[str, Any], **row: Any) -> None:
    new = not output.exists()
    with output.open("a", newline="") as file:
        out = csv.DictWriter(file, fieldnames=[*where, *row])
        if new:
            out.writeheader()
        out.writerow(where | row)


class Watched(HSCMAE):
    """HSC-MAE whose every measurement is written down for all shares of anchors."""

    def watch(self, pairs: Pairs, write: Any, taus: tuple[float, ...]) -> None:
        self.pairs, self.write, self.taus, self.part = pairs, write, taus, 0.0

    def _measure(self, objective: Any, features: Features, held_out: Features, near: Any) -> Any:
        test = Features(self.pairs, self.pairs.rows_of("test"), self.scalers_, torch.device("cpu"), self.views_ or None)
        labels = self.pairs.take(self.pairs.rows_of("test")).labels
        raw = [
            torch.from_numpy(self.scalers_[m].apply(self.pairs.features[m][held_out.rows])).numpy() for m in self.dims_
        ]

        def embed(batch: Any) -> dict[str, torch.Tensor]:
            return {m: objective.embed(m, x) for m, x in batch.x.items()}

        with torch.inference_mode():
            known = embed(features.sample(2048, generator(self.config.seed, "anchors")))
            z = {n: embed(f.batch(torch.arange(len(f)))) for n, f in (("val", held_out), ("test", test))}
            for tau in self.taus:
                for share in SHARES:
                    if not share and tau != self.taus[0]:
                        continue
                    out = {
                        n: {m: attend(x, fuse(known), tau=tau, share=share).numpy() for m, x in part.items()}
                        for n, part in z.items()
                    }
                    a, v = out["val"].values()
                    alike = feature_knn(a, v, *raw)
                    agree = mutual_knn(a, v)
                    self.write(
                        part=self.part,
                        share=share,
                        tau=tau,
                        map=Retrieval(out["test"], labels).metrics(bootstrap=0)["avg/mAP"],
                        mutual=agree,
                        feature=alike,
                        grounded=agree * alike**0.5,
                        rank=mean_rank(a, v),
                        mrr=paired_mrr(a, v),
                        gap=alignment_gap(a, v),
                        erank=effective_rank(a),
                    )
        self.part += 1 / self.config.training.evaluations
        return super()._measure(objective, features, held_out, near)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("variants", nargs="+", help="settings, separated by spaces")
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", type=int, default=0, help="take this many training rows at random; 0: all")
    parser.add_argument("--wrong", type=float, default=0.0, help="share of training pairs that are permuted")
    parser.add_argument("--taus", type=float, nargs="+", default=[0.1])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    whole = hscmae.read(arguments.file)
    for split in range(arguments.first, arguments.first + arguments.splits):
        pairs = development(whole, split)
        if arguments.rows:
            train = np.random.default_rng(split).permutation(pairs.rows_of("train"))[: arguments.rows]
            pairs = pairs.take(np.sort(np.concatenate([train, pairs.rows_of("test")])))
        if arguments.wrong:
            pairs = with_wrong_pairs(pairs, arguments.wrong, split)
        for variant in arguments.variants:
            settings = settings_from(None, variant.split())
            training = {"refit": False, "patience": 1000, "evaluations": 4} | settings.pop("training", {})
            model = Watched.from_settings({**settings, "training": training})

            where = {
                "file": arguments.file.stem,
                "rows": arguments.rows,
                "wrong": arguments.wrong,
                "split": split,
                "variant": variant,
            }
            model.watch(pairs, partial(append, arguments.output, where), tuple(arguments.taus))
            model.fit(pairs)
            part = model.summary_["chosen_step"] / model.config.training.planned_steps(model.summary_["rows"])
            print(arguments.file.stem, split, variant, "chosen", part, model.summary_["anchors"], flush=True)


if __name__ == "__main__":
    main()
