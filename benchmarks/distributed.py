"""The training loop in two processes of one thread against one process of one thread, on the same global batch.

    python benchmarks/distributed.py [--batch 512 2048] [--width 1024]

Every step exchanges the embeddings of the batch and the gradients of all weights, whatever the batch: the larger it
is, the less they weigh.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from typing import Any

import torch

import training_step
from hscmae.training import distributed

REPEATS = 3
TARGET = 1.7


def seconds(processes: int, batch: int, width: int) -> float:
    """Seconds a step in so many processes of one thread each."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*run, __file__, "--measure", "--batch", str(batch), "--width", str(width)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def rows(batches: tuple[int, ...] = (512, 2048), width: int = 1024) -> list[dict[str, Any]]:
    """One row a batch: clips/s of two processes, those of one, their ratio."""
    found = []
    for batch in batches:
        pairs = [(seconds(1, batch, width), seconds(2, batch, width)) for _ in range(REPEATS)]
        ratio = statistics.median(one / two for one, two in pairs)
        alone = round(batch / statistics.median(one for one, _ in pairs))
        found.append(
            {
                "name": f"training loop, batch {batch}, width {width}, float32, 2 processes of 1 thread",
                "value": round(batch / statistics.median(two for _, two in pairs)),
                "unit": "clips/s",
                "reference": f"1 process of 1 thread: {alone} clips/s",
                "ratio": round(ratio, 3),
                "target": f">= {TARGET} x",
                "met": ratio >= TARGET,
            }
        )
    return found


def measure(batch: int, width: int) -> None:
    """What each of the processes does; the first prints the seconds of a step."""
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1:
        distributed.join()
    took = training_step.step_seconds(batch, width, "float32", max(10, 40 * 512 // batch))
    if distributed.is_first():
        print(took)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.batch[0], arguments.width)
    else:
        for row in rows(tuple(arguments.batch), arguments.width):
            print(row)
