"""Pairs made worse on purpose, to measure what a method withstands: wrong pairs, foreign events, missing values.

Only training rows are damaged here, and labels stay as they were. Rows are drawn from the seed; a larger share holds
all rows of a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hscmae.data.pairs import FloatArray, Pairs


def with_wrong_pairs(pairs: Pairs, share: float, seed: int) -> Pairs:
    """The same pairs with a share of the training rows' first modality permuted among them."""
    rng = np.random.default_rng(seed)
    train = pairs.rows_of("train")
    moved = np.sort(rng.permutation(train)[: round(share * len(train))])
    source = np.arange(len(pairs))
    source[moved] = rng.permutation(moved)
    first = pairs.modalities[0]
    lengths = {m: v[source] if m == first else v for m, v in pairs.lengths.items()}
    return replace(
        pairs,
        features={**pairs.features, first: np.asarray(pairs.features[first])[source]},
        present={**pairs.present, first: pairs.present[first][source]},
        lengths=lengths,
    )


def with_foreign_events(pairs: Pairs, share: float, seed: int) -> Pairs:
    """The same pairs, a share of the complete training rows averaged in both modalities with another such row.

    What is heard and seen of the other clip occurs together without meaning anything for the first: spurious
    co-occurrence. Sequences are pooled first.
    """
    rng = np.random.default_rng(seed)
    pairs = pairs.pooled()
    train = pairs.rows_of("train")
    order = rng.permutation(train[pairs.complete()[train]])
    mixed = order[: round(share * len(order))]
    foreign = np.roll(order, 1)[: len(mixed)]
    features: Mapping[str, FloatArray] = {m: np.array(x, dtype=np.float32) for m, x in pairs.features.items()}
    for m, x in features.items():
        x[mixed] = (np.asarray(pairs.features[m][mixed], np.float32) + pairs.features[m][foreign]) / 2
    return replace(pairs, features=features)


def with_missing_values(x: FloatArray, share: float, fill: npt.NDArray[np.float32], seed: int) -> FloatArray:
    """Rows of one modality with a random share of each row's values replaced by the column's ``fill``.

    Args:
        x: features, shape (n, d), or (n, t, d), where a value is missing in all steps of a clip.
        share: of the values, in [0, 1].
        fill: what is known without looking, such as the training means, shape (d,).
        seed: of the draw.
    """
    shape = (len(x), *(1 for _ in x.shape[2:]), x.shape[-1])
    missing = np.random.default_rng(seed).random(shape) < share
    return np.where(missing, fill, np.asarray(x, dtype=np.float32))
