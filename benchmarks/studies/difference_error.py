"""How far the criterion's difference between two models varies across held-out sets, against its estimated error.

    python -m benchmarks.studies.difference_error ../shared/data

Development cuts (``benchmarks.studies.views``): HSC-MAE's start and the model after all planned steps, on random sets
of 60 and 150 of a cut's test rows, whose labels are not looked at. Prints, for each, the mean difference of the
criterion, its standard deviation over sets (corrected for drawing without replacement), the mean of
``standard_error``, and the ratio of the two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import hscmae
from benchmarks.studies.views import cuts
from hscmae.evaluation.selection import grounded_rows, nearest
from hscmae.training.choice import standard_error

SIZES, REPEATS = (60, 150), 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    for name, pairs in cuts(parser.parse_args().data):
        if len(pairs.rows_of("train")) < 300:
            continue
        start = hscmae.HSCMAE(training_steps=1, training_lr=1e-30, training_validation_share=0.0)
        trained = hscmae.HSCMAE(training_validation_share=0.0)
        test = pairs.of_split("test").without_labels()
        test = test.take(np.flatnonzero(test.usable().complete()))
        z = [model.fit(pairs.without_labels()).embed_pairs(test) for model in (start, trained)]
        x = {
            m: start.views_[m](torch.from_numpy(start.scalers_[m].apply(np.asarray(test.features[m])))).numpy()
            for m in test.modalities
        }
        rng = np.random.default_rng(0)
        for size in SIZES:
            leads, errors = [], []
            for _ in range(REPEATS):
                order = rng.permutation(len(test))
                for first in range(0, len(test) - size + 1, size):
                    here = order[first : first + size]
                    near = [nearest(x[m][here], max(1, size // 10)) for m in test.modalities]
                    before, after = (
                        torch.from_numpy(grounded_rows(*(of[m][here] for m in test.modalities), near[0], near[1]))
                        for of in z
                    )
                    leads.append(float((after - before).mean()))
                    errors.append(standard_error(after - before))
            spread = float(np.std(leads)) / np.sqrt(1 - size / len(test))
            print(
                f"{name}, sets of {size}: difference {np.mean(leads):+.4f}, deviation {spread:.4f}, "
                f"standard error {np.mean(errors):.4f}, ratio {spread / np.mean(errors):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
