"""Every timing in one table, as `make bench` prints it; writes benchmarks/results/latest.json and docs/performance.md.

    python -m benchmarks.timings.run [--minutes 16] [--only training_step embed]

Each benchmark runs in a process of its own; what one cannot measure (an extra that is missing, too little disk, a
crash, no time left) becomes a row without a verdict that says why. The most telling come first, the longest last.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.pages import RESULTS
from benchmarks.timings import performance
from benchmarks.timings.figures import COLUMNS, figure
from hscmae.files import write_atomic

# (module, arguments of its rows(), minutes that it takes on 2 cores)
BENCHMARKS: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("training_step", {}, 1.9),
    ("distributed", {}, 2.9),
    ("embed", {}, 2.4),
    ("larger_than_memory", {}, 3.4),
    ("ranking", {"n_large": 0}, 0.2),
    ("growth", {}, 1.5),
    ("search", {}, 0.4),
    ("ranking", {"n": 0, "kinds": ("single",), "directions": 1}, 0.5),
    ("ranking", {"n": 0, "kinds": ("multi",), "directions": 1}, 0.6),
)


def measure(module: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one benchmark, with the peak memory of its largest process; runs in a process of its own."""
    try:
        rows: list[dict[str, Any]] = importlib.import_module(module).rows(**arguments)
    except SystemExit as stop:
        raise RuntimeError(str(stop)) from None
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return [{**row, "process_gb": round(peak * 1024 / 1e9, 2)} for row in rows]


def collect(benchmarks: Iterable[tuple[str, dict[str, Any], float]], minutes: float) -> list[dict[str, Any]]:
    """All rows, in ``minutes`` at most as far as the benchmarks keep to the times they are known to take."""
    began, rows = time.monotonic(), []
    for module, arguments, expected in benchmarks:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        name = module.rpartition(".")[2]
        name = f"{name} ({given})" if given else name
        spent = (time.monotonic() - began) / 60
        if spent + expected > minutes:
            rows.append(figure(name, None, "", reason=f"left out: {spent:.1f} of {minutes:g} minutes were gone"))
            continue
        print(f"{spent:5.1f} min  {name}", file=sys.stderr, flush=True)
        try:
            started = time.monotonic()
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(measure, module, arguments).result()
            rows += [{**row, "process_s": round(time.monotonic() - started)} for row in found]
        except Exception as error:  # whatever one benchmark dies of, the others are measured
            lines = str(error).splitlines() or [""]
            rows.append(figure(name, None, "", reason=f"{type(error).__name__}: {lines[0][:200]}"))
    return rows


def merged(before: list[dict[str, Any]], again: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of before, in their order, with what was measured again in their place; new ones after them.

    Benchmarks that were left out for want of time are no longer listed.
    """
    waiting: dict[str, list[dict[str, Any]]] = {}
    for row in again:  # several may have one name: a figure against several rivals
        waiting.setdefault(row["name"], []).append(row)
    names, rows = set(waiting), []
    for row in before:
        if row["name"] in names:
            rows += waiting.pop(row["name"], [])
        elif not row.get("reason", "").startswith("left out"):
            rows.append(row)
    return rows + [row for found in waiting.values() for row in found]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "python": platform.python_version(),
        **{package: installed(package) for package in ("torch", "numpy")},
    }


def processor() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Keep the rows as ``latest.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n").encode())


def show(rows: list[dict[str, Any]]) -> None:
    """Print the one table."""
    table = Table("figure", "value", "limit or rival", "ratio", "target", "met")
    for row in rows:
        value = "" if row["value"] is None else f"{row['value']:,.5g} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        met = {True: "yes", False: "no", None: row.get("reason", "")}[row["met"]]
        table.add_row(row["name"], value, row["reference"], ratio, row["target"], met)
    Console(width=180).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=16.0, help="what would take longer is left out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone; their rows replace the last ones")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(min(2, os.cpu_count() or 1))
    chosen = [
        (f"benchmarks.timings.{name}", given, minutes)
        for name, given, minutes in BENCHMARKS
        if arguments.only is None or name in arguments.only
    ]
    rows = collect(chosen, arguments.minutes)
    assert all(set(COLUMNS) <= set(row) for row in rows)
    show(rows)
    latest = RESULTS / "latest.json"
    if arguments.only is not None and latest.exists():
        rows = merged(json.loads(latest.read_text())["rows"], rows)
    write(rows, latest)
    performance.update()


if __name__ == "__main__":
    main()
