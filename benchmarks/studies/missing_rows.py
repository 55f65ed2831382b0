"""What rows without a partner are worth: half of the visual rows removed at random, training on what is left.

    python -m benchmarks.studies.missing_rows FILE [METHOD...]

Each method is trained on five random splits: on all pairs, on the complete pairs and the rows that have audio alone,
and on the complete pairs alone. The table gives the paired difference in test mAP of the last two, with a 95% t
interval over the splits; ``rows()`` is for the joint benchmark.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hscmae import evaluate, read
from hscmae.data.pairs import Pairs
from hscmae.data.splits import resplit
from hscmae.methods import get_method

# The ridge is fixed, at what is usually chosen: otherwise two trainings of one split may choose differently, and that
# difference, which has nothing to do with the rows, drowns theirs.
METHODS: dict[str, dict[str, Any]] = {"smoothed-cca": {"ridge": 10.0}, "hscmae": {"warm_start_ridge": 10.0}}
SPLITS = 5


def without_partner(pairs: Pairs, share: float, seed: int) -> Pairs:
    """The same rows; a random ``share`` of the training rows has lost the second modality, values and all."""
    second = pairs.modalities[1]
    train = pairs.rows_of("train")
    lost = np.random.default_rng([seed, 1]).permutation(train)[: round(share * len(train))]
    features, present = pairs.features[second].copy(), pairs.present[second].copy()
    features[lost], present[lost] = 0, False
    return replace(pairs, features={**pairs.features, second: features}, present={**pairs.present, second: present})


def test_map(method: str, pairs: Pairs, settings: dict[str, Any]) -> float:
    model = get_method(method)(**settings).fit(pairs)
    return float(evaluate(model, pairs, bootstrap=0)["avg/mAP"])


def rows(file: Path, methods: Mapping[str, dict[str, Any]] = METHODS) -> list[dict[str, Any]]:
    """One row a method: mean mAP of all pairs, of what is left and of the complete pairs alone, and the difference."""
    whole, table = read(file), []
    for method, settings in methods.items():
        scores = np.empty((SPLITS, 3))
        for seed in range(SPLITS):
            full = resplit(whole, seed, 0.2)
            left = without_partner(full, 0.5, seed)
            kept = left.take(np.flatnonzero(left.complete()))
            scores[seed] = [test_map(method, part, settings) for part in (full, left, kept)]
            print(f"{method} split {seed}: {scores[seed].round(4).tolist()}", file=sys.stderr)
        gain = scores[:, 1] - scores[:, 2]
        half = stats.t.ppf(0.975, SPLITS - 1) * gain.std(ddof=1) / SPLITS**0.5
        names = ("all pairs", "half without visual", "complete pairs alone")
        table.append(
            {"method": method, **dict(zip(names, scores.mean(axis=0), strict=True))}
            | {"gain": gain.mean(), "low": gain.mean() - half, "high": gain.mean() + half}
        )
    return table


def main() -> None:
    table = rows(Path(sys.argv[1]), {name: METHODS[name] for name in sys.argv[2:] or METHODS})
    print("| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
    for row in table:
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.4f}" for v in row.values()) + " |")


if __name__ == "__main__":
    main()
