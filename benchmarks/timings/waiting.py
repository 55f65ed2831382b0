"""How long OpenMP's threads should spin before they sleep: `hscmae train`, alone, beside another one, beside busy ones.

    python -m benchmarks.timings.waiting [--spins 0 300 1000] [--repeats 1]

Whole processes on made-up pairs of the size of YouTube-8M's fifteen classes, and a decomposition of 512 dimensions in
float64 alone, on a quiet machine. Why ``hscmae.cpus`` asks for what it asks: without any spinning two threads decompose
more slowly than one; what spins more is quicker alone and slower beside others. Writes docs/performance.md's table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pages import ROOT, fill, table
from benchmarks.timings.busy import CLIPS, neighbours, without_openmp
from hscmae.data.store import write_store
from hscmae.data.synthetic import synthetic_pairs

SCRIPT = "benchmarks/timings/waiting.py"
DECOMPOSE = """
import time, torch
x = torch.randn(1024, 512, dtype=torch.float64)
moments, taken = x.T @ x, []
for _ in range(21):
    began = time.perf_counter()
    torch.linalg.eigh(moments)
    taken.append(time.perf_counter() - began)
print(1e3 * sorted(taken)[10])
"""


def environment(spins: int | None) -> dict[str, str]:
    """Of a process whose threads spin so many rounds; what hscmae chooses where ``None``."""
    asked = {} if spins is None else {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(spins)}
    return without_openmp() | asked


def decomposition(spins: int | None) -> float:
    """Milliseconds of an eigendecomposition."""
    code = "import hscmae\n" + DECOMPOSE
    done = subprocess.run([sys.executable, "-c", code], env=environment(spins), check=True, capture_output=True)
    return float(done.stdout)


def training(spins: int | None, folder: Path, jobs: int = 1) -> float:
    """Seconds until each of some trainings that begin together has ended."""
    began = time.perf_counter()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hscmae", "train", "pairs", "--output", f"run{job}", "--overwrite"],
            cwd=folder, env=environment(spins), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for job in range(jobs)
    ]  # fmt: skip
    if any(job.wait() for job in started):
        raise SystemExit("a training failed")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", type=int, nargs="+", default=[0, 300, 1000])
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    count = os.cpu_count() or 1
    settings: list[int | None] = [*given.spins, None]
    measured: dict[int | None, list[list[float]]] = {spins: [] for spins in settings}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_store(synthetic_pairs(CLIPS).pairs, folder / "pairs")
        for _ in range(given.repeats):
            for spins in settings:
                found = [decomposition(spins), training(spins, folder), training(spins, folder, jobs=2)]
                with neighbours(count):
                    found.append(training(spins, folder))
                measured[spins].append(found)
                print("as hscmae chooses" if spins is None else spins, [round(value, 1) for value in found], flush=True)
    lines = []
    for spins, runs in measured.items():
        alone, *rest = (statistics.median(values) for values in zip(*runs, strict=True))
        name = "as hscmae chooses" if spins is None else f"{spins:,}"
        lines.append([name, f"{alone:.1f} ms", *(f"{value:.1f} s" for value in rest)])
    header = ("rounds", "decomposition, 512", "train", "two trainings at once", f"train beside {count} busy processes")
    fill(ROOT / "docs" / "performance.md", SCRIPT, {"waiting": table(header, lines)})


if __name__ == "__main__":
    main()
