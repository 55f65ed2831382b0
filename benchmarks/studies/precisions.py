"""What training in bfloat16 changes: every deep method in both precisions on a development cut of training rows.

    python -m benchmarks.studies.precisions ../shared/data [--files mfeat.h5 yt8m_ave15.h5] [--rows 1200]

Prints mAP and seconds of a fit in float32 and in bfloat16, one after the other, and how often quicker a product is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import hscmae
from benchmarks.studies.quality import DEEP, OURS
from benchmarks.studies.tasks import development
from benchmarks.studies.views import FILES, shortened
from hscmae.methods import get_method
from hscmae.training.precision import speedup


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--files", nargs="+", default=FILES)
    parser.add_argument("--rows", type=int, default=4000, help="training rows, at most")
    arguments = parser.parse_args()
    print(f"a product is {speedup(torch.device('cpu')):.1f} times quicker in bfloat16")
    for file in arguments.files:
        pairs = shortened(development(hscmae.read(arguments.data / file), 0), arguments.rows)
        rows = len(pairs.rows_of("train"))
        for name in (*DEEP, OURS):
            told = []
            for precision in ("float32", "bfloat16"):
                began = time.perf_counter()
                model = get_method(name)(training_precision=precision).fit(pairs.without_labels())
                seconds = time.perf_counter() - began
                told.append(f"{hscmae.evaluate(model, pairs)['avg/mAP']:.4f} in {seconds:.0f} s")
            print(f"{Path(file).stem} {rows}, {name}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
