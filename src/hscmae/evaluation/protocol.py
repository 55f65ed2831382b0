"""Evaluating a fitted method on a split: embed both modalities, rank exactly, report with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from hscmae.data.pairs import BoolArray, FloatArray, IntArray, Pairs
from hscmae.evaluation.metrics import evaluate_embeddings

if TYPE_CHECKING:
    from hscmae.methods.base import Method


def evaluate(
    method: Method,
    data: Pairs | Mapping[str, npt.ArrayLike],
    *,
    split: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Cross-modal retrieval metrics of a fitted method.

    Args:
        method: fitted; any of ``hscmae.methods``.
        data: pairs, with labels for mAP. Where they have no split, all rows count.
        split: "train", "val", "test" or "all".
        bootstrap: resamples of the 95% intervals; 0 leaves them out.
        seed: of the resampling.

    Returns:
        What ``evaluation.evaluate_embeddings`` returns, and ``split``.

    Raises:
        InputError: the data lacks one of the method's modalities, or has no such rows.
    """
    pairs = Pairs.of(data)
    method.require_modalities(pairs)

    def embed(modality: str, x: FloatArray, present: BoolArray, lengths: IntArray | None) -> FloatArray:
        return method.embed(modality, x, present=present, lengths=lengths)

    return evaluate_embedder(embed, pairs, tuple(method.dims_), split=split, bootstrap=bootstrap, seed=seed)


def evaluate_embedder(
    embed: Callable[[str, FloatArray, BoolArray, IntArray | None], FloatArray],
    pairs: Pairs,
    modalities: tuple[str, ...],
    *,
    split: str,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """``evaluate`` for anything that embeds: ``embed(modality, features, present, lengths)`` gives (n, dim)."""
    chosen = "all" if pairs.split is None and split == "test" else split
    rows = pairs.rows_of(chosen)
    whole = pairs.pooled()
    # A vector is known for silence by how many rows of the whole file share it, as in training.
    silent = {m: shared[rows] for m, shared in whole.silent().items() if m in modalities}
    pairs, vectors = pairs.of_split(chosen), whole.of_split(chosen)
    metrics = evaluate_embeddings(
        {m: embed(m, pairs.features[m], pairs.present[m], pairs.lengths.get(m)) for m in modalities},
        pairs.labels,
        present={m: vectors.present[m] for m in modalities},
        silent=silent,
        bootstrap=bootstrap,
        seed=seed,
    )
    return {"split": chosen, **metrics}
