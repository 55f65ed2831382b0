"""The training loop in two processes of one thread against one process of one thread, on the same global batch.

    python -m benchmarks.timings.distributed [--batch 512 2048] [--width 1024]

Every step exchanges the embeddings of the batch and the gradients of all weights; the larger the batch, the less the
weights weigh. A step's seconds are the median over the steps of a run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.timings.figures import figure
from benchmarks.timings.training_step import DIMS
from hscmae.methods import HSCMAE
from hscmae.methods.hscmae import HSCMAEObjective
from hscmae.training import distributed

REPEATS = 3
TARGETS = {512: 1.6, 2048: 1.8}
WARMUP = 3


class Timed(HSCMAE):
    """HSC-MAE that notes when each step ended."""

    def _build(self, *given: Any) -> HSCMAEObjective:
        objective, follow = super()._build(*given), HSCMAEObjective.after_step
        self.ended: list[float] = []

        def after_step(*step: Any) -> None:
            follow(objective, *step)
            self.ended.append(time.perf_counter())

        objective.after_step = after_step  # type: ignore[method-assign]
        return objective


def measure(batch: int, width: int) -> None:
    """What each of the processes does; the first prints the seconds of a step."""
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1:
        distributed.join()
    rng = np.random.default_rng(0)
    model = Timed(
        network_width=width,
        training_batch_size=batch,
        training_steps=WARMUP + max(12, 30 * 512 // batch),
        training_validation_share=0.0,
        training_precision="float32",
        weigh_pairs=False,  # which takes time before the first step
        training_evaluations=1,
        warm_start_kind="ridge",
        warm_start_ridge=1.0,
    )
    model.fit({m: rng.normal(size=(2 * batch, d)).astype(np.float32) for m, d in DIMS.items()})
    if distributed.is_first():
        print(statistics.median(np.diff(model.ended[WARMUP:])))


def seconds(processes: int, batch: int, width: int, jobs: int = 1) -> float:
    """Seconds a step in so many processes of one thread each; with several jobs side by side, the mean of theirs."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*run, "-m", __spec__.name, "--measure", "--batch", str(batch), "--width", str(width)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(jobs)
    ]
    return statistics.mean(float(job.communicate()[0]) for job in started)


def rows(batches: tuple[int, ...] = (512, 2048), width: int = 1024) -> list[dict[str, Any]]:
    """One row a batch: clips/s of two processes, those of one, their ratio.

    Two jobs that know nothing of each other say how much two busy cores give on this machine: nothing can give more.
    """
    found = []
    for batch in batches:
        runs = [
            (seconds(1, batch, width), seconds(2, batch, width), seconds(1, batch, width, jobs=2))
            for _ in range(REPEATS)
        ]
        ratio = statistics.median(one / two for one, two, _ in runs)
        limit = statistics.median(2 * one / apart for one, _, apart in runs)
        alone = round(batch / statistics.median(one for one, _, _ in runs))
        found.append(
            figure(
                f"training loop, batch {batch}, width {width}, float32, 2 processes of 1 thread",
                round(batch / statistics.median(two for _, two, _ in runs)),
                "clips/s",
                f">= {TARGETS[batch]} x" if batch in TARGETS else "",
                reference=f"1 process of 1 thread: {alone} clips/s; 2 unconnected ones: {limit:.2f} x",
                ratio=round(ratio, 3),
            )
        )
    return found


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
