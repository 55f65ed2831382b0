"""HSC-MAE against every baseline of the demo, over demo seeds 0 to 4: each makes another corpus and training.

``python -m benchmarks.studies.demo_seeds`` prints one table and writes it to ``benchmarks/results/demo-seeds.md`` and
``.json``. Differences are paired by clip; their intervals resample corpora, and the test clips within each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.pages import RESULTS
from hscmae.demo.run import METHODS, make_data
from hscmae.evaluation.retrieval import Retrieval
from hscmae.methods import get_method

OURS = "hscmae"
RESAMPLES = 10_000
AP = npt.NDArray[np.float64]  # average precision of the test clips in both directions, shape (clips, 2)


def average_precision(seed: int, clips: int) -> dict[str, AP]:
    """Method -> average precision of each test clip of one demo corpus in both directions; NaN where it has none."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_data(Path(folder), clips=clips, seed=seed, progress=lambda stage, done, total: None)
        test = pairs.of_split("test")
        found = {}
        for name in METHODS:
            method = get_method(name)(seed=seed).fit(pairs)
            table = np.full((len(test), 2), np.nan)
            retrieval = Retrieval(method.embed_pairs(test), test.labels, present=test.present)
            for column, values in enumerate(retrieval.values.values()):
                table[:, column] = values["mAP"]
            found[name] = table
            print(f"seed {seed}: {name} {mean_ap(table):.4f}", flush=True)
        return found


def mean_ap(table: AP) -> float:
    """mAP of a table: the mean over the clips of each direction, the two averaged."""
    return float(np.nanmean(table, axis=0).mean())


def interval(ours: Sequence[AP], theirs: Sequence[AP]) -> tuple[float, float]:
    """95% percentile interval of the mean difference in mAP: corpora are resampled, and the clips within each."""
    rng = np.random.default_rng(0)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = [differences[j] for j in rng.integers(len(differences), size=len(differences))]
        means[i] = np.mean([mean_ap(table[rng.integers(len(table), size=len(table))]) for table in drawn])
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1000)
    arguments = parser.parse_args()
    runs = [average_precision(seed, arguments.clips) for seed in range(arguments.seeds)]
    rows = []
    for name, title in METHODS.items():
        scores = [mean_ap(run[name]) for run in runs]
        row = {"method": name, "title": title, "mAP": scores, "mean": float(np.mean(scores))}
        if name != OURS:
            row["difference"] = [mean_ap(run[OURS] - run[name]) for run in runs]
            row["interval"] = interval([run[OURS] for run in runs], [run[name] for run in runs])
        rows.append(row)
    seeds = " | ".join(f"seed {seed}" for seed in range(arguments.seeds))
    lines = [
        f"| method | {seeds} | mean | HSC-MAE ahead by [95% interval] |",
        "|---" * (arguments.seeds + 3) + "|",
    ]
    for row in rows:
        cells = " | ".join(f"{score:.3f}" for score in row["mAP"])
        ahead = ""
        if "difference" in row:
            low, high = row["interval"]
            ahead = f"{np.mean(row['difference']):+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {row['title']} | {cells} | {row['mean']:.3f} | {ahead} |")
    table = "\n".join(lines)
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo-seeds.md").write_text(table + "\n", encoding="utf-8")
    (RESULTS / "demo-seeds.json").write_text(json.dumps({"clips": arguments.clips, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
