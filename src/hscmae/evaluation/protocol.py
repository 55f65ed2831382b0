"""``evaluate``: how a fitted method does on one split of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from hscmae.data.pairs import Pairs
from hscmae.evaluation.retrieval import Embedder, Progress, Retrieval
from hscmae.notebook import plain, table


class Metrics(dict[str, Any]):
    """Metrics by name, as ``Retrieval.metrics`` gives them; a notebook shows a table of directions."""

    def _repr_html_(self) -> str:
        columns = [key.removeprefix("avg/") for key in self if key.startswith("avg/") and not key.endswith("_ci")]
        # A direction has every column; what stands beside them has a name like "silent/audio" or none.
        directions = [key.partition("/")[0] for key in self if key.endswith(f"/{columns[0]}")] if columns else []
        rows = [
            (name, *(_with_interval(self.get(f"{name}/{c}"), self.get(f"{name}/{c}_ci")) for c in columns))
            for name in directions
        ]
        others = [(key, value) for key, value in self.items() if key.partition("/")[0] not in directions]
        return table("retrieval", rows, ("", *columns)) + table("", others)


def _with_interval(value: Any, interval: Any) -> str:
    return f"{plain(value)} [{plain(interval[0])}, {plain(interval[1])}]" if interval else plain(value)


def evaluate(
    method: Embedder,
    data: Pairs | Mapping[str, npt.ArrayLike],
    *,
    split: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
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
    return Metrics(Retrieval.of(method, data, split=split, progress=progress).metrics(bootstrap=bootstrap, seed=seed))
