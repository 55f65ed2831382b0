"""Each verb on a quiet machine and beside processes that keep every core busy, in turn.

    python -m benchmarks.timings.busy [--neighbours 2] [--repeats 2] [--only train evaluate]

On made-up pairs of the size of YouTube-8M's fifteen classes, whole processes. With as many busy neighbours as cores a
fair share is half of the machine: twice the time. Threads that spin while they wait take many times that
(``hscmae.cpus.set_threads``), in Python as on the command line. Writes docs/performance.md's table of a busy machine
and benchmarks/results/busy.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.pages import RESULTS, ROOT, fill, table
from benchmarks.timings.figures import figure
from hscmae.data.store import write_store
from hscmae.data.synthetic import synthetic_pairs

SCRIPT = "benchmarks/timings/busy.py"
CLIPS = 1629
TARGET = 3.0
IN_PYTHON = "fit in Python"
VERBS: dict[str, list[str]] = {
    IN_PYTHON: ["-c", "import hscmae; hscmae.HSCMAE().fit(hscmae.read('pairs'))"],
    "train": ["train", "pairs", "--output", "again", "--overwrite"],
    "embed": ["embed", "run", "pairs", "--output", "embedded", "--overwrite"],
    "evaluate": ["evaluate", "run", "pairs"],
    "audit": ["audit", "run", "pairs"],
    "report": ["report", "run", "pairs", "--output", "page.html", "--overwrite"],
    "search": ["search", "found", "{clip}"],
}


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that each keep a core busy."""
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in spin:
            process.kill()
            process.wait()


def without_openmp() -> dict[str, str]:
    """This process's environment less what it tells OpenMP, so that another chooses for itself."""
    return {name: value for name, value in os.environ.items() if "OMP_" not in name}


def seconds(verb: str, folder: Path, clip: str) -> float:
    """Of one run of a verb, from the start of Python to its end."""
    words = [word.format(clip=clip) for word in VERBS[verb]]
    if verb != IN_PYTHON:
        words = ["-m", "hscmae", *words]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *words], cwd=folder, check=True, capture_output=True,
        env=without_openmp(),
        start_new_session=True,  # its fair share is a process's, not that of this session
    )  # fmt: skip
    return time.perf_counter() - began


def rows(verbs: tuple[str, ...] = tuple(VERBS), count: int = 2, repeats: int = 2) -> list[dict[str, Any]]:
    """Median seconds beside busy neighbours, and their ratio to those on a quiet machine."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pairs = synthetic_pairs(CLIPS).pairs
        write_store(pairs, folder / "pairs")
        clip = pairs.ids[0].decode()
        for verb, made, kept in (("train", "again", "run"), ("embed", "embedded", "found")):
            seconds(verb, folder, clip)
            (folder / made).rename(folder / kept)
        for verb in verbs:
            quiet, busy = [], []
            for _ in range(repeats):
                quiet.append(seconds(verb, folder, clip))
                with neighbours(count):
                    busy.append(seconds(verb, folder, clip))
            ours, alone = statistics.median(busy), statistics.median(quiet)
            reference, ratio = f"quiet: {alone:.1f} s", round(ours / alone, 2)
            found.append(
                figure(
                    f"{verb} beside {count} busy processes",
                    ours,
                    "s",
                    f"<= {TARGET:g} x",
                    reference=reference,
                    ratio=ratio,
                )
            )
            print(f"{verb}: {ours:.1f} s, {reference}, {ratio} x", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=VERBS, default=list(VERBS))
    given = parser.parse_args()
    found = rows(tuple(given.only), given.neighbours, given.repeats)
    (RESULTS / "busy.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [[r["name"], f"{r['value']:.1f} s", r["reference"], f"{r['ratio']:g} x", r["target"]] for r in found]
    fill(ROOT / "docs" / "performance.md", SCRIPT, {"busy": table(("verb", "takes", "", "ratio", "target"), lines)})


if __name__ == "__main__":
    main()
