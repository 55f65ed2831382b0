"""How retrieval falls as things get worse: damaged training pairs, missing values of the query, several events a clip.

Points are collected from the results of fits, one a fit and place on a curve; the rest sums them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hscmae.benchmark.runner import Record

Point = dict[str, Any]
TITLES = {
    "wrong-pairs": "share of training pairs that are wrong",
    "co-occurrence": "share of training pairs with a foreign clip mixed into both modalities",
    "partial": "share of the query's values that are missing",
    "labels": "labels of the query clip (5: five or more)",
}


def curve_points(records: Sequence[Record]) -> list[Point]:
    """``curve``, ``x``, ``method``, ``seed``, ``split``, and mAP by direction and on average, of every fit.

    Each curve of damaged training pairs begins with the fits on the pairs as they are.
    """
    points: list[Point] = []
    damages = sorted({r["damage"] for r in records} - {""})
    for r in records:
        if r["status"] != "ok" or "avg/mAP" not in r:
            continue
        base = {k: r[k] for k in ("method", "seed", "split")}
        scores = {k: v for k, v in r.items() if k.endswith("/mAP") and k != "chance/mAP"}
        for name in damages if not r["damage"] else [r["damage"]]:
            points.append({"curve": name, "x": r["share"], **base, **scores})
        for share, found in r.get("partial", []):
            points.append({"curve": "partial", "x": share, **base, **{f"{d}/mAP": v for d, v in found.items()}})
        counts = [set(groups) for groups in r.get("by_labels", {}).values()]
        for labels in sorted(set.intersection(*counts)) if counts and max(map(len, counts)) > 1 else []:
            found = {f"{d}/mAP": groups[labels][0] for d, groups in r["by_labels"].items()}
            average = float(np.mean(list(found.values())))
            points.append({"curve": "labels", "x": int(labels), **base, **found, "avg/mAP": average})
    return points


def curve_names(points: Sequence[Point]) -> list[str]:
    """The curves that there are, in a fixed order."""
    return [name for name in TITLES if any(p["curve"] == name for p in points)]


def curve_lines(points: Sequence[Point], curve: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Method -> places and mean mAP; and method -> the band of one standard deviation of fits around it."""
    lines: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for name in dict.fromkeys(p["method"] for p in points if p["curve"] == curve):
        found: dict[float, list[float]] = {}
        for p in points:
            if (p["curve"], p["method"]) == (curve, name):
                found.setdefault(p["x"], []).append(p["avg/mAP"])
        if len(found) < 2:  # measured on undamaged pairs alone
            continue
        places = sorted(found)
        mean = np.array([np.mean(found[x]) for x in places])
        spread = np.array([np.std(found[x]) for x in places])
        lines[name], bands[name] = (places, mean), (mean - spread, mean + spread)
    return lines, bands


def curve_table(points: Sequence[Point], curve: str) -> str:
    """Mean mAP at each place, best at the last place first, and what is lost from the first place to the last."""
    lines, _ = curve_lines(points, curve)
    places = sorted({x for xs, _ in lines.values() for x in xs})
    rows = [
        f"\n### mAP by {TITLES[curve]}\n",
        "| method | " + " | ".join(f"{x:g}" for x in places) + " | change |",
        "|---" * (len(places) + 2) + "|",
    ]
    for name, (xs, mean) in sorted(lines.items(), key=lambda item: -item[1][1][-1]):
        by_place = dict(zip(xs, mean, strict=True))
        cells = [f"{by_place[x]:.4f}" if x in by_place else "" for x in places]
        rows.append(f"| {name} | {' | '.join(cells)} | {mean[-1] / mean[0] - 1:+.1%} |")
    return "\n".join(rows) + "\n"
