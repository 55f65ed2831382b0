"""Methods side by side on few training pairs, on development splits of the training rows alone.

    python -m benchmarks.studies.few_pairs ../shared/data/mfeat.h5 "ridge-cca" "hscmae affinity.k=10" --rows 30 100 300

Each quoted argument is a method and its settings. Labels are used to report, never to train; the file's own test rows
are never read. mAP by method and number of training pairs, the mean over splits and the ratio to the first method.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import hscmae
from benchmarks.studies.tasks import development
from hscmae.methods import get_method
from hscmae.runs import settings_from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("variants", nargs="+", help="method and settings, separated by spaces")
    parser.add_argument("--rows", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    whole = hscmae.read(arguments.file)
    for rows in arguments.rows:
        found: dict[str, list[float]] = {}
        for split in range(arguments.first, arguments.first + arguments.splits):
            pairs = development(whole, split)
            train = np.random.default_rng(split).permutation(pairs.rows_of("train"))[:rows]
            pairs = pairs.take(np.sort(np.concatenate([train, pairs.rows_of("test")[:4000]])))
            for variant in arguments.variants:
                name, *settings = variant.split()
                model = get_method(name).from_settings(settings_from(None, settings)).fit(pairs)
                found.setdefault(variant, []).append(hscmae.evaluate(model, pairs, bootstrap=0)["avg/mAP"])
        base = np.mean(found[arguments.variants[0]])
        for variant, values in found.items():
            each = " ".join(f"{value:.4f}" for value in values)
            mean = np.mean(values)
            print(f"{arguments.file.stem} {rows:5d} {mean:.4f} {mean / base:.3f}  {variant}  ({each})", flush=True)


if __name__ == "__main__":
    main()
