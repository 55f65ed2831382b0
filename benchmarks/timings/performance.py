"""Writes the figures of docs/performance.md between its markers, from benchmarks/results/, so that none can drift.

python -m benchmarks.timings.performance
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages import RESULTS, ROOT, fill, table

PAGE = ROOT / "docs" / "performance.md"
NOT_MEASURED = "Not measured yet: `make bench` fills this in."


def figures(latest: dict[str, Any]) -> str:
    """The machine, how many targets are met, and every row."""
    machine, rows = latest["machine"], latest["rows"]
    judged = [row for row in rows if row["met"] is not None]
    met = sum(row["met"] for row in judged)
    lines = []
    for row in rows:
        value = "" if row["value"] is None else f"{row['value']:,.5g} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        verdict = {True: "yes", False: "**no**", None: row.get("reason", "")}[row["met"]]
        whole = f"{row['process_s']} s, {row['process_gb']:g} GB" if "process_s" in row else ""
        lines.append((row["name"], value, row["reference"], ratio, row["target"], verdict, whole))
    where = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"
    head = ("figure", "value", "limit or rival", "ratio", "target", "met", "whole benchmark")
    return (
        f"{met} of {len(judged)} targets are met ({where}). The last column: seconds of the process that measured the "
        f"row, start and preparation included, and the peak memory of the largest process in it.\n\n"
        f"{table(head, lines)}"
    )


def profile(found: dict[str, Any]) -> str:
    """Where the time of a training step goes."""
    kinds = [(kind, f"{share:.1%}") for kind, share in found["kinds"].items()]
    slowest = ", ".join(f"`{name}` {share:.1%}" for name, share in found["slowest"].items())
    return (
        f"{found['what']}: {found['milliseconds']} ms a step under the profiler, "
        f"{found['mflop_per_clip']} MFLOP of matrix products a clip as torch counts them.\n\n"
        f"{table(('kind of work', 'share of self CPU time'), kinds)}\n\nThe slowest operations: {slowest}."
    )


def models(growth: dict[str, Any]) -> str:
    """The fitted cost models with their errors."""
    lines = []
    for name, model in growth["models"].items():
        terms = " + ".join(f"{c:.3g} x {column}" for column, c in model["coefficients"].items() if c)
        errors = f"{model['median_error']:.0%} / {model['largest_error']:.0%}"
        lines.append((name, terms, model["points"], errors))
    return table(("activity", "seconds =", "points", "error of a left-out point, median / largest"), lines)


def extrapolation(growth: dict[str, Any]) -> str:
    """100 million pairs on 8 GPUs: assumptions and results."""
    e = growth["extrapolation"]
    both = {
        name: f"{e[key]['cautious']:.3g} / {e[key]['hopeful']:.3g}"
        for name, key in (("step", "step_seconds"), ("epoch", "epoch_seconds"), ("compute", "compute_seconds"))
    }
    shares = " / ".join(f"{share:.0%}" for share in e["utilisation"].values())
    fixed = " / ".join(f"{1e3 * seconds:g}" for seconds in e["fixed_seconds"].values())
    here = e["here"]
    lines = [
        ("work of a clip (counted)", f"{e['mflop_per_clip']:.1f} MFLOP"),
        (
            "a GPU (published, H200 SXM, dense bf16)",
            f"{e['peak_flops'] / 1e12:.0f} TFLOP/s, {e['peak_bytes'] / 1e12} TB/s",
        ),
        ("share of the peak reached (assumed, cautious / hopeful)", shares),
        ("fixed time of a step (assumed)", f"{fixed} ms"),
        (
            f"exchanged a step and GPU, {e['batch_per_gpu']:,} rows each (counted)",
            f"{e['mb_per_step_exchanged']:.0f} MB over NVLink of {e['link_bytes'] / 1e9:.0f} GB/s, at the same share",
        ),
        ("a step", f"{both['step']} s"),
        ("an epoch's steps", f"{e['steps']:,}: {both['compute']} s"),
        ("reading the store once, float16 (6 GB/s assumed)", f"{e['store_gb']:.0f} GB: {e['read_seconds']:.0f} s"),
        ("**an epoch: the longer of the two**", f"**{both['epoch']} s**"),
        (
            "the permutation of an epoch, in every process (this machine's curve)",
            f"{here['permutation']:.0f} s, 0.8 GB",
        ),
        ("ridge CCA in one pass (this machine's curve, CPU)", f"{here['ridge CCA'] / 60:.0f} min"),
        ("embedding all of it (this machine's curve, CPU)", f"{here['embed'] / 60:.0f} min"),
    ]
    return table(("**extrapolated, not measured**", ""), lines)


SECTIONS = (
    ("figures", "latest.json", figures),
    ("profile", "profile.json", profile),
    ("models", "growth.json", models),
    ("extrapolation", "growth.json", extrapolation),
)


def update(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Replace what stands between the markers of each section by what the results say now."""
    parts = {}
    for name, file, write in SECTIONS:
        source = results / file
        parts[name] = write(json.loads(source.read_text())) if source.exists() else NOT_MEASURED
    fill(page, "benchmarks/timings/performance.py", parts)


if __name__ == "__main__":
    update()
