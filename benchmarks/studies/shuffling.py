"""What block shuffling costs on rows sorted by label, the worst case: mAP over seeds, paired with the full shuffle.

python -m benchmarks.studies.shuffling FILE [--rows 8000] [--steps 300] [--seeds 3] [--blocks 0 16 64 256]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import hscmae
from hscmae.data.splits import holdout
from hscmae.methods import HSCMAE

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--blocks", type=int, nargs="+", default=[0, 16, 64, 256])
    arguments = parser.parse_args()
    data = hscmae.read(arguments.file)
    data = data[: arguments.rows]
    assert data.labels is not None
    first_label = data.labels.indices[data.labels.indptr[:-1]]
    data = data.take(np.argsort(first_label, kind="stable"))
    data = replace(data, split=holdout(data.ids, "id-hash:0.2"))
    for seed in range(arguments.seeds):
        for block in arguments.blocks:
            model = HSCMAE(
                seed=seed,
                training_steps=arguments.steps,
                training_shuffle_block=block,
                training_validation_share=0.0,
                warm_start_ridge=3.0,
            ).fit(data)
            print(f"seed {seed}, block {block}: {hscmae.evaluate(model, data, bootstrap=0)['avg/mAP']:.4f}", flush=True)
