"""``evaluate``: how a fitted method does on one split of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Embedder, Progress, Retrieval


def evaluate(
    method: Embedder,
    data: Pairs | Mapping[str, npt.ArrayLike],
    *,
    split: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Cross-modal retrieval metrics of a fitted method.

    Args:
        method: fitted; any of ``hscmae.methods``.
        data: pairs, with labels for mAP. Where they have no split, all rows count.
        split: "train", "val", "test" or "all".
        bootstrap: resamples of the 95% intervals; 0 leaves them out.
        seed: of the resampling.
        progress: called with a stage's name, what is done and what there is.

    Returns:
        What ``Retrieval.metrics`` returns.

    Raises:
        InputError: the data lacks one of the method's modalities, or has no such rows.
    """
    return Retrieval.of(method, data, split=split, progress=progress).metrics(bootstrap=bootstrap, seed=seed)
