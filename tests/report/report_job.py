"""A trained run and its features, made quickly: what the report's tests look at.

UMAP takes half a minute to start; where it is installed, these tests do without it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hscmae.data.pairs import Labels, Pairs
from hscmae.data.store import write_store
from hscmae.methods import get_method
from hscmae.runs import train_run

sys.modules["umap"] = None  # type: ignore[assignment]

QUICK = {
    "dim": 6,
    "network_width": 16,
    "training_steps": 6,
    "training_batch_size": 64,
    "training_evaluations": 3,
}


@dataclass(frozen=True)
class Job:
    """A run, the store that it was trained on, and what the store holds."""

    run: Path
    file: Path
    pairs: Pairs


def make_job(folder: Path, pairs: Pairs, method: str = "hscmae", **settings: Any) -> Job:
    """Train on ``pairs``, quickly."""
    folder.mkdir(parents=True, exist_ok=True)
    write_store(pairs, folder / "features")
    quick = QUICK if method == "hscmae" else {"dim": 6}
    train_run(get_method(method)(**quick | settings), pairs, folder / "run", data={"source": "features"})
    return Job(folder / "run", folder / "features", pairs)


def renamed(pairs: Pairs, ids: list[str], classes: list[str]) -> Pairs:
    """The same pairs with the given ids in turn (numbered) and class names."""
    names = np.array([f"{ids[i % len(ids)]}{i}".encode() for i in range(len(pairs))], dtype=np.bytes_)
    labels = Labels(pairs.labels.indices, pairs.labels.indptr, tuple(classes))
    return replace(pairs, ids=names, labels=labels)
