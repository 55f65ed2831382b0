"""What anchors alone are worth: closed forms with them, on the tasks of ``quality.py``.

python benchmarks/anchors.py DATA --output FOLDER [--tasks ave15 vegas10 pool]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hscmae.benchmark.jobs import Contender
from hscmae.benchmark.protocol import benchmark
from quality import HASH, TASKS, pairs_of

METHODS = ("ridge-cca", "smoothed-cca", "smoothed-kernel-cca")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["ave15", "vegas10", "pool"], choices=list(TASKS))
    arguments = parser.parse_args()
    anchors = {"anchors": {"share": 0.6}}
    who = [Contender(f"{method} with anchors", method, settings=anchors) for method in METHODS]
    for task in arguments.tasks:
        pairs, folder = pairs_of(task, arguments.data), arguments.output / task
        benchmark(pairs, folder, who, seeds=1, splits=TASKS[task].splits, own_split=HASH)
        print((folder / "benchmark.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
