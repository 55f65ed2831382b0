"""Do unlabelled pairs of other sources help, by the number of pairs at hand? Writes ``docs/background.md``'s figures.

    python -m benchmarks.studies.background DATA    # the folder of yt8m_ave15.h5 and yt8m_pool.h5

Of ave15's training clips some are kept, drawn at random; the background is the pool without any clip of ave15. Each fit
with the background is paired with one without it, on the same clips and the same test rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import hscmae
from benchmarks.pages import RESULTS, ROOT, fill, table
from hscmae.benchmark.table import t_interval
from hscmae.data.pairs import Pairs
from hscmae.data.splits import exclude_ids, resplit
from hscmae.evaluation.retrieval import Retrieval
from hscmae.methods import get_method

FIGURES = RESULTS / "background.json"
SIZES = (100, 200, 400, 800, 1303)
RESPLITS = (103, 104, 105)  # 100 to 102 were looked at when the number of rows that it counts for was chosen
METHODS = ("ridge-cca", "smoothed-cca", "hscmae")
COLOURS = dict(zip(METHODS, ("#999999", "#56B4E9", "#D55E00"), strict=True))


def score(name: str, pairs: Pairs, background: Pairs | None) -> float:
    test = pairs.of_split("test")
    model = get_method(name)(seed=0).fit(pairs, background=background)
    return float(Retrieval(model.embed_pairs(test), test.labels).metrics(bootstrap=0)["avg/mAP"])


def measure(data: Path) -> list[dict[str, Any]]:
    """mAP without the background and with it, for each method, size and resplit."""
    ave = hscmae.read(data / "yt8m_ave15.h5")
    background = exclude_ids(hscmae.read(data / "yt8m_pool.h5"), ave.ids.tolist())
    found = []
    for seed in RESPLITS:
        pairs = resplit(ave, seed, 0.2)
        order = np.random.default_rng(seed).permutation(pairs.rows_of("train"))
        for size in SIZES:
            some = pairs.take(np.sort(np.concatenate([order[:size], pairs.rows_of("test")])))
            for name in METHODS:
                row = {"method": name, "pairs": size, "resplit": seed}
                row |= {"alone": score(name, some, None), "with": score(name, some, background)}
                found.append(row)
                print(row, flush=True)
    return found


def lines(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line a size; for each method mAP alone, with the background, and the relative gain with its interval."""
    told = []
    for size in SIZES:
        cells = [f"{size:,}"]
        for name in METHODS:
            mine = [r for r in rows if (r["method"], r["pairs"]) == (name, size)]
            gains = [r["with"] / r["alone"] - 1 for r in mine]
            low, high = t_interval(gains) or (np.nan, np.nan)
            alone, more = (np.mean([r[key] for r in mine]) for key in ("alone", "with"))
            cells.append(f"{alone:.3f} to {more:.3f}: {np.mean(gains):+.1%} ({low:+.1%} to {high:+.1%})")
        told.append(tuple(cells))
    return told


def plot(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name in METHODS:
        for key, style in (("alone", ":"), ("with", "-")):
            mean = [np.mean([r[key] for r in rows if (r["method"], r["pairs"]) == (name, n)]) for n in SIZES]
            label = name if key == "with" else None
            axes.plot(SIZES, mean, style, marker="o", color=COLOURS[name], label=label)
    axes.plot([], [], ":", color="black", label="without the background")
    axes.set(xscale="log", xlabel="training pairs", ylabel="mAP", xticks=SIZES, xticklabels=[f"{n:,}" for n in SIZES])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(arguments.data)
    FIGURES.write_text(json.dumps(rows, indent=1) + "\n")
    figures = table(("training pairs", *METHODS), lines(rows))
    fill(ROOT / "docs" / "background.md", "benchmarks/studies/background.py", {"figures": figures})
    plot(rows).savefig(ROOT / "docs" / "background.svg")


if __name__ == "__main__":
    main()
