"""How well the audit finds wrong pairs and counts them: 0, 20 and 40% of the training pairs permuted, five seeds.

    python -m benchmarks.studies.audit FILE

One table: AUROC of the permuted pairs under the audit and under the cosine of a smoothed CCA trained on these very
pairs, the estimated share and how often its 95% interval holds the true one. A permuted pair whose new partner has the
same class cannot be told from a right one; such pairs count as wrong.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hscmae import Pairs, SmoothedCCA, read
from hscmae.audit import audit

SHARES = (0.0, 0.2, 0.4)
SEEDS = 5


def permuted(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, np.ndarray]:
    """The same rows, a random ``share`` of which pass their first modality on in a circle; and which rows these are."""
    chosen = np.random.default_rng([seed, 2]).permutation(len(pairs))[: round(share * len(pairs))]
    source, wrong = np.arange(len(pairs)), np.zeros(len(pairs), dtype=bool)
    source[chosen], wrong[chosen] = np.roll(chosen, 1), True
    first = pairs.modalities[0]
    return replace(pairs, features={**pairs.features, first: pairs.features[first][source]}), wrong


def auroc(wrong: np.ndarray, score: np.ndarray) -> float:
    """Chance that a wrong pair scores above a right one; not a number where one kind is absent."""
    if wrong.all() or not wrong.any():
        return float("nan")
    order = np.searchsorted(np.sort(score[~wrong]), score[wrong])
    return float(order.mean() / (~wrong).sum())


def rows(file: Path) -> list[dict[str, Any]]:
    """One row a share of wrong pairs."""
    train, table = read(file).of_split("train"), []
    for share in SHARES:
        runs = []
        for seed in range(SEEDS):
            pairs, wrong = permuted(train, share, seed)
            model = SmoothedCCA().fit(replace(pairs, split=None))
            found = audit(model, pairs, seed=seed)
            a, v = model.embed_pairs(pairs).values()
            scored = found.rank > 0
            runs.append(
                (
                    auroc(wrong[scored], found.score[scored]),
                    auroc(wrong[scored], -(a * v).sum(1)[scored]),
                    found.wrong_share,
                    found.wrong_share_ci[0] <= wrong[scored].mean() <= found.wrong_share_ci[1],
                )
            )
            print(f"share {share} seed {seed}: {np.round(runs[-1], 3).tolist()}", file=sys.stderr)
        own, cosine, estimate, held = np.array(runs).T
        table.append(
            {
                "wrong": share,
                "AUROC": own.mean(),
                "AUROC, least": own.min(),
                "AUROC of the model's cosine": cosine.mean(),
                "estimated share": estimate.mean(),
                "largest error": np.abs(estimate - share).max(),
                "interval holds it": held.mean(),
            }
        )
    return table


def main() -> None:
    table = rows(Path(sys.argv[1]))
    print("| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
    for row in table:
        print("| " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
