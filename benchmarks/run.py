"""Every timing in one table, as `make bench` prints it; writes benchmarks/results/latest.json.

python benchmarks/run.py [--quick] [--gigabytes 8]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import distributed
import embed
import larger_than_memory
import ranking
import training_step

COLUMNS = ("name", "value", "unit", "reference", "ratio", "target", "met")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the galleries of 58,000")
    parser.add_argument("--gigabytes", type=float, default=1.3, help="size of the store that is larger than memory")
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    rows = training_step.rows() + distributed.rows() + (ranking.rows(n_large=0) if arguments.quick else ranking.rows())
    rows += embed.rows() + larger_than_memory.rows(arguments.gigabytes, torch.get_num_threads())
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    table = Table()
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in COLUMNS))
    Console(width=200).print(table)
    path = Path(__file__).parent / "results" / "latest.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
