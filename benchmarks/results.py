"""The README's table: every method on the file's own test split, over seeds, as `hscmae train` and `evaluate` give it.

    python benchmarks/results.py FILE [--seeds 5] [--holdout id-hash:0.2] [--methods ridge-cca hscmae hscmae:paper]

Prints Markdown: mean over seeds, the spread between them, the mean of the 95% intervals over clips, training time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import hscmae
from hscmae.data.splits import holdout
from hscmae.methods import get_method

METHODS = ("random", "cca", "infonce", "ridge-cca", "smoothed-cca", "hscmae:paper", "hscmae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--holdout")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    arguments = parser.parse_args()
    pairs = hscmae.read(arguments.file)
    if arguments.holdout:
        pairs = replace(pairs, split=holdout(pairs.ids, arguments.holdout, pairs.source))
    print("| method | mAP | between seeds | 95% over clips | R@10 | seconds to train |\n|---|---|---|---|---|---|")
    for name in arguments.methods:
        kind, _, preset = name.partition(":")
        metrics, seconds = [], []
        for seed in range(arguments.seeds):
            began = time.perf_counter()
            model = get_method(kind)(preset=preset or "default", seed=seed).fit(pairs)
            seconds.append(time.perf_counter() - began)
            metrics.append(hscmae.evaluate(model, pairs))
        score = [m["avg/mAP"] for m in metrics]
        low, high = np.mean([m["avg/mAP_ci"] for m in metrics], axis=0)
        recall = np.mean([m["avg/R@10"] for m in metrics])
        print(
            f"| {name} | {np.mean(score):.3f} | {min(score):.3f} to {max(score):.3f} | {low:.3f} to {high:.3f} "
            f"| {recall:.3f} | {np.mean(seconds):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
