"""Settings side by side on resplits of a labelled file: mAP, and the label-free criterion that would have chosen.

    python -m benchmarks.studies.scan FILE "" "affinity.k=20" "loss.tau=0.1 masking.ratio=0.7" --splits 2

Each quoted argument is one variant. Labels are used to report, never to train; figures of a scan are for development,
not results: the test rows are in view.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import hscmae
from hscmae.benchmark.damage import with_wrong_pairs
from hscmae.data.splits import resplit
from hscmae.methods import get_method
from hscmae.runs import settings_from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("variants", nargs="+", help="settings, separated by spaces")
    parser.add_argument("--method", default="hscmae")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--splits", type=int, default=2, help="number of resplits")
    parser.add_argument("--rows", type=int, default=0, help="take this many rows at random; 0: all")
    parser.add_argument("--wrong", type=float, default=0.0, help="share of training pairs to permute")
    arguments = parser.parse_args()
    pairs = hscmae.read(arguments.file)
    if arguments.rows:
        pairs = pairs.take(np.random.default_rng(0).choice(len(pairs), arguments.rows, replace=False))
    splits = [with_wrong_pairs(resplit(pairs, 100 + s, 0.2), arguments.wrong, s) for s in range(arguments.splits)]
    print(f"{'mAP':>7} {'chosen by':>9} {'step':>5} {'seconds':>8}  settings")
    for variant in arguments.variants:
        settings = settings_from(None, variant.split())
        began = time.perf_counter()
        results = []
        for split in splits:
            model = get_method(arguments.method).from_settings(settings, arguments.preset).fit(split)
            best = max((score for _, score in model.summary_.get("selection", [])), default=float("nan"))
            step = model.summary_.get("chosen_step", 0)
            results.append((hscmae.evaluate(model, split, bootstrap=0)["avg/mAP"], best, step))
        result, criterion, step = np.mean(results, axis=0)
        seconds = (time.perf_counter() - began) / len(splits)
        print(f"{result:7.4f} {criterion:9.4f} {step:5.0f} {seconds:8.1f}  {variant or '(as preset)'}", flush=True)


if __name__ == "__main__":
    main()
